import logging

import pytest
import torch

from molhpft.core.objectives import Joint, Multilabel, ScoredByLoss, Squared
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.overlap import is_shared
from molhpft.domains.molecules.pretraining import descriptor_targets, pretraining_task

CHAINS = [f"{'C' * n}{end}" for n in range(3, 23) for end in ("", "O", "c1ccccc1")]


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


def test_molecules_that_are_tested_on_elsewhere_are_left_out(ogb_root, tmp_path, caplog):
    other = ogb_task("ogbg-molesol")
    tested = [other.examples.smiles[i] for split in ("valid", "test") for i in other.splits[split]]
    path = tmp_path / "mixed.smi"
    path.write_text("\n".join([*CHAINS, *other.examples.smiles]))
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=path, without=("ogbg-molesol",), split="random")
    used = [task.examples.smiles[i] for rows in task.splits.values() for i in rows]
    assert not is_shared(used, tested).any()
    left = len(CHAINS) + len(other.examples) - len(used)
    assert left == int(is_shared(task.examples.smiles, tested).sum()) >= len(tested)
    assert f"{left} of 1188 molecules of mixed are left out" in caplog.text


def test_an_ogb_set_keeps_its_labels_and_its_training_split(ogb_root):
    task = pretraining_task(of="ogbg-molbace", targets=("assays", "descriptors"))
    own = ogb_task("ogbg-molbace")
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
