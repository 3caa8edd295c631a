"""Classification tasks on images, with shifted test sets as further splits.

Corrupted copies of test images, with the strengths of CIFAR-10-C (Hendrycks & Dietterich, 2019).

A classifier that keeps its accuracy on them has learned more than the look of its training set.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Interval
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.data import Task
from molhpft.core.objectives import Multiclass
from molhpft.core.ranges import Count, Seed
from molhpft.domains.vision.arrays import SEVERITIES, grey_to_rgb, read_npy_set, resized
from molhpft.domains.vision.examples import (
    IMAGENET,
    PRESETS,
    Augmentation,
    Labelled,
    choose,
    labelled_task,
)
from molhpft.domains.vision.layouts import LAYOUTS

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


Severity = Annotated[int, Interval(ge=1, le=5)]
SEVERITY = 3

_NONE = ((0.0,) * 3, (1.0,) * 3)
_UNNAMED = {"folder", "npz", "domainnet"}  # the path says which data set it is


def image_task(
    layout: str,
    *,
    path: Path,
    size: Count | None = None,
    train: Count | None = None,
    valid: Count | None = None,
    test: Count | None = None,
    augment: str = "none",
    corruptions: tuple[str, ...] = (),
    severity: Severity | None = None,
    shifted: tuple[str, ...] = (),
    normalise: Literal["imagenet", "none"] = "imagenet",
    seed: Seed | None = None,
) -> Task:
    """Images of one class each, by accuracy; RGB, grey ones repeated.

    Args:
        layout: one of `LAYOUTS`, how the images lie at `path`.
        path: file or folder, as the layout expects it.
        size: side in pixels that images are brought to; None for the layout's own.
        train: images to use; None for all that are left.
        valid: images to use, see `choose`.
        test: images to use, see `choose`.
        augment: views that training sees, one of `augment.PRESETS`.
        corruptions: of `corruptions.CORRUPTIONS`; each adds the split `test_<name>`.
        severity: of corruptions, and of the rows taken from CIFAR-10-C, 1 to 5, 3 by default; for
            those only.
        shifted: paths of further test sets, see `shifted_set`; each adds the split `<name>`.
        normalise: by the statistics of ImageNet, as most published ResNets, or not at all.
        seed: of every choice of images and of noise, 0 by default; for those only.

    Raises:
        FileNotFoundError: files are absent.
        ValueError: an option has no such value, or files contradict the layout.
    """
    views, size = _preset(augment), _side(layout, size)
    rng = torch.Generator().manual_seed(seed or 0)
    sizes = {"train": train, "valid": valid, "test": test}
    sources = LAYOUTS[layout].read(path, size)
    drawn = bool(corruptions) or any(sizes.values()) or not {*sizes} <= {*sources}
    if seed is not None and not drawn:
        raise ValueError(
            f"seed would do nothing: {path} has its own splits, used whole; leave it out"
        )
    arrays = any(Path(further).suffix == ".npy" for further in shifted)
    if severity is not None and not corruptions and not arrays:
        raise ValueError("severity would do nothing without corruptions; leave it out")
    severity = severity or SEVERITY
    chosen = choose(sources, sizes, place=path, rng=rng)
    parts = {split: resized(images, size) for split, images in chosen.items()}
    parts |= _corrupted(parts["test"], corruptions, severity=severity, rng=rng)
    for further in map(Path, shifted):
        if further.stem in parts:
            raise ValueError(f"{further} would be a second split {further.stem!r}; rename it")
        classes = parts["train"].classes
        parts[further.stem] = shifted_set(layout, further, classes, size=size, severity=severity)
    name = f"{layout}_{path.stem}" if layout in _UNNAMED else layout
    statistics = IMAGENET if normalise == "imagenet" else _NONE
    return labelled_task(name, parts, augment=views, objective=Multiclass(), statistics=statistics)


def shifted_set(
    layout: str, path: Path, classes: tuple[str, ...], *, size: int, severity: int
) -> Labelled:
    """A further test set of the same classes.

    Args:
        layout: that of the task.
        path: an array (`.npy`) as `read_npy_set` takes it, a zip file with a folder a class, or
            what the layout reads, such as another domain; of a source with splits "test" counts.
        classes: name of each class id.
        size: side in pixels.
        severity: of CIFAR-10-C.

    Raises:
        FileNotFoundError: files are absent.
        ValueError: files contradict their layout, or hold no test images.
    """
    if path.suffix == ".npy":
        found = grey_to_rgb(read_npy_set(path, classes=classes, severity=severity))
        return resized(found, size)
    sources = LAYOUTS["folder" if path.suffix == ".zip" else layout].read(path, size)
    source = sources.get("test", sources.get("all"))
    if source is None:
        raise ValueError(f"{path} should have test images; it has: {', '.join(sources)}")
    return resized(source.take(torch.arange(len(source.targets))), size)


def _corrupted(
    clean: Labelled, names: Sequence[str], *, severity: int, rng: torch.Generator
) -> dict[str, Labelled]:
    return {
        f"test_{name}": replace(
            clean, pixels=corrupted(clean.pixels, name, severity=severity, rng=rng)
        )
        for name in names
    }


def _preset(name: str) -> Augmentation:
    if name not in PRESETS:
        raise ValueError(f"no augmentation named {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def _side(layout: str, size: int | None) -> int:
    if layout not in LAYOUTS:
        raise ValueError(f"no layout of images named {layout!r}; there are: {', '.join(LAYOUTS)}")
    if size is not None and size < 1:
        raise ValueError(f"size is a side of at least 1 pixel, got {size}")
    return LAYOUTS[layout].size if size is None else size
