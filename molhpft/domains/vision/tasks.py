"""Classification tasks on images, with shifted test sets as further splits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Interval

from molhpft.core.objectives import Multiclass
from molhpft.core.ranges import Count, Seed
from molhpft.core.task import Task
from molhpft.domains.vision.arrays import grey_to_rgb, read_npy_set, resized
from molhpft.domains.vision.augment import PRESETS, Augmentation
from molhpft.domains.vision.corruptions import corrupted
from molhpft.domains.vision.examples import IMAGENET, Labelled, labelled_task
from molhpft.domains.vision.layouts import LAYOUTS
from molhpft.domains.vision.splits import choose

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
