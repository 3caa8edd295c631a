import pytest
import torch

from molhpft.measure.features import RunningShift, shift


@pytest.fixture
def features(rng):
    return torch.randn(20, 7, generator=rng)


def test_features_that_stay_have_no_distance_and_cosine_one(features):
    result = shift(features, features)
    assert result.distance == 0
    assert result.cosine == pytest.approx(1)
    assert result.norm == result.start_norm
    assert result.dot == pytest.approx(features.square().sum(1).mean().item(), rel=1e-6)


def test_stretching_keeps_the_direction(features):
    result = shift(features, 3 * features)
    assert result.cosine == pytest.approx(1)
    assert result.norm == pytest.approx(3 * result.start_norm)
    assert result.distance == pytest.approx(2 * result.start_norm)


def test_opposite_features_have_cosine_minus_one(features):
    assert shift(features, -features).cosine == pytest.approx(-1)


def test_distances_are_symmetric(features, rng):
    other = torch.randn(20, 7, generator=rng)
    there, back = shift(features, other), shift(other, features)
    assert (there.distance, there.cosine, there.dot) == (back.distance, back.cosine, back.dot)


@pytest.mark.parametrize("size", [1, 6, 20])
def test_features_that_come_in_parts_have_the_shift_of_the_whole(features, rng, size):
    other, moved = torch.randn(20, 7, generator=rng), RunningShift()
    for before, after in zip(features.split(size), other.split(size), strict=True):
        moved.add(before, after)
    assert moved.mean() == shift(features, other)


def test_feature_maps_are_compared_whole(rng):
    maps = torch.randn(4, 3, 2, 2, generator=rng)
    assert shift(maps, 2 * maps).distance == pytest.approx(
        maps.flatten(1).norm(dim=1).mean().item()
    )


def test_features_of_different_examples_cannot_be_compared(features):
    with pytest.raises(ValueError, match=r"one shape, got \(20, 7\) and \(19, 7\)"):
        shift(features, features[1:])
