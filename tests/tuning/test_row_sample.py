"""A sample has the rows it should have: with labels, the rarer ones first, no more than half."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.tuning.row_sample import row_sample

SEEDS = st.integers(0, 10_000)


def drawn(seed, *, n=40, targets=3, rate=0.2, missing=0.3):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, targets)) < rate).astype(float)
    return np.where(rng.random(labels.shape) < missing, np.nan, labels)


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 50), classes=st.booleans())
def test_a_sample_is_of_so_many_ascending_rows_with_a_label(seed, size, classes):
    labels = drawn(seed, missing=0.7)
    rows = row_sample(labels, size, classes=classes, seed=seed)
    measured = np.flatnonzero(~np.isnan(labels).all(1))
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(measured)
    assert len(rows) == min(size, len(measured))


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 30))
def test_rows_with_the_rarer_label_of_any_target_fill_half_of_it_if_there_are_as_many(seed, size):
    labels = drawn(seed, rate=0.05)
    labels[:, 2] = 1 - labels[:, 2]  # label 0 is the rarer one of this target
    is_rare = (labels == [1, 1, 0]).any(1)
    rows = row_sample(labels, size, classes=True, seed=seed)
    assert is_rare[rows].sum() >= min(size // 2, is_rare.sum())


def test_where_the_rarer_label_is_still_common_it_fills_half_of_the_sample_and_no_more():
    labels = drawn(0, n=4_000, targets=1, rate=0.3, missing=0.0)
    assert labels[row_sample(labels, 1_000, classes=True, seed=0)].sum() == 500


def test_numbers_are_drawn_at_random():
    labels = drawn(0, n=4_000, targets=1, rate=0.05, missing=0.0)
    rows = row_sample(labels, 1_000, classes=False, seed=0)
    assert labels[rows].mean() == pytest.approx(0.05, abs=0.02)
