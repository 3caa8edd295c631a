"""Counts of substructures: RDKit's own, of what is read as graphs are read, cached."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import (
    GetAtomPairGenerator,
    GetMorganGenerator,
    GetTopologicalTorsionGenerator,
)

from molhpft.domains.molecules import count_fingerprints as counting
from molhpft.domains.molecules.count_fingerprints import SUBSTRUCTURES, count_fingerprints
from molhpft.domains.molecules.fingerprints import morgan_fingerprints

SMILES = ("CCCCCCO", "c1ccccc1C(=O)NC1CC1", "C[C@H](N)C(=O)O")
GENERATORS = {
    "morgan": GetMorganGenerator(radius=2, fpSize=2048),
    "atom_pairs": GetAtomPairGenerator(fpSize=2048),
    "torsions": GetTopologicalTorsionGenerator(fpSize=2048),
}


@pytest.mark.parametrize("kind", SUBSTRUCTURES)
def test_counts_are_those_of_rdkit(kind):
    expected = [
        GENERATORS[kind].GetCountFingerprintAsNumPy(Chem.MolFromSmiles(text)) for text in SMILES
    ]
    assert np.array_equal(count_fingerprints(kind, SMILES).toarray(), np.stack(expected))


def test_what_is_counted_is_what_has_a_bit():
    counts = count_fingerprints("morgan", SMILES).toarray()
    assert np.array_equal(counts > 0, morgan_fingerprints(SMILES).numpy())


def test_nothing_is_counted_where_a_molecule_cannot_be_read():
    counts = count_fingerprints("torsions", ["CCCCO", "no molecule", "[AlH6-3]"])
    assert counts.getnnz(1).tolist()[1] == 0
    assert counts.shape == (3, 2048)


def test_a_count_above_255_is_255():
    chain = "C" * 300
    assert count_fingerprints("morgan", [chain]).max() == 255


def test_counts_are_computed_once(monkeypatch):
    first = count_fingerprints("atom_pairs", SMILES)
    monkeypatch.setattr(counting, "substructure_counts", lambda *a, **k: pytest.fail("again"))
    assert (count_fingerprints("atom_pairs", SMILES) != first).nnz == 0
