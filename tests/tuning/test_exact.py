"""Solved heads against long training and against scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from molhpft.core.data import Rows, Task
from molhpft.core.network import Chain, Network, linear_head, mlp_head
from molhpft.core.objectives import (
    ClassContrast,
    Joint,
    Multiclass,
    Multilabel,
    ScoredByLoss,
    Squared,
)
from molhpft.tuning.fit import score
from molhpft.tuning.probe import with_head
from molhpft.tuning.solve_head import solve_head
from tests.toy import NAN, same_weights, toy_task


def features_task(objective, *, missing=0.0):
    task = toy_task(objective, n=300)
    targets = task.examples.targets.clone()
    if missing:
        holes = torch.rand(targets.shape, generator=torch.Generator().manual_seed(4)) < missing
        targets[holes] = NAN
    return Task("z", Rows(5 * task.examples.inputs + 3, targets), task.splits, objective, 3)


def solved(task, inverse_penalties=(0.1,)):
    network = Network(Chain({}), linear_head(6, 3))
    head, chosen = solve_head(network, task, inverse_penalties=inverse_penalties)
    return with_head(network, head), chosen


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
    network, _ = solved(task, inverse_penalties=(1e6,))
    x, y = arrays(task, "train")
    theirs = Ridge(alpha=1e-6).fit(x, y).predict(arrays(task, "test")[0])
    ours = network(task.examples.take(task.rows("test"))).detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_inverse_penalty_that_validates_best_is_chosen():
    task = features_task(Multilabel())
    inverse_penalties = (1e-5, 1e-2, 10.0)
    scores = {s: score(solved(task, (s,))[0], task, "valid") for s in inverse_penalties}
    network, chosen = solved(task, inverse_penalties)
    assert scores[chosen] == max(scores.values())
    assert score(network, task, "valid") == scores[chosen]


def test_two_classes_have_opposite_logits():
    task = features_task(Multiclass())
    rows = Rows(task.examples.inputs, task.examples.targets.clamp(max=1))
    network = Network(Chain({}), linear_head(6, 2))
    two = Task("two", rows, task.splits, Multiclass(), 2)
    network = with_head(network, solve_head(network, two, inverse_penalties=(1.0,))[0])
    logits = network(rows.take(task.rows("test"))).detach()
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])
    assert score(network, two, "train") > 0.8


def test_a_head_that_is_not_one_linear_layer_is_refused():
    network = Network(Chain({}), mlp_head(6, 3))
    with pytest.raises(ValueError, match="one linear layer, got stages hidden, linear; set head:"):
        solve_head(network, features_task(Multilabel()), inverse_penalties=(1.0,))


def test_an_output_of_one_class_cannot_be_solved():
    task = features_task(Multilabel())
    task.examples.targets[:, 1] = 0.0
    with pytest.raises(ValueError, match="both classes in the training split"):
        solved(task)


def test_a_class_that_is_not_in_training_cannot_be_solved():
    task = features_task(Multiclass())
    with pytest.raises(ValueError, match="got 3 of 4; use method lp"):
        solve_head(Network(Chain({}), linear_head(6, 4)), task, inverse_penalties=(1.0,))


def test_the_smallest_of_inverse_penalties_that_validate_alike_is_chosen():
    inputs = torch.tensor([[-3.0], [-2.0], [2.0], [3.0]]).repeat(3, 1)
    rows = Rows(inputs, (inputs > 0).long()[:, 0])
    splits = dict(zip(("train", "valid", "test"), torch.arange(12).chunk(3), strict=True))
    task = Task("apart", rows, splits, Multiclass(), 2)
    network = Network(Chain({}), linear_head(1, 2))
    # every head separates the classes
    assert solve_head(network, task, inverse_penalties=(10.0, 0.1, 1.0))[1] == 0.1


@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0])
def test_ridge_has_the_penalty_that_its_inverse_penalty_says(inverse_penalty):
    task = features_task(Squared())
    network, _ = solved(task, inverse_penalties=(inverse_penalty,))
    x, y = arrays(task, "train")
    scale = x.std(0, ddof=1)
    z = (x - x.mean(0)) / scale
    # the normal equations of sum (q - y)^2 + |w|^2 / C, the bias unpenalised
    gram = z.T @ z + np.eye(6) / inverse_penalty
    w = np.linalg.solve(gram, z.T @ (y - y.mean(0))) / scale[:, None]
    ours = next(iter(network.head)).module
    np.testing.assert_allclose(ours.weight.detach().numpy(), w.T, rtol=1e-3, atol=1e-5)
    b = y.mean(0) - x.mean(0) @ w
    np.testing.assert_allclose(ours.bias.detach().numpy(), b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0])
def test_labels_have_the_penalty_that_their_inverse_penalty_says(objective, inverse_penalty):
    task = features_task(objective)
    network, _ = solved(task, inverse_penalties=(inverse_penalty,))
    x, _ = arrays(task, "train")
    batch = task.examples.take(task.rows("train"))
    residual = objective.residual(network(batch).detach(), batch.targets).double()
    standardised = torch.tensor((x - x.mean(0)) / x.std(0, ddof=1))
    weight = next(iter(network.head)).module.weight.detach() * torch.tensor(x.std(0, ddof=1))
    # where the sum of cross-entropies + |w|^2 / 2C is flat
    torch.testing.assert_close(
        residual.T @ standardised, -weight / inverse_penalty, rtol=0.02, atol=0.02
    )


def test_examples_without_a_class_are_left_out_of_the_solution():
    task = features_task(Multiclass())
    without = task.examples.targets.clone()
    train = task.rows("train")
    without[train[::4]] = Multiclass().ignore
    kept = torch.tensor([row for i, row in enumerate(train.tolist()) if i % 4])
    holey = Task("z", Rows(task.examples.inputs, without), task.splits, Multiclass(), 3)
    network, _ = solved(holey)
    # features are standardised over all examples, so penalties differ a little
    fewer, _ = solved(Task("z", task.examples, {**task.splits, "train": kept}, Multiclass(), 3))
    batch = task.examples.take(task.rows("test"))
    ours, theirs = (n(batch).detach().softmax(1) for n in (network, fewer))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.05)


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel(), Squared()], ids=repr)
def test_what_a_task_is_scored_by_does_not_change_its_solution(objective):
    task = features_task(objective)
    (plain, _), (scored, _) = solved(task), solved(replace(task, objective=ScoredByLoss(objective)))
    assert same_weights(plain, scored)


@pytest.mark.parametrize(
    "objective",
    [ClassContrast(), Joint(Multilabel(), Squared(), 2, 1.0), ScoredByLoss(ClassContrast())],
    ids=lambda objective: type(objective).__name__,
)
def test_an_objective_without_a_solution_is_refused_by_name(objective):
    task = replace(features_task(Multilabel()), objective=objective)
    with pytest.raises(ValueError, match=r"this task is (ClassContrast|Joint): use method lp"):
        solved(task)
