"""Molecules to measure on: strings of Tox21 and HIV where they lie, else those that RDKit ships."""

import random
from pathlib import Path

import pandas as pd
from ogb.utils import smiles2graph
from rdkit import Chem, RDConfig, rdBase

from molhpft.domains.molecules.ogb import ogb_folder

NAMES = ("ogbg-moltox21", "ogbg-molhiv")


def data_sets(molecules: int) -> dict[str, list[str]]:
    """SMILES by data set, at most `molecules` of each, drawn with seed 0.

    Left out is what `ogb.utils.smiles2graph` fails on, since both sides are to do the same.
    """
    files = {name: ogb_folder(name) / "mapping" / "mol.csv.gz" for name in NAMES}
    tables = {
        name: pd.read_csv(file)["smiles"].tolist() for name, file in files.items() if file.is_file()
    }
    return {name: _some(smiles, molecules) for name, smiles in (tables or _shipped()).items()}


def _shipped() -> dict[str, list[str]]:
    text = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text()
    return {"NCI": [line.split()[0] for line in text.splitlines() if line.strip()]}


def _some(smiles: list[str], molecules: int) -> list[str]:
    drawn = random.Random(0).sample(smiles, min(molecules, len(smiles)))
    with rdBase.BlockLogs():
        return [text for text in drawn if _is_read_by_ogb(text)]


def _is_read_by_ogb(smiles: str) -> bool:
    if Chem.MolFromSmiles(smiles) is None:
        return False
    try:
        smiles2graph(smiles)
    except ValueError:  # newer kinds of stereochemistry
        return False
    return True
