"""PASCAL VOC 2012 segmentation, read from the folder that its archive unpacks to."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from molhpft.core.objectives import Multiclass
from molhpft.core.ranges import Count, Seed
from molhpft.core.task import Task
from molhpft.domains.vision.augment import Augmentation
from molhpft.domains.vision.examples import IGNORE, IMAGENET, Labelled, labelled_task
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
