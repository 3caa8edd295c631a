"""Solved heads against scikit-learn and their normal equations; mixtures against their ends."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn

from molhpft.core.data import Rows, Task
from molhpft.core.network import Chain, Network, Plain, linear_head, mlp_head
from molhpft.core.objectives import (
    ClassContrast,
    Joint,
    Multiclass,
    Multilabel,
    Part,
    ScoredByLoss,
    Squared,
)
from molhpft.tuning.fit import score
from molhpft.tuning.probe import with_head
from molhpft.tuning.solve_head import interpolated, mix, mix_by_stage, solve_head
from tests.toy import NAN, same_weights, scripted, toy_network, toy_task


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


def by_scikit_learn(task, penalty):
    """Predictions of a test split by models of each label, on the examples that have it."""
    (x, y), (test, _) = arrays(task, "train"), arrays(task, "test")
    if isinstance(task.objective, Squared):
        return Ridge(alpha=1 / penalty).fit(x, y).predict(test)
    scaler, columns = StandardScaler().fit(x), []
    for column in y.T:
        has = ~np.isnan(column)
        model = LogisticRegression(C=penalty, max_iter=5000)
        model.fit(scaler.transform(x[has]), column[has])
        columns.append(model.decision_function(scaler.transform(test)))
    return np.stack(columns, 1)


# torch's deviation divides by n - 1, scikit-learn's by n: hence a tolerance, or next to no penalty
@pytest.mark.parametrize(
    ("objective", "missing", "penalty", "tolerance"),
    [(Multilabel(), 0.3, 0.1, 0.02), (Squared(), 0.0, 1e6, 1e-3)],
    ids=str,
)
def test_each_output_is_scikit_learns_model_of_the_examples_that_have_its_label(
    objective, missing, penalty, tolerance
):
    task = features_task(objective, missing=missing)
    network, _ = solved(task, inverse_penalties=(penalty,))
    ours = network(task.examples.take(task.rows("test"))).detach().numpy()
    np.testing.assert_allclose(ours, by_scikit_learn(task, penalty), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("objective", [Multiclass(), Multilabel(), Squared()], ids=str)
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_solution_is_where_the_penalised_loss_is_flat(objective, penalty):
    """The sum of losses + |w|^2 / 2C in standardised features, the bias unpenalised."""
    task = features_task(objective)
    network, _ = solved(task, inverse_penalties=(penalty,))
    batch = task.examples.take(task.rows("train"))
    x = batch.inputs.double()
    residual = objective.residual(network(batch).detach(), batch.targets).double()
    weight = next(iter(network.head)).module.weight.detach() * x.std(0)
    gradient = residual.T @ ((x - x.mean(0)) / x.std(0))
    torch.testing.assert_close(gradient, -weight / penalty, rtol=0.02, atol=0.02)
    torch.testing.assert_close(residual.sum(0), torch.zeros(3).double(), rtol=0, atol=0.02)


def test_the_inverse_penalty_that_validates_best_is_chosen():
    task = features_task(Multilabel())
    inverse_penalties = (1e-5, 1e-2, 10.0)
    scores = {s: score(solved(task, (s,))[0], task, "valid") for s in inverse_penalties}
    network, chosen = solved(task, inverse_penalties)
    assert scores[chosen] == max(scores.values())
    assert score(network, task, "valid") == scores[chosen]


def test_the_smallest_of_inverse_penalties_that_validate_alike_is_chosen():
    inputs = torch.tensor([[-3.0], [-2.0], [2.0], [3.0]]).repeat(3, 1)
    rows = Rows(inputs, (inputs > 0).long()[:, 0])
    splits = dict(zip(("train", "valid", "test"), torch.arange(12).chunk(3), strict=True))
    task = Task("apart", rows, splits, Multiclass(), 2)
    network = Network(Chain({}), linear_head(1, 2))
    # every head separates the classes
    assert solve_head(network, task, inverse_penalties=(10.0, 0.1, 1.0))[1] == 0.1


def test_two_classes_have_opposite_logits():
    task = features_task(Multiclass())
    rows = Rows(task.examples.inputs, task.examples.targets.clamp(max=1))
    network = Network(Chain({}), linear_head(6, 2))
    two = Task("two", rows, task.splits, Multiclass(), 2)
    network = with_head(network, solve_head(network, two, inverse_penalties=(1.0,))[0])
    logits = network(rows.take(task.rows("test"))).detach()
    torch.testing.assert_close(logits[:, 0], -logits[:, 1])
    assert score(network, two, "train") > 0.8


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


def test_what_cannot_be_solved_is_refused():
    def refused(words, task, head=None):
        network = Network(Chain({}), head or linear_head(6, 3))
        with pytest.raises(ValueError, match=words):
            solve_head(network, task, inverse_penalties=(1.0,))

    one_class = features_task(Multilabel())
    one_class.examples.targets[:, 1] = 0.0
    refused("both classes in the training split", one_class)
    classes = features_task(Multiclass())
    refused("got 3 of 4; use method lp", classes, linear_head(6, 4))
    layers = "one linear layer, got stages hidden, linear; set head:"
    refused(layers, classes, mlp_head(6, 3))
    joint = Joint(Multilabel(), 2, (Part(Squared(), 1),))
    for objective in (ClassContrast(), joint, ScoredByLoss(ClassContrast())):
        task = replace(one_class, objective=objective)
        refused(r"this task is (ClassContrast|Joint): use method lp", task)


def weights(seed):
    return {k: v.clone() for k, v in toy_network(seed=seed).state_dict().items()}


@pytest.mark.parametrize(("alpha", "seed"), [(0.0, 1), (1.0, 2)])
def test_the_ends_are_the_two_models(alpha, seed):
    between = interpolated(weights(1), weights(2), alpha)
    assert all(torch.equal(between[k], v) for k, v in weights(seed).items())


def test_batch_norm_statistics_are_interpolated_and_counts_are_not():
    start, end = weights(1), weights(2)
    mean, count = (
        f"backbone.stages.layer0.module.1.{k}" for k in ("running_mean", "num_batches_tracked")
    )
    end[mean] += 4.0
    end[count] += 9
    between = interpolated(start, end, 0.25)
    torch.testing.assert_close(between[mean], start[mean] + 1.0)
    assert between[count] == end[count]


def test_the_mixture_that_validates_best_is_taken():
    task, end, start = toy_task(), toy_network(seed=2), toy_network(seed=1)
    alphas = (0.0, 0.5, 1.0)
    expected = {}
    for alpha in alphas:
        candidate = toy_network()
        candidate.load_state_dict(interpolated(weights(1), weights(2), alpha))
        expected[alpha] = score(candidate, task, "valid")
    network, chosen = mix(start, end, task, alphas=alphas)
    assert same_weights(end, toy_network(seed=2))
    assert expected[chosen] == max(expected.values())
    candidate.load_state_dict(interpolated(weights(1), weights(2), chosen))
    assert same_weights(network, candidate)


def test_the_smallest_of_alphas_that_validate_alike_is_taken():
    task, network = toy_task(), toy_network(seed=2)
    # the ends are one network, and so is all that lies between
    assert mix(network, network, task, alphas=(1.0, 0.25, 0.5))[1] == 0.25


def test_a_mixture_whose_score_is_nan_is_never_taken():
    ends = toy_network(seed=1), toy_network(seed=2)
    network, chosen = mix(*ends, scripted(NAN, 0.5, NAN, 0.1), alphas=(0.0, 0.3, 0.6, 1.0))
    assert chosen == 0.3
    candidate = toy_network()
    candidate.load_state_dict(interpolated(weights(1), weights(2), 0.3))
    assert same_weights(network, candidate)
    with pytest.raises(ValueError, match=r"^nothing to choose among: 2 scores, none of them fin"):
        mix(*ends, scripted(NAN, NAN), alphas=(0.0, 0.5))


def linear_ends():
    """Two networks without batch norm, of two stages and a head."""
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        stages = {"low": Plain(nn.Linear(6, 5), width=5), "high": Plain(nn.Linear(5, 4), width=4)}
        ends.append(Network(Chain(stages), linear_head(4, 3)))
    return ends


def mixed_by_hand(start, end, alphas):
    """Each stage of `end` and of `start` added up by its own mixing weight."""
    mixed = {}
    for name, value in end.state_dict().items():
        alpha = alphas["head" if name.startswith("head.") else name.split(".")[2]]
        mixed[name] = (1 - alpha) * start.state_dict()[name] + alpha * value
    return mixed


def test_the_first_step_of_mixing_weights_is_against_the_slope_of_the_validation_loss():
    task, (start, end) = scripted(0.1, 0.9), linear_ends()
    rows = task.rows("valid")
    batch = task.examples.take(rows)

    def loss(**changed):
        network = deepcopy(end)
        at = dict.fromkeys(("low", "high", "head"), 1.0) | changed
        network.load_state_dict(mixed_by_hand(start, end, at))
        with torch.no_grad():
            return task.objective.loss(network(batch), batch.targets).item()

    falls = {name: loss(**{name: 0.99}) < loss() for name in ("low", "high", "head")}
    assert set(falls.values()) == {True, False}  # so that both directions are seen
    network, alphas = mix_by_stage(start, end, task, steps=1, lr=0.05)
    assert alphas == pytest.approx({name: 0.95 if fall else 1.0 for name, fall in falls.items()})
    expected = mixed_by_hand(start, end, alphas)
    torch.testing.assert_close(dict(network.state_dict()), expected)


def test_a_mixture_by_stage_validates_no_worse_than_its_ends_way_and_mixes_statistics():
    task, start, end = toy_task(), toy_network(seed=1), toy_network(seed=2)
    network, alphas = mix_by_stage(start, end, task, steps=20, lr=0.1)
    assert score(network, task, "valid") > score(end, task, "valid")
    assert len(set(alphas.values())) > 1
    assert all(0 <= alpha <= 1 for alpha in alphas.values())
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            expected = mixed_by_hand(start, end, alphas)[name]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert same_weights(end, toy_network(seed=2))
    assert same_weights(start, toy_network(seed=1))
    assert not any(p.grad is not None for p in (*start.parameters(), *end.parameters()))


def test_a_mixture_by_stage_counts_classes_and_keeps_no_logits(monkeypatch):
    def all_at_once(*_):
        raise AssertionError("every logit was kept")

    start, end, task = toy_network(seed=1), toy_network(), toy_task()
    mixed, _ = mix_by_stage(start, end, task, steps=2, lr=0.1)
    monkeypatch.setattr(Multiclass, "score", all_at_once)
    again, _ = mix_by_stage(start, end, task, steps=2, lr=0.1)
    assert same_weights(mixed, again)


def test_a_mixture_by_stage_of_no_steps_or_of_no_better_score_is_the_end():
    start, end = toy_network(seed=1), toy_network(seed=2)
    for task, steps in ((toy_task(), 0), (scripted(0.5, 0.1, NAN, 0.5), 3)):
        network, alphas = mix_by_stage(start, end, task, steps=steps, lr=0.1)
        assert set(alphas.values()) == {1.0}
        assert same_weights(network, end)
    with pytest.raises(ValueError, match=r"^nothing to choose among: 2 scores, none of them fin"):
        mix_by_stage(start, end, scripted(NAN, NAN), steps=1, lr=0.1)
