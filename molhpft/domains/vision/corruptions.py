"""Corrupted copies of test images, with the strengths of CIFAR-10-C (Hendrycks & Dietterich, 2019).

A classifier that keeps its accuracy on them has learned more than the look of its training set.
"""

from collections.abc import Callable
from io import BytesIO
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from molhpft.domains.vision.arrays import SEVERITIES

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]

_CHUNK = 1024


def corrupted(pixels: Tensor, name: str, *, severity: int, rng: torch.Generator) -> Tensor:
    """Corrupted copies of images, uint8 of the same shape.

    Args:
        pixels: uint8 (n, channels, height, width).
        name: one of `CORRUPTIONS`.
        severity: 1 (weak) to 5.
        rng: draws noise.

    Raises:
        ValueError: no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption named {name!r}; there are: {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity lies from 1 to {SEVERITIES}, got {severity}")
    return torch.cat([CORRUPTIONS[name](x, severity - 1, rng) for x in torch.split(pixels, _CHUNK)])


def _noise(pixels: Tensor, level: int, rng: torch.Generator) -> Tensor:
    spread = (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return _bytes(pixels / 255 + spread * torch.randn(pixels.shape, generator=rng))


def _blur(pixels: Tensor, level: int, rng: torch.Generator) -> Tensor:
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[level]
    radius = ceil(4 * sigma)
    weights = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(pixels.shape[1], 1, 1, -1)
    h = F.pad(pixels / 255, [radius] * 4, mode="replicate")
    for kernel in (weights, weights.mT):
        h = F.conv2d(h, kernel, groups=len(kernel))
    return _bytes(h)


def _contrast(pixels: Tensor, level: int, rng: torch.Generator) -> Tensor:
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[level]
    x = pixels / 255
    mean = x.mean((2, 3), keepdim=True)
    return _bytes((x - mean) * share + mean)


def _brightness(pixels: Tensor, level: int, rng: torch.Generator) -> Tensor:
    """Adds to the value of HSV: hue and saturation stay, black becomes grey."""
    x = pixels / 255
    value = x.amax(1, keepdim=True)
    brighter = (value + (0.05, 0.1, 0.15, 0.2, 0.3)[level]).clamp(max=1)
    return _bytes(torch.where(value > 0, x * brighter / value.clamp(min=1 / 255), brighter))


def _jpeg(pixels: Tensor, level: int, rng: torch.Generator) -> Tensor:
    quality = (80, 65, 58, 50, 40)[level]
    return torch.stack([_recompressed(image, quality) for image in pixels])


def _recompressed(pixels: Tensor, quality: int) -> Tensor:
    file, grey = BytesIO(), len(pixels) == 1
    array = pixels[0].numpy() if grey else pixels.permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(array).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        result = torch.from_numpy(np.array(image))
    return result[None] if grey else result.permute(2, 0, 1)


def _bytes(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "jpeg": _jpeg,
}
"""Corruptions by name: images, severity from 0 and generator to images."""
