"""Scores against ogb's own Evaluator."""

from math import inf, isnan, nan

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from molhpft.core import metrics
from molhpft.core.metrics import comparable, measured
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from tests.toy import NAN


@pytest.fixture(scope="module")
def evaluator():
    from ogb.graphproppred.evaluate import Evaluator  # seconds to import

    return Evaluator


def random_targets(seed, *, tasks=4, n=40):
    rng = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, tasks, generator=rng) < 0.3).float()
    y[torch.rand(n, tasks, generator=rng) < 0.3] = NAN
    y[:, 1] = torch.where(y[:, 1].isnan(), NAN, 0.0)  # a task of one class
    return y, torch.randn(n, tasks, generator=rng).round(decimals=1)  # rounded: ties


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (Multilabel(), "ogbg-moltox21"),
        (Multilabel(metric="ap"), "ogbg-molpcba"),
        (Squared(), "ogbg-molesol"),
    ],
    ids=["rocauc", "ap", "rmse"],
)
def test_scores_equal_those_of_ogbs_evaluator(evaluator, objective, name, seed):
    y, a = random_targets(seed)
    judge = evaluator(name)
    judge.num_tasks = y.shape[1]
    theirs = judge.eval({"y_true": y.numpy(), "y_pred": a.numpy()})[judge.eval_metric]
    sign = -1 if isinstance(objective, Squared) else 1
    assert objective.score(a, y) == pytest.approx(sign * theirs, abs=1e-6)


def test_a_task_of_one_class_has_no_score():
    y, a = random_targets(0)
    scores = metrics.task_scores("rocauc", y, a)
    assert np.isnan(scores).tolist() == [False, True, False, False]


def test_a_split_without_any_two_class_task_is_an_error():
    y = torch.tensor([[1.0], [NAN], [1.0]])
    with pytest.raises(ValueError, match="both positive and negative labels; none of 1 tasks"):
        Multilabel().score(torch.zeros(3, 1), y)


def test_accuracy_leaves_ignored_units_out():
    a = torch.eye(3)[[0, 1, 2, 0]]
    assert Multiclass().score(a, torch.tensor([0, 1, 1, -100])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["accuracy", "miou"])
def test_classes_without_a_label_have_no_score(metric):
    name = {"accuracy": "accuracy", "miou": "mean IoU"}[metric]
    with pytest.raises(ValueError, match=rf"^{name} needs a labelled unit; all 2 are ignored$"):
        Multiclass(metric=metric).score(torch.zeros(2, 3), torch.tensor([-100, -100]))


def test_numbers_without_a_label_have_no_score():
    with pytest.raises(ValueError, match=r"^rmse needs a measured label"):
        Squared().score(torch.zeros(2, 1), torch.full((2, 1), NAN))


def slow_mean_iou(y, guess, classes):
    """Sets of unit numbers instead of counts."""
    units = range(len(y))
    ious = []
    for k in range(classes):
        labelled, chosen = {i for i in units if y[i] == k}, {i for i in units if guess[i] == k}
        if labelled | chosen:
            ious.append(len(labelled & chosen) / len(labelled | chosen))
    return sum(ious) / len(ious)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_mean_iou_is_overlap_of_sets_whatever_stands_on_ignored_pixels(seed):
    rng = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (2, 3, 4), generator=rng)  # class 3 of 4 is only ever predicted
    a = torch.randn(2, 4, 3, 4, generator=rng)
    y[torch.rand(y.shape, generator=rng) < 0.3] = 255
    y[0, 0, 0] = 1
    labelled = y.flatten() != 255
    guess = a.argmax(1).flatten()[labelled].tolist()
    objective = Multiclass(metric="miou", ignore=255)
    expected = slow_mean_iou(y.flatten()[labelled].tolist(), guess, 4)
    assert objective.score(a, y) == pytest.approx(expected)
    wild = torch.where((y == 255)[:, None], torch.randn(a.shape, generator=rng) * 99, a)
    assert objective.score(wild, y) == pytest.approx(expected)


def test_mean_iou_weighs_rare_classes_as_much_as_common_ones():
    y = torch.tensor([0] * 99 + [1])
    always_common = torch.tensor([[1.0, 0.0]]).expand(100, 2)
    assert Multiclass(metric="miou").score(always_common, y) == pytest.approx(0.99 / 2)
    assert Multiclass().score(always_common, y) == pytest.approx(0.99)


def test_a_class_that_occurs_nowhere_does_not_count():
    a = torch.eye(5)[[0, 1, 1]]
    assert Multiclass(metric="miou").score(a, torch.tensor([0, 1, 1])) == 1.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30))
def test_rank_correlation_is_that_of_scipy_with_ties(pairs):
    y, q = torch.tensor(pairs, dtype=torch.float64).T[:, :, None]
    assume(len(set(y.flatten().tolist())) > 1 and len(set(q.flatten().tolist())) > 1)
    expected = spearmanr(y.flatten(), q.flatten()).statistic
    assert metrics.rank_correlation(y, q) == pytest.approx(expected, abs=1e-9)


def test_errors_and_correlation_leave_unmeasured_labels_and_tasks_out():
    y = torch.tensor([[1.0, NAN, 3.0], [2.0, NAN, 3.0], [4.0, NAN, NAN]])
    q = torch.tensor([[1.0, 9.0, 5.0], [1.0, 9.0, 5.0], [9.0, 9.0, 9.0]])
    assert metrics.mean_absolute_error(y, q) == pytest.approx((6 / 3 + 2) / 2)
    assert metrics.rank_correlation(y[:, :1], q[:, :1]) == pytest.approx(0.75**0.5)
    assert isnan(metrics.rank_correlation(y[:, :1], y[:, :1] * 0))  # equals have no ranks
    with pytest.raises(ValueError, match=r"^mae needs a measured label; all of 3"):
        metrics.mean_absolute_error(y[:, 1:2], q[:, 1:2])
    with pytest.raises(ValueError, match=r"^a correlation needs two different labels"):
        metrics.rank_correlation(y[:, 2:], q[:, 2:])


def test_the_mask_is_where_labels_are():
    assert measured(torch.tensor([0.0, NAN, inf])).tolist() == [True, False, True]
    assert measured(torch.tensor([0, -100, 255])).tolist() == [True, False, True]
    assert measured(torch.tensor([0, -100, 255]), ignore=255).tolist() == [True, True, False]


@given(st.permutations([nan, None, -1.0, 0.5]))
def test_a_score_that_is_no_number_is_never_the_highest(scores):
    assert max(scores, key=comparable) == 0.5
    assert sorted(scores, key=comparable)[2:] == [-1.0, 0.5]
