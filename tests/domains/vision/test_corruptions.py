import pytest
import torch

from molhpft.domains.vision.tasks import CORRUPTIONS, corrupted


@pytest.fixture(scope="module")
def smooth():
    """Images with large and small structure, far from black and white."""
    noise = torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    coarse = torch.nn.functional.interpolate(noise[:, :, ::8, ::8], size=48, mode="bilinear")
    return (128 + 35 * coarse + 8 * noise).clamp(10, 245).byte()


def corrupt(pixels, name, severity=3, seed=0):
    return corrupted(pixels, name, severity=severity, rng=torch.Generator().manual_seed(seed))


def error(a, b):
    return (a.float() - b.float()).square().mean().sqrt().item()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_takes_images_further_away(name, smooth):
    errors = [error(corrupt(smooth, name, severity), smooth) for severity in range(1, 6)]
    assert errors == sorted(errors)
    assert 0.5 < errors[0] < errors[-1] < 100


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_and_type_stay(name, channels, smooth):
    result = corrupt(smooth[:, :channels], name)
    assert result.shape == (6, channels, 48, 48)
    assert result.dtype == torch.uint8


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_images_themselves_are_left_alone(name, smooth):
    before = smooth.clone()
    corrupt(smooth, name, 5)
    assert torch.equal(smooth, before)


def test_noise_has_the_published_spread():
    grey = torch.full((20, 3, 32, 32), 128, dtype=torch.uint8)
    result = corrupt(grey, "noise", severity=5)
    assert (result.float() - 128).std() == pytest.approx(0.10 * 255, rel=0.02)
    assert result.float().mean() == pytest.approx(128, abs=0.5)
    assert not torch.equal(result, corrupt(grey, "noise", severity=5, seed=1))


def test_blur_keeps_the_mean_and_spreads_a_point_alike_in_both_directions():
    point = torch.zeros(1, 1, 21, 21, dtype=torch.uint8)
    point[0, 0, 10, 10] = 255
    result = corrupt(point, "blur", severity=5)[0, 0].float()
    assert torch.equal(result, result.T)
    assert torch.equal(result, result.flip(0))
    # the middle of a Gaussian with sigma 1 in two dimensions
    assert result[10, 10] == pytest.approx(255 / (2 * torch.pi), abs=2)
    assert result.sum() == pytest.approx(255, rel=0.05)


def test_contrast_pulls_each_channel_to_its_mean(smooth):
    result = corrupt(smooth, "contrast", severity=2).float()
    mean = smooth.float().mean((2, 3), keepdim=True)
    torch.testing.assert_close(result - mean, (smooth.float() - mean) / 2, rtol=0, atol=0.51)


def test_brightness_keeps_hues_and_lifts_black():
    colours = torch.tensor([[100, 50, 0], [0, 0, 0], [250, 125, 25]], dtype=torch.uint8)
    result = corrupt(colours[:, :, None, None], "brightness", severity=2)[:, :, 0, 0]
    assert result.tolist() == [
        [126, 63, 0],  # the largest grows by a tenth of 255, the others in proportion
        [26, 26, 26],
        [255, 128, 26],
    ]


def test_a_flat_image_survives_recompression():
    flat = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    assert error(corrupt(flat, "jpeg", 5), flat) <= 1


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fog", 1, "no corruption named 'fog'; there are: noise, blur, contrast, brightness, jpeg"),
        ("blur", 0, "severity lies from 1 to 5, got 0"),
        ("blur", 6, "severity lies from 1 to 5, got 6"),
    ],
)
def test_unknown_corruptions_and_severities_are_refused(name, severity, message, smooth):
    with pytest.raises(ValueError, match=message):
        corrupt(smooth, name, severity)
