"""Images with labels as a task: the step that every source of images ends in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from molhpft.core.batch import Batch
from molhpft.core.objectives import Multiclass
from molhpft.core.task import Task
from molhpft.domains.vision.augment import UNCHANGED, Augmentation, warp, warp_labels

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
        describes=first.classes,
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
    digest = hashlib.sha256(repr(settings).encode())
    for tensor in (examples.pixels, examples.targets):
        digest.update(tensor.contiguous().numpy().data)
    for split, rows in splits.items():
        digest.update(f"{split} {len(rows)}".encode())
    return digest.hexdigest()
