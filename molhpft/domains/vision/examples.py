"""Images with labels as a task: the step that every source of images ends in.

Random views of images: flips, shifts, zooms and turns as one affine map, one pass over a batch.

A view is a 2 x 3 matrix per image that says where each pixel of the view comes from, in coordinates
from -1 to 1. Images and label masks go through the same map, so that they stay aligned.

Which images train, validate and test, with equal class shares in each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.data import Task
from molhpft.core.network import Batch
from molhpft.core.objectives import Multiclass
from molhpft.domains.files import digest


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to an image; the default leaves it as it is.

    Attributes:
        flip: whether half of the images are mirrored left to right.
        shift: largest shift along each axis, in whole pixels, as a share of the image's side;
            padding 32 x 32 images by 4 and cropping is 1/8.
        zoom: smallest share of the image's area that a random resized crop keeps, of side ratio
            3/4 to 4/3; 1 for no crop.
        turn: largest rotation either way, in degrees.
    """

    flip: bool = False
    shift: float = 0.0
    zoom: float = 1.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a share outside its range.
        """
        if not (0 < self.zoom <= 1 and 0 <= self.shift < 1):
            raise ValueError(
                "zoom lies in (0, 1] and shift in [0, 1), shares of the image; got "
                f"zoom={self.zoom} and shift={self.shift}"
            )

    def draw(self, n: int, *, height: int, width: int, rng: torch.Generator) -> Tensor:
        """A random affine map for each of n images, (n, 2, 3), on the CPU.

        Args:
            n: images.
            height: of the images, in pixels.
            width: of the images, in pixels.
            rng: draws the maps; what the augmentation leaves out draws nothing.
        """
        maps = torch.eye(2, 3).repeat(n, 1, 1)
        if self.turn:
            angle = _uniform(n, rng=rng) * self.turn * pi / 180
            cos, sin, ratio = angle.cos(), angle.sin(), height / width
            maps[:, 0, :2] = torch.stack([cos, -sin * ratio], 1)
            maps[:, 1, :2] = torch.stack([sin / ratio, cos], 1)
        if self.flip:
            mirrored = torch.rand(n, generator=rng) < 0.5
            maps[mirrored, 0] *= -1
        if self.zoom < 1:
            sides = self._crop_sides(n, rng=rng)
            maps[:, :, :2] *= sides[:, :, None]
            maps[:, :, 2] = (1 - sides) * _uniform(n, 2, rng=rng)
        if self.shift:
            size = torch.tensor([width, height])
            most = (self.shift * size).int()
            steps = (torch.rand(n, 2, generator=rng) * (2 * most + 1)).floor() - most
            maps[:, :, 2] += 2 * steps / size
        return maps

    def _crop_sides(self, n: int, *, rng: torch.Generator) -> Tensor:
        """Width and height of crops as shares of the image, (n, 2); ratios log-uniform."""
        area = self.zoom + (1 - self.zoom) * torch.rand(n, generator=rng)
        ratio = (_uniform(n, rng=rng) * log(4 / 3)).exp()
        return torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)


UNCHANGED = Augmentation()
PRESETS = {
    "none": UNCHANGED,
    "flip_crop": Augmentation(flip=True, shift=1 / 8),
    "resized_crop": Augmentation(flip=True, zoom=0.2),
    "turn": Augmentation(turn=15.0),
}
"""Augmentations by the name a config has for them."""


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Views of images, bilinear; 0 where a view shows what lies outside its image.

    Args:
        images: float (n, channels, height, width).
        maps: (n, 2, 3), from `Augmentation.draw`.
    """
    return _sample(images, maps, mode="bilinear", outside=0.0)


def warp_labels(labels: Tensor, maps: Tensor, *, ignore: int) -> Tensor:
    """Views of label masks, each pixel the nearest one's label; `ignore` outside the image.

    Args:
        labels: integers (n, height, width), exact in float32.
        maps: those of the images.
        ignore: label of what lies outside.
    """
    views = _sample(labels[:, None].float(), maps, mode="nearest", outside=float(ignore))
    return views[:, 0].to(labels.dtype)


def _sample(images: Tensor, maps: Tensor, *, mode: str, outside: float) -> Tensor:
    grid = F.affine_grid(
        maps.to(images, non_blocking=True), list(images.shape), align_corners=False
    )
    # edge pixels are repeated, then masked: zeros would blend into the rim of every crop
    views = F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(3)[:, None]
    return torch.where(inside, views, outside)


def _uniform(*shape: int, rng: torch.Generator) -> Tensor:
    """Numbers from -1 to 1."""
    return torch.rand(*shape, generator=rng) * 2 - 1


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation a channel that nearly all published ResNets were trained with."""
IGNORE = 255
"""Label of pixels that belong to no class, as in PASCAL VOC."""


class Source(Protocol):
    """Images whose labels are known, and whose pixels may not be read yet."""

    @property
    def targets(self) -> Tensor:
        """int64 class ids, (n,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""

    def take(self, index: Tensor) -> "Labelled":
        """The rows `index` (k,) with their pixels."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of one split as their source has them.

    Attributes:
        pixels: uint8 (n, channels, height, width).
        targets: int64 class ids (n,), or uint8 masks (n, height, width), 255 for no class.
        classes: name of each class id.
    """

    pixels: Tensor
    targets: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, index: Tensor) -> "Labelled":
        """The rows `index` (k,)."""
        return replace(self, pixels=self.pixels[index], targets=self.targets[index])


@dataclass(frozen=True, eq=False)
class Images:
    """Images kept as bytes on one device, normalised and augmented a batch at a time.

    Attributes:
        pixels: uint8 (n, channels, height, width).
        targets: int64 class ids (n,), or uint8 masks (n, height, width).
        mean: of each channel, subtracted from values in [0, 1]; one number serves all channels.
        std: of each channel, divided by.
        augment: what is drawn for a batch that comes with a generator.
    """

    pixels: Tensor
    targets: Tensor
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    augment: Augmentation = UNCHANGED

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, index: Tensor, *, rng: torch.Generator | None = None) -> Batch:
        """The images `index` (k,), float (k, channels, height, width), with int64 targets.

        Args:
            index: row numbers.
            rng: draws one view of each image; without it images are as they are.
        """
        index = index.to(self.pixels.device, non_blocking=True)
        images, targets = self.pixels[index].float() / 255, self.targets[index]
        if rng is not None and self.augment != UNCHANGED:
            height, width = images.shape[-2:]
            maps = self.augment.draw(len(index), height=height, width=width, rng=rng)
            images = warp(images, maps)
            if targets.ndim > 1:
                targets = warp_labels(targets, maps, ignore=IGNORE)
        mean, std = self._statistics
        return Batch((images - mean) / std, targets.long())

    def to(self, device: torch.device | str) -> "Images":
        """The same images on `device`."""
        return replace(self, pixels=self.pixels.to(device), targets=self.targets.to(device))

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(x, device=self.pixels.device) for x in (self.mean, self.std))
        return mean[:, None, None], std[:, None, None]


def labelled_task(
    name: str,
    parts: Mapping[str, Labelled],
    *,
    augment: Augmentation,
    objective: Multiclass,
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET,
) -> Task:
    """A task on images, its splits those of `parts`.

    Args:
        name: for people and file names.
        parts: split name to images; "train" augments, and all have one size and the same classes.
        augment: views that training sees.
        objective: ignores `IGNORE` where targets are masks.
        statistics: mean and standard deviation of each channel.

    Raises:
        ValueError: a split is empty, or differs from the training split in size or classes.
    """
    _check(name, parts)
    first = parts["train"]
    channels = first.pixels.shape[1]
    examples = Images(
        torch.cat([part.pixels for part in parts.values()]),
        torch.cat([part.targets for part in parts.values()]),
        mean=statistics[0][:channels],
        std=statistics[1][:channels],
        augment=augment,
    )
    sizes = [len(part) for part in parts.values()]
    rows = torch.split(torch.arange(sum(sizes)), sizes)
    splits = dict(zip(parts, rows, strict=True))
    return Task(
        name=name,
        examples=examples,
        splits=splits,
        objective=objective,
        outputs=len(first.classes),
        fingerprint=_fingerprint(examples, splits, (objective, first.classes)),
        target_names=first.classes,
    )


def _check(name: str, parts: Mapping[str, Labelled]) -> None:
    first = parts["train"]
    for split, part in parts.items():
        if not len(part):
            raise ValueError(f"split {split!r} of {name} should hold images, it is empty")
        shape, expected = tuple(part.pixels.shape[1:]), tuple(first.pixels.shape[1:])
        if shape != expected:
            raise ValueError(
                f"images of {name} should have one shape {expected} (channels, height, width) as "
                f"in split 'train'; those of split {split!r} have {shape}"
            )
        if part.classes != first.classes:
            odd = sorted(set(part.classes) ^ set(first.classes))
            raise ValueError(
                f"every split of {name} should have the classes of 'train'; split {split!r} "
                f"differs in: {', '.join(odd[:5]) or 'their order'}"
            )


def _fingerprint(examples: Images, splits: Mapping[str, Tensor], about: object) -> str:
    shape = tuple(examples.pixels.shape)
    settings = (about, shape, examples.mean, examples.std, examples.augment)
    sizes = [f"{split} {len(rows)}" for split, rows in splits.items()]
    return digest(repr(settings), examples.pixels, examples.targets, *sizes)


def choose(
    sources: Mapping[str, Source],
    sizes: Mapping[str, int | None],
    *,
    place: Path,
    rng: torch.Generator,
) -> dict[str, Labelled]:
    """Read the images of the splits train, valid and test, as many as are asked for.

    Where the source has no validation images they are taken from its training images; where it has
    train and valid only, its "valid" is kept for testing; where nothing is split, test images are
    taken as well. Whatever is taken has the class shares of what it is taken from.

    Args:
        sources: split name to images, "all" where nothing is split.
        sizes: images of each split; None for those published, a tenth of those it is taken from,
            or (train) all that are left.
        place: where the images lie, for messages.
        rng: draws the images.

    Raises:
        ValueError: there are no training images, fewer images than asked for, or one that cannot
            be read.
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
            pool, rows = base, _beginning(left, count, split, place)
            left = left[len(rows) :]
        else:
            order = stratified_order(source.targets, rng=rng)
            pool, rows = source, _beginning(order, sizes[split], split, place)
        chosen[split] = pool.take(rows.sort().values)
    rows = _beginning(left, sizes["train"], "train", place)
    return {"train": base.take(rows.sort().values), **chosen}


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


def _beginning(order: Tensor, count: int | None, split: str, place: Path) -> Tensor:
    if count is not None and not 0 < count <= len(order):
        raise ValueError(
            f"{split} is a number of images from 1 to the {len(order):,} that {place} has left for "
            f"it, got {count}"
        )
    return order[:count]
