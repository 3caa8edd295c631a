"""Scores against ogb's own Evaluator."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core import metrics
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


def test_scores_without_a_single_label_are_errors():
    with pytest.raises(ValueError, match="all 2 are ignored"):
        Multiclass().score(torch.zeros(2, 3), torch.tensor([-100, -100]))
    with pytest.raises(ValueError, match="rmse needs a measured label"):
        Squared().score(torch.zeros(2, 1), torch.full((2, 1), NAN))
