"""Fingerprints: RDKit's own bits, for every molecule, whatever the batch and the cache."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from molhpft.domains.molecules import fingerprints
from molhpft.domains.molecules.fingerprints import BITS, morgan_fingerprints

SMILES = ["CCO", "c1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].[Cl-]", "CCOCC", "C1CCNCC1"]


def reference(smiles):
    """Bits by hand: the hash of every atom environment of radius 0 to 2, folded."""
    counts = rdFingerprintGenerator.GetMorganGenerator(radius=2).GetSparseCountFingerprint(
        Chem.MolFromSmiles(smiles)
    )
    return {key % BITS for key in counts.GetNonzeroElements()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(SMILES), max_size=5))
def test_bits_are_the_folded_environments_of_the_atoms(smiles):
    found = morgan_fingerprints(smiles)
    assert found.shape == (len(smiles), BITS)
    assert [set(row.nonzero().flatten().tolist()) for row in found] == [*map(reference, smiles)]


def test_the_order_of_atoms_changes_nothing():
    found = morgan_fingerprints(["OCC", "CCO", "C(O)C"])
    assert (found == found[0]).all()


def test_a_molecule_that_cannot_be_read_has_no_bits_and_shifts_no_row():
    found = morgan_fingerprints(["CCO", "not a molecule", "CCO"])
    assert not found[1].any()
    assert torch.equal(found[0], found[2])


def test_what_rdkit_refuses_for_its_valences_has_bits():
    assert morgan_fingerprints(["F[Al-3](F)(F)(F)(F)F"]).any()


def test_a_second_call_reads_the_cache(monkeypatch):
    first = morgan_fingerprints(SMILES)
    monkeypatch.setattr(fingerprints, "_stretch", lambda _: pytest.fail("computed again"))
    assert torch.equal(morgan_fingerprints(SMILES), first)
    with pytest.raises(BaseException, match="computed again"):
        morgan_fingerprints([*SMILES, "C" * 9])


def test_several_processes_give_what_one_gives(monkeypatch):
    many = [f"{'C' * (k % 40 + 1)}O" for k in range(2100)]
    monkeypatch.setenv("MOLHPFT_WORKERS", "2")
    assert np.array_equal(morgan_fingerprints(many)[2050:], morgan_fingerprints(many[2050:]))
