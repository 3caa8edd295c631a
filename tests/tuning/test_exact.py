"""Solved heads against long training and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from molhpft.core.heads import linear_head, mlp_head
from molhpft.core.network import Chain, Network
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.core.task import Rows, Task
from molhpft.tuning.exact import solve_head
from molhpft.tuning.fit import fit, score
from molhpft.tuning.phase import Phase
from tests.toy import NAN, toy_task


def features_task(objective, *, missing=0.0):
    task = toy_task(objective, n=300)
    targets = task.examples.targets.clone()
    if missing:
        holes = torch.rand(targets.shape, generator=torch.Generator().manual_seed(4)) < missing
        targets[holes] = NAN
    return Task("z", Rows(5 * task.examples.inputs + 3, targets), task.splits, objective, 3)


def solved(task, strengths=(0.1,)):
    network = Network(Chain({}), linear_head(6, 3))
    chosen = solve_head(network, task, strengths=strengths)
    return network, chosen


def arrays(task, split):
    rows = task.examples.take(task.rows(split))
    return rows.inputs.double().numpy(), rows.targets.numpy()


def test_each_label_is_scikit_learns_regression_on_the_examples_that_have_it():
    task = features_task(Multilabel(), missing=0.3)
    network, _ = solved(task)
    x, y = arrays(task, "train")
    scaler = StandardScaler().fit(x)
    ours = network(task.examples.take(task.rows("test"))).detach().numpy()
    for k in range(3):
        has = ~np.isnan(y[:, k])
        # torch's deviation divides by n - 1, scikit-learn's by n: the same in the penalty's limit
        model = LogisticRegression(C=0.1, max_iter=5000).fit(scaler.transform(x[has]), y[has, k])
        theirs = model.decision_function(scaler.transform(arrays(task, "test")[0]))
        np.testing.assert_allclose(ours[:, k], theirs, rtol=0.02, atol=0.02)


def test_real_targets_are_solved_by_ridge():
    task = features_task(Squared())
    network, _ = solved(task, strengths=(1e6,))
    x, y = arrays(task, "train")
    theirs = Ridge(alpha=1e-6).fit(x, y).predict(arrays(task, "test")[0])
    ours = network(task.examples.take(task.rows("test"))).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
def test_a_solved_head_is_what_long_training_comes_to(objective):
    task = features_task(objective)
    network, _ = solved(task, strengths=(1e4,))
    trained = Network(Chain({}), linear_head(6, 3))
    phase = Phase(trains="head", epochs=1500, lr=0.03, batch_size=1000)
    fit(trained, phase, task, rng=torch.Generator().manual_seed(0))
    train = task.examples.take(task.rows("train"))
    losses = [objective.loss(n(train), train.targets).item() for n in (network, trained)]
    assert losses[0] <= losses[1] + 1e-3


def test_the_strength_that_validates_best_is_chosen():
    task = features_task(Multilabel())
    strengths = (1e-5, 1e-2, 10.0)
    scores = {s: score(solved(task, (s,))[0], task, "valid") for s in strengths}
    network, chosen = solved(task, strengths)
    assert scores[chosen] == max(scores.values())
    assert score(network, task, "valid") == scores[chosen]


def test_two_classes_have_opposite_logits():
    task = features_task(Multiclass())
    rows = Rows(task.examples.inputs, task.examples.targets.clamp(max=1))
    network = Network(Chain({}), linear_head(6, 2))
    two = Task("two", rows, task.splits, Multiclass(), 2)
    solve_head(network, two, strengths=(1.0,))
    logits = network(rows.take(task.rows("test"))).detach()
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])
    assert score(network, two, "train") > 0.8


def test_a_head_that_is_not_one_linear_layer_is_refused():
    network = Network(Chain({}), mlp_head(6, 3))
    with pytest.raises(ValueError, match="one linear layer, got stages hidden, linear; set head:"):
        solve_head(network, features_task(Multilabel()), strengths=(1.0,))


def test_an_output_of_one_class_cannot_be_solved():
    task = features_task(Multilabel())
    task.examples.targets[:, 1] = 0.0
    with pytest.raises(ValueError, match="both classes in the training split"):
        solved(task)


def test_a_class_that_is_not_in_training_cannot_be_solved():
    task = features_task(Multiclass())
    with pytest.raises(ValueError, match="got 3 of 4; use method lp"):
        solve_head(Network(Chain({}), linear_head(6, 4)), task, strengths=(1.0,))
