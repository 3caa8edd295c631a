"""A segmentation task that needs no files: coloured shapes on noise, drawn from a seed."""

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from molhpft.core.objectives import Multiclass
from molhpft.core.ranges import Count, Seed
from molhpft.core.task import Task
from molhpft.domains.vision.augment import UNCHANGED
from molhpft.domains.vision.examples import IGNORE, Labelled, labelled_task

CLASSES = ("background", "disc", "square", "triangle")
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
        kinds = torch.randint(1, len(CLASSES), (n, 1, 1), generator=rng)
        depth = _depths(n, size, rng=rng).gather(1, kinds[:, None].expand(-1, -1, size, size) - 1)
        depth = depth[:, 0]
        colour = torch.randint(100, 256, (n, 3, 1, 1), generator=rng, dtype=torch.uint8)
        pixels = torch.where(depth[:, None] > 0, colour, pixels)
        masks = torch.where(depth > 0, kinds.to(torch.uint8), masks)
        masks = torch.where(depth.abs() < 1, torch.tensor(IGNORE, dtype=torch.uint8), masks)
    return Labelled(pixels, masks, CLASSES)


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
