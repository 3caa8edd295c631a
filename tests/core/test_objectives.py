"""Residuals against autograd; missing labels change nothing, broken predictions everything."""

from math import inf, isnan, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical

from molhpft.core.evaluate import Predictions
from molhpft.core.metrics import mean_absolute_error, rank_correlation
from molhpft.core.objectives import (
    ClassContrast,
    Joint,
    Multiclass,
    Multilabel,
    Part,
    ScoredByLoss,
    Squared,
)
from molhpft.measure.features import correct_probability, energy
from tests.toy import NAN

CASES = {
    Multiclass(): torch.tensor([0, 2, 1, -100]),
    Multiclass(smoothing=0.2): torch.tensor([0, -100, 1, 1]),
    Multilabel(): torch.tensor([[1, 0, NAN], [0, 1, 1], [NAN, NAN, NAN], [0, 0, 0]]),
    Multilabel(smoothing=0.2): torch.tensor([[1, NAN, NAN], [0, 1, 1], [1, 1, 0], [0, 0, 0]]),
    Squared(): torch.tensor([[1, 0, NAN], [0.5, 1, -1], [NAN, NAN, NAN], [0, 0, 3]]),
    Squared((4.0, 0.0, -2.0), (0.5, 2.0, 30.0)): torch.tensor(
        [[1, 0, NAN], [0.5, 1, -1], [NAN, NAN, NAN], [0, 0, 3]]
    ),
}
cases = pytest.mark.parametrize(("objective", "targets"), CASES.items(), ids=map(str, CASES))


def logits():
    return torch.linspace(-2, 2, 12).reshape(4, 3)


@cases
def test_log_probabilities_are_those_that_the_residual_is_of(objective, targets):
    own = objective.smoothed(0.0)
    log_p = own.log_probabilities(logits())
    if not own.has_classes:
        assert torch.equal(log_p, logits())
        return
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(log_p), *log_p.shape[2:]))
    yes = log_p.exp() if log_p.ndim == 2 else log_p.exp()[:, 0]
    p = own.residual(logits(), targets) + own.labels(targets, outputs=3)
    labelled = (targets != -100) if targets.ndim == 1 else ~targets.isnan().all(1)
    measured = ~p.isnan()
    torch.testing.assert_close(yes[labelled][measured], p[measured])


def test_a_wrapped_objective_has_the_log_probabilities_of_its_own():
    expected = Multiclass().log_probabilities(logits())
    assert torch.equal(ScoredByLoss(Multiclass()).log_probabilities(logits()), expected)
    assert torch.equal(ClassContrast().log_probabilities(logits()), expected)
    joint = Joint(Multilabel(), 2, (Part(Squared(), 1),))
    expected = Multilabel().log_probabilities(logits()[:, :2])
    assert torch.equal(joint.log_probabilities(logits()), expected)


@cases
def test_residual_is_the_gradient_of_the_loss_with_respect_to_the_logits(objective, targets):
    a = logits().requires_grad_()
    (gradient,) = torch.autograd.grad(objective.loss(a, targets), a)
    residual = objective.residual(a.detach(), targets)
    labelled = targets != -100 if targets.ndim == 1 else ~targets.isnan().all(1)
    gradient, measured = gradient[labelled], residual.abs() > 1e-6
    ratio = gradient[measured] / residual[measured]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))  # the loss averages: one constant
    assert (gradient[~measured] == 0).all()


@cases
def test_a_unit_without_labels_has_no_residual_and_no_gradient(objective, targets):
    missing = torch.full_like(targets, -100 if targets.ndim == 1 else NAN)
    a = logits().requires_grad_()
    loss = objective.loss(a, missing)
    (gradient,) = torch.autograd.grad(loss, a)
    assert loss == 0
    assert (gradient == 0).all()
    assert len(objective.residual(a, missing)) == 0


@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
def test_uncertainty_is_the_entropy_of_what_is_predicted_for_measured_labels(scale):
    a = scale * logits()
    y = torch.tensor([[1, 0, NAN], [0, 1, 1], [NAN, NAN, NAN], [0, 0, 0]])
    by_label = Bernoulli(logits=a).entropy().where(y.isfinite(), 0.0).sum()
    torch.testing.assert_close(Multilabel().uncertainty(a, y), by_label)
    classes = torch.tensor([0, 2, 1, -100])
    by_unit = Categorical(logits=a[:3]).entropy().sum()
    for objective in (Multiclass(), Multiclass(smoothing=0.2), ClassContrast()):
        torch.testing.assert_close(objective.uncertainty(a, classes), by_unit)
    with pytest.raises(ValueError, match="leave perturbation out for a regression"):
        Squared().uncertainty(a, y)


@cases
def test_the_residual_is_zero_for_a_perfect_prediction(objective, targets):
    if isinstance(objective, Squared):
        perfect = targets.nan_to_num(0.0)
    else:
        y = objective.labels(targets, outputs=3).nan_to_num(0.5)
        targets = (
            targets[targets != -100] if targets.ndim == 1 else targets[~targets.isnan().all(1)]
        )
        # a logit of infinity would be no answer, and in float32 80 is as good
        perfect = (y.log() if targets.ndim == 1 else torch.logit(y)).clamp(-80, 80)
    residual = objective.residual(perfect, targets)
    torch.testing.assert_close(residual, torch.zeros_like(residual))


def test_pixels_are_units_of_their_own(rng):
    a, y = torch.randn(2, 5, 4, 4, generator=rng), torch.zeros(2, 4, 4, dtype=torch.long)
    y[:, 0] = -100
    residual = Multiclass().residual(a, y)
    assert residual.shape == (2 * 12, 5)
    torch.testing.assert_close(residual[0], a[0, :, 1, 0].softmax(0) - torch.eye(5)[0])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Squared(), "no labels to smooth, got smoothing=0.1"),
        (ClassContrast(), "no smoothed labels"),
    ],
    ids=str,
)
def test_some_objectives_cannot_be_smoothed(objective, message):
    assert objective.smoothed(0.0) == objective
    with pytest.raises(ValueError, match=message):
        objective.smoothed(0.1)


def test_a_scaled_target_is_scored_in_its_own_unit_and_learned_in_standard_deviations(rng):
    y, q = torch.randn(2, 20, 2, generator=rng)
    y[0, 1] = NAN
    scaled = Squared(mean=(5.0, -1.0), std=(10.0, 0.5))
    assert torch.equal(scaled.loss(q, y), Squared().loss(q, y))
    assert torch.equal(scaled.residual(q, y), Squared().residual(q, y))
    alone = [Squared().score(q[:, [k]], y[:, [k]]) for k in range(2)]
    assert scaled.score(q, y) == pytest.approx((10 * alone[0] + alone[1] / 2) / 2)
    assert scaled.column(1).score(q[:, [1]], y[:, [1]]) == pytest.approx(alone[1] / 2)
    torch.testing.assert_close(
        scaled.values(torch.zeros(1, 2)), torch.tensor([[5.0, -1.0]]).double()
    )


def test_smoothed_labels_are_pulled_towards_uniform_and_the_rest_stays():
    targets = torch.tensor([[0.0, 1.0]])
    y = Multilabel().smoothed(0.2).labels(targets, outputs=2)
    torch.testing.assert_close(y, torch.tensor([[0.1, 0.9]]))
    assert torch.equal(Multilabel(smoothing=0.2).smoothed(0.0).labels(targets, outputs=2), targets)
    y = Multiclass().smoothed(0.3).labels(torch.tensor([1]), outputs=3)
    torch.testing.assert_close(y, torch.tensor([[0.1, 0.8, 0.1]]))
    objective = Multiclass(metric="miou", ignore=255)
    assert objective.smoothed(0.1) == Multiclass(metric="miou", smoothing=0.1, ignore=255)


@given(seed=st.integers(0, 999), n=st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_half_of_the_loss_has_the_residual_as_gradient_and_the_other_half_sums_to_nothing_by_class(
    seed, n
):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 4, generator=rng, dtype=torch.double).requires_grad_()
    y = torch.randint(0, 4, (n,), generator=rng)
    y[0] = -100 if n > 1 else y[0]
    (gradient,) = torch.autograd.grad(ClassContrast().loss(a, y), a)
    residual = ClassContrast().residual(a.detach(), y)
    labelled = y != -100
    other = gradient[labelled] - residual / (2 * labelled.sum())
    # a class spreads one unit of probability over the examples of the batch
    torch.testing.assert_close(other.sum(0), torch.zeros(4).double())
    assert (gradient[~labelled] == 0).all()


def test_a_class_that_does_not_occur_adds_nothing():
    y = torch.tensor([0, 1])
    a = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    columns = [-a[:, k].log_softmax(0)[k] for k in (0, 1)]
    rows = torch.nn.functional.cross_entropy(a, y)
    torch.testing.assert_close(ClassContrast().loss(a, y), (rows + sum(columns) / 2) / 2)


def test_contrast_without_labels_is_finite():
    a = torch.zeros(2, 3, requires_grad=True)
    loss = ClassContrast().loss(a, torch.tensor([-100, -100]))
    loss.backward()
    assert loss == 0
    assert (a.grad == 0).all()


def test_the_score_of_contrast_is_accuracy():
    a, y = torch.eye(3), torch.tensor([0, 1, 1])
    assert ClassContrast().score(a, y) == Multiclass().score(a, y) == pytest.approx(2 / 3)


JOINT = Joint(Multilabel(metric="ap"), 2, (Part(Squared(), 1, 0.5),))
TARGETS = torch.tensor([[1, 0, 0.3], [NAN, NAN, -1.0], [0, 1, NAN]])


def test_a_joint_loss_is_the_weighted_sum_and_all_else_is_of_the_main_objective(rng):
    logits = torch.randn(3, 3, generator=rng)
    a, y, main = logits[:, :2], TARGETS[:, :2], Multilabel(metric="ap")
    auxiliary = Squared().loss(logits[:, 2:], TARGETS[:, 2:])
    torch.testing.assert_close(JOINT.loss(logits, TARGETS), main.loss(a, y) + 0.5 * auxiliary)
    assert torch.equal(JOINT.residual(logits, TARGETS), main.residual(a, y))
    assert torch.equal(JOINT.labelled_logits(logits, TARGETS), main.labelled_logits(a, y))
    assert torch.equal(JOINT.uncertainty(logits, TARGETS), main.uncertainty(a, y))
    labels = main.labels(y, outputs=2)
    torch.testing.assert_close(JOINT.labels(TARGETS, outputs=2), labels, equal_nan=True)
    assert (JOINT.score(logits, TARGETS), JOINT.metric) == (main.score(a, y), "ap")
    smoothed = Joint(Multilabel(metric="ap", smoothing=0.2), 2, JOINT.others)
    assert JOINT.smoothed(0.2) == smoothed


def test_an_objective_scored_by_its_loss_is_otherwise_itself(rng):
    logits, scored = torch.randn(3, 3, generator=rng), ScoredByLoss(JOINT)
    assert (scored.metric, scored.has_classes) == ("neg_loss", True)
    assert scored.score(logits, TARGETS) == -JOINT.loss(logits, TARGETS).item()
    assert torch.equal(scored.loss(logits, TARGETS), JOINT.loss(logits, TARGETS))
    assert torch.equal(scored.residual(logits, TARGETS), JOINT.residual(logits, TARGETS))
    assert torch.equal(scored.uncertainty(logits, TARGETS), JOINT.uncertainty(logits, TARGETS))
    ours, theirs = (o.labels(TARGETS, outputs=2) for o in (scored, JOINT))
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    assert scored.smoothed(0.1) == ScoredByLoss(JOINT.smoothed(0.1))
    one_class = TARGETS[:2]
    with pytest.raises(ValueError, match="both positive and negative"):
        JOINT.score(logits[:2], one_class)
    assert scored.score(logits[:2], one_class) < 0


N, C = 8, 3
COLUMNS = [
    Multilabel(),
    Multilabel(smoothing=0.2),
    Multilabel(metric="ap"),
    Squared(),
    Squared((4.0, -2.0, 0.0), (0.5, 30.0, 1.0)),
    ScoredByLoss(Multilabel()),
    Joint(Multilabel(), C, (Part(Squared(), C, 0.5),)),
    Joint(Squared(), C, (Part(Multilabel(), 1, 0.5), Part(Squared(), C - 1))),
]
CLASSES = [
    Multiclass(),
    Multiclass(smoothing=0.2),
    Multiclass(metric="miou", ignore=255),
    ClassContrast(),
]
objectives = pytest.mark.parametrize("objective", [*COLUMNS, *CLASSES], ids=str)


def drawn(objective, seed):
    """Logits, targets of which some are missing, and where in the logits a label was measured."""
    rng = torch.Generator().manual_seed(seed)
    width = 2 * C if isinstance(objective, Joint) else C
    a = torch.randn(N, width, generator=rng)
    if objective in CLASSES:
        y = torch.arange(N) % C
        labelled = torch.rand(N, generator=rng) < 0.7
        labelled[:3] = True  # every class
        return a, torch.where(labelled, y, objective.ignore), labelled[:, None].expand_as(a)
    y = (torch.rand(N, width, generator=rng) < 0.5).float()
    labelled = torch.rand(N, width, generator=rng) < 0.7
    y[:2], labelled[:2] = torch.tensor([[0.0], [1.0]]), True  # both labels, in every column
    labelled[2] = False  # nothing at all
    return a, y.where(labelled, NAN), labelled


def measures(objective, a, y):
    """Everything that is computed from predictions, by name."""
    a = a.clone().requires_grad_()
    loss = objective.loss(a, y)
    (gradient,) = torch.autograd.grad(loss, a)
    a, loss = a.detach(), loss.detach()
    values = {
        "loss": loss,
        "gradient": gradient,
        "residual": objective.residual(a, y),
        "score": objective.score(a, y),
    }
    plain = objective.smoothed(0.0)
    energies = energy(Predictions(a, y), plain)
    values |= {"aie": energies.aie, "per_entry": energies.per_entry}
    if objective.has_classes:
        right = correct_probability(Predictions(a, y), objective)
        values |= {"balanced": energies.balanced, "p(correct)": right}
        values |= {"uncertainty": objective.uncertainty(a, y)}
    return {name: torch.as_tensor(value) for name, value in values.items()}


@objectives
@given(seed=st.integers(0, 10_000), behind=st.sampled_from([0.0, 1e30, inf, -inf, nan]))
@settings(max_examples=25, deadline=None)
def test_what_is_predicted_behind_a_missing_label_changes_nothing(objective, seed, behind):
    a, y, labelled = drawn(objective, seed)
    plain, other = measures(objective, a, y), measures(objective, a.where(labelled, behind), y)
    for name, value in plain.items():
        assert torch.equal(value, other[name]), name


@objectives
@given(seed=st.integers(0, 10_000), broken=st.sampled_from([inf, -inf, nan]))
@settings(max_examples=25, deadline=None)
def test_a_prediction_that_is_not_finite_leaves_no_score_and_no_energy(objective, seed, broken):
    a, y, labelled = drawn(objective, seed)
    places = labelled[:, :C].nonzero()
    row, column = places[seed % len(places)].tolist()
    a[row, column] = broken
    values = measures(objective, a, y)
    for name in ("score", "aie", "per_entry"):
        assert values[name].isnan(), name
    assert values["residual"].isnan().any()
    if objective.has_classes:
        assert values["balanced"].isnan()
        assert values["p(correct)"].isnan().any()


@pytest.mark.parametrize("metric", [mean_absolute_error, rank_correlation])
@given(seed=st.integers(0, 10_000), broken=st.sampled_from([inf, -inf, nan]))
@settings(max_examples=25, deadline=None)
def test_errors_and_ranks_are_none_of_a_prediction_that_is_not_finite(metric, seed, broken):
    a, y, labelled = drawn(Squared(), seed)
    assert metric(y, a.where(labelled, broken)) == metric(y, a)
    places = labelled.nonzero()
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


def test_a_broken_logit_is_never_the_largest():
    a, y = torch.tensor([[nan, 1.0], [2.0, 1.0]]), torch.tensor([0, 0])
    for metric in ("accuracy", "miou"):
        assert isnan(Multiclass(metric=metric).score(a, y))


def test_pixels_are_masked_one_by_one(rng):
    a, y = torch.randn(2, 3, 4, 4, generator=rng), torch.arange(32).view(2, 4, 4) % 3
    y[0, 1, 2] = 255
    objective = Multiclass(metric="miou", ignore=255)
    plain = measures(objective, a, y)
    a[0, :, 1, 2] = nan
    assert all(torch.equal(v, measures(objective, a, y)[name]) for name, v in plain.items())
    a[0, 0, 1, 1] = nan
    assert measures(objective, a, y)["score"].isnan()
