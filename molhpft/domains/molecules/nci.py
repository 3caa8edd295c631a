"""Two tasks that need no download: molecules that RDKit ships, with labels RDKit computes.

The molecules are the first of the NCI's open database. Pretraining predicts physical and
topological descriptors, the downstream task structural alerts (substructures that chemists filter
out). Both use one scaffold split, so pretraining on "train" sees no downstream test molecule.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import cached_tensors
from molhpft.domains.molecules.computed_targets import descriptor_targets
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.smiles import cached_rows, smiles_digest
from molhpft.domains.molecules.splits import cached_scaffold_split

ALERTS = ("NIH", "PAINS", "CHEMBL_Glaxo", "CHEMBL_SureChEMBL", "ZINC")
"""Catalogs of alerts, one label each. CHEMBL_BMS is the same catalog as NIH under another name."""

_VERSION = 1  # raised with every change of what is computed below


def nci_descriptors_task() -> Task:
    """Pretraining: the descriptors of each molecule in standard deviations, a regression.

    Which, and how they are scaled, is what `descriptor_targets` says.
    """
    smiles = _molecules()
    splits = cached_scaffold_split(smiles)
    targets, names = descriptor_targets(smiles, splits["train"])
    return molecule_task(
        "nci_descriptors",
        smiles=smiles,
        targets=targets,
        target_names=names,
        splits=splits,
        objective=Squared(),
    )


def nci_alerts_task() -> Task:
    """Downstream: which catalogs of structural alerts each molecule trips, by mean ROC-AUC."""
    smiles = _molecules()
    key = f"nci/alerts-{_VERSION}-{smiles_digest(smiles)}"
    alerts = cached_rows(key, "targets", smiles, _alert_rows, "matching structural alerts")
    return molecule_task(
        "nci_alerts",
        smiles=smiles,
        targets=torch.from_numpy(alerts),
        target_names=ALERTS,
        splits=cached_scaffold_split(smiles),
        objective=Multilabel(),
    )


def _molecules() -> list[str]:
    """SMILES of the file that RDKit reads strictly, each molecule once, in file order."""
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.is_file():
        raise FileNotFoundError(
            f"RDKit should ship its example molecules as {path}; this build of RDKit does not: "
            "install rdkit from PyPI, or bring a table of your own"
        )
    smiles = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    key = f"nci/rows-{_VERSION}-{smiles_digest(smiles)}"
    rows = cached_tensors(key, lambda: {"rows": _first_rows(smiles)})["rows"]
    return [smiles[row] for row in rows.tolist()]


def _first_rows(smiles: list[str]) -> Tensor:
    """Rows of the readable strings whose molecule no earlier row has."""
    first: dict[str, int] = {}
    with rdBase.BlockLogs():
        for row, mol in enumerate(map(Chem.MolFromSmiles, smiles)):
            if mol is not None:
                first.setdefault(Chem.MolToSmiles(mol), row)
    return torch.tensor(list(first.values()))


def _alert_rows(smiles: Sequence[str]) -> NDArray[np.float32]:
    catalogs = [_catalog(name) for name in ALERTS]
    mols = map(Chem.MolFromSmiles, smiles)
    matches = [[catalog.HasMatch(mol) for catalog in catalogs] for mol in mols]
    return np.array(matches, dtype=np.float32)


@cache
def _catalog(name: str) -> FilterCatalog:
    params = FilterCatalogParams()
    params.AddCatalog(FilterCatalogParams.FilterCatalogs.names[name])
    return FilterCatalog(params)
