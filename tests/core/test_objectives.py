"""Residuals against autograd, missing labels against labels that are not there."""

import pytest
import torch

from molhpft.core.objectives import Multiclass, Multilabel, Squared
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


@cases
def test_the_residual_is_zero_for_a_perfect_prediction(objective, targets):
    if isinstance(objective, Squared):
        perfect = targets.nan_to_num(0.0)
    else:
        y = objective.labels(targets, outputs=3).nan_to_num(0.5)
        targets = (
            targets[targets != -100] if targets.ndim == 1 else targets[~targets.isnan().all(1)]
        )
        # a logit of infinity would be no answer, and float32 cannot tell 80 from it
        perfect = (y.log() if targets.ndim == 1 else torch.logit(y)).clamp(-80, 80)
    residual = objective.residual(perfect, targets)
    torch.testing.assert_close(residual, torch.zeros_like(residual))


def test_labels_and_residual_have_the_same_rows():
    for objective, targets in CASES.items():
        residual = objective.residual(logits(), targets)
        assert objective.labels(targets, outputs=3).shape == residual.shape


def test_pixels_are_units_of_their_own(rng):
    a, y = torch.randn(2, 5, 4, 4, generator=rng), torch.zeros(2, 4, 4, dtype=torch.long)
    y[:, 0] = -100
    residual = Multiclass().residual(a, y)
    assert residual.shape == (2 * 12, 5)
    torch.testing.assert_close(residual[0], a[0, :, 1, 0].softmax(0) - torch.eye(5)[0])


@pytest.mark.parametrize(
    ("objective", "targets", "y"),
    [
        (Multiclass(smoothing=0.3), torch.tensor([1]), torch.tensor([[0.0, 1.0, 0.0]])),
        (Multilabel(smoothing=0.3), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])),
        (Squared(), torch.tensor([[0.5, -2.0]]), torch.tensor([[0.5, -2.0]])),
    ],
    ids=str,
)
def test_smoothing_by_nothing_gives_the_labels_themselves(objective, targets, y):
    plain = objective.smoothed(0.0)
    assert torch.equal(plain.labels(targets, outputs=y.shape[1]), y)
    certain = (
        torch.zeros_like(y) if isinstance(objective, Squared) else torch.where(y > 0, 99.0, -99.0)
    )
    certain = y if isinstance(objective, Squared) else certain
    assert plain.loss(certain, targets).item() == pytest.approx(0.0, abs=1e-6)


def test_real_targets_cannot_be_smoothed():
    with pytest.raises(ValueError, match=r"no labels to smooth, got smoothing=0\.1"):
        Squared().smoothed(0.1)


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


def test_smoothed_labels_are_pulled_towards_uniform():
    y = Multilabel().smoothed(0.2).labels(torch.tensor([[0.0, 1.0]]), outputs=2)
    torch.testing.assert_close(y, torch.tensor([[0.1, 0.9]]))
    y = Multiclass().smoothed(0.3).labels(torch.tensor([1]), outputs=3)
    torch.testing.assert_close(y, torch.tensor([[0.1, 0.8, 0.1]]))


def test_smoothing_keeps_the_metric_and_the_ignored_class():
    objective = Multiclass(metric="miou", ignore=255)
    assert objective.smoothed(0.1) == Multiclass(metric="miou", smoothing=0.1, ignore=255)
    assert objective.metric == "miou"
