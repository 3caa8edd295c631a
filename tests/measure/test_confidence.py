import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.evaluate import Predictions
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.measure.features import correct_probability, entry_energy
from tests.toy import NAN


def snapshot(logits, targets):
    return Predictions(torch.as_tensor(logits), torch.as_tensor(targets))


def test_a_class_is_right_with_its_softmax_probability(rng):
    a, y = torch.randn(9, 4, generator=rng), torch.arange(9) % 4
    expected = a.softmax(1)[torch.arange(9), y]
    torch.testing.assert_close(correct_probability(snapshot(a, y), Multiclass()), expected)


def test_a_yes_is_right_with_p_and_a_no_with_one_minus_p():
    a = torch.tensor([[2.0, 2.0]])
    p = a.sigmoid()[0, 0].item()
    result = correct_probability(snapshot(a, [[1.0, 0.0]]), Multilabel())
    torch.testing.assert_close(result, torch.tensor([p, 1 - p]))


def test_a_single_yes_among_noes_is_not_taken_for_a_class():
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
    assert result.mean().item() == pytest.approx(1 - entry_energy(values, Multilabel()), abs=1e-6)


@pytest.mark.parametrize(("prediction", "target"), [(0.5, 2.5), (3.0, 1.0), (0.5, 1.0)])
def test_a_regression_has_no_right_answers(prediction, target):
    with pytest.raises(ValueError, match="a regression has none"):
        correct_probability(snapshot([[prediction]], [[target]]), Squared())


def test_a_split_without_labels_gives_no_rows():
    values = snapshot(torch.zeros(2, 3), torch.full((2,), -100))
    assert correct_probability(values, Multiclass()).shape == (0,)
