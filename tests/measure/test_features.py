"""Energy, p(correct), shift and drift."""

from copy import deepcopy
from dataclasses import astuple
from math import isnan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from molhpft.core.evaluate import Predictions, take
from molhpft.core.network import Chain, Network, Plain, linear_head
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, Multilabel, Part, Squared
from molhpft.measure.features import (
    RunningCalibration,
    RunningEnergy,
    RunningShift,
    batch_norm_drift,
    correct_probability,
    energy,
    head_norm,
    initial_energy,
    shift,
)
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase
from tests.toy import NAN, toy_network, toy_task


def calibration_error(predictions, objective):
    running = RunningCalibration(objective)
    running.add(predictions)
    return running.value()


def snapshot(logits, targets):
    return Predictions(torch.as_tensor(logits), torch.as_tensor(targets))


def test_energy_of_a_confident_wrong_softmax_head_is_root_two():
    wrong = snapshot([[50.0, 0, 0]] * 4, [2, 1, 2, 1])
    assert initial_energy(wrong, Multiclass()) == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    ("objective", "perfect"),
    [
        (Multiclass(), snapshot([[90.0, 0, 0], [0, 90, 0]], [0, 1])),
        (Multilabel(), snapshot([[90.0, -90], [-90, 3]], [[1.0, 0], [0, NAN]])),
        (Squared(), snapshot([[2.0, 1], [3, 7]], [[2.0, 1], [3, NAN]])),
    ],
    ids=str,
)
def test_a_perfect_head_has_no_energy(objective, perfect):
    assert initial_energy(perfect, objective) == pytest.approx(0, abs=1e-6)
    assert energy(perfect, objective).per_entry == pytest.approx(0, abs=1e-6)


def test_energy_of_an_undecided_head_is_half_a_root_of_its_labels():
    undecided = snapshot(torch.zeros(3, 4), [[1.0, 0, 1, 0], [1, NAN, NAN, NAN], [NAN] * 4])
    assert initial_energy(undecided, Multilabel()) == pytest.approx((0.5 * 2 + 0.5) / 2)
    assert energy(undecided, Multilabel()).per_entry == pytest.approx(0.5)


def test_missing_labels_change_no_energy():
    a = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, NAN, 0], [0, NAN, 1], [1, NAN, NAN], [NAN] * 3, [0, NAN, 0]])
    with_column, without = snapshot(a, y), snapshot(a[:, [0, 2]], y[:, [0, 2]])
    assert energy(with_column, Multilabel()) == energy(without, Multilabel())


def test_balanced_energy_is_not_fooled_by_fitting_the_majority():
    y = torch.tensor([[1.0], *[[0.0]] * 9])
    always_negative = snapshot(torch.full((10, 1), -90.0), y)
    assert energy(always_negative, Multilabel()).per_entry == pytest.approx(0.1)
    assert energy(always_negative, Multilabel()).balanced == pytest.approx(0.5)


def test_balanced_energy_leaves_tasks_of_one_class_out():
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    a = torch.tensor([[0.0, 5.0], [0.0, 5.0]])
    assert energy(snapshot(a, y), Multilabel()).balanced == pytest.approx(0.5)


def test_a_regression_has_no_balanced_energy():
    values = snapshot([[0.3], [0.7]], [[0.0], [1.0]])  # numbers that happen to be 0 and 1
    assert isnan(energy(values, Squared()).balanced)


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize(
    "objective",
    [
        Multiclass(),
        ClassContrast(),
        Multilabel(),
        Joint(Multilabel(), 2, (Part(Squared(), 1, 0.5),)),
    ],
    ids=str,
)
def test_energy_does_not_depend_on_how_many_rows_are_read_at_a_time(
    objective, rows, rng, monkeypatch
):
    a = torch.randn(20, 3, generator=rng)
    y = torch.arange(20) % 3
    y = (y[:, None] == torch.arange(3)).float() if "Multilabel" in str(objective) else y
    whole = energy(snapshot(a, y), objective)
    monkeypatch.setattr("molhpft.measure.features._ROWS", rows)
    pieces = energy(snapshot(a, y), objective)
    assert astuple(pieces) == pytest.approx(astuple(whole), rel=1e-6)


def test_energy_and_calibration_of_pieces_are_those_of_the_whole(rng):
    objective = Multiclass(metric="miou")
    a = torch.randn(6, 3, 4, 5, generator=rng)
    y = torch.randint(3, (6, 4, 5), generator=rng)
    energies, errors = RunningEnergy(objective), RunningCalibration(objective)
    for some in torch.split(torch.arange(6), 4):
        energies.add(snapshot(a[some], y[some]))
        errors.add(snapshot(a[some], y[some]))
    residual = objective.residual(a, y).double()
    hot = objective.labels(y, outputs=3)
    assert energies.value().aie == pytest.approx(residual.norm(dim=1).mean().item())
    assert energies.value().per_entry == pytest.approx(residual.abs().mean().item())
    balanced = sum(residual.abs()[:, c][hot[:, c] == k].mean() for c in range(3) for k in (0, 1))
    assert energies.value().balanced == pytest.approx(balanced.item() / 6)
    assert errors.value() == pytest.approx(calibration_error(snapshot(a, y), objective))


def test_the_energy_of_class_contrast_is_that_of_the_same_classes_by_softmax(rng):
    values = snapshot(torch.randn(9, 3, generator=rng), torch.arange(9) % 3)
    assert energy(values, ClassContrast()) == energy(values, Multiclass())


def test_energy_falls_as_a_head_is_trained(rng):
    z = torch.randn(40, 5, generator=rng)
    y = (z[:, :2] > 0).float()
    head = nn.Linear(5, 2)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    energies = []
    for _ in range(20):
        energies.append(initial_energy(snapshot(head(z).detach(), y), Multilabel()))
        optimizer.zero_grad()
        Multilabel().loss(head(z), y).backward()
        optimizer.step()
    assert energies == sorted(energies, reverse=True)


def test_a_class_is_right_with_its_softmax_probability(rng):
    a, y = torch.randn(9, 4, generator=rng), torch.arange(9) % 4
    expected = a.softmax(1)[torch.arange(9), y]
    torch.testing.assert_close(correct_probability(snapshot(a, y), Multiclass()), expected)


def test_a_yes_is_right_with_p_and_a_no_with_one_minus_p():
    a = torch.tensor([[2.0, 2.0]])
    p = a.sigmoid()[0, 0].item()
    result = correct_probability(snapshot(a, [[1.0, 0.0]]), Multilabel())
    torch.testing.assert_close(result, torch.tensor([p, 1 - p]))


def test_a_single_yes_among_noes_is_no_class():
    result = correct_probability(snapshot(torch.zeros(2, 3), torch.eye(3)[:2]), Multilabel())
    torch.testing.assert_close(result, torch.full((6,), 0.5))


def test_only_measured_labels_have_a_right_answer():
    y = torch.tensor([[1.0, NAN], [NAN, NAN], [NAN, 0.0]])
    a = torch.tensor([[1.0, 5.0], [5.0, 5.0], [5.0, -1.0]])
    result = correct_probability(snapshot(a, y), Multilabel())
    torch.testing.assert_close(result, torch.tensor(1.0).sigmoid().expand(2))


def test_unlabelled_units_are_left_out(rng):
    a, y = torch.randn(2, 3, 4, 4, generator=rng), torch.zeros(2, 4, 4, dtype=torch.long)
    y[:, 0] = -100
    result = correct_probability(snapshot(a, y), Multiclass())
    assert result.shape == (2 * 12,)
    torch.testing.assert_close(result[0], a[0, :, 1, 0].softmax(0)[0])


@pytest.mark.parametrize(
    ("objective", "targets"),
    [
        (Multiclass(), torch.tensor([0, 2])),
        (Multilabel(), torch.tensor([[1.0, 0, 0], [0, NAN, 1]])),
    ],
    ids=str,
)
def test_label_smoothing_does_not_change_what_is_right(objective, targets, rng):
    values = snapshot(torch.randn(2, 3, generator=rng), targets)
    plain = correct_probability(values, objective)
    smoothed = correct_probability(values, objective.smoothed(0.2))
    torch.testing.assert_close(smoothed, plain, rtol=0, atol=0)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 1.0, 100.0]))
@settings(max_examples=25, deadline=None)
def test_it_is_a_probability_and_what_energy_leaves_of_one(seed, scale):
    rng = torch.Generator().manual_seed(seed)
    y = (torch.rand(6, 3, generator=rng) < 0.5).float()
    y = y.masked_fill(torch.rand(6, 3, generator=rng) < 0.3, NAN)
    y[0, 0] = 1
    values = snapshot(scale * torch.randn(6, 3, generator=rng), y)
    result = correct_probability(values, Multilabel())
    assert ((result >= 0) & (result <= 1)).all()
    left = 1 - energy(values, Multilabel()).per_entry
    assert result.mean().item() == pytest.approx(left, abs=1e-6)


def test_a_regression_has_no_right_answers():
    with pytest.raises(ValueError, match="a regression has none"):
        correct_probability(snapshot([[0.5]], [[1.0]]), Squared())


@pytest.fixture
def z(rng):
    return torch.randn(20, 7, generator=rng)


def test_features_that_stay_have_no_distance_and_cosine_one(z):
    result = shift(z, z)
    assert result.distance == 0
    assert result.cosine == pytest.approx(1)
    assert result.norm == result.start_norm
    assert result.dot == pytest.approx(z.square().sum(1).mean().item(), rel=1e-6)


@pytest.mark.parametrize(("factor", "cosine", "distance"), [(3, 1, 2), (-1, -1, 2)])
def test_stretching_keeps_the_direction_and_turning_round_reverses_it(z, factor, cosine, distance):
    result = shift(z, factor * z)
    assert result.cosine == pytest.approx(cosine)
    assert result.norm == pytest.approx(abs(factor) * result.start_norm)
    assert result.distance == pytest.approx(distance * result.start_norm)


@pytest.mark.parametrize("size", [1, 6, 20])
def test_features_that_come_in_parts_have_the_shift_of_the_whole(z, rng, size):
    other, running = torch.randn(20, 7, generator=rng), RunningShift()
    for before, after in zip(z.split(size), other.split(size), strict=True):
        running.add(before, after)
    assert running.mean() == shift(z, other)


def test_feature_maps_are_compared_whole(rng):
    maps = torch.randn(4, 3, 2, 2, generator=rng)
    lengths = maps.flatten(1).norm(dim=1)
    assert shift(maps, 2 * maps).distance == pytest.approx(lengths.mean().item())


def test_features_of_different_examples_cannot_be_compared(z):
    with pytest.raises(ValueError, match=r"one shape, got \(20, 7\) and \(19, 7\)"):
        shift(z, z[1:])


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def task():
    return toy_task()


def features(network, task):
    return take(network, task.batches("train", size=8)).features


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_drift_is_what_finetuning_at_learning_rate_zero_does(task, dropout):
    network = toy_network(dropout=dropout)
    drift = batch_norm_drift(network, task, epochs=3, rng=seeded(), size=8)
    tuned = deepcopy(network)
    # a rate so small that float32 weights do not change: a phase refuses 0
    phase = Phase(trains="all", epochs=3, lr=1e-30, batch_size=8, optimizer="sgd")
    fit(tuned, phase, task, rng=seeded())
    assert drift == shift(features(network, task), features(tuned, task))
    assert drift.distance > 0.1


def test_a_network_without_batch_norm_does_not_drift(task):
    layer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5))
    network = Network(Chain({"layer": Plain(layer, width=8)}), linear_head(8, 3))
    assert batch_norm_drift(network, task, epochs=2, rng=seeded()).distance == 0


def test_statistics_that_have_arrived_drift_no_more(task):
    # one batch an epoch and no dropout: every epoch pulls to the same statistics
    network = toy_network()
    network.train()
    batch = next(task.batches("train", size=1024))
    for _ in range(300):
        network(batch)
    assert batch_norm_drift(network, task, epochs=2, rng=seeded()).distance < 1e-5


def test_the_generator_decides_all(task):
    a, b, other = (
        batch_norm_drift(toy_network(dropout=0.5), task, epochs=1, rng=rng, size=8)
        for rng in (seeded(), seeded(), torch.Generator().manual_seed(4))
    )
    assert a == b
    assert a != other


def test_epochs_cannot_be_negative(task):
    with pytest.raises(ValueError, match=r"^epochs is at least 0, got -1"):
        batch_norm_drift(toy_network(), task, epochs=-1, rng=seeded())


def test_batches_are_by_default_as_long_as_those_of_a_phase():
    task = toy_task(n=3 * 129)
    drift = batch_norm_drift(toy_network(), task, epochs=1, rng=seeded())
    tuned = toy_network()
    phase = Phase(trains="all", epochs=1, lr=1e-30, optimizer="sgd")
    fit(tuned, phase, task, rng=seeded())
    expected = shift(features(toy_network(), task), features(tuned, task))
    assert drift.distance == pytest.approx(expected.distance, rel=1e-5)


def guo(confidence, right, *, bins=15):
    """Expected calibration error as Guo et al. (2017) write it, bin by bin."""
    total = 0.0
    for m in range(bins):
        members = [i for i, c in enumerate(confidence) if m / bins < c <= (m + 1) / bins]
        if members:
            gap = sum(right[i] - confidence[i] for i in members) / len(members)
            total += len(members) / len(confidence) * abs(gap)
    return total


def test_calibration_of_classes_is_that_of_the_most_probable_one():
    torch.manual_seed(0)
    logits, targets = 2 * torch.randn(300, 4), torch.randint(4, (300,))
    targets[:7] = -100
    p = logits.double().softmax(1)[7:]
    right = (p.argmax(1) == targets[7:]).double().tolist()
    error = calibration_error(snapshot(logits, targets), Multiclass(smoothing=0.1))
    assert error == pytest.approx(guo(p.max(1).values.tolist(), right), abs=1e-6)


def test_calibration_of_labels_pools_those_that_are_measured():
    torch.manual_seed(0)
    logits, targets = 2 * torch.randn(200, 3), torch.randint(2, (200, 3)).float()
    targets[torch.rand(200, 3) < 0.3] = NAN
    seen = ~targets.isnan()
    expected = guo(logits.sigmoid()[seen].tolist(), targets[seen].tolist())
    assert calibration_error(snapshot(logits, targets), Multilabel()) == pytest.approx(expected)


def test_calibration_does_not_depend_on_how_many_rows_are_read_at_a_time(monkeypatch):
    torch.manual_seed(0)
    predictions = snapshot(torch.randn(50, 3), torch.randint(3, (50,)))
    whole = calibration_error(predictions, Multiclass())
    monkeypatch.setattr("molhpft.measure.features._ROWS", 7)
    assert calibration_error(predictions, Multiclass()) == pytest.approx(whole)


def test_calibration_is_nan_of_nothing_and_of_broken_predictions_and_refused_of_numbers():
    unlabelled = snapshot(torch.zeros(4, 2), torch.full((4, 2), NAN))
    broken = snapshot([[NAN, 0.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]])
    assert isnan(calibration_error(unlabelled, Multilabel()))
    assert isnan(calibration_error(broken, Multilabel()))
    with pytest.raises(ValueError, match="a regression has none"):
        calibration_error(snapshot(torch.zeros(4, 2), torch.zeros(4, 2)), Squared())


def test_the_norm_of_a_head_is_that_of_all_its_weights():
    head = linear_head(2, 1)
    with torch.no_grad():
        head.stages["linear"].module.weight[:] = torch.tensor([[2.0, 3.0]])
        head.stages["linear"].module.bias[:] = 6.0
    assert head_norm(head) == pytest.approx(7.0)
    assert isnan(head_norm(Chain({})))
