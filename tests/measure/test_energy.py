from dataclasses import astuple

import pytest
import torch
from torch import nn

from molhpft.core.evaluate import Predictions
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, Multilabel, Squared
from molhpft.measure.features import balanced_energy, energy, entry_energy, initial_energy
from tests.toy import NAN


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
    assert entry_energy(perfect, objective) == pytest.approx(0, abs=1e-6)


def test_energy_of_an_undecided_head_is_half_a_root_of_its_labels():
    undecided = snapshot(torch.zeros(3, 4), [[1.0, 0, 1, 0], [1, NAN, NAN, NAN], [NAN] * 4])
    assert initial_energy(undecided, Multilabel()) == pytest.approx((0.5 * 2 + 0.5) / 2)
    assert entry_energy(undecided, Multilabel()) == pytest.approx(0.5)


def test_missing_labels_change_no_energy():
    a = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, NAN, 0], [0, NAN, 1], [1, NAN, NAN], [NAN] * 3, [0, NAN, 0]])
    with_column, without = snapshot(a, y), snapshot(a[:, [0, 2]], y[:, [0, 2]])
    assert energy(with_column, Multilabel()) == energy(without, Multilabel())


def test_balanced_energy_is_not_fooled_by_fitting_the_majority():
    y = torch.tensor([[1.0], *[[0.0]] * 9])
    always_negative = snapshot(torch.full((10, 1), -90.0), y)
    assert entry_energy(always_negative, Multilabel()) == pytest.approx(0.1)
    assert balanced_energy(always_negative, Multilabel()) == pytest.approx(0.5)


def test_balanced_energy_leaves_tasks_of_one_class_out():
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    a = torch.tensor([[0.0, 5.0], [0.0, 5.0]])
    assert balanced_energy(snapshot(a, y), Multilabel()) == pytest.approx(0.5)


def test_a_regression_has_no_balanced_energy():
    values = snapshot([[0.3], [0.7]], [[0.0], [1.0]])  # numbers that happen to be 0 and 1
    assert balanced_energy(values, Squared()) != balanced_energy(values, Squared())  # NaN


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize(
    "objective",
    [Multiclass(), ClassContrast(), Multilabel(), Joint(Multilabel(), Squared(), 2, 0.5)],
    ids=str,
)
def test_energy_does_not_depend_on_how_many_rows_are_taken_at_a_time(
    objective, rows, rng, monkeypatch
):
    a = torch.randn(20, 3, generator=rng)
    y = torch.arange(20) % 3
    y = (y[:, None] == torch.arange(3)).float() if "Multilabel" in str(objective) else y
    whole = energy(snapshot(a, y), objective)
    monkeypatch.setattr("molhpft.measure.features._ROWS", rows)
    pieces = energy(snapshot(a, y), objective)
    assert astuple(pieces) == pytest.approx(astuple(whole), rel=1e-6)


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
