"""Segmentation: DeepLabV3 (Chen et al., 2017), PASCAL VOC, and drawn shapes that need no files.

The backbone is a dilated ResNet, the task head is the whole ASPP classifier.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import BelowOne, Count, Seed
from molhpft.core.data import Task
from molhpft.core.network import Batch, Chain, Plain, Stage
from molhpft.core.objectives import Multiclass
from molhpft.domains.extras import require
from molhpft.domains.vision.examples import (
    IGNORE,
    IMAGENET,
    UNCHANGED,
    Augmentation,
    Labelled,
    labelled_task,
)
from molhpft.domains.vision.images import Files, open_files, read_pixels, to_tensor
from molhpft.domains.vision.resnet import resnet

if TYPE_CHECKING:
    from PIL import Image


def segmentation_resnet(
    *, depth: Literal[18, 34, 50] = 50, output_stride: Literal[8, 16, 32] = 8, channels: Count = 3
) -> Chain:
    """A ResNet without its pool: features (n, d, height / stride, width / stride).

    Its options are those of `resnet`.
    """
    whole = resnet(depth=depth, output_stride=output_stride, channels=channels)
    return whole.split("pool")[0]


def aspp_head(
    width: int,
    outputs: int,
    *,
    hidden: Count = 256,
    rates: tuple[Count, ...] = (12, 24, 36),
    dropout: BelowOne = 0.5,
) -> Chain:
    """DeepLabV3's head: atrous spatial pyramid pooling, a convolution, a classifier for each pixel.

    Training needs at least two images a batch: the pooled branch normalises one pixel an image.

    Args:
        width: channels of the features.
        outputs: classes.
        hidden: channels of every branch.
        rates: dilations of the 3 x 3 branches; those of output stride 8, halve them for 16.
        dropout: after the pyramid.
    """
    pyramid = PyramidPooling(width, hidden, rates, dropout=dropout)
    return Chain(
        {
            "aspp": Plain(pyramid, width=hidden),
            "conv": Plain(_conv(hidden, hidden, kernel=3), width=hidden),
            "classifier": Plain(nn.Conv2d(hidden, outputs, 1), width=outputs),
            "upsample": UpsampleToImage(outputs),
        }
    )


class PyramidPooling(nn.Module):
    """A 1 x 1 convolution, a dilated one for each rate and the image's mean, side by side."""

    def __init__(self, width: int, hidden: int, rates: tuple[int, ...], *, dropout: float) -> None:
        super().__init__()
        dilated = [_conv(width, hidden, kernel=3, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList([_conv(width, hidden), *dilated])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), _conv(width, hidden))
        self.project = nn.Sequential(_conv(hidden * (len(rates) + 2), hidden), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """(n, hidden, height, width) of features (n, width, height, width).

        Raises:
            ValueError: the features are no maps.
        """
        if x.ndim != 4:
            raise ValueError(
                "an aspp head reads feature maps (n, width, height, width), got features "
                f"{tuple(x.shape)}; use an encoder without a pool, such as segmentation_resnet"
            )
        pooled = self.pool(x).expand(-1, -1, *x.shape[-2:])
        branches = [branch(x) for branch in self.branches]
        result: Tensor = self.project(torch.cat([*branches, pooled], 1))
        return result


class UpsampleToImage(Stage):
    """Logits of the feature map, bilinear, at the size of the images in the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """(n, classes, height, width) of the images."""
        size = batch.inputs.shape[-2:]
        return F.interpolate(h, size=size, mode="bilinear", align_corners=False)


def _conv(inputs: int, width: int, *, kernel: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, width, kernel, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


VOC_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow "  # noqa: SIM905
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)
_MIOU = Multiclass(metric="miou", ignore=IGNORE)


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
    if not path.exists():
        raise FileNotFoundError(
            f"no images of PASCAL VOC at {path}; task.path should be the folder VOCdevkit/VOC2012 "
            "of JPEGImages/, SegmentationClass/, ImageSets/Segmentation/train.txt and val.txt, "
            "published at http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
        )
    files = open_files(path)
    train, test = (_listed(files, name) for name in ("train", "val"))
    valid = max(1, len(train) // 10) if valid is None else valid
    if not 0 < valid < len(train):
        raise ValueError(
            f"valid is a number of images from 1 to {len(train) - 1}, to be taken from the "
            f"{len(train)} of train.txt, got {valid}"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    names = {
        "train": [train[k] for k in sorted(order[valid:])],
        "valid": [train[k] for k in sorted(order[:valid])],
        "test": test,
    }
    parts = {split: _read_voc(files, chosen, size) for split, chosen in names.items()}
    views = Augmentation(flip=augment, zoom=0.5 if augment else 1.0)
    return labelled_task("voc", parts, augment=views, objective=_MIOU)


def _listed(files: Files, name: str) -> list[str]:
    (data,) = files.read([f"ImageSets/Segmentation/{name}.txt"])
    return data.decode("utf-8").split()


def _read_voc(files: Files, names: list[str], size: int) -> Labelled:
    images = [f"JPEGImages/{name}.jpg" for name in names]
    masks = [f"SegmentationClass/{name}.png" for name in names]
    how = f"padded to {size}"
    return Labelled(
        read_pixels(files, images, lambda image: _padded_image(image, size), how),
        read_pixels(files, masks, lambda mask: _padded_mask(mask, size), how),
        VOC_CLASSES,
    )


def _padded_image(image: "Image.Image", size: int) -> Tensor:
    pillow = require("PIL.Image", extra="vision")
    pad = require("PIL.ImageOps", extra="vision").pad
    # padding of the mean colour is near 0 once normalised
    mean = tuple(round(255 * channel) for channel in IMAGENET[0])
    rgb, smooth = image.convert("RGB"), pillow.Resampling.BILINEAR
    return to_tensor(pad(rgb, (size, size), method=smooth, color=mean))


def _padded_mask(mask: "Image.Image", size: int) -> Tensor:
    if mask.mode not in ("P", "L"):
        raise ValueError(
            f"a mask has one class id for each pixel (mode P or L), not mode {mask.mode}"
        )
    pillow = require("PIL.Image", extra="vision")
    pad = require("PIL.ImageOps", extra="vision").pad
    image = pillow.fromarray(np.array(mask))  # the palette only colours the ids
    nearest = pillow.Resampling.NEAREST
    ids = torch.from_numpy(np.array(pad(image, (size, size), method=nearest, color=(IGNORE,))))
    wrong = ids[(ids >= len(VOC_CLASSES)) & (ids != IGNORE)]
    if len(wrong):
        raise ValueError(
            f"class ids lie from 0 to {len(VOC_CLASSES) - 1}, or are {IGNORE}; "
            f"found {int(wrong[0])}"
        )
    return ids


SHAPES = ("background", "disc", "square", "triangle")
_PROPORTIONS = {"train": 0.5, "valid": 0.25, "test": 0.25}


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
        split: draw_shapes(round(images * proportion), size=size, rng=rng)
        for split, proportion in _PROPORTIONS.items()
    }
    return labelled_task("shapes", parts, augment=UNCHANGED, objective=_MIOU)


def draw_shapes(n: int, *, size: int, rng: torch.Generator) -> Labelled:
    """Images with masks of class ids and 255."""
    pixels = torch.randint(0, 100, (n, 3, size, size), generator=rng, dtype=torch.uint8)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for _ in range(2):
        kinds = torch.randint(1, len(SHAPES), (n, 1, 1), generator=rng)
        chosen = kinds[:, None].expand(-1, -1, size, size) - 1
        depth = _depths(n, size, rng=rng).gather(1, chosen)[:, 0]
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
