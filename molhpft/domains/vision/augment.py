"""Random views of images: flips, shifts, zooms and turns as one affine map, one pass over a batch.

A view is a 2 x 3 matrix per image that says where each pixel of the view comes from, in coordinates
from -1 to 1. Images and label masks go through the same map, so that they stay aligned.
"""

from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor
from torch.nn import functional as F


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
