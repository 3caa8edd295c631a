"""Byte formats of MNIST (idx), CIFAR (fixed-length records) and STL10 (bare arrays)."""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
