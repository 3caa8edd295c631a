"""Intervals and paired tests, against scipy and against their own definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from molhpft.results.statistics import holm, mean_interval, paired

SCORES = st.floats(-1, 1).map(lambda x: round(x, 6))
SAMPLES = st.lists(SCORES, min_size=2, max_size=12).filter(lambda v: np.std(v) > 1e-4)


@settings(deadline=None)
@given(SAMPLES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_that_of_scipy(values, confidence):
    found = mean_interval(values, confidence=confidence)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.n == len(values)


@settings(deadline=None)
@given(SAMPLES, SCORES, st.floats(0.1, 10))
def test_the_interval_moves_and_stretches_with_the_values(values, by, factor):
    before, after = mean_interval(values), mean_interval([factor * v + by for v in values])
    assert after.low == pytest.approx(factor * before.low + by, abs=1e-8)
    assert after.high == pytest.approx(factor * before.high + by, abs=1e-8)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    found = [mean_interval(rng.normal(0.7, 0.1, size=4).tolist()) for _ in range(4000)]
    assert np.mean([i.low <= 0.7 <= i.high for i in found]) == pytest.approx(0.95, abs=0.012)


def test_one_seed_has_a_mean_and_no_interval():
    found = mean_interval([0.7])
    assert (found.mean, found.n) == (0.7, 1)
    assert np.isnan([found.low, found.high]).all()


def test_values_that_are_no_numbers_are_left_out():
    assert mean_interval([0.1, float("nan"), 0.3]) == mean_interval([0.1, 0.3])


@pytest.mark.parametrize(("values", "confidence"), [([], 0.95), ([float("nan")], 0.95), ([1], 1)])
def test_an_interval_of_nothing_is_refused(values, confidence):
    with pytest.raises(ValueError, match=r"at least one number|share between 0 and 1"):
        mean_interval(values, confidence=confidence)


@settings(deadline=None)
@given(arrays(float, st.tuples(st.just(2), st.integers(2, 9)), elements=SCORES))
def test_a_paired_comparison_is_that_of_scipy(scores):
    differences = scores[0] - scores[1]
    if np.std(differences) < 1e-4:
        return
    first, second = (dict(enumerate(row.tolist())) for row in scores)
    found, theirs = paired(first, second), stats.ttest_rel(*scores)
    interval = theirs.confidence_interval(0.95)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert found.difference.low == pytest.approx(interval.low, abs=1e-9)
    assert found.difference.high == pytest.approx(interval.high, abs=1e-9)
    assert found.difference.n == scores.shape[1]


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 9), SCORES, min_size=1),
    st.dictionaries(st.integers(0, 9), SCORES, min_size=1),
)
def test_swapping_the_methods_turns_the_difference_round(first, second):
    if not first.keys() & second.keys():
        with pytest.raises(ValueError, match="run both with the same seeds"):
            paired(first, second)
        return
    one, other = paired(first, second), paired(second, first)
    assert one.difference.n == len(first.keys() & second.keys())
    assert one.difference.mean == -other.difference.mean
    assert one.difference.low == pytest.approx(-other.difference.high, nan_ok=True)
    assert one.p == pytest.approx(other.p, nan_ok=True)


def test_seeds_are_paired_by_number_and_not_by_place():
    found = paired({1: 0.5, 2: 0.7, 9: 0.0}, {2: 0.6, 1: 0.4, 8: 1.0})
    assert found.difference.mean == pytest.approx(0.1)
    assert found.difference.n == 2


@pytest.mark.parametrize(("by", "p"), [(0.0, 1.0), (0.25, 0.0)])
def test_equal_differences_need_no_division_by_zero(by, p):
    assert paired({1: 0.5 + by, 2: 0.75 + by}, {1: 0.5, 2: 0.75}).p == p


def test_one_shared_seed_proves_nothing():
    found = paired({1: 0.9}, {1: 0.1})
    assert np.isnan(found.p)
    assert found.difference.n == 1


def naive_holm(p):
    """Holm's definition: reject in order of p while p <= alpha / (m - rank), alpha at the edge."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    return [
        min(1.0, max(p[j] * (len(p) - r) for r, j in enumerate(order) if r <= order.index(k)))
        for k in range(len(p))
    ]


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_its_definition(p):
    assert holm(p) == pytest.approx(naive_holm(p))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_and_never_raises_it_beyond_bonferroni(p):
    for before, after in zip(p, holm(p), strict=True):
        assert before <= after <= min(1, before * len(p)) + 1e-12


def test_a_test_that_could_not_be_made_counts_for_nothing():
    found = holm([0.01, float("nan"), 0.04])
    assert found[0] == pytest.approx(0.02)
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(0.04)
