"""Calibration against grids and general minimisers, conformal sets and intervals against ranks."""

import math
from fractions import Fraction

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
    SetCoverage,
    expected_calibration_error,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    from_tensors,
    interval_coverage,
    interval_widths,
    log_loss,
    prediction_sets,
    set_coverage,
    set_thresholds,
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


def platt_labels(y):
    ones, zeros = (y == 1).sum(), (y == 0).sum()
    return torch.where(y == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))


def cross_entropy(a, y):
    """Mean loss of logits with Platt's labels, over measured labels."""
    measured = ~y.isnan()
    labels = platt_labels(y[measured]).double().expand(a[..., measured].shape)
    losses = F.binary_cross_entropy_with_logits(a[..., measured], labels, reduction="none")
    return losses.mean(-1)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_temperatures_are_the_best_of_a_grid(seed):
    a, y = split(seed)
    grid = torch.linspace(-np.log(20), np.log(20), 2001, dtype=torch.float64).exp()
    for task, temperature in enumerate(fit_temperature(a, y).temperatures):
        losses = cross_entropy(a[:, task] / grid[:, None], y[:, task])
        assert temperature.item() == pytest.approx(grid[losses.argmin()].item(), rel=0.004)
        assert cross_entropy(a[:, task] / temperature, y[:, task]) <= losses.min() + 1e-12


def test_temperatures_stay_between_a_twentieth_and_twenty():
    a = torch.tensor([[-0.001, 1.0], [0.001, -1.0]])
    result = fit_temperature(a, torch.tensor([[0.0, 0.0], [1.0, 1.0]])).temperatures
    torch.testing.assert_close(result, torch.tensor([1 / 20, 20.0], dtype=torch.float64))


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


def least_loss(a, y):
    """Cross-entropy of the best line, by a general minimiser of scipy, and its slope."""
    x, labels = (a - a.mean()) / a.std(), platt_labels(y).double()

    def loss(line):
        return F.binary_cross_entropy_with_logits(line[0] * x + line[1], labels).item()

    options = {"maxiter": 4000, "fatol": 1e-13, "xatol": 1e-9}
    best = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options=options)
    return best.fun, best.x[0]


logits_and_labels = st.lists(
    st.tuples(st.floats(-80, 80, width=32), st.booleans()), min_size=4, max_size=60
)


@settings(max_examples=30, deadline=None)
@given(logits_and_labels, st.sampled_from(["as drawn", "confident", "separable", "tied"]))
def test_a_line_has_the_loss_of_a_general_minimiser(pairs, kind):
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
    loss = cross_entropy(a * line.slopes[0] + line.offsets[0], y).item()
    assert loss == pytest.approx(best, rel=1e-6, abs=1e-9)


def test_logits_that_are_all_alike_get_the_rate_of_label_1():
    a = torch.full((8, 1), -60.0)
    y = torch.tensor([[1.0], [1.0], [1.0], [0.0], [0.0], [0.0], [0.0], [0.0]])
    p = fit_platt(a, y).probabilities(a)
    rate = (3 * 4 / 5 + 5 / 7) / 8
    torch.testing.assert_close(p, torch.full_like(p, rate))


def test_the_line_that_made_the_labels_is_recovered():
    a, y = split(n=50_000, t=1, scale=1.0)
    result = fit_platt((a - 5) * 4, y)
    assert result.slopes.item() == pytest.approx(1 / 4, rel=0.03)
    assert result.offsets.item() == pytest.approx(5, rel=0.03)


def test_logits_that_rank_the_wrong_way_round_are_left_as_they_are():
    a, y = torch.tensor([[-3.0], [3.0], [1.0]]), torch.tensor([[1.0], [0.0], [NAN]])
    assert torch.equal(fit_platt(a, y).probabilities(a), a.sigmoid())


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(0, 3))
def test_isotonic_probabilities_are_those_of_scikit_learn(seed, decimals):
    a, y = split(seed)
    a = a.round(decimals=decimals)  # makes ties
    new = 3 * split(seed + 1)[0]  # some beyond the outermost knots
    result = fit_isotonic(a, y).probabilities(new)
    for task in range(3):
        rows = ~y[:, task].isnan()
        theirs = IsotonicRegression(out_of_bounds="clip")
        theirs.fit(a[rows, task].sigmoid().numpy(), y[rows, task].numpy())
        expected = torch.from_numpy(theirs.predict(new[:, task].sigmoid().numpy()))
        torch.testing.assert_close(result[:, task], expected, rtol=0, atol=1e-12)


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
    seen = ~y.isnan()
    p, y = fit_isotonic(a, y).probabilities(a)[seen].round(decimals=9), y[seen]
    for level in p.unique():
        assert y[p == level].mean().item() == pytest.approx(level.item(), abs=1e-8)


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


@FITS
def test_a_file_gives_back_the_same_probabilities(fit):
    a, y = split()
    y[:, 1] = 1.0
    before = fit(a, y)
    after = from_tensors(before.name, load(save(before.to_tensors())))
    assert type(after) is type(before)
    assert torch.equal(after.probabilities(a), before.probabilities(a))


def test_uncalibrated_probabilities_are_sigmoids():
    a = split()[0].float()
    torch.testing.assert_close(uncalibrated(3).probabilities(a), a.sigmoid())


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


def naive_error(p, y, bins=15):
    pairs = [(q, label) for q, label in zip(p, y, strict=True) if not math.isnan(label)]
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
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0, NAN])), min_size=1, max_size=30)
)
def test_the_error_is_what_a_loop_over_bins_finds(pairs):
    p, y = zip(*[(0.5, 1.0), *pairs], strict=True)
    columns = (torch.tensor([column], dtype=torch.float64) for column in (p, y))
    result = expected_calibration_error(*columns)
    assert result == pytest.approx(naive_error(p, y), abs=1e-12)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, NAN])
def test_what_is_no_probability_has_no_calibration_error(wrong):
    with pytest.raises(ValueError, match=r"^probabilities must lie in \[0, 1\], got"):
        expected_calibration_error(torch.tensor([[wrong]]), torch.tensor([[1.0]]))


def test_without_labels_there_is_no_calibration_error():
    with pytest.raises(ValueError, match="needs a measured label; all 2 are missing"):
        expected_calibration_error(torch.tensor([[0.1, 0.2]]), torch.full((1, 2), NAN))


@pytest.mark.parametrize("use", [expected_calibration_error, fit_temperature, log_loss])
def test_labels_are_yes_or_no(use):
    with pytest.raises(ValueError, match=r"^labels must be 0, 1 or NaN, got 0\.5"):
        use(torch.tensor([[0.1, 0.2]]), torch.tensor([[1.0, 0.5]]))


@pytest.mark.parametrize("shape", [(2,), (1, 2), (2, 1, 1)])
def test_every_label_has_its_prediction(shape):
    with pytest.raises(ValueError, match=r"must both be \(n, t\), got"):
        log_loss(torch.zeros(shape), torch.zeros((2, 1) if len(shape) == 2 else shape))


LEVELS = st.sampled_from(["0.05", "0.3", "0.5", "0.55", "0.7", "0.8", "0.9", "0.95", "0.99"])


def classified(seed, *, n, t, missing=0.0):
    """Logits of a network that is too sure, and labels, of which one in five is yes."""
    rng = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, t, generator=rng) < 0.2).double()
    a = 4 * torch.randn(n, t, generator=rng, dtype=torch.float64) + 2 * y - 1
    return a, y.masked_fill(torch.rand(n, t, generator=rng) < missing, NAN)


def measured(seed, *, n, t, missing=0.0):
    """Predictions and real targets, with errors of heavy tails."""
    rng = torch.Generator().manual_seed(seed)
    errors, values = torch.randn(2, n, t, generator=rng, dtype=torch.float64)
    y = (values + errors**3).masked_fill(torch.rand(n, t, generator=rng) < missing, NAN)
    return values, y


def rank(m, level):
    return math.ceil((m + 1) * Fraction(level))


@settings(max_examples=40, deadline=None)
@given(SEEDS, LEVELS, st.integers(0, 40))
def test_thresholds_are_ranks_of_each_class_counted_by_hand(seed, level, n):
    a, y = classified(seed, n=n, t=3, missing=0.3)
    result = set_thresholds(a, y, target_coverage=float(level))
    assert result.shape == (3, 2)
    for task in range(3):
        for label in (0, 1):
            own = a[y[:, task] == label, task]
            scores = (own if label == 0 else -own).sort().values.tolist()
            k = rank(len(scores), level)
            assert result[task, label].item() == (scores[k - 1] if k <= len(scores) else math.inf)


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS)
def test_sets_are_the_same_before_and_after_any_rising_map_of_the_logits(seed, level):
    a, y = classified(seed, n=40, t=2, missing=0.2)
    new = classified(seed + 1, n=40, t=2)[0]
    result = [
        prediction_sets(m(new), set_thresholds(m(a), y, target_coverage=float(level)))
        for m in (lambda x: x, rising)
    ]
    assert torch.equal(*result)


def rising(x):
    return (0.1 * x - 2).sigmoid()


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS, st.integers(0, 30))
def test_equal_weights_are_none_and_a_weight_of_0_leaves_a_molecule_out(seed, level, n):
    for draw, fit in ((classified, set_thresholds), (measured, interval_widths)):
        guess, y = draw(seed, n=n, t=2, missing=0.2)
        some = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.7
        weights = torch.stack([torch.ones(n), some.float()])
        result = fit(guess, y, target_coverage=float(level), weights=weights)
        assert torch.equal(result[0], fit(guess, y, target_coverage=float(level)))
        assert torch.equal(result[1], fit(guess[some], y[some], target_coverage=float(level)))


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS, st.integers(0, 30))
def test_a_whole_weight_counts_a_molecule_so_often(seed, level, n):
    guess, y = measured(seed, n=n, t=2, missing=0.2)
    times = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed))
    result = interval_widths(guess, y, target_coverage=float(level), weights=times[None].double())
    repeated = interval_widths(
        guess.repeat_interleave(times, 0),
        y.repeat_interleave(times, 0),
        target_coverage=float(level),
    )
    assert torch.equal(result[0], repeated)


def shifted(seed, *, n, t, far):
    """Errors that grow with the distance from training, which is uniform up to `far`."""
    rng = torch.Generator().manual_seed(seed)
    distance = far * torch.rand(n, generator=rng, dtype=torch.float64)
    errors = torch.randn(n, t, generator=rng, dtype=torch.float64) * (0.1 + distance[:, None])
    return torch.zeros(n, t), errors, distance


def test_weights_by_distance_keep_the_promise_further_away_than_calibration_molecules_are():
    zeros, y, distance = shifted(0, n=400, t=200, far=1.0)
    weights = ((distance - 0.9).abs() < 0.1).double()[None]
    plain = interval_widths(zeros, y, target_coverage=0.9)
    (weighted,) = interval_widths(zeros, y, target_coverage=0.9, weights=weights)
    zeros, y, distance = shifted(1, n=2_000, t=200, far=1.0)
    far = (distance - 0.9).abs() < 0.1
    assert interval_coverage(zeros[far], y[far], plain) < 0.82
    assert 0.89 < interval_coverage(zeros[far], y[far], weighted) < 0.93


@settings(max_examples=40, deadline=None)
@given(SEEDS, LEVELS, st.integers(0, 40))
def test_widths_are_ranks_counted_by_hand(seed, level, n):
    values, y = measured(seed, n=n, t=3, missing=0.3)
    result = interval_widths(values, y, target_coverage=float(level))
    for task in range(3):
        errors = (y - values)[:, task].abs()
        errors = errors[~errors.isnan()].sort().values.tolist()
        k = rank(len(errors), level)
        assert result[task].item() == (errors[k - 1] if k <= len(errors) else math.inf)


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS)
def test_the_molecule_at_the_threshold_is_covered(seed, level):
    a, y = classified(seed, n=60, t=1)
    result = prediction_sets(a, set_thresholds(a, y, target_coverage=float(level)))
    for label in (0, 1):
        own = y.masked_fill(y != label, NAN)
        m = int((y == label).sum())
        assert set_coverage(result, own).coverage == pytest.approx(min(rank(m, level), m) / m)


def test_the_lowest_target_gives_the_least_error():
    values, y = measured(0, n=20, t=2)
    assert torch.equal(
        interval_widths(values, y, target_coverage=1e-12), (y - values).abs().amin(0)
    )


def test_a_product_that_rounds_up_is_no_rank_too_many():
    values, y = torch.zeros(99, 1), torch.arange(1.0, 100.0)[:, None]
    assert 100 * 0.55 > 55
    assert interval_widths(values, y, target_coverage=0.55).item() == 55


# 4,000 tasks are as many draws of a calibration split
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("m", [10, 37])
def test_intervals_cover_what_they_promise_and_hardly_more(level, m):
    widths = interval_widths(*measured(0, n=m, t=4_000), target_coverage=level)
    coverage = interval_coverage(*measured(1, n=50, t=4_000), widths)
    assert level - 0.01 < coverage < level + 1 / (m + 1) + 0.01


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_sets_cover_what_they_promise_for_each_class(level):
    thresholds = set_thresholds(*classified(0, n=60, t=4_000), target_coverage=level)
    a, y = classified(1, n=50, t=4_000)
    for label in (0, 1):
        result = set_coverage(prediction_sets(a, thresholds), y.masked_fill(y != label, NAN))
        assert result.coverage > level - 0.01


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS, LEVELS)
def test_a_higher_target_makes_no_set_and_no_interval_smaller(seed, one, other):
    low, high = sorted([float(one), float(other)])
    a, y = classified(seed, n=30, t=4)
    small, large = (
        prediction_sets(a, set_thresholds(a, y, target_coverage=level)) for level in (low, high)
    )
    assert (small <= large).all()
    values, y = measured(seed, n=30, t=4)
    assert (
        interval_widths(values, y, target_coverage=low)
        <= interval_widths(values, y, target_coverage=high)
    ).all()


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_unmeasured_labels_change_nothing(seed):
    for draw, fit in ((classified, set_thresholds), (measured, interval_widths)):
        guess, y = draw(seed, n=20, t=2)
        silent = draw(seed + 1, n=15, t=2)[0]
        more = torch.cat([guess, silent]), torch.cat([y, torch.full_like(silent, NAN)])
        assert torch.equal(fit(*more, target_coverage=0.7), fit(guess, y, target_coverage=0.7))


def test_coverage_is_the_fraction_of_measured_labels_in_their_set_and_size_the_mean():
    sets = torch.tensor([[[True, False], [True, True]], [[False, False], [False, True]]])
    y = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert set_coverage(sets, y) == SetCoverage(coverage=0.5, mean_size=1.0)
    y[:, 1] = NAN
    assert set_coverage(sets, y) == SetCoverage(coverage=0.5, mean_size=0.5)
    widths = torch.tensor([1.0, 0.0])
    assert interval_coverage(torch.zeros(2, 2), torch.tensor([[1.0, NAN], [2, NAN]]), widths) == 0.5


def test_every_molecule_may_have_thresholds_of_its_own_and_may_look_like_neither_class():
    thresholds = torch.tensor([[[-3.0, -3.0]], [[math.inf, math.inf]]])
    sets = prediction_sets(torch.zeros(2, 1), thresholds)[:, 0].tolist()
    assert sets == [[False, False], [True, True]]


def test_too_few_molecules_rule_nothing_out():
    a, y = classified(0, n=8, t=2)
    everything = prediction_sets(a, set_thresholds(a, y, target_coverage=0.9))
    assert everything.all()
    assert set_coverage(everything, y) == SetCoverage(coverage=1.0, mean_size=2.0)
    values, y = measured(0, n=8, t=2)
    assert interval_widths(values, y, target_coverage=0.9).isinf().all()
    assert (
        interval_coverage(values, 1e9 * y, interval_widths(values, y, target_coverage=0.9)) == 1.0
    )


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, NAN])
@pytest.mark.parametrize("fit", [set_thresholds, interval_widths])
def test_a_target_coverage_lies_between_none_and_all(fit, level):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        fit(*classified(0, n=8, t=2), target_coverage=level)


def test_sets_are_of_classes_and_made_of_numbers_only():
    with pytest.raises(ValueError, match=r"^labels must be 0, 1 or NaN"):
        set_thresholds(torch.full((1, 1), 0.5), torch.full((1, 1), 2.5), target_coverage=0.9)
    with pytest.raises(ValueError, match="must be numbers, got nan"):
        prediction_sets(torch.tensor([[NAN]]), torch.ones(1, 2))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^logits must be \(n, 2\), got \(5, 1\)"):
        prediction_sets(torch.zeros(5, 1), torch.ones(2, 2))
    for fit in (interval_widths, set_thresholds):
        with pytest.raises(ValueError, match=r"must both be \(n, t\)"):
            fit(torch.zeros(5, 1), torch.zeros(5, 2), target_coverage=0.9)


def test_nothing_measured_has_no_coverage():
    y = torch.full((3, 1), NAN)
    with pytest.raises(ValueError, match=r"^coverage needs a measured label; all 3 are missing"):
        set_coverage(torch.ones(3, 1, 2).bool(), y)
    with pytest.raises(ValueError, match=r"^coverage needs a measured label; all 3 are missing"):
        interval_coverage(torch.zeros(3, 1), y, torch.ones(1))


@pytest.mark.parametrize("wrong", [NAN, math.inf])
def test_measured_errors_must_be_finite(wrong):
    for fit in (interval_widths, set_thresholds):
        with pytest.raises(ValueError, match="must be finite, got"):
            fit(torch.tensor([[wrong], [0.0]]), torch.zeros(2, 1), target_coverage=0.5)
