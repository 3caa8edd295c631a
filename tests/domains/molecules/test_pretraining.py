import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import Descriptors

from molhpft.core.objectives import Joint, Multilabel, ScoredByLoss, Squared
from molhpft.domains.molecules import pretraining
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.overlap import inchikey_blocks, is_among
from molhpft.domains.molecules.pretraining import descriptor_targets, joint_task, pretraining_task
from tests.toy import toy_task

CHAINS = [f"{'C' * n}{end}" for n in range(1, 16) for end in ("", "O", "N", "c1ccccc1")]


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "chains.smi"
    path.write_text("\n".join(CHAINS))
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "chains.csv"
    rows = [f"{s},{int(s.endswith('O'))},{'' if k % 3 else k % 2}" for k, s in enumerate(CHAINS)]
    path.write_text("\n".join(["smiles,alcohol,odd", *rows]))
    return path


def targets_of(task, split="train"):
    return task.examples.targets[task.splits[split]]


def test_a_plain_list_is_a_regression_on_descriptors(listed):
    task = pretraining_task(of=listed, split="random")
    expected, names = descriptor_targets(CHAINS, task.splits["train"])
    assert task.name == "pretraining-on-train-of-chains"
    assert task.objective == ScoredByLoss(Squared())
    assert task.target_names == tuple(names)
    torch.testing.assert_close(task.examples.targets, expected, equal_nan=True)
    assert sorted(torch.cat(list(task.splits.values())).tolist()) == list(range(len(CHAINS)))


def test_assays_and_descriptors_are_both_served(table):
    task = pretraining_task(of=table, targets=("assays", "descriptors"), weight=0.5, split="random")
    assert task.objective == ScoredByLoss(Joint(Multilabel(), Squared(), 2, 0.5))
    assert task.target_names[:2] == ("alcohol", "odd")
    labels = task.examples.targets[:, :2]
    assert labels[:, 0].tolist() == [float(s.endswith("O")) for s in CHAINS]
    assert labels[:, 1].isnan().tolist() == [bool(k % 3) for k in range(len(CHAINS))]
    expected, _ = descriptor_targets(CHAINS, task.splits["train"])
    torch.testing.assert_close(task.examples.targets[:, 2:], expected, equal_nan=True)


def test_assays_alone_are_those_of_the_table(table):
    task = pretraining_task(of=table, targets=("assays",), split="random")
    assert task.objective == ScoredByLoss(Multilabel())
    assert task.outputs == 2


def test_everything_that_decides_a_task_is_in_its_fingerprint(table):
    both = {"of": table, "targets": ("assays", "descriptors"), "split": "random"}
    tasks = [
        pretraining_task(**both),
        pretraining_task(**both, weight=2.0),
        pretraining_task(**both, use="all"),
        pretraining_task(**both, split_seed=1),
        pretraining_task(of=table, split="random"),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert pretraining_task(**both).fingerprint == tasks[0].fingerprint


def test_all_trains_on_every_molecule_and_says_so(listed, caplog):
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=listed, use="all", split="random")
    assert task.splits["train"].tolist() == list(range(len(CHAINS)))
    assert len(task.splits["valid"]) == len(task.splits["test"]) == 6
    assert "on all 60 molecules of chains" in caplog.text
    assert task.name == "pretraining-on-all-of-chains"


def test_unreadable_molecules_are_named_by_line_and_in_no_split(listed, caplog):
    listed.write_text("\n".join(["header", *CHAINS]))
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=listed, split="random")
    assert "'header' (line 1)" in caplog.text
    assert not any(0 in rows for rows in task.splits.values())


@pytest.mark.slow
def test_molecules_that_are_tested_on_elsewhere_are_left_out(ogb_root, tmp_path, caplog):
    other = ogb_task("ogbg-molesol")
    tested = [other.examples.smiles[i] for split in ("valid", "test") for i in other.splits[split]]
    path = tmp_path / "mixed.smi"
    path.write_text("\n".join([*CHAINS, *other.examples.smiles]))
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=path, without=("ogbg-molesol",), split="random")
    used = [task.examples.smiles[i] for rows in task.splits.values() for i in rows]
    elsewhere = inchikey_blocks(tested)
    assert not is_among(inchikey_blocks(used), elsewhere).any()
    left = len(CHAINS) + len(other.examples) - len(used)
    shared = is_among(inchikey_blocks(task.examples.smiles), elsewhere)
    assert left == int(shared.sum()) >= len(tested)
    assert f"{left} of 1188 molecules of mixed are left out" in caplog.text


@pytest.mark.slow
def test_an_ogb_set_keeps_its_labels_and_its_training_split(ogb_root):
    task = pretraining_task(of="ogbg-molfreesolv", targets=("assays", "descriptors"))
    own = ogb_task("ogbg-molfreesolv")
    assert all(torch.equal(task.splits[name], own.splits[name]) for name in own.splits)
    assert torch.equal(task.examples.targets[:, :1], own.examples.targets)
    train = targets_of(task)[:, 1:].double()
    torch.testing.assert_close(train.nanmean(0), torch.zeros_like(train[0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ()}, "one or both of assays and descriptors, got"),
        ({"targets": ("assays", "assays")}, "one or both"),
        ({"targets": ("labels",)}, "one or both"),
        ({"targets": ("assays",)}, r"chains\.smi should have a column of labels"),
        ({"weight": 2.0}, "for both targets only; got weight 2.0 with targets descriptors"),
        ({"use": "test"}, "use should be train or all, got 'test'"),
        ({"split": "column"}, "split should be scaffold, random or random_and_scaffold"),
        ({"split_seed": 3}, "split_seed is for split random"),
        ({"smiles_column": "mol"}, "no column 'mol'; it has: smiles, name"),
        ({"of": "ogbg-molesol", "smiles_column": "mol"}, "is an OGB data set: leave it out"),
        ({"without": ("ogbg-moltox",)}, "no data set named 'ogbg-moltox'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(listed, options, words):
    with pytest.raises(ValueError, match=words):
        pretraining_task(**{"of": listed, **options})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_is_above_zero(table, weight):
    with pytest.raises(ValueError, match="above 0"):
        pretraining_task(of=table, targets=("assays", "descriptors"), weight=weight)


def test_a_list_with_nothing_to_train_on_says_so(tmp_path):
    (tmp_path / "x.smi").write_text("xx\nyy\n")
    with pytest.raises(ValueError, match="none of its 2 rows can be read, the first is 'xx'"):
        pretraining_task(of=tmp_path / "x.smi")


def task(name, smiles, targets, objective):
    rows = torch.arange(len(smiles))
    splits = {"train": rows, "valid": rows, "test": rows}
    names = [f"{name}{k}" for k in range(len(targets[0]))]
    return molecule_task(
        name,
        smiles=smiles,
        targets=torch.tensor(targets),
        target_names=names,
        splits=splits,
        objective=objective,
    )


NEW = task("new", ["C", "CC", "CCC"], [[0.0], [1.0], [0.0]], Multilabel())
OLD = task("old", ["CCC", "C", "O"], [[3.0, 30.0], [1.0, 10.0], [9.0, 90.0]], Squared())


def test_pretraining_targets_stand_behind_those_of_the_same_molecule():
    joined = joint_task(NEW, OLD, weight=0.5)
    targets = joined.examples.targets
    assert targets[:, 0].tolist() == [0, 1, 0]
    assert targets[0, 1:].tolist() == [1, 10]
    assert targets[2, 1:].tolist() == [3, 30]
    assert targets[1, 1:].isnan().all()


def test_a_joint_task_knows_what_its_outputs_are():
    joined = joint_task(NEW, OLD, weight=0.5)
    assert joined.outputs == 3
    assert joined.target_names == ("new0", "old0", "old1")
    assert joined.objective.outputs == 1
    assert joined.splits == NEW.splits


def test_the_weight_is_part_of_what_a_joint_task_is():
    joined = [joint_task(NEW, OLD, weight=w) for w in (0.5, 1.0)]
    assert len({task.auxiliary for task in [NEW, *joined]}) == 3
    assert {task.fingerprint for task in joined} == {NEW.fingerprint}


def test_tasks_without_a_common_molecule_are_refused():
    other = task("other", ["N"], [[1.0]], Squared())
    with pytest.raises(ValueError, match="other has targets for none of the 3 molecules of new"):
        joint_task(NEW, other, weight=1.0)


def test_tasks_of_something_else_are_refused():
    with pytest.raises(ValueError, match="between tasks of molecules, got new and toy"):
        joint_task(NEW, toy_task(), weight=1.0)


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
    assert np.isnan(pretraining._value(broken(error), mol))
    with pytest.raises(MemoryError):
        pretraining._value(broken(MemoryError()), mol)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(4, 60), missing=st.floats(0, 0.9))
def test_standardising_equals_a_plain_loop_over_measured_training_values(seed, n, missing):
    rng = np.random.default_rng(seed)
    values = rng.standard_cauchy((n, 3))
    values[:, 1] = 3
    values[rng.random((n, 3)) < missing] = rng.choice([np.nan, np.inf, -np.inf])
    train = np.sort(rng.permutation(n)[: n // 2 + 1])
    for column in values.T:
        target = pretraining._standardised(torch.from_numpy(column), torch.from_numpy(train))
        measured = column[train][np.isfinite(column[train])]
        low, high = np.quantile(measured, [0.01, 0.99]) if len(measured) else (0, 0)
        if low >= high:
            assert target is None
            continue
        cut = np.where(np.isfinite(column), column.clip(low, high), np.nan)
        inside = measured.clip(low, high)
        expected = (cut - inside.mean()) / inside.std(ddof=1)
        np.testing.assert_allclose(target.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_other_molecules_than_those_trained_on_do_not_shape_the_scale():
    targets, _ = descriptor_targets(CHAINS, TRAIN)
    fewer, _ = descriptor_targets(CHAINS[:40], TRAIN)
    torch.testing.assert_close(targets[:40], fewer)


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
    monkeypatch.setattr(pretraining, "_descriptor_rows", lambda _: pytest.fail("computed again"))
    second, _ = descriptor_targets(CHAINS, TRAIN + 10)
    assert not torch.equal(first, second)


def test_molecules_that_do_not_differ_are_refused():
    with pytest.raises(ValueError, match="differ between the 3 training molecules; none does"):
        descriptor_targets(["CCO", "OCC", "C(O)C"], torch.arange(3))
