"""Handwritten digits: MNIST where its file is there, scikit-learn's small digits where not.

Both come as 28 x 28 pixels, scikit-learn's 8 x 8 scaled up, so that one network fits both and a
turn or a cut means the same.
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from molhpft.domains.folders import data_folder

SIDE = 28
CLASSES = 10
SPLITS = ("train", "valid", "test")

_INK = 255
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_SHUFFLE = 0  # seed of the split: the files are sorted, MNIST's by class


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled digits in three sets without a picture in common.

    Attributes:
        source: "mnist" or "digits" (scikit-learn's).
        pixels: uint8 (n, 28, 28), 0 for paper and 255 for ink.
        digits: (n,), 0-9.
        splits: "train", "valid" and "test" to row numbers.
    """

    source: str
    pixels: Tensor
    digits: Tensor
    splits: dict[str, Tensor]


def load_pictures(mnist: Path | None) -> Pictures:
    """MNIST or scikit-learn's digits, always with the same split.

    Of MNIST's training pictures a sixth validates and its test pictures test. Of scikit-learn's
    1,797 digits three fifths train, one validates, one tests.

    Args:
        mnist: `.npz` file with x_train, y_train, x_test and y_test. None takes `vision/mnist.npz`
            beside the data folder where that exists, else scikit-learn's digits.

    Raises:
        FileNotFoundError: `mnist` is given and is not there.
        ValueError: the file is not such a file.
    """
    beside = data_folder().parent / "vision" / "mnist.npz"
    if mnist is None and not beside.is_file():
        return _sklearn_digits()
    return _mnist(mnist or beside)


def turned_and_cut(pixels: Tensor, *, degrees: float, crop: int, rng: torch.Generator) -> Tensor:
    """Each picture turned about its centre and the centre cut out, in one bilinear resampling.

    Args:
        pixels: uint8 (n, 28, 28).
        degrees: angles are uniform between minus and plus this.
        crop: the side of the cut is uniform between this many pixels and all 28; it is scaled back
            to 28 x 28, so that a small cut shows a large digit.
        rng: draws angles and cuts.

    Returns:
        uint8 (n, 28, 28); paper where a corner comes from outside the picture.
    """
    turn, cut = torch.rand(2, len(pixels), generator=rng)
    angle = (2 * turn - 1) * math.radians(degrees)
    scale = (crop + (SIDE - crop) * cut) / SIDE
    cos, sin, zero = scale * angle.cos(), scale * angle.sin(), torch.zeros_like(angle)
    maps = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(maps, [len(pixels), 1, SIDE, SIDE], align_corners=False)
    drawn = F.grid_sample(pixels[:, None].float(), grid, align_corners=False)
    return drawn[:, 0].round().to(torch.uint8)


def _mnist(path: Path) -> Pictures:
    x_train, y_train, x_test, y_test = _arrays(path)
    n, m = len(y_train), len(y_test)
    train, valid = _shuffled(n).tensor_split([n - n // 6])
    return Pictures(
        "mnist",
        torch.cat([x_train, x_test]),
        torch.cat([y_train, y_test]).long(),
        {"train": train, "valid": valid, "test": torch.arange(n, n + m)},
    )


def _arrays(path: Path) -> list[Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no MNIST at {path}; leave mnist out to take what is at hand")
    try:
        # opened here: numpy leaves a file open that turns out to be no archive
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            arrays = [torch.from_numpy(file[name]) for name in _ARRAYS]
    except (BadZipFile, zlib.error, KeyError, IndexError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} should be an .npz file with {', '.join(_ARRAYS)}; reading it gave: {error}"
        ) from error
    for pixels, digits in (arrays[:2], arrays[2:]):
        if pixels.shape != (len(digits), SIDE, SIDE) or pixels.dtype != torch.uint8:
            raise ValueError(
                f"{path} should hold 8-bit pictures of {SIDE} x {SIDE} pixels, one a label, "
                f"got {pixels.dtype} {tuple(pixels.shape)} for {len(digits)} labels"
            )
    return arrays


def _sklearn_digits() -> Pictures:
    found = load_digits()
    small = torch.from_numpy(found.images).float()[:, None] * (_INK / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    n = len(large)
    rows = _shuffled(n).tensor_split([3 * n // 5, 4 * n // 5])
    return Pictures(
        "digits",
        large.round().to(torch.uint8),
        torch.from_numpy(found.target).long(),
        dict(zip(SPLITS, rows, strict=True)),
    )


def _shuffled(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_SHUFFLE))
