import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from torch.nn import functional as F

from molhpft.measure.uncertainty import (
    Isotonic,
    expected_calibration_error,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    from_tensors,
    uncalibrated,
)
from tests.toy import NAN

FITS = pytest.mark.parametrize("fit", [fit_temperature, fit_platt, fit_isotonic])
SEEDS = st.integers(0, 10_000)


def split(seed=0, *, n=80, t=3, scale=3.0, missing=0.2):
    """Logits that are too large by `scale`, float64, and labels that are partly unmeasured."""
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(n, t, generator=rng, dtype=torch.float64)
    y = (torch.rand(n, t, generator=rng) < a.sigmoid()).double()
    y[:2] = torch.tensor([[0.0], [1.0]])
    y[2:] = y[2:].masked_fill(torch.rand(n - 2, t, generator=rng) < missing, NAN)
    return scale * a, y


def cross_entropy(a, y, temperature):
    measured = ~y.isnan()
    hedged = y[measured].clone()
    for label, count in ((1, (hedged == 1).sum()), (0, (hedged == 0).sum())):
        hedged[y[measured] == label] = (count + 1) / (count + 2) if label else 1 / (count + 2)
    return F.binary_cross_entropy_with_logits(a[measured] / temperature, hedged).item()


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_temperatures_are_those_a_grid_finds(seed):
    a, y = split(seed)
    grid = torch.linspace(-np.log(20), np.log(20), 2001, dtype=torch.float64).exp()
    found = fit_temperature(a, y).temperatures
    for task, temperature in enumerate(found.tolist()):
        losses = [cross_entropy(a[:, task], y[:, task], t) for t in grid.tolist()]
        best = int(np.argmin(losses))
        assert temperature == pytest.approx(grid[best].item(), rel=0.004)
        assert cross_entropy(a[:, task], y[:, task], temperature) <= losses[best] + 1e-12


def test_the_temperature_that_made_the_labels_is_recovered():
    a, y = split(n=50_000, t=2, scale=3.0)
    expected = torch.full((2,), 3.0, dtype=torch.float64)
    torch.testing.assert_close(fit_temperature(a, y).temperatures, expected, rtol=0.03, atol=0)


def test_temperatures_stay_between_a_twentieth_and_twenty():
    a = torch.tensor([[-0.001, 1.0], [0.001, -1.0]])
    found = fit_temperature(a, torch.tensor([[0.0, 0.0], [1.0, 1.0]])).temperatures
    torch.testing.assert_close(found, torch.tensor([1 / 20, 20.0], dtype=torch.float64))


def test_a_molecule_of_each_class_ranked_right_is_no_reason_to_be_certain():
    a, y = torch.tensor([[-3.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    p = fit_temperature(a, y).probabilities(a)
    torch.testing.assert_close(p, torch.tensor([[1 / 3], [2 / 3]]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-90, 90, width=32), min_size=2, max_size=40), SEEDS)
def test_a_higher_logit_never_gets_a_lower_probability(logits, seed):
    ranked = torch.tensor(logits).sort().values[:, None]
    for fit in (fit_temperature, fit_platt, fit_isotonic):
        p = fit(*split(seed, t=1)).probabilities(ranked)
        assert (p.diff(dim=0) >= 0).all()


@FITS
def test_equal_logits_get_equal_probabilities_wherever_they_stand(fit):
    a = split(n=201, t=1)[0].float()
    calibrated = fit(*split(t=1))
    alone = torch.cat([calibrated.probabilities(row[None]) for row in a])
    assert torch.equal(calibrated.probabilities(a), alone)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_lines_are_those_of_least_loss(seed):
    a, y = split(seed, t=2, scale=2.0)
    found = fit_platt(a, y)
    for task in range(2):
        column, line = a[:, task], (found.slopes[task], found.offsets[task])
        least = cross_entropy(column * line[0] + line[1], y[:, task], 1.0)
        for ds, db in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
            near = cross_entropy(column * (line[0] + ds) + line[1] + db, y[:, task], 1.0)
            assert near >= least
        assert least <= cross_entropy(column, y[:, task], fit_temperature(a, y).temperatures[task])


def least_loss(a, y):
    """Cross-entropy of the best rising line, as scipy finds it, and its slope."""
    x = (a - a.mean()) / a.std()
    labels = (y * (y.sum() + 1) / (y.sum() + 2) + (1 - y) / ((1 - y).sum() + 2)).numpy()

    def loss(line):
        return F.binary_cross_entropy_with_logits(
            line[0] * x + line[1], torch.from_numpy(labels)
        ).item()

    found = minimize(
        loss,
        [0.1, 0.0],
        method="Nelder-Mead",
        options={"maxiter": 4000, "fatol": 1e-13, "xatol": 1e-9},
    )
    return found.fun, found.x[0]


logits_and_labels = st.lists(
    st.tuples(st.floats(-80, 80, width=32), st.booleans()), min_size=4, max_size=60
)


@settings(max_examples=30, deadline=None)
@given(logits_and_labels, st.sampled_from(["as drawn", "confident", "separable", "tied"]))
def test_a_line_has_the_loss_that_a_general_minimiser_finds(pairs, kind):
    a = torch.tensor([logit for logit, _ in pairs], dtype=torch.float64)
    y = torch.tensor([float(label) for _, label in pairs], dtype=torch.float64)
    y[:2] = torch.tensor([0.0, 1.0])
    if kind == "confident":
        a = 60 * (2 * y - 1) * torch.where(torch.arange(len(a)) % 5 == 4, -1, 1) + a / 100
    if kind == "separable":
        a = a.abs() * (2 * y - 1)
    if kind == "tied":
        a = 20 * torch.sign(a)
    assume(a.std() > 1e-3)
    best, slope = least_loss(a, y)
    assume(slope > 1e-6)
    line = fit_platt(a[:, None], y[:, None])
    found = cross_entropy(a * line.slopes[0] + line.offsets[0], y, 1.0)
    assert found == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_a_confident_network_is_calibrated_as_any_other():
    y = (torch.arange(200) % 2).double()[:, None]
    a = 60 * (2 * y - 1) * torch.where(torch.arange(200) % 3 == 0, -1, 1)[:, None]
    line = fit_platt(a, y)
    before, after = (cross_entropy(found, y, 1.0) for found in (a, a * line.slopes + line.offsets))
    assert before > 19
    assert after < 0.65


def test_logits_that_are_all_alike_get_the_rate_of_label_1():
    a = torch.full((8, 1), -60.0)
    y = torch.tensor([[1.0], [1.0], [1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    p = fit_platt(a, y).probabilities(a)
    hedged = (3 * 4 / 5 + 5 / 7) / 8
    torch.testing.assert_close(p, torch.full_like(p, hedged))


def test_the_line_that_made_the_labels_is_recovered():
    a, y = split(n=50_000, t=1, scale=1.0)
    found = fit_platt((a - 5) * 4, y)
    assert found.slopes.item() == pytest.approx(1 / 4, rel=0.03)
    assert found.offsets.item() == pytest.approx(5, rel=0.03)


def test_logits_that_rank_the_wrong_way_round_are_left_as_they_are():
    a, y = torch.tensor([[-3.0], [3.0], [1.0]]), torch.tensor([[1.0], [0.0], [NAN]])
    assert torch.equal(fit_platt(a, y).probabilities(a), a.sigmoid())


def test_temperatures_keep_the_ranking_of_each_task():
    a, y = split()
    p = fit_temperature(a, y).probabilities(a)
    assert torch.equal(p.argsort(0), a.argsort(0))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(0, 3))
def test_isotonic_probabilities_are_those_of_scikit_learn(seed, decimals):
    a, y = split(seed)
    a = a.round(decimals=decimals)  # makes ties
    new = 3 * split(seed + 1)[0]  # some beyond the outermost knots
    found = fit_isotonic(a, y).probabilities(new)
    for task in range(3):
        rows = ~y[:, task].isnan()
        theirs = IsotonicRegression(out_of_bounds="clip")
        theirs.fit(a[rows, task].sigmoid().numpy(), y[rows, task].numpy())
        expected = torch.from_numpy(theirs.predict(new[:, task].sigmoid().numpy()))
        torch.testing.assert_close(found[:, task], expected, rtol=0, atol=1e-12)


def test_no_rounding_of_the_interpolation_leads_beyond_one(rng):
    low, high, start = torch.rand(3, 20_000, generator=rng, dtype=torch.float64)
    inputs = torch.stack([0.3 * low, 0.7 + 0.3 * high], 1)
    outputs = torch.stack([0.1 * start, torch.ones_like(start)], 1)
    many = Isotonic(inputs.flatten(), outputs.flatten(), torch.full((20_000,), 2))
    a = inputs[:, 1].logit() - 1e-15 * torch.arange(1, 9)[:, None]
    assert (many.probabilities(a) <= 1).all()


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_isotonic_leaves_no_error_on_the_molecules_it_was_fitted_on(seed):
    a, y = split(seed, t=1)
    assert expected_calibration_error(a.sigmoid(), y) > 0.02
    assert expected_calibration_error(fit_isotonic(a, y).probabilities(a), y) < 1e-9


@FITS
def test_calibration_repairs_what_is_too_sure_on_other_molecules(fit):
    calibrated = fit(*split(0, n=2_000))
    a, y = split(1, n=2_000)
    after = expected_calibration_error(calibrated.probabilities(a), y)
    assert after < expected_calibration_error(a.sigmoid(), y) / 3


@FITS
def test_tasks_without_both_classes_keep_their_probabilities(fit):
    a, y = split(t=4)
    y[:, 1], y[:, 2], y[:, 3] = 0.0, 1.0, NAN
    p = fit(a, y).probabilities(a)
    torch.testing.assert_close(p[:, 1:], a[:, 1:].sigmoid())
    assert not torch.allclose(p[:, 0], a[:, 0].sigmoid(), atol=0.01)


@FITS
def test_without_molecules_nothing_is_calibrated(fit):
    a = split(t=2)[0]
    p = fit(torch.empty(0, 2), torch.empty(0, 2)).probabilities(a)
    torch.testing.assert_close(p, a.sigmoid())


@FITS
def test_unmeasured_labels_and_other_tasks_change_nothing(fit):
    a, y = split(t=2)
    measured = ~y[:, 0].isnan()
    alone = fit(a[measured, :1], y[measured, :1]).probabilities(a[:, :1])
    a[~measured, 0] = NAN
    both = fit(a, y).probabilities(split(t=2)[0])
    torch.testing.assert_close(both[:, :1], alone, rtol=0, atol=1e-12)


@FITS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_have_the_shape_and_dtype_of_logits(fit, dtype):
    a = 50 * split()[0][:7].to(dtype)
    p = fit(*split()).probabilities(a)
    assert (p.shape, p.dtype) == (a.shape, dtype)
    assert ((p >= 0) & (p <= 1)).all()


def test_uncalibrated_probabilities_are_sigmoids():
    a = split()[0].float()
    torch.testing.assert_close(uncalibrated(3).probabilities(a), a.sigmoid())


@FITS
def test_a_file_gives_back_the_same_probabilities(fit):
    a, y = split()
    y[:, 1] = 1.0
    before = fit(a, y)
    after = from_tensors(before.name, load(save(before.to_tensors())))
    assert type(after) is type(before)
    assert torch.equal(after.probabilities(a), before.probabilities(a))


def test_calibrations_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"^no calibration named 'spline'; there are: temp"):
        from_tensors("spline", {})


@FITS
def test_logits_of_other_tasks_are_refused(fit):
    with pytest.raises(ValueError, match=r"^logits must be \(n, 3\), got \(5, 1\)"):
        fit(*split()).probabilities(torch.zeros(5, 1))


@FITS
def test_measured_logits_must_be_finite(fit):
    with pytest.raises(ValueError, match="must be finite, got nan"):
        fit(torch.tensor([[NAN], [1.0]]), torch.tensor([[0.0], [1.0]]))
