import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import ClassContrast, Multiclass


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
    kept = y != -100
    other = gradient[kept] - residual / (2 * kept.sum())
    # a class spreads one unit of probability over the examples of the batch
    torch.testing.assert_close(other.sum(0), torch.zeros(4).double())
    assert (gradient[~kept] == 0).all()


def test_the_residual_of_an_example_does_not_depend_on_the_others(rng):
    a, y = torch.randn(6, 3, generator=rng), torch.tensor([0, 1, 2, -100, 1, 1])
    alone = [ClassContrast().residual(a[i : i + 1], y[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(ClassContrast().residual(a, y), torch.cat(alone))


def test_the_loss_is_least_when_classes_and_examples_find_each_other():
    y = torch.tensor([0, 1, 2, 0])
    right, wrong = 9 * torch.eye(3)[y], 9 * torch.eye(3)[(y + 1) % 3]
    # two examples share a class: that class cannot be sure which of them is meant
    assert ClassContrast().loss(right, y) < 0.2 < ClassContrast().loss(wrong, y)


def test_a_class_that_does_not_occur_adds_nothing():
    y = torch.tensor([0, 1])
    a = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    columns = [-a[:, k].log_softmax(0)[k] for k in (0, 1)]
    rows = torch.nn.functional.cross_entropy(a, y)
    torch.testing.assert_close(ClassContrast().loss(a, y), (rows + sum(columns) / 2) / 2)


def test_a_batch_without_labels_is_finite():
    a = torch.zeros(2, 3, requires_grad=True)
    loss = ClassContrast().loss(a, torch.tensor([-100, -100]))
    loss.backward()
    assert loss == 0
    assert (a.grad == 0).all()


def test_the_score_is_accuracy():
    a, y = torch.eye(3), torch.tensor([0, 1, 1])
    assert ClassContrast().score(a, y) == Multiclass().score(a, y) == pytest.approx(2 / 3)


def test_contrast_cannot_be_smoothed():
    assert ClassContrast().smoothed(0.0) == ClassContrast()
    with pytest.raises(ValueError, match="no smoothed labels"):
        ClassContrast().smoothed(0.1)
