"""The expected size of an error grows with what errors grow with, and with nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.measure.error_scale import ErrorScale, cross_fitted_scale, fit_error_scale
from tests.toy import NAN


def inputs(seed, n, targets=1):
    """Standard deviation, similarity, predictions."""
    rng = torch.Generator().manual_seed(seed)
    shape = n, targets
    return (
        torch.rand(shape, generator=rng),
        torch.rand(n, generator=rng),
        torch.randn(shape, generator=rng),
    )


def errors_of(size, seed):
    rng = torch.Generator().manual_seed(seed)
    return (size * torch.randn(size.shape, generator=rng)).abs()


@pytest.mark.parametrize("which", ["std", "similarity", "value", "all"])
def test_the_scale_is_what_errors_were_drawn_with(which):
    std, similarity, values = inputs(0, 4_000)
    size = {
        "std": std + 0.05,
        "similarity": (-2 * similarity).exp()[:, None],
        "value": (0.5 * values).exp(),
    }
    size["all"] = size["std"] * size["similarity"] * size["value"]
    scale = fit_error_scale(errors_of(size[which], 1), std, similarity, values)
    found = scale.of(std, similarity, values)
    ratio = (found / size[which]).log()
    assert ratio.std() < 0.12


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 60))
def test_it_never_falls_with_spread_or_dissimilarity_and_stays_within_what_was_seen(seed, n):
    std, similarity, values = inputs(seed, n, 2)
    # errors that fall with both
    size = (1.5 - std) * (0.2 + similarity[:, None])
    scale = fit_error_scale(errors_of(size, seed), std, similarity, values)
    assert (scale.slopes[:, :2] >= 0).all()
    grid = torch.linspace(-1, 3, 41).clamp(min=0)
    other, far = values[:1].expand(41, 2), torch.full((41,), 0.5)
    widths = scale.of(grid[:, None].expand(41, 2), far, other)
    assert (widths.diff(dim=0) >= 0).all()
    widths = scale.of(torch.full((41, 2), 0.5), 1 - grid, other)
    assert (widths.diff(dim=0) >= 0).all()
    beyond = scale.of(torch.full((1, 2), 1e9), torch.tensor([-50.0]), torch.full((1, 2), 1e9))
    assert beyond.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), unit=st.floats(1e-3, 1e3))
def test_the_unit_of_errors_does_not_count_nor_does_a_missing_label(seed, unit):
    std, similarity, values = inputs(seed, 50)
    errors = errors_of(0.1 + std, seed)
    ours = fit_error_scale(errors, std, similarity, values)
    theirs = fit_error_scale(unit * errors, std, similarity, values)
    torch.testing.assert_close(ours.slopes, theirs.slopes, rtol=1e-4, atol=1e-5)
    more = [torch.cat([x, x[:5] + 7]) for x in (std, similarity, values)]
    missing = torch.cat([errors, torch.full((5, 1), NAN)])
    gaps = fit_error_scale(missing, *more)
    torch.testing.assert_close(gaps.slopes, ours.slopes)
    assert gaps.lows.equal(ours.lows)


@pytest.mark.parametrize("errors", [torch.zeros(9, 1), torch.full((9, 1), NAN), torch.empty(0, 1)])
def test_without_errors_all_molecules_are_alike(errors):
    std, similarity, values = inputs(0, len(errors))
    scale = fit_error_scale(errors, std, similarity, values)
    assert scale.of(*inputs(1, 30)).eq(1).all()
    assert ErrorScale(**scale.to_tensors()).of(*inputs(1, 30)).eq(1).all()


def test_few_molecules_tell_little():
    std, similarity, values = inputs(0, 4)
    errors = torch.tensor([[0.1], [0.1], [9.0], [0.1]])
    scale = fit_error_scale(errors, std, similarity, values).of(std, similarity, values)
    assert scale.max() / scale.min() < 10


def test_a_scale_that_is_left_out_has_not_seen_its_part():
    std, similarity, values = inputs(0, 90)
    errors, parts = errors_of(std, 0), torch.arange(90) % 3
    scales = cross_fitted_scale(errors, std, similarity, values, parts)
    changed = errors.clone()
    changed[parts == 1] *= torch.rand(30, 1) * 50
    others = cross_fitted_scale(changed, std, similarity, values, parts)
    assert scales[parts == 1].equal(others[parts == 1])
    assert not scales[parts == 0].equal(others[parts == 0])


def test_members_that_never_differ_tell_nothing():
    _, similarity, values = inputs(0, 200)
    errors = errors_of(1.2 - similarity[:, None], 0)
    ours, theirs = (
        fit_error_scale(errors, std, similarity, values) for std in (None, torch.zeros(200, 1))
    )
    assert ours.slopes.equal(theirs.slopes)
    assert ours.slopes[0, 0] == 0
    assert ours.slopes[0, 1] > 0
