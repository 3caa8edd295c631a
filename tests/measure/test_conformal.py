import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.measure.uncertainty import (
    SetCoverage,
    interval_coverage,
    interval_widths,
    prediction_sets,
    set_coverage,
    set_thresholds,
)
from tests.toy import NAN

SEEDS = st.integers(0, 10_000)
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
    found = set_thresholds(a, y, target_coverage=float(level))
    assert found.shape == (3, 2)
    for task in range(3):
        for label in (0, 1):
            own = a[y[:, task] == label, task]
            scores = (own if label == 0 else -own).sort().values.tolist()
            k = rank(len(scores), level)
            assert found[task, label].item() == (scores[k - 1] if k <= len(scores) else math.inf)


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS)
def test_sets_are_the_same_before_and_after_any_rising_map_of_the_logits(seed, level):
    a, y = classified(seed, n=40, t=2, missing=0.2)
    new = classified(seed + 1, n=40, t=2)[0]
    found = [
        prediction_sets(m(new), set_thresholds(m(a), y, target_coverage=float(level)))
        for m in (lambda x: x, rising)
    ]
    assert torch.equal(*found)


def rising(x):
    return (0.1 * x - 2).sigmoid()


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS, st.integers(0, 30))
def test_equal_weights_are_none_and_a_weight_of_0_leaves_a_molecule_out(seed, level, n):
    for draw, fit in ((classified, set_thresholds), (measured, interval_widths)):
        guess, y = draw(seed, n=n, t=2, missing=0.2)
        some = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.7
        weights = torch.stack([torch.ones(n), some.float()])
        found = fit(guess, y, target_coverage=float(level), weights=weights)
        assert torch.equal(found[0], fit(guess, y, target_coverage=float(level)))
        assert torch.equal(found[1], fit(guess[some], y[some], target_coverage=float(level)))


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS, st.integers(0, 30))
def test_a_whole_weight_counts_a_molecule_so_often(seed, level, n):
    guess, y = measured(seed, n=n, t=2, missing=0.2)
    times = torch.randint(0, 4, (n,), generator=torch.Generator().manual_seed(seed))
    found = interval_widths(guess, y, target_coverage=float(level), weights=times[None].double())
    repeated = interval_widths(
        guess.repeat_interleave(times, 0),
        y.repeat_interleave(times, 0),
        target_coverage=float(level),
    )
    assert torch.equal(found[0], repeated)


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
    found = interval_widths(values, y, target_coverage=float(level))
    for task in range(3):
        errors = (y - values)[:, task].abs()
        errors = errors[~errors.isnan()].sort().values.tolist()
        k = rank(len(errors), level)
        assert found[task].item() == (errors[k - 1] if k <= len(errors) else math.inf)


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS)
def test_the_molecule_at_the_threshold_is_covered(seed, level):
    a, y = classified(seed, n=60, t=1)
    found = prediction_sets(a, set_thresholds(a, y, target_coverage=float(level)))
    for label in (0, 1):
        own = y.masked_fill(y != label, NAN)
        m = int((y == label).sum())
        assert set_coverage(found, own).coverage == pytest.approx(min(rank(m, level), m) / m)


def test_the_lowest_level_takes_the_least_error():
    values, y = measured(0, n=20, t=2)
    assert torch.equal(
        interval_widths(values, y, target_coverage=1e-12), (y - values).abs().amin(0)
    )


def test_a_product_that_rounds_up_takes_no_rank_too_many():
    values, y = torch.zeros(99, 1), torch.arange(1.0, 100.0)[:, None]
    assert 100 * 0.55 > 55
    assert interval_widths(values, y, target_coverage=0.55).item() == 55


# 4,000 tasks are as many draws of a calibration split
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("m", [10, 37])
def test_intervals_hold_what_they_promise_and_hardly_more(level, m):
    widths = interval_widths(*measured(0, n=m, t=4_000), target_coverage=level)
    share = interval_coverage(*measured(1, n=50, t=4_000), widths)
    assert level - 0.01 < share < level + 1 / (m + 1) + 0.01


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_sets_hold_what_they_promise_for_each_class(level):
    thresholds = set_thresholds(*classified(0, n=60, t=4_000), target_coverage=level)
    a, y = classified(1, n=50, t=4_000)
    for label in (0, 1):
        found = set_coverage(prediction_sets(a, thresholds), y.masked_fill(y != label, NAN))
        assert found.coverage > level - 0.01


@settings(max_examples=25, deadline=None)
@given(SEEDS, LEVELS, LEVELS)
def test_a_higher_level_makes_no_set_and_no_interval_smaller(seed, one, other):
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


def test_unmeasured_labels_do_not_count_in_coverage():
    held = torch.tensor([[[True, False], [True, True]], [[False, False], [False, True]]])
    y = torch.tensor([[0.0, NAN], [1.0, NAN]])
    assert set_coverage(held, y) == SetCoverage(coverage=0.5, mean_size=0.5)
    widths = torch.tensor([1.0, 0.0])
    assert interval_coverage(torch.zeros(2, 2), torch.tensor([[1.0, NAN], [2, NAN]]), widths) == 0.5


def test_coverage_is_the_share_of_labels_in_their_set_and_size_the_mean():
    held = torch.tensor([[[True, False], [True, True]], [[False, False], [False, True]]])
    found = set_coverage(held, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert found == SetCoverage(coverage=0.5, mean_size=1.0)


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


def test_an_odd_molecule_may_look_like_neither_class():
    thresholds = torch.tensor([[-3.0, -3.0]])
    a = torch.tensor([[-4.0], [0.0], [4.0]])
    assert prediction_sets(a, thresholds)[:, 0].tolist() == [
        [True, False],
        [False, False],
        [False, True],
    ]


def test_every_molecule_may_have_thresholds_of_its_own():
    thresholds = torch.tensor([[[-3.0, -3.0]], [[math.inf, math.inf]]])
    assert prediction_sets(torch.zeros(2, 1), thresholds)[:, 0].tolist() == [
        [False, False],
        [True, True],
    ]


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, NAN])
def test_levels_lie_between_none_and_all(level):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        set_thresholds(*classified(0, n=8, t=2), target_coverage=level)
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        interval_widths(*measured(0, n=8, t=2), target_coverage=level)


def test_a_regression_gets_no_sets():
    with pytest.raises(ValueError, match=r"^labels must be 0, 1 or NaN"):
        set_thresholds(torch.full((1, 1), 0.5), torch.full((1, 1), 2.5), target_coverage=0.9)


def test_sets_are_made_of_numbers_only():
    with pytest.raises(ValueError, match="must be numbers, got nan"):
        prediction_sets(torch.tensor([[NAN]]), torch.ones(1, 2))


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^logits must be \(n, 2\), got \(5, 1\)"):
        prediction_sets(torch.zeros(5, 1), torch.ones(2, 2))
    for use in (
        lambda *pair: interval_widths(*pair, target_coverage=0.9),
        lambda *pair: set_thresholds(*pair, target_coverage=0.9),
    ):
        with pytest.raises(ValueError, match=r"must both be \(n, t\)"):
            use(torch.zeros(5, 1), torch.zeros(5, 2))


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
