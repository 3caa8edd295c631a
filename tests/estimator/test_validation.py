"""Folds: every molecule is held out once, with its like."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molhpft.domains.molecules.splits import group_folds, random_folds, scaffold_groups
from molhpft.estimator.validation import draw_folds, fold_tasks
from tests.estimator.builders import SMILES, ring_task, size_task


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


def test_scaffold_folds_keep_scaffolds_together():
    task = whole(ring_task())
    folds = draw_folds(task, "scaffold", count=3, seed=0)
    for group in scaffold_groups(SMILES):
        assert sum(bool(torch.isin(torch.tensor(group), fold).any()) for fold in folds) == 1


def test_groups_of_the_caller_stay_together_whatever_the_split():
    task = whole(size_task())
    groups = [k % 7 for k in range(len(SMILES))]
    folds = draw_folds(task, "random", count=3, seed=0, groups=groups)
    own = [{groups[row] for row in fold.tolist()} for fold in folds]
    assert sum(map(len, own)) == 7
    assert torch.cat(folds).sort().values.tolist() == list(range(len(SMILES)))


def test_the_task_of_a_fold_trains_on_all_others_and_is_told_from_its_siblings():
    task = whole(ring_task())
    folds = draw_folds(task, "random", count=4, seed=0)
    parts = fold_tasks(task, folds)
    for part, fold in zip(parts, folds, strict=True):
        assert part.rows("valid").equal(fold)
        assert not torch.isin(part.rows("train"), fold).any()
        assert len(part.rows("train")) + len(fold) == len(SMILES)
    assert len({part.fingerprint for part in (task, *parts)}) == 5


@pytest.mark.parametrize(
    ("count", "groups", "words"),
    [
        (1, None, "folds should be at least 2, or 0 for one held-out part, got 1"),
        (99, None, "99 folds need at least 99 molecules, and rings has 60 to train on"),
        (3, [0, 1] * 30, "3 folds need at least 3 groups, and rings has 2"),
    ],
)
def test_folds_that_would_be_empty_are_refused(count, groups, words):
    with pytest.raises(ValueError, match=words):
        draw_folds(whole(ring_task()), "random", count=count, seed=0, groups=groups)
