"""Fingerprints are RDKit's own bits, and the nearest molecule is found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs, RDConfig
from rdkit.Chem import rdFingerprintGenerator

from molhpft.domains.molecules import fingerprints
from molhpft.domains.molecules.fingerprints import (
    BITS,
    Neighbours,
    morgan_fingerprints,
)
from molhpft.domains.parallel import VARIABLE

SMILES = ["CCO", "c1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].[Cl-]", "CCOCC", "C1CCNCC1"]


def environments(smiles):
    """Bits by hand: the hash of every atom environment of radius 0 to 2, folded."""
    counts = rdFingerprintGenerator.GetMorganGenerator(radius=2).GetSparseCountFingerprint(
        Chem.MolFromSmiles(smiles)
    )
    return {key % BITS for key in counts.GetNonzeroElements()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(SMILES), max_size=5))
def test_bits_are_the_folded_environments_of_the_atoms(smiles):
    bits = morgan_fingerprints(smiles)
    assert bits.shape == (len(smiles), BITS)
    assert [set(row.nonzero().flatten().tolist()) for row in bits] == [*map(environments, smiles)]


def test_unreadable_molecules_have_no_bits_and_odd_valences_and_orders_do_not_matter():
    bits = morgan_fingerprints(["CCO", "not a molecule", "C(O)C", "F[Al-3](F)(F)(F)(F)F"])
    assert bits.any(1).tolist() == [True, False, True, True]
    assert torch.equal(bits[0], bits[2])


def test_a_second_call_reads_the_cache(monkeypatch):
    first = morgan_fingerprints(SMILES)
    monkeypatch.setattr(fingerprints, "fingerprint_rows", lambda _: pytest.fail("computed again"))
    assert torch.equal(morgan_fingerprints(SMILES), first)


def test_several_processes_give_what_one_gives(monkeypatch):
    many = [f"{'C' * (k % 40 + 1)}O" for k in range(2100)]
    monkeypatch.setenv(VARIABLE, "2")
    assert np.array_equal(morgan_fingerprints(many)[2050:], morgan_fingerprints(many[2050:]))


@pytest.fixture(scope="module")
def molecules():
    """Fingerprints of the same molecules: those of RDKit, and ours."""
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    smiles = [line.split()[0] for line in lines[:600]]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=BITS)
    theirs = [generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in smiles]
    return theirs, morgan_fingerprints(smiles)


def random_bits(seed, n, *, share=0.02):
    """Fingerprints of which some are equal and some are empty."""
    rng = torch.Generator().manual_seed(seed)
    bits = torch.rand(n, BITS, generator=rng) < share * torch.rand(n, 1, generator=rng)
    return bits[torch.randint(n, (n,), generator=rng)] if n else bits


def naive(ours, theirs):
    """Similarities by sets of places, (n, m)."""
    ours, theirs = ([set(row.nonzero().flatten().tolist()) for row in b] for b in (ours, theirs))
    table = [[len(a & b) / len(a | b) if a | b else 0.0 for b in theirs] for a in ours]
    return torch.tensor(table).reshape(len(ours), len(theirs))


def test_similarities_are_rdkits_to_the_last_digit(molecules):
    theirs, ours = molecules
    similarity, row = Neighbours(ours[100:]).nearest(ours[:100])
    for k in range(100):
        expected = np.array(DataStructs.BulkTanimotoSimilarity(theirs[k], theirs[100:]))
        assert similarity[k].item() == np.float32(expected.max())
        assert row[k].item() == expected.argmax()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), m=st.integers(2, 13), n=st.integers(0, 12), share=st.floats(0, 1)
)
def test_pieces_change_nothing_and_the_first_of_equals_is_named(seed, m, n, share):
    train, bits = random_bits(seed, m), random_bits(seed + (n % 2), n)
    table, own = naive(bits, train), naive(train, train).fill_diagonal_(-1)
    typical = np.quantile(own.amax(1).numpy(), share, method="lower")
    if typical == 0:  # not even the least likeness that there is
        typical = min((one for one in own.amax(1).tolist() if one > 0), default=1.0)
    for rows, queries in ((8_192, 128), (5, 3), (1, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fingerprints, "_PIECE", rows)
            patch.setattr(fingerprints, "_QUERIES", queries)
            patch.setattr(fingerprints, "_BELOW", share)
            similarity, row = Neighbours(train).nearest(bits)
            assert Neighbours(train).typical() == typical
        assert (similarity.dtype, row.dtype) == (torch.float32, torch.int64)
        assert torch.equal(similarity, table.amax(1))
        assert row.tolist() == [values.index(max(values)) for values in table.tolist()]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.1, 0.5, 0.99]))
def test_full_fingerprints_do_not_overflow(seed, share):
    train, bits = random_bits(seed, 4, share=share), torch.ones(1, BITS, dtype=torch.bool)
    assert Neighbours(train).nearest(bits)[0].item() == naive(bits, train).max()
    assert Neighbours(bits).nearest(bits)[0].item() == 1


def test_a_molecule_without_bits_is_like_nothing():
    nothing, train = torch.zeros(2, BITS, dtype=torch.bool), random_bits(0, 5)
    for neighbours in (Neighbours(train), Neighbours(nothing)):
        assert [x.tolist() for x in neighbours.nearest(nothing)] == [[0.0, 0.0], [0, 0]]


def test_of_many_training_molecules_evenly_spaced_ones_are_asked(molecules, monkeypatch):
    bits = molecules[1][:301]
    monkeypatch.setattr(fingerprints, "_SAMPLE", 31)
    monkeypatch.setattr(fingerprints, "_PIECE", 64)
    monkeypatch.setattr(fingerprints, "_BELOW", 0.2)
    nearest = naive(bits[::10], bits)
    nearest[torch.arange(31), torch.arange(0, 301, 10)] = -1
    expected = np.quantile(nearest.amax(1).numpy(), 0.2, method="lower")
    assert Neighbours(bits).typical() == expected


def test_one_molecule_that_is_like_no_other_leaves_no_domain_of_everything():
    train = torch.zeros(4, BITS, dtype=torch.bool)
    train[0, :8], train[1, 4:8], train[2, 6:8], train[3, 100] = True, True, True, True
    assert Neighbours(train).nearest(train[3:] & False)[0].item() == 0
    assert Neighbours(train).typical() == 0.5
    alone = torch.eye(3, BITS, dtype=torch.bool)
    assert Neighbours(alone).typical() == 1


def test_there_is_something_to_be_similar_to():
    with pytest.raises(ValueError, match="at least 1 training molecule, got 0"):
        Neighbours(random_bits(0, 0))
    with pytest.raises(ValueError, match="at least 2 training molecules, got 1"):
        Neighbours(random_bits(0, 1)).typical()


@pytest.mark.parametrize(
    "wrong",
    [torch.ones(2, BITS), torch.ones(BITS).bool(), torch.ones(2, BITS // 8).bool()],
    ids=["floats", "one row", "other width"],
)
def test_only_fingerprints_are_compared(wrong):
    for use in (Neighbours, Neighbours(random_bits(0, 2)).nearest):
        with pytest.raises(ValueError, match=r"fingerprints must be bool \(n, 2048\), got"):
            use(wrong)
