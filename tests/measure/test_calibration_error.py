import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.measure.uncertainty import (
    _measured_labels,
    expected_calibration_error,
    fit_temperature,
)
from tests.toy import NAN


def naive_error(p, y, bins):
    pairs = [(q, label) for q, label in zip(p, y, strict=True) if label == label]
    total = 0.0
    for k in range(bins):
        inside = [(q, label) for q, label in pairs if k / bins < q <= (k + 1) / bins]
        inside += [(q, label) for q, label in pairs if k == 0 and q == 0]
        if inside:
            sure, true = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(pairs) * abs(sure - true)
    return total


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0, NAN])), min_size=1, max_size=30),
    st.integers(1, 20),
)
def test_the_error_is_what_a_loop_over_bins_finds(pairs, bins):
    p, y = zip(*[(0.5, 1.0), *pairs], strict=True)
    columns = (torch.tensor([column], dtype=torch.float64) for column in (p, y))
    found = expected_calibration_error(*columns, bins=bins)
    assert found == pytest.approx(naive_error(p, y, bins), abs=1e-12)


def test_edges_belong_to_the_bin_below_them():
    p, y = torch.tensor([[0.5], [0.6]]), torch.tensor([[1.0], [0.0]])
    assert expected_calibration_error(p, y, bins=2) == pytest.approx((0.5 + 0.6) / 2)


def test_certain_and_right_has_no_error_and_certain_and_wrong_has_all():
    y = torch.tensor([[0.0, 1.0], [1.0, NAN]])
    assert expected_calibration_error(y.nan_to_num(0.3), y) == 0
    assert expected_calibration_error(1 - y.nan_to_num(0.3), y) == 1


@pytest.mark.parametrize("wrong", [-0.1, 1.1, NAN])
def test_what_is_no_probability_has_no_calibration_error(wrong):
    with pytest.raises(ValueError, match=r"^probabilities must lie in \[0, 1\], got"):
        expected_calibration_error(torch.tensor([[wrong]]), torch.tensor([[1.0]]))


def test_without_labels_there_is_no_calibration_error():
    with pytest.raises(ValueError, match="needs a measured label; all 2 are missing"):
        expected_calibration_error(torch.tensor([[0.1, 0.2]]), torch.full((1, 2), NAN))


@pytest.mark.parametrize("use", [expected_calibration_error, fit_temperature, _measured_labels])
def test_labels_are_yes_or_no(use):
    with pytest.raises(ValueError, match=r"^labels must be 0, 1 or NaN, got 0\.5"):
        use(torch.tensor([[0.1, 0.2]]), torch.tensor([[1.0, 0.5]]))


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 1, 1)])
def test_every_label_has_its_prediction(shape):
    with pytest.raises(ValueError, match=r"must both be \(n, t\), got"):
        _measured_labels(torch.zeros(shape), torch.zeros((2, 1) if len(shape) == 2 else shape))
