"""Images in numpy's files: whole data sets (.npz) and CIFAR-10's shifted test sets (.npy).

Byte formats of MNIST (idx), CIFAR (fixed-length records) and STL10 (bare arrays).
"""

import gzip
import struct
import zipfile
import zlib
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.domains.vision.examples import Labelled

_SPLITS = ("train", "valid", "test")
SEVERITIES = 5


def read_npz(path: Path) -> dict[str, Labelled]:
    """Splits of a file with the arrays `x_train`, `y_train`, `x_test`, ... as MNIST's `mnist.npz`.

    Images are uint8 (n, height, width) or (n, height, width, 1 or 3), labels integers (n,); there
    may be `x_valid` and `y_valid`. Classes are called by their numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or arrays that only unpickling would restore.
    """
    arrays = _load(path)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} should be an .npz file of several arrays; it is a single array")
    with arrays:
        present = [split for split in _SPLITS if f"x_{split}" in arrays]
        if "train" not in present:
            raise ValueError(
                f"{path} should hold x_train, y_train, x_test, y_test; it has: {', '.join(arrays)}"
            )
        pairs = {
            split: (_member(arrays, f"x_{split}", path), _member(arrays, f"y_{split}", path))
            for split in present
        }
    for x, y in pairs.values():
        _check_integers(y, len(x), path)
    classes = max(int(y.max()) for _, y in pairs.values() if y.size) + 1
    return {
        split: _labelled(x, y, path, classes=tuple(map(str, range(classes))))
        for split, (x, y) in pairs.items()
    }


def read_npy_set(path: Path, *, classes: tuple[str, ...], severity: int) -> Labelled:
    """A shifted test set as an array of images with an array of labels beside it.

    `cifar10.1_v6_data.npy` goes with `cifar10.1_v6_labels.npy` (Recht et al., 2018). Of CIFAR-10-C
    (Hendrycks & Dietterich, 2019), `fog.npy` goes with `labels.npy`, and a fifth of the rows is
    taken, that of `severity`.

    Args:
        path: the array of images.
        classes: name of each class id.
        severity: 1 to 5.

    Raises:
        FileNotFoundError: one of the two files is absent.
        ValueError: arrays of another shape or type, or pickled ones; or no such severity.
    """
    paired = path.name.endswith("_data.npy")
    beside = path.name.replace("_data.npy", "_labels.npy") if paired else "labels.npy"
    x, y = _load(path), _load(path.with_name(beside))
    found = _labelled(x, y, path, classes=classes)
    if paired:
        return found
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity lies from 1 to {SEVERITIES}, got {severity}")
    if len(found) % SEVERITIES:
        raise ValueError(f"{path} should hold {SEVERITIES} severities, it has {len(found)} images")
    return found.take(torch.arange(len(found)).chunk(SEVERITIES)[severity - 1])


def resized(images: Labelled, size: int) -> Labelled:
    """The same images scaled to `size` x `size` pixels; those that have this size stay as is."""
    if images.pixels.shape[-2:] == (size, size):
        return images
    parts = [
        F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True)
        .round()
        .to(torch.uint8)
        for part in torch.split(images.pixels, 4096)  # floats of all images at once would not fit
    ]
    return replace(images, pixels=torch.cat(parts))


def grey_to_rgb(images: Labelled) -> Labelled:
    """The same images with three channels, so that encoders of colour images take them."""
    n, channels, height, width = images.pixels.shape
    if channels == 3:
        return images
    return replace(images, pixels=images.pixels.expand(n, 3, height, width).contiguous())


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no array file at {path}")
    try:
        # from memory: numpy leaves a file open that turns out not to be a zip file
        return np.load(BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} should be numpy's .npy or .npz of plain arrays: {error}"
        ) from error


def _member(arrays: Any, name: str, path: Path) -> np.ndarray:
    try:
        array: np.ndarray = arrays[name]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} should hold {name} as a plain array: {error}") from error
    return array


def _labelled(x: np.ndarray, y: np.ndarray, path: Path, *, classes: tuple[str, ...]) -> Labelled:
    pixels = x[..., None] if x.ndim == 3 else x
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(
            f"images of {path} should be uint8 (n, height, width) or (n, height, width, 1 or 3); "
            f"they are {x.dtype} {x.shape}"
        )
    _check_integers(y, len(x), path)
    labels = torch.from_numpy(y.astype(np.int64))
    check_labels(labels, len(classes), path)
    return Labelled(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels, classes)


def _check_integers(y: np.ndarray, n: int, path: Path) -> None:
    if y.shape != (n,) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"labels of {path} should be integers ({n},); they are {y.dtype} {y.shape}"
        )


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Refuse class ids without a class.

    Raises:
        ValueError: an id below 0 or from `classes` on.
    """
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(
            f"labels of {path} should lie from 0 to {classes - 1}; {len(wrong)} do not, "
            f"such as {int(wrong[0])}"
        )


_IDX_UNSIGNED_BYTE = 0x08
_STL_SIDE = 96
_CIFAR_SIDE = 32


def read_idx(path: Path) -> Tensor:
    """The array of an idx file of unsigned bytes, gzipped or not, uint8 of any shape.

    Four bytes (0, 0, 8, number of axes), each axis as a big-endian 32-bit integer, then the values,
    last axis fastest.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, or not as many values as the header says.
    """
    data = _read(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UNSIGNED_BYTE:
        raise ValueError(
            f"{path} should be an idx file of unsigned bytes, starting with 00 00 08; it starts "
            f"with {data[:4].hex(' ') or 'nothing'}"
        )
    axes, start = data[3], 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} should have a header of {start} bytes; it has {len(data)} bytes")
    shape = struct.unpack(f">{axes}I", data[4:start])
    expected = prod(shape)
    if len(data) - start != expected:
        raise ValueError(
            f"{path} should hold {expected} values after its header, for shape {shape}; "
            f"it holds {len(data) - start}: fetch it again"
        )
    return _bytes(data[start:]).reshape(shape)


def read_cifar(path: Path, *, labels: int) -> tuple[Tensor, Tensor]:
    """Images of CIFAR's binary version: records of `labels` bytes and 3 x 32 x 32 bytes.

    Args:
        path: such as `data_batch_1.bin`.
        labels: 1 for CIFAR-10, 2 for CIFAR-100 (coarse, then fine).

    Returns:
        uint8 pixels (n, 3, 32, 32), and int64 labels (n, labels).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no whole number of records.
    """
    data, record = _read(path), labels + 3 * _CIFAR_SIDE**2
    if not data or len(data) % record:
        raise ValueError(
            f"{path} should hold records of {record} bytes; its {len(data)} bytes are no whole "
            "number of them: fetch it again"
        )
    rows = _bytes(data).reshape(-1, record)
    pixels = rows[:, labels:].reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
    return pixels.contiguous(), rows[:, :labels].long()


def read_stl_images(path: Path) -> Tensor:
    """Images of STL10's binary version, uint8 (n, 3, 96, 96).

    The file goes down columns first; images come back upright, rows first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no whole number of images.
    """
    data, record = _read(path), 3 * _STL_SIDE**2
    if not data or len(data) % record:
        raise ValueError(
            f"{path} should hold images of {record} bytes; its {len(data)} bytes are no whole "
            "number of them: fetch it again"
        )
    return _bytes(data).reshape(-1, 3, _STL_SIDE, _STL_SIDE).transpose(2, 3).contiguous()


def read_stl_labels(path: Path) -> Tensor:
    """Labels of STL10's binary version, int64 (n,); from 0, in the file from 1.

    Raises:
        FileNotFoundError: no such file.
    """
    return _bytes(_read(path)).long() - 1


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); fetch it again") from error


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
