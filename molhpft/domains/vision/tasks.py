"""Image classification tasks: which images train, validate and test, and shifted test sets.

Corrupted copies of test images have the strengths of CIFAR-10-C (Hendrycks & Dietterich, 2019): a
classifier that keeps its accuracy on them has learned more than the look of its training set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.annotations import Count, Seed
from molhpft.core.data import Task
from molhpft.core.objectives import Multiclass
from molhpft.domains.extras import require
from molhpft.domains.vision.examples import (
    AUGMENTATIONS,
    IMAGENET,
    FirstClasses,
    Labelled,
    Source,
    labelled_task,
)
from molhpft.domains.vision.layouts import LAYOUTS, SEVERITIES, grey_to_rgb, read_npy_set, resized

Severity = Annotated[int, Interval(ge=1, le=SEVERITIES)]
SEVERITY = 3

_STATISTICS = {"imagenet": IMAGENET, "none": ((0.0,) * 3, (1.0,) * 3)}
_UNNAMED = {"folder", "npz", "domainnet"}  # the path says which data set it is


def image_task(
    layout: str,
    *,
    path: Path,
    size: Count | None = None,
    classes: Count | None = None,
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
    """Images of one class each, by accuracy; RGB, with grey ones repeated.

    Args:
        layout: one of `LAYOUTS`, how the images lie at `path`.
        path: file or folder, as the layout expects it.
        size: side in pixels that images are brought to; None for the layout's own.
        classes: number of classes to use, the first by class id; None for all. The paper has 200 of
            DomainNet's 345 and does not say which.
        train: number of images to use; None for all that are left.
        valid: number of images to use, see `choose_images`.
        test: number of images to use, see `choose_images`.
        augment: views that training sees, one of `AUGMENTATIONS`.
        corruptions: of `CORRUPTIONS`; each adds the split `test_<name>`.
        severity: of corruptions and of rows of CIFAR-10-C only, 1 to 5, by default 3.
        shifted: paths of further test sets with the same classes, each of which adds the split
            `<name>`: an array (see `read_npy_set`), a zip file, or the test images of the layout.
        normalise: by the statistics of ImageNet, as most published ResNets, or not at all.
        seed: of every choice of images and of noise, 0 by default; for those only.

    Raises:
        FileNotFoundError: files are absent.
        ValueError: an option has no such value, or files contradict the layout.
    """
    _check_names(layout, augment, size)
    size = size or LAYOUTS[layout].size
    sizes = {"train": train, "valid": valid, "test": test}
    sources = _read(layout, path, size=size, classes=classes)
    if seed is not None and not (corruptions or any(sizes.values()) or {*sizes} - {*sources}):
        raise ValueError(
            f"seed would do nothing: {path} has its own splits, used whole; leave it out"
        )
    if severity is not None and not corruptions and not any(s.endswith(".npy") for s in shifted):
        raise ValueError("severity would do nothing without corruptions; leave it out")
    severity, rng = severity or SEVERITY, torch.Generator().manual_seed(seed or 0)
    chosen = choose_images(sources, sizes, place=path, rng=rng)
    parts = {split: resized(images, size) for split, images in chosen.items()}
    clean = parts["test"]
    for name in corruptions:
        pixels = corrupted(clean.pixels, name, severity=severity, rng=rng)
        parts[f"test_{name}"] = replace(clean, pixels=pixels)
    parts |= _shifted_sets(layout, shifted, parts, size=size, severity=severity, classes=classes)
    name = f"{layout}_{path.stem}" if layout in _UNNAMED else layout
    views, statistics = AUGMENTATIONS[augment], _STATISTICS[normalise]
    return labelled_task(name, parts, augment=views, objective=Multiclass(), statistics=statistics)


def _read(layout: str, path: Path, *, size: int, classes: int | None) -> Mapping[str, Source]:
    """The images at a path, of the first classes or of all (None).

    Raises:
        FileNotFoundError: they are not there; the message says what should be, and where it is
            published.
        ValueError: there are fewer classes.
    """
    try:
        sources = LAYOUTS[layout].read(path, size)
    except FileNotFoundError as error:
        expects, published = LAYOUTS[layout].expects, LAYOUTS[layout].published
        source = f", published at {published}" if published else ""
        raise FileNotFoundError(
            f"no images of {layout} at {path} ({error}); task.path should be the {expects}{source}"
        ) from error
    if classes is None:
        return sources
    return {split: FirstClasses(source, classes) for split, source in sources.items()}


def _check_names(layout: str, augment: str, size: int | None) -> None:
    if augment not in AUGMENTATIONS:
        names = ", ".join(AUGMENTATIONS)
        raise ValueError(f"no augmentation named {augment!r}; there are: {names}")
    if layout not in LAYOUTS:
        raise ValueError(f"no layout of images named {layout!r}; there are: {', '.join(LAYOUTS)}")
    if size is not None and size < 1:
        raise ValueError(f"size is a side of at least 1 pixel, got {size}")


def _shifted_sets(
    layout: str,
    paths: Sequence[str],
    parts: Mapping[str, Labelled],
    *,
    size: int,
    severity: int,
    classes: int | None,
) -> dict[str, Labelled]:
    """Further test sets of the same classes, from the paths that `image_task` describes."""
    sets: dict[str, Labelled] = {}
    for path in map(Path, paths):
        if path.stem in parts or path.stem in sets:
            raise ValueError(f"{path} would be a second split {path.stem!r}; rename it")
        if path.suffix == ".npy":
            names = parts["train"].classes
            images = grey_to_rgb(read_npy_set(path, classes=names, severity=severity))
        else:
            images = _test_images(layout, path, size=size, classes=classes)
        sets[path.stem] = resized(images, size)
    return sets


def _test_images(layout: str, path: Path, *, size: int, classes: int | None) -> Labelled:
    """The test images at a path: of a zip file by folders, else as the layout has them."""
    layout = "folder" if path.suffix == ".zip" else layout
    sources = _read(layout, path, size=size, classes=classes)
    source = sources.get("test", sources.get("all"))
    if source is None:
        raise ValueError(f"{path} should have test images; it has: {', '.join(sources)}")
    return source.take(torch.arange(len(source.targets)))


def choose_images(
    sources: Mapping[str, Source],
    sizes: Mapping[str, int | None],
    *,
    place: Path,
    rng: torch.Generator,
) -> dict[str, Labelled]:
    """Read the images of the splits train, valid and test, as many as are asked for.

    Where the source has no validation images they are taken from its training images; where it has
    train and valid only, its "valid" is kept for testing; where nothing is split, test images are
    taken as well. Every part has the class proportions of the images it is taken from.

    Args:
        sources: split name to images, "all" where nothing is split.
        sizes: images of each split; None for those published, a tenth of those it is taken from,
            or (train) all that are left.
        place: where the images lie, for messages.
        rng: draws the images.
    """
    base = sources.get("train", sources.get("all"))
    if base is None:
        raise ValueError(f"{place} should have training images; it has: {', '.join(sources)}")
    published = {
        "valid": sources.get("valid") if "test" in sources else None,
        "test": sources.get("test", sources.get("valid")),
    }
    left, chosen = stratified_order(base.targets, rng=rng), {}
    tenth = max(1, len(left) // 10)
    for split, source in published.items():
        if source is None:
            count = tenth if sizes[split] is None else sizes[split]
            pool, rows = base, _first(left, count, split, place)
            left = left[len(rows) :]
        else:
            order = stratified_order(source.targets, rng=rng)
            pool, rows = source, _first(order, sizes[split], split, place)
        chosen[split] = pool.take(rows.sort().values)
    rows = _first(left, sizes["train"], "train", place)
    return {"train": base.take(rows.sort().values), **chosen}


def _first(order: Tensor, count: int | None, split: str, place: Path) -> Tensor:
    if count is not None and not 0 < count <= len(order):
        raise ValueError(
            f"{split} is a number of images from 1 to the {len(order):,} that {place} has left for "
            f"it, got {count}"
        )
    return order[:count]


def stratified_order(targets: Tensor, *, rng: torch.Generator) -> Tensor:
    """Row numbers in a random order, (n,), every beginning of which has the proportions of classes.

    >>> targets = torch.arange(40) % 4
    >>> order = stratified_order(targets, rng=torch.Generator().manual_seed(0))
    >>> targets[order[:20]].bincount()
    tensor([5, 5, 5, 5])
    """
    shuffled = torch.randperm(len(targets), generator=rng)
    by_class = shuffled[targets[shuffled].argsort(stable=True)]
    counts = torch.bincount(targets)
    rank = torch.arange(len(targets)) - (counts.cumsum(0) - counts)[targets[by_class]]
    # row k of a class of c falls at a random place of its k-th c-th of the order
    place = (rank + torch.rand(len(targets), generator=rng)) / counts[targets[by_class]]
    return by_class[place.argsort()]


Corruption = Callable[[Tensor, int, torch.Generator], Tensor]


def corrupted(pixels: Tensor, name: str, *, severity: int, rng: torch.Generator) -> Tensor:
    """Copies of images (n, channels, height, width), uint8, by one of `CORRUPTIONS`.

    Raises:
        ValueError: no such corruption, or a severity other than 1 (weak) to 5.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption named {name!r}; there are: {', '.join(CORRUPTIONS)}")
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity lies from 1 to {SEVERITIES}, got {severity}")
    return torch.cat([CORRUPTIONS[name](x, severity - 1, rng) for x in torch.split(pixels, 1024)])


def _noise(pixels: Tensor, level: int, rng: torch.Generator) -> Tensor:
    std = (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return _bytes(pixels / 255 + std * torch.randn(pixels.shape, generator=rng))


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
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[level]
    x = pixels / 255
    mean = x.mean((2, 3), keepdim=True)
    return _bytes((x - mean) * factor + mean)


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
    pillow = require("PIL.Image", extra="vision")
    file, grey = BytesIO(), len(pixels) == 1
    array = pixels[0].numpy() if grey else pixels.permute(1, 2, 0).contiguous().numpy()
    pillow.fromarray(array).save(file, "JPEG", quality=quality)
    with pillow.open(file) as image:
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
