import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from molhpft.core.data import Rows
from molhpft.core.objectives import Joint, Multilabel, Part, ScoredByLoss, Squared
from molhpft.domains.molecules.computed_targets import descriptor_targets
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.overlap import inchikey_blocks, is_among
from molhpft.domains.molecules.pretraining import joint_task, pretraining_task
from molhpft.domains.molecules.pretraining_sources import molecules_trained_on
from tests.toy import NAN, toy_task

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
    task = pretraining_task(of=(listed,), split="random")
    expected, names = descriptor_targets(CHAINS, task.splits["train"])
    assert task.name == "pretraining-on-train-of-chains"
    assert task.objective == ScoredByLoss(Squared())
    assert task.target_names == tuple(names)
    torch.testing.assert_close(task.examples.targets[torch.arange(60)], expected, equal_nan=True)
    assert sorted(torch.cat(list(task.splits.values())).tolist()) == list(range(len(CHAINS)))


def test_assays_and_descriptors_are_both_served(table):
    both, weights = ("assays", "descriptors"), (2.0, 1.0)
    task = pretraining_task(of=(table,), targets=both, weights=weights, split="random")
    n = task.outputs - 2
    assert task.objective == ScoredByLoss(Joint(Multilabel(), 2, (Part(Squared(), n, 0.5),)))
    assert task.target_names[:2] == ("alcohol", "odd")
    labels = task.examples.targets[torch.arange(60)][:, :2]
    assert labels[:, 0].tolist() == [float(s.endswith("O")) for s in CHAINS]
    assert labels[:, 1].isnan().tolist() == [bool(k % 3) for k in range(len(CHAINS))]
    expected, _ = descriptor_targets(CHAINS, task.splits["train"])
    computed = task.examples.targets[torch.arange(60)][:, 2:]
    torch.testing.assert_close(computed, expected, equal_nan=True)


@pytest.fixture
def two(listed, table, tmp_path):
    """A list of ethers and the table, as sources."""
    path = tmp_path / "ethers.smi"
    path.write_text("\n".join(f"{'C' * k}O{'C' * m}" for k in range(1, 8) for m in range(1, k + 1)))
    return (path, table)


KINDS = ("assays", "fragments", "morgan")


def test_molecules_of_several_sources_have_the_labels_of_their_own(two):
    task = pretraining_task(of=two, targets=KINDS, split="random")
    assert task.name == "pretraining-on-train-of-ethers-and-chains"
    ethers = len(task.examples) - len(CHAINS)
    everything = task.examples.targets[torch.arange(len(task.examples))]
    assert everything[:ethers, :2].isnan().all()
    assert everything[ethers:, 0].tolist() == [float(s.endswith("O")) for s in CHAINS]
    assert everything[:, 2:].isfinite().all()
    lone = pretraining_task(of=two[1:], targets=KINDS, split="random")
    rows = lone.splits["train"]
    same = task.examples.take(rows + ethers).inputs, lone.examples.take(rows).inputs
    assert all(
        torch.equal(part, getattr(same[1], name))
        for name, part in vars(same[0]).items()
        if name != "beside"
    )


def test_a_source_gives_so_many_molecules_and_more_of_them_begin_with_the_same(two):
    few = pretraining_task(of=two, most=(5, 20), split="random")
    more = pretraining_task(of=two, most=(9, 100), split="random")
    assert len(few.examples) == 25
    assert len(more.examples) == 9 + len(CHAINS)
    assert more.examples.smiles[:5] == few.examples.smiles[:5]
    place = {smiles: row for row, smiles in enumerate(CHAINS)}
    picked = sorted(place[smiles] for smiles in few.examples.smiles[5:])
    gaps = [after - before for before, after in pairwise([-1, *picked, len(CHAINS)])]
    assert max(gaps) <= 2 * len(CHAINS) / 20


def test_an_epoch_takes_its_share_of_each_source(two, rng):
    task = pretraining_task(of=two, share=(0.5, 2.0), split="random")
    ethers = len(task.examples) - len(CHAINS)
    train = task.splits["train"]
    sizes = [int((train < ethers).sum()), int((train >= ethers).sum())]
    assert task.epoch_size == round(sizes[0] / 2) + 2 * sizes[1]
    numbered = replace(task, examples=Rows(*[torch.arange(len(task.examples))] * 2))
    seen = torch.cat([batch.targets for batch in numbered.batches("train", size=7, rng=rng)])
    counts = torch.bincount(seen, minlength=len(task.examples))
    assert counts[train[train >= ethers]].tolist() == [2] * sizes[1]
    assert int(counts[:ethers].sum()) == round(sizes[0] / 2)
    assert counts[:ethers].max() == 1


@pytest.mark.parametrize("named", ["the table", "its folder"])
def test_molecules_of_a_table_are_left_out_whatever_its_column_is_called(
    two, named, tmp_path, caplog
):
    other = tmp_path / "elsewhere" / "tested.csv"
    other.parent.mkdir()
    other.write_text("Drug_ID,Drug,Y\nethanol,OCC,1\npropanol,C(O)CC,0\n")
    other = other if named == "the table" else other.parent
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=two, without=(other,), split="random")
    used = [task.examples.smiles[i] for rows in task.splits.values() for i in rows]
    left = set(task.examples.smiles) - set(used)
    assert left == {"CCO", "CCCO"}
    assert not left & set(molecules_trained_on(of=two, without=(other,), split="random"))
    assert "2 of 60 molecules of chains are left out" in caplog.text


def test_a_table_without_molecules_is_no_set_to_leave_out(listed, tmp_path):
    other = tmp_path / "numbers.csv"
    other.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(ValueError, match="should have a column of SMILES; it has: a and b"):
        pretraining_task(of=(listed,), without=(other,), split="random")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="whose tables are to be left out, has none"):
        pretraining_task(of=(listed,), without=(tmp_path / "empty",), split="random")


def test_assays_that_do_not_differ_in_training_are_left_out_and_numbers_are_scaled(
    listed, tmp_path, caplog
):
    path = tmp_path / "numbers.csv"
    own = pretraining_task(of=(listed,), split="random").splits
    labels = {int(own["train"][0]): 7, int(own["valid"][0]): 8}  # one of which trains
    cells = [f"{s},{k}.5,{labels.get(k, '')}" for k, s in enumerate(CHAINS)]
    path.write_text("\n".join(["smiles,size,once", *cells]))
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=(listed, path), targets=("assays",), split="random")
    assert task.target_names == ("size",)
    assert "1 of 2 assays of numbers are left out" in caplog.text
    train = task.splits["train"]
    own = task.examples.targets[train[train >= len(CHAINS)]].double()
    torch.testing.assert_close(own.mean(), torch.tensor(0.0).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(own.square().mean(), torch.tensor(1.0).double())
    assert task.examples.targets[train[train < len(CHAINS)]].isnan().all()


def test_so_much_is_held_out_as_was_asked_for(listed):
    task = pretraining_task(of=(listed,), split="random", held_out=0.05)
    assert {name: len(rows) for name, rows in task.splits.items()} == {
        "train": 54,
        "valid": 3,
        "test": 3,
    }


def test_assays_alone_are_those_of_the_table(table):
    task = pretraining_task(of=(table,), targets=("assays",), split="random")
    assert task.objective == ScoredByLoss(Multilabel())
    assert task.outputs == 2


def test_everything_that_decides_a_task_is_in_its_fingerprint(table):
    both = {"of": (table,), "targets": ("assays", "descriptors"), "split": "random"}
    tasks = [
        pretraining_task(**both),
        pretraining_task(**both, weights=(2.0, 1.0)),
        pretraining_task(**both, use="all"),
        pretraining_task(**both, split_seed=1),
        pretraining_task(of=(table,), split="random"),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert pretraining_task(**both).fingerprint == tasks[0].fingerprint


def test_all_trains_on_every_molecule_and_says_so(listed, caplog):
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=(listed,), use="all", split="random")
    assert task.splits["train"].tolist() == list(range(len(CHAINS)))
    assert len(task.splits["valid"]) == len(task.splits["test"]) == 6
    assert "on all 60 molecules of chains" in caplog.text
    assert task.name == "pretraining-on-all-of-chains"


@pytest.mark.parametrize("columns", ["SMILES", "SMILES,name", "SMILES,alcohol"])
def test_a_column_of_molecules_in_another_case_is_read_and_said_once(tmp_path, caplog, columns):
    path = tmp_path / "chains.csv"
    lone = "," not in columns
    rows = [smiles if lone else f"{smiles},{int('O' in smiles)}" for smiles in CHAINS]
    path.write_text("\n".join([columns, *rows]))
    with caplog.at_level(logging.WARNING):
        targets = ("assays",) if "alcohol" in columns else ("descriptors",)
        task = pretraining_task(of=(path,), targets=targets, split="random")
    assert list(task.examples.smiles) == CHAINS
    assert caplog.text.count("Molecules are those of column 'SMILES'") == 1


def test_unreadable_molecules_are_named_by_line_and_in_no_split(listed, caplog):
    listed.write_text("\n".join(["header", *CHAINS]))
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=(listed,), split="random")
    assert "'header' (line 1)" in caplog.text
    assert not any(0 in rows for rows in task.splits.values())


@pytest.mark.slow
def test_molecules_that_are_tested_on_elsewhere_are_left_out(ogb_root, tmp_path, caplog):
    other = ogb_task("ogbg-molesol")
    tested = [other.examples.smiles[i] for split in ("valid", "test") for i in other.splits[split]]
    path = tmp_path / "mixed.smi"
    path.write_text("\n".join([*CHAINS, *other.examples.smiles]))
    with caplog.at_level(logging.WARNING):
        task = pretraining_task(of=(path,), without=(Path("ogbg-molesol"),), split="random")
    used = [task.examples.smiles[i] for rows in task.splits.values() for i in rows]
    elsewhere = inchikey_blocks(tested)
    assert not is_among(inchikey_blocks(used), elsewhere).any()
    left = len(CHAINS) + len(other.examples) - len(used)
    shared = is_among(inchikey_blocks(task.examples.smiles), elsewhere)
    assert left == int(shared.sum()) >= len(tested)
    assert f"{left} of 1188 molecules of mixed are left out" in caplog.text


@pytest.mark.slow
def test_an_ogb_set_keeps_its_labels_and_its_training_split(ogb_root):
    task = pretraining_task(of=(Path("ogbg-molfreesolv"),), targets=("assays", "descriptors"))
    own = ogb_task("ogbg-molfreesolv")
    assert all(torch.equal(task.splits[name], own.splits[name]) for name in own.splits)
    labels = task.examples.targets[torch.arange(len(own.examples))][:, :1]
    torch.testing.assert_close(labels, own.examples.targets)
    train = targets_of(task)[:, 1:].double()
    torch.testing.assert_close(train.nanmean(0), torch.zeros_like(train[0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": ()}, "of should name what to pretrain on"),
        ({"targets": ()}, "some of assays, descriptors, fragments, .*, each once, got"),
        ({"targets": ("assays", "assays")}, "each once"),
        ({"targets": ("labels",)}, r"got \['labels'\]"),
        ({"targets": ("assays",)}, "labels of a data set or a table; chains has none"),
        ({"weights": (2.0, 1.0)}, r"one for each of 1 targets \(descriptors\), got \[2.0, 1.0\]"),
        ({"share": (0.5, 0.5)}, r"share should be one number, or one for each of 1 sources"),
        ({"most": (5, 5)}, r"most should be one number, or one for each of 1 sources"),
        ({"use": "test"}, "use should be train or all, got 'test'"),
        ({"split": "column"}, "split should be scaffold, random or random_and_scaffold"),
        ({"split_seed": 3}, "split_seed is for split random"),
        ({"smiles_column": "mol"}, "no column 'mol'; it has: smiles and name"),
        (
            {"of": (Path("ogbg-molesol"),), "smiles_column": "mol"},
            "smiles_column is for tables and lists",
        ),
        ({"of": (Path("ogbg-molesol"),), "held_out": 0.2}, "held_out is for tables and lists"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(listed, options, words):
    with pytest.raises(ValueError, match=words):
        pretraining_task(**{"of": (listed,), **options})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_is_above_zero(table, weight):
    with pytest.raises(ValueError, match="above 0"):
        pretraining_task(of=(table,), targets=("assays", "descriptors"), weights=(1.0, weight))


def test_a_list_with_nothing_to_train_on_says_so(tmp_path):
    (tmp_path / "x.smi").write_text("xx\nyy\n")
    with pytest.raises(ValueError, match="none of its 2 cells can be read, line 1 has 'xx'"):
        pretraining_task(of=(tmp_path / "x.smi",))


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


def test_a_molecule_of_several_sources_keeps_the_targets_of_each():
    rows = [[1.0, NAN], [2.0, NAN], [NAN, 10.0]]
    joined = joint_task(NEW, task("twice", ["C", "CC", "C"], rows, Squared()), weight=1.0)
    assert joined.examples.targets[0].tolist() == [0, 1, 10]
    assert joined.examples.targets[1, 1] == 2
    assert joined.examples.targets[2, 1:].isnan().all()


def test_a_column_whose_words_are_molecules_by_chance_hides_no_molecules(listed, tmp_path):
    other = tmp_path / "tested.csv"
    other.write_text("class,Drug\nC,OCC\nN,C(O)CC\nC,CCCCCC\n")
    task = pretraining_task(of=(listed,), without=(other,), split="random")
    used = {task.examples.smiles[i] for rows in task.splits.values() for i in rows}
    assert not used & {"CCO", "CCCO", "CCCCCC"}


def test_validation_molecules_that_another_source_trains_on_are_counted(listed, caplog):
    with caplog.at_level(logging.WARNING):
        pretraining_task(of=(listed,), split="random")
        assert not caplog.records
        task = pretraining_task(of=(listed, listed), most=(60, 30), split="random")
    train, valid = ([task.examples.smiles[i] for i in task.splits[s]] for s in ("train", "valid"))
    shared = sum(smiles in train for smiles in valid)
    assert shared
    assert f"{shared} of {len(valid)} validation molecules are trained on" in caplog.text
