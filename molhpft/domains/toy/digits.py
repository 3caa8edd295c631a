"""The toy of Ren et al. (2023): pretrain a small dense network on ten digits, move it to three.

Digits are MNIST's where its file is there, else scikit-learn's 8 x 8 ones scaled up: both have
28 x 28 pixels, so that one network fits both and a turn or a cut means the same. The downstream
digits are turned and cut at random, so that pretrained features fit them, but not well. Validation
and test show pictures that neither task trains on.
"""

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from zipfile import BadZipFile

import numpy as np
import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import Count, Seed
from molhpft.core.data import Rows, Task
from molhpft.core.network import Chain, Plain
from molhpft.core.objectives import Multiclass
from molhpft.domains.files import data_folder, digest
from molhpft.domains.weights import backbone_weights, read_weights

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
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (_INK / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    n = len(large)
    rows = _shuffled(n).tensor_split([3 * n // 5, 4 * n // 5])
    return Pictures(
        "digits",
        large.round().to(torch.uint8),
        torch.from_numpy(digits.target).long(),
        dict(zip(SPLITS, rows, strict=True)),
    )


def _shuffled(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_SHUFFLE))


def toy_pretrain_task(*, mnist: Path | None = None) -> Task:
    """Pretraining: which of the ten digits a picture shows, by accuracy.

    Args:
        mnist: MNIST as one `.npz` file. None takes `vision/mnist.npz` beside the data folder where
            that exists, else the 1,797 digits that scikit-learn ships, scaled up; the task's name
            says which.

    Raises:
        FileNotFoundError: `mnist` is given and is not there.
        ValueError: the file is not MNIST.
    """
    pictures = load_pictures(mnist)
    name = f"toy_{pictures.source}_pretrain"
    return _task(name, pictures.pixels, pictures.digits, pictures.splits, range(CLASSES))


def toy_task(
    *,
    mnist: Path | None = None,
    classes: tuple[Annotated[int, Interval(ge=0, lt=CLASSES)], ...] = (0, 1, 2),
    per_class: Count = 1000,
    degrees: Annotated[float, Interval(ge=0, le=180)] = 45.0,
    crop: Annotated[int, Interval(ge=1, le=SIDE)] = 20,
    seed: Seed = 0,
) -> Task:
    """Downstream: a few digits, each picture turned and cut out at random, by accuracy.

    Every split holds `per_class` pictures of each class, drawn with replacement from its own set of
    pictures, each draw with a turn and a cut of its own. All are drawn once: the data are fixed.

    Args:
        mnist: as for `toy_pretrain_task`.
        classes: digits to tell apart; label i is the i-th of them.
        per_class: pictures of each class in each split.
        degrees: a picture is turned by a uniform angle between minus and plus this.
        crop: the side of the centre cut out is uniform between this many pixels and all 28.
        seed: of draws, turns and cuts.

    Raises:
        FileNotFoundError: `mnist` is given and is not there.
        ValueError: the file is not MNIST, or an option is out of its range.
    """
    _check(classes, per_class, degrees, crop)
    pictures, rng = load_pictures(mnist), torch.Generator().manual_seed(seed)
    drawn = [_draw(pictures, split, digit, per_class, rng) for split in SPLITS for digit in classes]
    pixels = turned_and_cut(pictures.pixels[torch.cat(drawn)], degrees=degrees, crop=crop, rng=rng)
    labels = torch.arange(len(classes)).repeat_interleave(per_class).repeat(len(SPLITS))
    rows = torch.arange(len(labels)).chunk(len(SPLITS))
    splits = dict(zip(SPLITS, rows, strict=True))
    return _task(f"toy_{pictures.source}", pixels, labels, splits, classes)


def toy_mlp(*, inputs: Count = SIDE * SIDE, width: Count = 128, layers: Count = 4) -> Chain:
    """Dense layers with ReLU and no normalisation, stages `layer0`, `layer1`, ...

    >>> toy_mlp(width=16, layers=2).names
    ['layer0', 'layer1']

    With a linear head the default is the "4+1"-layer network of Ren et al. (2023).

    Args:
        inputs: numbers in an example, such as the pixels of a picture.
        width: units in each layer; the last layer's are the features.
        layers: number of stages.
    """
    widths = [inputs, *[width] * layers]
    return Chain(
        {
            f"layer{k}": Plain(nn.Sequential(nn.Linear(widths[k], width), nn.ReLU()), width=width)
            for k in range(layers)
        }
    )


def load_toy_mlp(backbone: Chain, path: Path) -> None:
    """Put the encoder of a finished run into a `toy_mlp`.

    Args:
        backbone: changed in place, or not at all.
        path: `model.safetensors` of a run of a `toy_mlp` of the same size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, or does not hold such an encoder.
    """
    weights = backbone_weights(read_weights(path), "backbone.")
    needed, given = (
        {name: tuple(value.shape) for name, value in tensors.items()}
        for tensors in (backbone.state_dict(), weights)
    )
    if given != needed:
        name = min(k for k in needed | given if needed.get(k) != given.get(k))
        raise ValueError(
            f"{path} should hold a toy_mlp of this size; {name} should be "
            f"{needed.get(name, 'absent')}, it is {given.get(name, 'absent')}"
        )
    backbone.load_state_dict(weights)


def _check(classes: tuple[int, ...], per_class: int, degrees: float, crop: int) -> None:
    if len(set(classes)) < max(len(classes), 2) or not set(classes) <= set(range(CLASSES)):
        raise ValueError(f"classes are two or more different digits of 0-9, got {list(classes)}")
    if per_class < 1:
        raise ValueError(f"per_class is at least 1, got {per_class}")
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees lie in [0, 180], got {degrees}")
    if not 1 <= crop <= SIDE:
        raise ValueError(f"crop is a side of 1 to {SIDE} pixels, got {crop}")


def _draw(pictures: Pictures, split: str, digit: int, count: int, rng: torch.Generator) -> Tensor:
    rows = pictures.splits[split]
    rows = rows[pictures.digits[rows] == digit]
    return rows[torch.randint(len(rows), (count,), generator=rng)]


def _task(
    name: str, pixels: Tensor, labels: Tensor, splits: dict[str, Tensor], digits: Iterable[int]
) -> Task:
    target_names = tuple(str(digit) for digit in digits)
    return Task(
        name=name,
        examples=Rows(pixels.flatten(1).float() / 255, labels),
        splits=splits,
        objective=Multiclass(),
        outputs=len(target_names),
        fingerprint=_fingerprint(pixels, labels, *splits.values()),
        target_names=target_names,
    )


def _fingerprint(*tensors: Tensor) -> str:
    return digest(*(part for tensor in tensors for part in (f"{tuple(tensor.shape)}", tensor)))
