"""An SDF file is a table: a row for every record, in order, whatever RDKit can make of it."""

import gzip

import pytest
from rdkit import Chem

from molhpft.domains.molecules.table_files import read_sheet, stream_parts


def block(smiles):
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    mol.UpdatePropertyCache(strict=False)
    return Chem.MolToMolBlock(mol, kekulize=False)


def record(structure, *, title="", **items):
    body = title + block(structure)
    return body + "".join(f">  <{k}>  (1)\n{v}\n\n" for k, v in items.items()) + "$$$$\n"


SEVERAL = (
    record("CCO", title="ethanol", y="1")
    + record("CC(=O)[O-]", y="0", note="two\nlines")
    + "broken\n\n\n  no counts\n$$$$\n"
    + record("C[C@H](N)O", y="")
)


@pytest.mark.parametrize("name", ["a.sdf", "A.SDF", "a.sd", "a.txt", "a.sdf.gz"])
def test_a_record_is_a_row_with_its_structure_title_and_items(tmp_path, name):
    content = SEVERAL.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    sheet = read_sheet(tmp_path / name)
    assert list(sheet.columns) == ["smiles", "name", "y", "note"]
    assert sheet.columns["y"] == ("1", "0", "", "")
    assert sheet.columns["note"][1] == "two\nlines"
    assert sheet.columns["name"] == ("ethanol", "", "broken", "")
    assert sheet.columns["smiles"][:3] == ("CCO", "CC(=O)[O-]", "")
    starts = [1 + SEVERAL[:k].count("\n") for k in (0, SEVERAL.index("$$$$") + 5)]
    assert list(sheet.lines[:2]) == starts


def test_stereochemistry_and_odd_valences_are_kept(tmp_path):
    right = Chem.MolFromSmiles("C[C@H](N)O")
    (tmp_path / "a.sdf").write_text(Chem.MolToMolBlock(right) + "$$$$\n" + record("C(C)(C)(C)(C)C"))
    first, second = read_sheet(tmp_path / "a.sdf").columns["smiles"]
    assert first == Chem.MolToSmiles(right)
    assert Chem.MolFromSmiles(second) is None
    assert Chem.MolFromSmiles(second, sanitize=False).GetNumAtoms() == 6


def test_a_last_record_without_its_end_counts_and_an_item_may_be_called_smiles(tmp_path):
    text = record("CC", smiles="given") + record("CCC").removesuffix("$$$$\n")
    (tmp_path / "a.sdf").write_text(text)
    (part,) = stream_parts(tmp_path / "a.sdf")
    assert part.texts("smiles") == ["CC", "CCC"]
    assert part.texts("smiles (item)") == ["given", ""]
