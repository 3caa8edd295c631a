"""Missing labels against broken predictions: the one changes nothing, the other everything."""

from math import inf, isnan, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.evaluate import Predictions
from molhpft.core.metrics import comparable, mean_absolute_error, measured, rank_correlation
from molhpft.core.objectives import (
    ClassContrast,
    Joint,
    Multiclass,
    Multilabel,
    ScoredByLoss,
    Squared,
)
from molhpft.measure.features import correct_probability, energy
from tests.toy import NAN

COLUMNS = [
    Multilabel(),
    Multilabel(smoothing=0.2),
    Multilabel(metric="ap"),
    Squared(),
    Squared((4.0, -2.0, 0.0), (0.5, 30.0, 1.0)),
    ScoredByLoss(Multilabel()),
    Joint(Multilabel(), Squared(), outputs=3, weight=0.5),
    Joint(Squared(), Multilabel(), outputs=3, weight=0.5),
]
CLASSES = [
    Multiclass(),
    Multiclass(smoothing=0.2),
    Multiclass(metric="miou", ignore=255),
    ClassContrast(),
]
objectives = pytest.mark.parametrize("objective", [*COLUMNS, *CLASSES], ids=str)
N, C = 8, 3


def drawn(objective, seed):
    """Logits, targets of which some are missing, and where in the logits a label was measured."""
    rng = torch.Generator().manual_seed(seed)
    width = 2 * C if isinstance(objective, Joint) else C
    a = torch.randn(N, width, generator=rng)
    if objective in CLASSES:
        y = torch.arange(N) % C
        known = torch.rand(N, generator=rng) < 0.7
        known[:3] = True  # every class
        return a, torch.where(known, y, objective.ignore), known[:, None].expand_as(a)
    y = (torch.rand(N, width, generator=rng) < 0.5).float()
    known = torch.rand(N, width, generator=rng) < 0.7
    y[:2], known[:2] = torch.tensor([[0.0], [1.0]]), True  # both labels, in every column
    known[2] = False  # nothing at all
    return a, y.where(known, NAN), known


def looks(objective, a, y):
    """Everything that is said of predictions, by name."""
    a = a.clone().requires_grad_()
    loss = objective.loss(a, y)
    (gradient,) = torch.autograd.grad(loss, a)
    a, loss = a.detach(), loss.detach()
    said = {
        "loss": loss,
        "gradient": gradient,
        "residual": objective.residual(a, y),
        "score": objective.score(a, y),
    }
    plain = objective.smoothed(0.0)
    energies = energy(Predictions(a, y), plain)
    said |= {"aie": energies.aie, "per_entry": energies.per_entry}
    if objective.has_classes:
        right = correct_probability(Predictions(a, y), objective)
        said |= {"balanced": energies.balanced, "p(correct)": right}
    return {name: torch.as_tensor(value) for name, value in said.items()}


@objectives
@given(seed=st.integers(0, 10_000), behind=st.sampled_from([0.0, 1e30, inf, -inf, nan]))
@settings(max_examples=25, deadline=None)
def test_what_is_predicted_behind_a_missing_label_changes_nothing(objective, seed, behind):
    a, y, known = drawn(objective, seed)
    plain, other = looks(objective, a, y), looks(objective, a.where(known, behind), y)
    for name, value in plain.items():
        assert torch.equal(value, other[name]), name


@objectives
@given(seed=st.integers(0, 10_000), broken=st.sampled_from([inf, -inf, nan]))
@settings(max_examples=25, deadline=None)
def test_a_prediction_that_is_not_finite_leaves_no_score_and_no_energy(objective, seed, broken):
    a, y, known = drawn(objective, seed)
    places = known[:, :C].nonzero()
    row, column = places[seed % len(places)].tolist()
    a[row, column] = broken
    said = looks(objective, a, y)
    for name in ("score", "aie", "per_entry"):
        assert said[name].isnan(), name
    assert said["residual"].isnan().any()
    if objective.has_classes:
        assert said["balanced"].isnan()
        assert said["p(correct)"].isnan().any()


@pytest.mark.parametrize("metric", [mean_absolute_error, rank_correlation])
@given(seed=st.integers(0, 10_000), broken=st.sampled_from([inf, -inf, nan]))
@settings(max_examples=25, deadline=None)
def test_errors_and_ranks_are_none_of_a_prediction_that_is_not_finite(metric, seed, broken):
    a, y, known = drawn(Squared(), seed)
    assert metric(y, a.where(known, broken)) == metric(y, a)
    places = known.nonzero()
    row, column = places[seed % len(places)].tolist()
    a[row, column] = broken
    assert isnan(metric(y, a))


def test_a_head_that_is_broken_for_half_of_the_molecules_is_not_perfect():
    y = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    q = torch.tensor([[1.0], [2.0], [nan], [nan]])
    assert isnan(Squared().score(q, y))
    assert isnan(energy(Predictions(q, y), Squared()).aie)


def test_a_task_whose_predictions_are_broken_is_not_left_out_of_the_mean():
    y = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    a = torch.tensor([[0.0, nan], [1.0, nan]])
    assert isnan(Multilabel().score(a, y))
    assert isnan(energy(Predictions(a, y), Multilabel()).balanced)


def test_a_task_whose_predictions_are_all_alike_is_not_left_out_of_the_mean():
    y = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert isnan(rank_correlation(y, torch.tensor([[0.0, 5.0], [1.0, 5.0]])))


def test_a_broken_logit_is_not_taken_for_the_largest():
    a, y = torch.tensor([[nan, 1.0], [2.0, 1.0]]), torch.tensor([0, 0])
    for metric in ("accuracy", "miou"):
        assert isnan(Multiclass(metric=metric).score(a, y))


def test_pixels_are_masked_one_by_one(rng):
    a, y = torch.randn(2, 3, 4, 4, generator=rng), torch.arange(32).view(2, 4, 4) % 3
    y[0, 1, 2] = 255
    objective = Multiclass(metric="miou", ignore=255)
    plain = looks(objective, a, y)
    a[0, :, 1, 2] = nan
    assert all(torch.equal(v, looks(objective, a, y)[name]) for name, v in plain.items())
    a[0, 0, 1, 1] = nan
    assert looks(objective, a, y)["score"].isnan()


def test_the_mask_is_where_labels_are():
    assert measured(torch.tensor([0.0, NAN, inf])).tolist() == [True, False, True]
    assert measured(torch.tensor([0, -100, 255])).tolist() == [True, False, True]
    assert measured(torch.tensor([0, -100, 255]), ignore=255).tolist() == [True, True, False]


@given(st.permutations([nan, None, -1.0, 0.5]))
def test_a_score_that_is_no_number_is_never_the_highest(scores):
    assert max(scores, key=comparable) == 0.5
    assert sorted(scores, key=comparable)[2:] == [-1.0, 0.5]
