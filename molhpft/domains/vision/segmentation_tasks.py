"""PASCAL VOC 2012 segmentation, read from the folder that its archive unpacks to.

A segmentation task that needs no files: coloured shapes on noise, drawn from a seed.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from PIL import Image, ImageOps
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multiclass
from molhpft.core.ranges import Count, Seed
from molhpft.domains.vision.examples import (
    IGNORE,
    IMAGENET,
    UNCHANGED,
    Augmentation,
    Labelled,
    labelled_task,
)
from molhpft.domains.vision.images import Files, open_files, read_pixels

CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow "  # noqa: SIM905
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
_LISTS = "ImageSets/Segmentation"


def voc_task(
    *,
    path: Path,
    size: Count = 256,
    valid: Count | None = None,
    augment: bool = True,
    seed: Seed = 0,
) -> Task:
    """Which of 20 kinds of things each pixel shows, or background, by mean IoU.

    The published train.txt is divided into training and validation images and val.txt is kept for
    testing, because the masks of VOC's own test images are not public. Images are shrunk or grown
    until their longer side is `size` and padded to a square; padding is unlabelled.

    Args:
        path: such as `VOCdevkit/VOC2012`, with JPEGImages, SegmentationClass and ImageSets.
        size: side in pixels.
        valid: validation images; None for a tenth of train.txt.
        augment: whether training sees mirrored crops (at least half of the image's area).
        seed: of the choice of validation images.

    Raises:
        FileNotFoundError: no folder there.
        ValueError: a list, an image or a mask is absent or cannot be read, or `valid` is too large.
    """
    files = open_files(path)
    train, test = (_listed(files, f"{_LISTS}/{name}.txt") for name in ("train", "val"))
    valid = max(1, len(train) // 10) if valid is None else valid
    if not 0 < valid < len(train):
        raise ValueError(
            f"valid is a number of images from 1 to {len(train) - 1}, to be taken from the "
            f"{len(train)} of train.txt, got {valid}"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {
        "train": [train[k] for k in sorted(order[valid:])],
        "valid": [train[k] for k in sorted(order[:valid])],
        "test": test,
    }
    return labelled_task(
        "voc",
        {split: _read(files, names, size) for split, names in chosen.items()},
        augment=Augmentation(flip=augment, zoom=0.5 if augment else 1.0),
        objective=Multiclass(metric="miou", ignore=IGNORE),
    )


def _read(files: Files, names: list[str], size: int) -> Labelled:
    images = [f"JPEGImages/{name}.jpg" for name in names]
    masks = [f"SegmentationClass/{name}.png" for name in names]
    how = f"padded to {size}"
    return Labelled(
        read_pixels(files, images, lambda image: _padded_image(image, size), how),
        read_pixels(files, masks, lambda mask: _padded_mask(mask, size), how),
        CLASSES,
    )


def _padded_image(image: Image.Image, size: int) -> Tensor:
    # padding of the mean colour is near 0 once normalised
    mean = tuple(round(255 * channel) for channel in IMAGENET[0])
    rgb, smooth = image.convert("RGB"), Image.Resampling.BILINEAR
    padded = ImageOps.pad(rgb, (size, size), method=smooth, color=mean)
    return torch.from_numpy(np.array(padded)).permute(2, 0, 1).contiguous()


def _padded_mask(mask: Image.Image, size: int) -> Tensor:
    if mask.mode not in ("P", "L"):
        raise ValueError(f"a mask has one class id a pixel (mode P or L), not mode {mask.mode}")
    ids = Image.fromarray(np.array(mask))  # the palette only colours the ids
    nearest = Image.Resampling.NEAREST
    padded = ImageOps.pad(ids, (size, size), method=nearest, color=(IGNORE,))
    found = torch.from_numpy(np.array(padded))
    wrong = found[(found >= len(CLASSES)) & (found != IGNORE)]
    if len(wrong):
        raise ValueError(
            f"class ids lie from 0 to {len(CLASSES) - 1}, or are {IGNORE}; found {int(wrong[0])}"
        )
    return found


def _listed(files: Files, name: str) -> list[str]:
    (data,) = files.read([name])
    return data.decode("utf-8").split()


SHAPES = ("background", "disc", "square", "triangle")
_SHARES = {"train": 0.5, "valid": 0.25, "test": 0.25}


def shapes_task(
    *, images: Annotated[int, Interval(ge=3)] = 400, size: Count = 64, seed: Seed = 0
) -> Task:
    """Which pixels belong to a disc, a square or a triangle, by mean IoU.

    Each image has two shapes of random colour, place and size, the second over the first. As in
    PASCAL VOC, a shape's outline is unlabelled (255). Colour says nothing about the class.

    Args:
        images: half to train, a quarter each to validate and test.
        size: side in pixels.
        seed: of everything drawn.
    """
    rng = torch.Generator().manual_seed(seed)
    parts = {
        split: draw_shapes(round(images * share), size=size, rng=rng)
        for split, share in _SHARES.items()
    }
    objective = Multiclass(metric="miou", ignore=IGNORE)
    return labelled_task("shapes", parts, augment=UNCHANGED, objective=objective)


def draw_shapes(n: int, *, size: int, rng: torch.Generator) -> Labelled:
    """Images with masks of class ids and 255.

    Args:
        n: number of images.
        size: side in pixels.
        rng: draws everything.
    """
    pixels = torch.randint(0, 100, (n, 3, size, size), generator=rng, dtype=torch.uint8)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for _ in range(2):
        kinds = torch.randint(1, len(SHAPES), (n, 1, 1), generator=rng)
        depth = _depths(n, size, rng=rng).gather(1, kinds[:, None].expand(-1, -1, size, size) - 1)
        depth = depth[:, 0]
        colour = torch.randint(100, 256, (n, 3, 1, 1), generator=rng, dtype=torch.uint8)
        pixels = torch.where(depth[:, None] > 0, colour, pixels)
        masks = torch.where(depth > 0, kinds.to(torch.uint8), masks)
        masks = torch.where(depth.abs() < 1, torch.tensor(IGNORE, dtype=torch.uint8), masks)
    return Labelled(pixels, masks, SHAPES)


def _depths(n: int, size: int, *, rng: torch.Generator) -> Tensor:
    """Pixels inside the outline of a disc, square and triangle, (n, 3, size, size); < 0 outside."""
    radius = size * (0.12 + 0.13 * torch.rand(n, 1, 1, generator=rng))
    centre = size * (0.25 + 0.5 * torch.rand(n, 2, 1, 1, generator=rng))
    steps = torch.arange(size) + 0.5
    y, x = steps[:, None] - centre[:, 0], steps - centre[:, 1]
    disc = radius - (x.square() + y.square()).sqrt()
    square = radius - torch.maximum(x.abs(), y.abs())
    # upright, with its corners on a circle of 1.3 radii
    triangle = 0.65 * radius - torch.maximum(y.expand_as(disc), 0.866 * x.abs() - 0.5 * y)
    return torch.stack([disc, square, triangle], 1)
