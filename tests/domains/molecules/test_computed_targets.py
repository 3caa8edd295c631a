import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import Descriptors
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from molhpft.domains.molecules import computed_targets as module
from molhpft.domains.molecules.computed_targets import (
    KINDS,
    Labels,
    Raw,
    TargetColumns,
    computed_targets,
    descriptor_targets,
)

CHAINS = [f"{'C' * n}{end}" for n in range(1, 16) for end in ("", "O", "N", "c1ccccc1")]

TRAIN = torch.arange(40)
HEXAFLUOROALUMINATE = "[Al](F)(F)(F)(F)(F)F"  # which RDKit reads without its check of valences only


def test_targets_are_what_rdkit_computes_cut_and_in_training_deviations():
    targets, names = descriptor_targets(CHAINS, TRAIN)
    functions = dict(Descriptors.descList)
    for k, name in enumerate(names):
        raw = np.array([functions[name](Chem.MolFromSmiles(s)) for s in CHAINS], dtype=np.float32)
        cut = raw.astype(np.float64).clip(*np.quantile(raw[:40].astype(np.float64), [0.01, 0.99]))
        expected = (cut - cut[:40].mean()) / cut[:40].std(ddof=1)
        np.testing.assert_allclose(targets[:, k].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_neither_slow_descriptors_nor_fragment_counts_are_taken():
    _, names = descriptor_targets(CHAINS, TRAIN)
    assert len(set(names)) == len(names)
    assert not [name for name in names if name.startswith(("fr_", "BCUT2D_", "qed", "Ipc"))]
    assert {"MolWt", "MolLogP", "TPSA"} <= set(names)


@pytest.mark.parametrize("smiles", ["not a molecule", "", HEXAFLUOROALUMINATE, "C\x00C", "\udcff"])
def test_what_rdkit_does_not_read_strictly_has_no_targets_and_changes_no_other(smiles):
    plain, names = descriptor_targets(CHAINS, TRAIN)
    with_it, same = descriptor_targets([*CHAINS, smiles], torch.cat([TRAIN, torch.tensor([60])]))
    assert names == same
    assert with_it[60].isnan().all()
    torch.testing.assert_close(with_it[:60], plain)


def test_a_descriptor_that_is_not_finite_is_missing():
    # Gasteiger's charges know no mercury: NaN for the whole molecule
    targets, names = descriptor_targets([*CHAINS, "C[Hg]C"], TRAIN)
    assert targets[60, names.index("MaxPartialCharge")].isnan()
    assert targets[60, names.index("MolWt")].isfinite()
    assert targets[:60].isfinite().all()


def broken(error):
    def function(mol):
        raise error

    return function


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError(3), ValueError(), RuntimeError()])
def test_a_descriptor_that_fails_is_missing(error):
    mol = Chem.MolFromSmiles("C")
    assert np.isnan(module._value(broken(error), mol))
    with pytest.raises(MemoryError):
        module._value(broken(MemoryError()), mol)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(4, 60), missing=st.floats(0, 0.9))
def test_scaling_equals_a_plain_loop_over_measured_training_values(seed, n, missing):
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy((n, 3)).astype(np.float32)
    values[:, 1] = 3
    values[rng.random((n, 3)) < missing] = rng.choice([np.nan, np.inf, -np.inf])
    train = np.sort(rng.permutation(n)[: n // 2 + 1])
    for column in values.T.astype(np.float64):
        statistics = module._statistics("descriptors", torch.from_numpy(column[train]))
        measured = column[train][np.isfinite(column[train])]
        low, high = np.quantile(measured, [0.01, 0.99]) if len(measured) else (0, 0)
        if low >= high:
            assert statistics is None
            continue
        inside = measured.clip(low, high)
        expected = (low, high, inside.mean(), inside.std(ddof=1))
        np.testing.assert_allclose(statistics, expected, rtol=1e-6)


def test_other_molecules_than_those_trained_on_do_not_shape_the_scale():
    targets, _ = descriptor_targets(CHAINS, TRAIN)
    fewer, _ = descriptor_targets(CHAINS[:40], TRAIN)
    torch.testing.assert_close(targets[:40], fewer)


@pytest.mark.slow
def test_processes_change_nothing(monkeypatch, tmp_path):
    smiles, tables = [*CHAINS, "xx"] * 20, []
    for workers in ("1", "2"):
        monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / workers))
        monkeypatch.setenv("MOLHPFT_WORKERS", workers)
        tables.append(descriptor_targets(smiles, TRAIN)[0])
    torch.testing.assert_close(*tables, rtol=0, atol=0, equal_nan=True)
    assert len(tables[0]) == len(smiles)


def test_another_split_of_the_same_molecules_computes_nothing(monkeypatch):
    first, _ = descriptor_targets(CHAINS, TRAIN)
    monkeypatch.setitem(module._ROWS, "descriptors", lambda *_: pytest.fail("computed again"))
    second, _ = descriptor_targets(CHAINS, TRAIN + 10)
    assert not torch.equal(first, second)


def test_molecules_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="differ between the 3 training molecules; none does"):
        descriptor_targets(["CCO", "OCC", "C(O)C"], torch.arange(3))


def test_counts_are_logarithms_whose_mean_variance_is_one():
    targets = computed_targets("morgan", [CHAINS], torch.arange(60))
    generator = GetMorganGenerator(radius=2, fpSize=1024)
    counts = np.array([generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(s)) for s in CHAINS])
    logs = np.log1p(counts[:, targets.columns.numpy()].astype(np.float64))
    assert targets.columns.tolist() == np.flatnonzero(counts.std(0)).tolist()
    scaled = targets[torch.arange(60)].double().numpy()
    np.testing.assert_allclose(scaled.var(0, ddof=1).mean(), 1, rtol=1e-5)
    expected = (logs - logs.mean(0)) / np.sqrt(logs.var(0, ddof=1).mean())
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-6)


def test_fragments_are_rdkits_counts_of_functional_groups():
    targets = computed_targets("fragments", [CHAINS], torch.arange(60))
    names = [name for name, _ in Descriptors.descList if name.startswith("fr_")]
    assert {"fr_benzene", "fr_Al_OH"} <= set(targets.names) <= set(names)
    column = targets[torch.arange(60)][:, targets.names.index("fr_benzene")]
    assert ((column > 0) == torch.tensor([s.endswith("c1ccccc1") for s in CHAINS])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_shards_and_sources_change_no_target(kind, monkeypatch):
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    whole = computed_targets(kind, [CHAINS], TRAIN)[rows]
    monkeypatch.setattr(module, "SHARD", 7)
    torch.testing.assert_close(
        computed_targets(kind, [CHAINS[:25], CHAINS[25:]], TRAIN)[rows], whole, rtol=0, atol=0
    )


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 2**31))
def test_rows_are_found_in_their_shards(sizes, seed):
    whole = torch.arange(2 * sum(sizes)).reshape(-1, 2).float()
    raw = Raw(torch.split(whole, sizes), ("a", "b"))
    rows = torch.randint(len(whole), (20,), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(raw[rows], whole[rows])


def test_labels_are_those_of_their_run_of_molecules_and_columns_stand_side_by_side():
    first = Labels(torch.tensor([[1.0], [0.0]]).half(), 1, ("a",))
    second = Labels(torch.tensor([[2.0, 3.0]]), 3, ("b", "c"))
    columns = TargetColumns((first, second))
    nan = float("nan")
    expected = torch.tensor([[nan, 2, 3], [nan, nan, nan], [0, nan, nan], [1, nan, nan]])
    rows = columns[torch.tensor([3, 0, 2, 1])]
    torch.testing.assert_close(rows, expected, equal_nan=True)
    assert columns.names == ("a", "b", "c")
