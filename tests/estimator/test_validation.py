"""Folds: every molecule is held out once, with its like."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molhpft.core.objectives import Squared
from molhpft.domains.molecules.grouped_splits import (
    group_folds,
    time_folds,
    time_split,
)
from molhpft.domains.molecules.splits import joined_groups, random_folds, scaffold_groups
from molhpft.domains.molecules.tables import pooled_task, read_table
from molhpft.estimator.validation import draw_folds, fold_tasks, holdout_split
from tests.estimator.builders import RING, SMILES, ring_task, size_task


def whole(task):
    rows = torch.arange(len(SMILES))
    return type(task)(**{**vars(task), "splits": {"train": rows}})


@given(n=st.integers(5, 60), count=st.integers(2, 5), seed=st.integers(0, 99))
def test_random_folds_divide_the_rows_into_like_sizes(n, count, seed):
    folds = random_folds(n, count, rng=torch.Generator().manual_seed(seed))
    assert torch.cat(folds).sort().values.tolist() == list(range(n))
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert all(fold.tolist() == sorted(fold.tolist()) for fold in folds)


@given(rare=st.integers(5, 20), seed=st.integers(0, 99))
def test_every_fold_gets_its_share_of_a_rare_label(rare, seed):
    labels = (torch.arange(100) < rare).float()[:, None]
    folds = random_folds(100, 5, rng=torch.Generator().manual_seed(seed), labels=labels)
    counts = [int(labels[fold].sum()) for fold in folds]
    assert max(counts) - min(counts) <= 1


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20), count=st.integers(2, 4))
def test_no_group_is_in_two_folds(sizes, count):
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    groups = [list(range(a, b)) for a, b in pairwise(ends)]
    folds = group_folds(groups, count)
    assert torch.cat(folds).sort().values.tolist() == list(range(ends[-1]))
    for group in groups:
        assert sum(bool(torch.isin(torch.tensor(group), fold).any()) for fold in folds) == 1
    # the largest first: no fold exceeds the least by more than the largest group
    filled = [len(fold) for fold in folds]
    assert max(filled) - min(filled) <= max(sizes)


def held(task, how="random", **options):
    """Rows of each fold, whose `train` is all others."""
    folds = draw_folds(task, how, **{"count": 3, "seed": 0, **options})
    for fold in folds:
        everything = torch.cat([fold.train, fold.held])
        assert everything.sort().values.equal(task.rows("train"))
    return [fold.held for fold in folds]


def test_scaffold_folds_keep_scaffolds_together():
    folds = held(whole(ring_task()), "scaffold")
    for group in scaffold_groups(SMILES):
        assert sum(bool(torch.isin(torch.tensor(group), fold).any()) for fold in folds) == 1


def test_groups_of_the_caller_stay_together_whatever_the_split():
    groups = [k % 7 for k in range(len(SMILES))]
    folds = held(whole(size_task()), groups=groups)
    own = [{groups[row] for row in fold.tolist()} for fold in folds]
    assert sum(map(len, own)) == 7
    assert torch.cat(folds).sort().values.tolist() == list(range(len(SMILES)))


def test_the_task_of_a_fold_trains_on_all_others_and_is_told_from_its_siblings():
    task = whole(ring_task())
    folds = draw_folds(task, "random", count=4, seed=0)
    parts = fold_tasks(task, folds)
    for part, fold in zip(parts, folds, strict=True):
        assert part.rows("valid").equal(fold.held)
        assert part.rows("train").equal(fold.train)
    assert len({part.fingerprint for part in (task, *parts)}) == 5


def repeated_task(*, classes=True):
    """Molecules of which every third is there again, written from its other end."""
    again = SMILES[::3]
    smiles = [*SMILES, *(Chem.MolToSmiles(Chem.MolFromSmiles(s), rootedAtAtom=1) for s in again)]
    labels = torch.tensor([*RING, *RING[::3]], dtype=torch.float32)[:, None]
    splits = {"train": torch.arange(len(smiles))}
    options = {} if classes else {"objective": Squared(), "standardise": True}
    return ring_task(smiles=smiles, targets=labels, splits=splits, **options)


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("how", ["random", "scaffold", "groups"])
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(2, 5))
def test_rows_of_one_molecule_are_in_one_fold(how, classes, seed, count):
    task = repeated_task(classes=classes)
    n = len(task.examples)
    groups = list(range(n)) if how == "groups" else None
    how = "scaffold" if how == "scaffold" else "random"
    folds = held(task, how, count=count, seed=seed, groups=groups)
    fold_of = {row: k for k, fold in enumerate(folds) for row in fold.tolist()}
    for k, row in enumerate(range(0, len(SMILES), 3)):
        assert fold_of[row] == fold_of[len(SMILES) + k]


RINGS = [f"C1{'C' * n}1{end}" for n in range(3, 27) for end in ("O", "N", "CO")]


def salts_of(smiles):
    """Molecules, then each of them beside a smaller ring, with which it has another scaffold."""
    return [*smiles, *(f"{one}.C1CC1" for one in smiles)]


def test_a_base_and_its_salt_are_in_one_fold_by_scaffold_and_so_are_scaffolds():
    smiles = salts_of(RINGS)
    labels = torch.tensor([k % 2.0 for k in range(len(smiles))])[:, None]
    task = ring_task(smiles=smiles, targets=labels, splits={"train": torch.arange(len(smiles))})
    fold_of = {row: k for k, fold in enumerate(held(task, "scaffold")) for row in fold.tolist()}
    assert all(fold_of[k] == fold_of[k + len(RINGS)] for k in range(len(RINGS)))
    for group in scaffold_groups(smiles):
        assert len({fold_of[row] for row in group}) == 1


def test_a_base_and_its_salt_are_on_one_side_of_a_held_out_part_by_scaffold():
    splits = holdout_split(salts_of(RINGS), "scaffold", validation=0.1, seed=0)
    assert list(splits) == ["train", "valid", "calibration"]
    split_of = {row: name for name, rows in splits.items() for row in rows.tolist()}
    assert all(split_of[k] == split_of[k + len(RINGS)] for k in range(len(RINGS)))


def test_without_folds_calibration_is_newer_than_validation():
    smiles = [f"{'C' * n}O" for n in range(1, 101)]
    times = [float(100 - k) for k in range(100)]
    splits = holdout_split(smiles, "random", validation=0.1, seed=0, times=times)
    newest = {name: (min(when), max(when)) for name, when in _times(splits, times).items()}
    assert newest["train"][1] < newest["valid"][0]
    assert newest["valid"][1] < newest["calibration"][0]
    assert len(splits["valid"]) == 10


def _times(splits, times):
    return {name: [times[row] for row in rows.tolist()] for name, rows in splits.items()}


def test_repeated_molecules_leave_the_shares_of_a_rare_label_as_they_are():
    task = repeated_task()
    labels = (torch.arange(len(task.examples)) % len(SMILES) < 10).float()[:, None]
    task = ring_task(smiles=task.examples.smiles, targets=labels, splits=task.splits)
    counts = [int(labels[fold].sum()) for fold in held(task, count=5)]
    assert min(counts) >= 2


@settings(deadline=None)
@given(times=st.permutations([k // 3 for k in range(len(SMILES))]), count=st.integers(2, 4))
def test_what_trains_for_a_fold_is_older_than_the_fold(times, count):
    task = whole(size_task())
    folds = draw_folds(task, "random", count=count, seed=0, times=times)
    newest = torch.cat([fold.held for fold in folds])
    for fold in folds:
        when = torch.tensor(times)
        assert when[fold.train].max() < when[fold.held].min()
    assert newest.unique().tolist() == sorted(newest.tolist())
    assert len(folds[-1].train) + len(folds[-1].held) == len(SMILES)
    assert len(folds[0].train) == len(SMILES) - len(newest)


def test_the_older_half_trains_for_the_first_fold():
    task = whole(size_task())
    times = [60 - k for k in range(60)]
    folds = draw_folds(task, "random", count=3, seed=0, times=times)
    assert [fold.held.tolist() for fold in folds] == [
        list(range(20, 30)),
        list(range(10, 20)),
        list(range(10)),
    ]
    assert folds[0].train.tolist() == list(range(30, 60))


def test_a_molecule_is_as_new_as_its_newest_row():
    task = repeated_task()
    times = [float(k) for k in range(len(task.examples))]
    for fold in draw_folds(task, "random", count=3, seed=0, times=times):
        again = torch.arange(0, len(SMILES), 3)
        for rows in zip(again.tolist(), range(len(SMILES), len(task.examples)), strict=True):
            assert torch.isin(torch.tensor(rows), fold.train).unique().numel() == 1
            assert torch.isin(torch.tensor(rows), fold.held).unique().numel() == 1


@pytest.mark.parametrize(
    ("count", "groups", "words"),
    [
        (1, None, "folds should be at least 2, or 0 for one held-out part, got 1"),
        (99, None, "need at least 99 different molecules, .* has 60 to train on, in 60 rows; take"),
        (3, [0, 1] * 30, "3 folds need at least 3 groups, and rings has 2"),
    ],
)
def test_folds_that_would_be_empty_are_refused(count, groups, words):
    with pytest.raises(ValueError, match=words):
        draw_folds(whole(ring_task()), "random", count=count, seed=0, groups=groups)


def test_times_that_are_too_few_for_folds_are_refused():
    with pytest.raises(ValueError, match="4 parts in the order of time need that many times"):
        draw_folds(whole(ring_task()), "random", count=3, seed=0, times=[2020.0, 2021.0] * 30)


@pytest.mark.parametrize(
    ("groups", "years", "says"),
    [
        (None, 2, "there are 2; take fewer folds, or finer times$"),
        ([k % 2 for k in range(60)], 60, "of 60 times 2 are left, .* or groups that span less tim"),
        ([0] * 60, 60, "of 60 times 1 is left, .* take fewer folds, or groups that span"),
    ],
    ids=["few times", "two groups", "one group"],
)
def test_times_that_groups_tie_together_are_told_from_times_that_are_too_coarse(
    groups, years, says
):
    table = joined_groups([[k] for k in range(60)], groups or range(60))
    with pytest.raises(ValueError, match=says):
        time_folds(table, [float(k % years) for k in range(60)], 3)


def test_a_split_by_time_advises_no_folds():
    with pytest.raises(ValueError, match="take another split, or finer times"):
        time_split([[k] for k in range(60)], [2020.0, 2021.0] * 30)


def test_too_few_molecules_for_folds_are_told_from_molecules_that_cannot_be_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("smiles,y\nCCO,0\nCCCO,1\nCCN,0\nmug,1\npot,0\n")
    with pytest.raises(ValueError, match=r"mine has 3 .* 2 of 5 .* 'mug' \(line 5\)"):
        draw_folds(pooled_task(read_table(path)), "random", count=5, seed=0)
