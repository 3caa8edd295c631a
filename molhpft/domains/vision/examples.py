"""Images as examples of a task: normalised and augmented a batch at a time.

An augmented view is one affine map: a 2 x 3 matrix per image that says where each pixel of the view
comes from, in coordinates from -1 to 1. Images and label masks go through the same map, so that
they stay aligned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.data import Task
from molhpft.core.network import Batch
from molhpft.core.objectives import Multiclass
from molhpft.domains.files import digest

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and std of each channel that nearly all published ResNets were trained with."""
IGNORE = 255
"""Label of pixels that belong to no class, as in PASCAL VOC."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random views of images; the default leaves an image as it is.

    >>> rng = torch.Generator().manual_seed(0)
    >>> views = Augmentation(flip=True, shift=1 / 8)
    >>> warp(torch.rand(5, 3, 32, 32), views.draw(5, height=32, width=32, rng=rng)).shape
    torch.Size([5, 3, 32, 32])

    Attributes:
        flip: whether half of the images are mirrored left to right.
        shift: largest shift along each axis, in whole pixels, as a fraction of the image's side;
            padding 32 x 32 images by 4 and cropping is 1/8.
        zoom: smallest fraction of the image's area that a random resized crop keeps, with side
            ratios from 3/4 to 4/3; 1 for no crop.
        turn: largest rotation either way, in degrees.
    """

    flip: bool = False
    shift: float = 0.0
    zoom: float = 1.0
    turn: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.zoom <= 1 and 0 <= self.shift < 1):
            raise ValueError(
                "zoom should lie in (0, 1] and shift in [0, 1), as fractions of the image; got "
                f"zoom={self.zoom} and shift={self.shift}"
            )

    def draw(self, n: int, *, height: int, width: int, rng: torch.Generator) -> Tensor:
        """A random affine map for each of n images, (n, 2, 3), on the CPU.

        A part that is switched off draws nothing from `rng`.
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
        """Width and height of crops as fractions of the image, (n, 2); ratios log-uniform."""
        area = self.zoom + (1 - self.zoom) * torch.rand(n, generator=rng)
        ratio = (_uniform(n, rng=rng) * log(4 / 3)).exp()
        return torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)


UNCHANGED = Augmentation()
AUGMENTATIONS = {
    "none": UNCHANGED,
    "flip_crop": Augmentation(flip=True, shift=1 / 8),
    "resized_crop": Augmentation(flip=True, zoom=0.2),
    "turn": Augmentation(turn=15.0),
}
"""Augmentations by the name a config has for them."""


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Bilinear views of float images (n, channels, height, width) by maps (n, 2, 3); 0 outside."""
    return _sample(images, maps, mode="bilinear", outside=0.0)


def warp_labels(labels: Tensor, maps: Tensor, *, ignore: int) -> Tensor:
    """Views of label masks (n, height, width), nearest pixel; `ignore` outside the image."""
    views = _sample(labels[:, None].float(), maps, mode="nearest", outside=float(ignore))
    return views[:, 0].to(labels.dtype)


def _sample(images: Tensor, maps: Tensor, *, mode: str, outside: float) -> Tensor:
    maps = maps.to(images, non_blocking=True)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    # edge pixels are repeated, then masked: zeros would blend into the rim of every crop
    views = F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(3)[:, None]
    return torch.where(inside, views, outside)


def _uniform(*shape: int, rng: torch.Generator) -> Tensor:
    """Numbers from -1 to 1."""
    return torch.rand(*shape, generator=rng) * 2 - 1


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of one split, as bytes, with their labels.

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


class Source(Protocol):
    """Images whose labels are known and whose pixels may still have to be read."""

    @property
    def targets(self) -> Tensor:
        """int64 class ids, (n,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""

    def take(self, index: Tensor) -> Labelled:
        """The rows `index` (k,) with their pixels."""


@dataclass(frozen=True, eq=False)
class FirstClasses:
    """The images of some classes of a source, those of the lowest ids; others are never read.

    Attributes:
        source: of all classes.
        count: classes that are left.

    Raises:
        ValueError: the source has fewer classes.
    """

    source: Source
    count: int

    def __post_init__(self) -> None:
        if self.count > len(self.source.classes):
            raise ValueError(
                f"classes is a number from 1 to the {len(self.source.classes)} that there are, "
                f"got {self.count}"
            )

    @cached_property
    def _rows(self) -> Tensor:
        return (self.source.targets < self.count).nonzero().flatten()

    @property
    def targets(self) -> Tensor:
        """int64 class ids, (n,)."""
        return self.source.targets[self._rows]

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class id."""
        return self.source.classes[: self.count]

    def take(self, index: Tensor) -> Labelled:
        """The rows `index` (k,) with their pixels."""
        return replace(self.source.take(self._rows[index]), classes=self.classes)


@dataclass(frozen=True, eq=False)
class Images:
    """Images kept as bytes on one device, normalised and augmented a batch at a time.

    >>> images = Images(torch.zeros(9, 3, 32, 32, dtype=torch.uint8), torch.arange(9) % 2)
    >>> batch = images.take(torch.tensor([3, 5]))
    >>> batch.inputs.shape, batch.targets
    (torch.Size([2, 3, 32, 32]), tensor([1, 1]))

    Attributes:
        pixels: uint8 (n, channels, height, width).
        targets: int64 class ids (n,), or uint8 masks (n, height, width).
        mean: of each channel, subtracted from values in [0, 1]; one number serves all channels.
        std: of each channel, divided by.
        augment: views that are drawn for a batch that comes with a generator.
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

        One view of each image is drawn by `rng`; without it images are as they are.
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
        parts: split name to images of one size and the same classes.
        augment: views that training sees.
        objective: ignores `IGNORE` where targets are masks.
        statistics: mean and standard deviation of each channel.

    Raises:
        ValueError: a split is empty, or differs from the training split in size or classes.
    """
    _check_parts(name, parts)
    first = parts["train"]
    channels = first.pixels.shape[1]
    examples = Images(
        torch.cat([part.pixels for part in parts.values()]),
        torch.cat([part.targets for part in parts.values()]),
        mean=statistics[0][:channels],
        std=statistics[1][:channels],
        augment=augment,
    )
    rows = torch.split(torch.arange(len(examples)), [len(part) for part in parts.values()])
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


def _check_parts(name: str, parts: Mapping[str, Labelled]) -> None:
    first = parts["train"]
    expected = tuple(first.pixels.shape[1:])
    for split, part in parts.items():
        if not len(part):
            raise ValueError(f"split {split!r} of {name} should hold images, it is empty")
        shape = tuple(part.pixels.shape[1:])
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
