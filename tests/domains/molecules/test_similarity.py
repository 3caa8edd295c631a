import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from molhpft.domains.molecules import fingerprints, nci
from molhpft.domains.molecules.fingerprints import BITS, Neighbours, morgan_fingerprints


@pytest.fixture(scope="module")
def molecules():
    """Fingerprints of the same molecules: those of RDKit, and ours."""
    smiles = nci._molecules()[:600]
    theirs = [
        GetMorganGenerator(radius=2, fpSize=BITS).GetFingerprint(Chem.MolFromSmiles(s))
        for s in smiles
    ]
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
    found, row = Neighbours(ours[100:]).nearest(ours[:100])
    for k in range(100):
        expected = np.array(DataStructs.BulkTanimotoSimilarity(theirs[k], theirs[100:]))
        assert found[k].item() == np.float32(expected.max())
        assert row[k].item() == expected.argmax()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 12), n=st.integers(0, 12))
def test_pieces_change_nothing_and_the_first_of_equals_is_named(seed, m, n):
    train, bits = random_bits(seed, m), random_bits(seed + (n % 2), n)
    table = naive(bits, train)
    for rows, queries in ((8_192, 128), (5, 3), (1, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fingerprints, "_ROWS", rows)
            patch.setattr(fingerprints, "_QUERIES", queries)
            found, row = Neighbours(train).nearest(bits)
        assert (found.dtype, row.dtype) == (torch.float32, torch.int64)
        assert torch.equal(found, table.amax(1))
        assert row.tolist() == [values.index(max(values)) for values in table.tolist()]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.1, 0.5, 0.99]))
def test_full_fingerprints_do_not_overflow(seed, share):
    train, bits = random_bits(seed, 4, share=share), torch.ones(1, BITS, dtype=torch.bool)
    assert Neighbours(train).nearest(bits)[0].item() == naive(bits, train).max()
    assert Neighbours(bits).nearest(bits)[0].item() == 1


def test_a_training_molecule_is_its_own_nearest(molecules):
    bits = molecules[1]
    found, row = Neighbours(bits).nearest(bits)
    assert (found == 1).all()
    assert torch.equal(bits[row], bits)


def test_a_molecule_without_bits_is_like_nothing():
    nothing, train = torch.zeros(2, BITS, dtype=torch.bool), random_bits(0, 5)
    for neighbours in (Neighbours(train), Neighbours(nothing)):
        assert [x.tolist() for x in neighbours.nearest(nothing)] == [[0.0, 0.0], [0, 0]]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_all_but_a_share_of_training_molecules_reach_the_typical_similarity(molecules, share):
    theirs, ours = molecules
    nearest = [
        max(DataStructs.BulkTanimotoSimilarity(one, theirs[:k] + theirs[k + 1 :]))
        for k, one in enumerate(theirs)
    ]
    typical = Neighbours(ours).typical(share)
    assert typical in np.float32(nearest)
    assert np.mean(np.float32(nearest) < typical) <= share
    assert np.mean(np.float32(nearest) <= typical) >= share


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(2, 14), share=st.floats(0, 1))
def test_typical_leaves_out_only_the_molecule_itself_whatever_the_pieces(seed, m, share):
    train = random_bits(seed, m)
    table = naive(train, train).fill_diagonal_(-1)
    expected = np.quantile(table.amax(1).numpy(), share, method="lower")
    for rows, queries in ((8_192, 128), (5, 3), (1, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fingerprints, "_ROWS", rows)
            patch.setattr(fingerprints, "_QUERIES", queries)
            assert Neighbours(train).typical(share) == expected


def test_of_many_training_molecules_evenly_spaced_ones_are_asked(molecules, monkeypatch):
    bits = molecules[1][:301]
    monkeypatch.setattr(fingerprints, "_SAMPLE", 31)
    monkeypatch.setattr(fingerprints, "_ROWS", 64)
    nearest = naive(bits[::10], bits)
    nearest[torch.arange(31), torch.arange(0, 301, 10)] = -1
    expected = np.quantile(nearest.amax(1).numpy(), 0.2, method="lower")
    assert Neighbours(bits).typical(0.2) == expected


def test_a_twin_is_another_molecule():
    bits = morgan_fingerprints(["CCO", "OCC"])
    assert Neighbours(bits).typical() == 1


def test_one_molecule_is_not_typical():
    with pytest.raises(ValueError, match="at least 2 training molecules, got 1"):
        Neighbours(morgan_fingerprints(["CCO"])).typical()


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_none_to_all(share):
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\]"):
        Neighbours(random_bits(0, 3)).typical(share)


def test_there_is_something_to_be_similar_to():
    with pytest.raises(ValueError, match="at least 1 training molecule, got 0"):
        Neighbours(random_bits(0, 0))


@pytest.mark.parametrize(
    "wrong",
    [torch.ones(2, BITS), torch.ones(BITS).bool(), torch.ones(2, BITS // 8).bool()],
    ids=["floats", "one row", "other width"],
)
def test_only_fingerprints_are_compared(wrong):
    with pytest.raises(ValueError, match=r"fingerprints must be bool \(n, 2048\), got"):
        Neighbours(wrong)
    with pytest.raises(ValueError, match=r"fingerprints must be bool \(n, 2048\), got"):
        Neighbours(random_bits(0, 2)).nearest(wrong)
