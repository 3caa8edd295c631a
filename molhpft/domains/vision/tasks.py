"""Classification tasks on images, with shifted test sets as further splits."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from molhpft.core.objectives import Multiclass
from molhpft.core.task import Task
from molhpft.domains.vision.arrays import grey_to_rgb, read_npy_set, resized
from molhpft.domains.vision.augment import PRESETS, Augmentation
from molhpft.domains.vision.corruptions import corrupted
from molhpft.domains.vision.examples import IMAGENET, Labelled, Source, labelled_task
from molhpft.domains.vision.layouts import LAYOUTS, Layout

_NONE = ((0.0,) * 3, (1.0,) * 3)


def image_task(
    layout: str,
    *,
    path: Path,
    size: int | None = None,
    train: int | None = None,
    valid: int | None = None,
    test: int | None = None,
    augment: str = "none",
    corruptions: tuple[str, ...] = (),
    severity: int = 3,
    shifted: tuple[str, ...] = (),
    normalise: Literal["imagenet", "none"] = "imagenet",
    seed: int = 0,
) -> Task:
    """Images of one class each, by accuracy; RGB, grey ones repeated.

    Where the source has no validation images they are taken from its training images; where it has
    train and valid only, its "valid" is kept for testing; where nothing is split, test images are
    taken as well. Whatever is taken has the class shares of what it is taken from.

    Args:
        layout: one of `LAYOUTS`, how the images lie at `path`.
        path: file or folder, as the layout expects it.
        size: side in pixels that images are brought to; None for the layout's own.
        train: training images to use; None for all that are left.
        valid: validation images to use; None for those of the source, or a tenth of its training
            images.
        test: test images to use; None for those of the source, or a tenth of all images.
        augment: views that training sees, one of `augment.PRESETS`.
        corruptions: of `corruptions.CORRUPTIONS`; each adds the split `test_<name>`.
        severity: of corruptions, and of the rows taken from CIFAR-10-C, 1 to 5.
        shifted: paths of further test sets of the same classes: arrays (`.npy`), a zip file, or
            what the layout reads, of which the test split counts; each adds the split `<name>`.
        normalise: by the statistics of ImageNet, as most published ResNets, or not at all.
        seed: of every choice of images and of noise.

    Raises:
        FileNotFoundError: files are absent.
        ValueError: an option has no such value, files contradict the layout, or the source has
            fewer images than are asked for.
    """
    views, size = _preset(augment), _layout(layout).size if size is None else size
    if size < 1:
        raise ValueError(f"size is a side of at least 1 pixel, got {size}")
    rng = torch.Generator().manual_seed(seed)
    sizes = {"train": train, "valid": valid, "test": test}
    chosen = _choose(_layout(layout).read(path, size), sizes, rng=rng, place=path)
    parts = {split: resized(images, size) for split, images in chosen.items()}
    clean = parts["test"]
    for name in corruptions:
        pixels = corrupted(clean.pixels, name, severity=severity, rng=rng)
        parts[f"test_{name}"] = replace(clean, pixels=pixels)
    for further in map(Path, shifted):
        if further.stem in parts:
            raise ValueError(f"{further} would be a second split {further.stem!r}; rename it")
        images = _shifted(layout, further, clean.classes, size=size, severity=severity)
        parts[further.stem] = resized(images, size)
    return labelled_task(
        f"{layout}_{path.stem}" if layout in ("folder", "npz", "domainnet") else layout,
        parts,
        augment=views,
        objective=Multiclass(),
        statistics=IMAGENET if normalise == "imagenet" else _NONE,
    )


def stratified_order(targets: Tensor, *, rng: torch.Generator) -> Tensor:
    """Row numbers in a random order, (n,), whose every beginning has the class shares of the whole.

    Args:
        targets: class ids (n,).
        rng: draws the order.
    """
    shuffled = torch.randperm(len(targets), generator=rng)
    by_class = shuffled[targets[shuffled].argsort(stable=True)]
    counts = torch.bincount(targets)
    rank = torch.arange(len(targets)) - (counts.cumsum(0) - counts)[targets[by_class]]
    # row k of a class of c falls at a random place of its k-th c-th of the order
    place = (rank + torch.rand(len(targets), generator=rng)) / counts[targets[by_class]]
    return by_class[place.argsort()]


def _preset(name: str) -> Augmentation:
    if name not in PRESETS:
        raise ValueError(f"no augmentation named {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ValueError(f"no layout of images named {name!r}; there are: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _choose(
    sources: Mapping[str, Source],
    sizes: Mapping[str, int | None],
    *,
    rng: torch.Generator,
    place: Path,
) -> dict[str, Labelled]:
    base = sources.get("train", sources.get("all"))
    if base is None:
        raise ValueError(f"{place} should have training images; it has: {', '.join(sources)}")
    published = {
        "valid": sources.get("valid") if "test" in sources else None,
        "test": sources.get("test", sources.get("valid")),
    }
    left = stratified_order(base.targets, rng=rng)
    tenth, chosen = max(1, len(left) // 10), {}
    for split, source in published.items():
        if source is None:
            rows = _beginning(left, tenth if sizes[split] is None else sizes[split], split, place)
            chosen[split], left = base.take(rows.sort().values), left[len(rows) :]
        else:
            order = stratified_order(source.targets, rng=rng)
            rows = _beginning(order, sizes[split], split, place)
            chosen[split] = source.take(rows.sort().values)
    rows = _beginning(left, sizes["train"], "train", place)
    return {"train": base.take(rows.sort().values), **chosen}


def _beginning(order: Tensor, count: int | None, split: str, place: Path) -> Tensor:
    if count is not None and not 0 < count <= len(order):
        raise ValueError(
            f"{split} is a number of images from 1 to the {len(order):,} that {place} has left for "
            f"it, got {count}"
        )
    return order[:count]


def _shifted(
    layout: str, path: Path, classes: tuple[str, ...], *, size: int, severity: int
) -> Labelled:
    if path.suffix == ".npy":
        return grey_to_rgb(read_npy_set(path, classes=classes, severity=severity))
    read = LAYOUTS["folder" if path.suffix == ".zip" else layout].read
    sources = read(path, size)
    source = sources.get("test", sources.get("all"))
    if source is None:
        raise ValueError(f"{path} should have test images; it has: {', '.join(sources)}")
    return source.take(torch.arange(len(source.targets)))
