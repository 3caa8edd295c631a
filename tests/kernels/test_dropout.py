"""Which entries dropout drops: as often as it should, and independently of everything but seed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.kernels.reference import Finish, drawn, finished, keep_mask

seeds = st.integers(0, 2**63 - 1)


def kept(n, d, *, dropout=0.5, seed=0):
    return keep_mask(n, d, Finish(relu=False, dropout=dropout, seed=seed), device="cpu").double()


@given(dropout=st.floats(0.01, 0.99), seed=seeds)
@settings(max_examples=25, deadline=None)
def test_entries_are_kept_as_often_as_they_should_be(dropout, seed):
    n, d = 400, 250
    spread = (dropout * (1 - dropout) / (n * d)) ** 0.5
    assert abs(kept(n, d, dropout=dropout, seed=seed).mean() - (1 - dropout)) < 6 * spread


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_every_row_and_every_column_is_kept_as_often(seed):
    mask = kept(512, 512, seed=seed)
    for means in (mask.mean(0), mask.mean(1)):
        assert (means - 0.5).abs().max() < 6 * (0.25 / 512) ** 0.5
        # neither more nor less uneven than independent draws
        assert means.var() == pytest.approx(0.25 / 512, rel=0.35)


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (2, -1), (0, 16), (64, 0)])
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_neighbouring_entries_are_independent(shift, seed):
    mask = kept(600, 600, seed=seed) - 0.5
    correlation = (mask * mask.roll(shift, dims=(0, 1))).mean() / 0.25
    assert correlation.abs() < 6 / 600


@given(seed=seeds, bit=st.integers(0, 62))
@settings(max_examples=20, deadline=None)
def test_seeds_that_differ_in_one_bit_drop_independent_entries(seed, bit):
    first, second = (kept(300, 300, seed=s) - 0.5 for s in (seed, seed ^ (1 << bit)))
    assert ((first * second).mean() / 0.25).abs() < 6 / 300


def test_a_row_is_dropped_alike_whatever_rows_follow():
    assert torch.equal(kept(5, 8), kept(50, 8)[:5])


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    h = finished(torch.ones(300, 300), Finish(relu=False, dropout=0.2, seed=1))
    assert h.unique().tolist() == [0, 1.25]
    assert h.mean().item() == pytest.approx(1, abs=0.02)


def test_dropping_everything_gives_zeros():
    assert not finished(torch.ones(9, 9), Finish(relu=True, dropout=1.0, seed=1)).any()


def test_seeds_are_drawn_from_the_global_generator_and_only_for_dropout():
    torch.manual_seed(0)
    first, second = (drawn(relu=True, dropout=0.5) for _ in range(2))
    state = torch.get_rng_state()
    assert drawn(relu=True, dropout=0.0) == Finish(relu=True)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    assert drawn(relu=True, dropout=0.5) == first
    assert first.seed != second.seed
