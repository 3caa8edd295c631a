"""Scores of folds know no more of members than the members know."""

from math import isnan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multilabel, ScoredByLoss, Squared
from molhpft.estimator.fold_scores import by_fold, held_out_score
from tests.toy import NAN

FOLD = torch.arange(60) % 5


def labels(seed):
    """Of three targets; the last has three positives in all, in two folds."""
    rng = torch.Generator().manual_seed(seed)
    y = (torch.rand(60, 3, generator=rng) < 0.4).float()
    y[:10, :2] = torch.tensor([0.0] * 5 + [1.0] * 5)[:, None]
    y[:, 2] = 0
    y[[3, 8, 21], 2] = 1
    return y, torch.randn(60, 3, generator=rng)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_what_the_members_of_a_fold_add_to_all_that_they_say_changes_no_rank(seed):
    y, a = labels(seed)
    score = held_out_score(Multilabel(), a, y, FOLD)
    assert held_out_score(Multilabel(), a + 7.0 * FOLD[:, None], y, FOLD) == score
    of_folds = by_fold(Multilabel().score, a, y, FOLD)
    assert score == pytest.approx(sum(of_folds) / 5)


def test_members_that_know_nothing_but_the_rate_of_the_others_have_a_half():
    y, _ = labels(0)
    rates = torch.stack([y[number != FOLD].mean(0) for number in range(5)])[FOLD]
    assert Multilabel().score(rates, y) < 0.4  # all together, the wrong way round
    assert held_out_score(Multilabel(), rates, y, FOLD) == 0.5


def test_errors_are_those_of_all_molecules_together():
    y, a = labels(1)
    for objective in (Squared(), ScoredByLoss(Multilabel())):
        assert held_out_score(objective, a, y, FOLD) == objective.score(a, y)
    assert held_out_score(Multilabel(), a, y, None) == Multilabel().score(a, y)


def test_a_fold_that_has_no_pair_to_rank_is_left_out_and_a_broken_prediction_is_not():
    y, a = labels(2)
    y[FOLD == 1] = 1
    first, second, *_ = by_fold(Multilabel().score, a, y, FOLD)
    assert first is not None
    assert second is None
    a[0] = NAN
    assert isnan(held_out_score(Multilabel(), a, y, FOLD))
    with pytest.raises(ValueError, match="none of the folds can be scored"):
        held_out_score(Multilabel(), a, (FOLD[:, None] % 2.0).expand_as(a), FOLD)
