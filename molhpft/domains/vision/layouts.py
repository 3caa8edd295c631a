"""Image data sets in the layouts they are published in, from their byte formats up.

MNIST (idx and npz files), CIFAR (fixed-length records), STL10 (bare arrays), Flowers and Cars
(MATLAB annotations), DomainNet (lists), CIFAR-10's shifted test sets (npy files), and plain folders
with one folder for each class.
"""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.domains.vision.examples import Labelled, Source
from molhpft.domains.vision.images import (
    Files,
    Pictures,
    check_labels,
    joined,
    open_files,
    pictures,
    read_by_class,
)

SEVERITIES = 5
CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)
_FLOWERS = 102
_FLOWER_FILES = "folder of jpg/image_00001.jpg, ..., imagelabels.mat, setid.mat"
_FLOWER_PLACE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_NPZ_SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes:
        read: path and side in pixels to split name to images, "all" where nothing is split.
        size: side of the images unless a task says otherwise.
        expects: what to give as path, in words.
        published: where the data set can be had; empty for layouts that are of no one set.
    """

    read: Callable[[Path, int], Mapping[str, Source]]
    size: int
    expects: str
    published: str = ""


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


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error}); fetch it again") from error


def _uint8(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


def _records(path: Path, length: int, what: str) -> Tensor:
    """The bytes of a file of fixed-length records, uint8 (n, length)."""
    data = _bytes_of(path)
    if not data or len(data) % length:
        raise ValueError(
            f"{path} should hold {what}; its {len(data)} bytes are no whole number of them: "
            "fetch it again"
        )
    return _uint8(data).reshape(-1, length)


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())


# numpy's files


def _npz(path: Path, size: int) -> Mapping[str, Source]:
    """Splits of a file with the arrays `x_train`, `y_train`, `x_test`, ... such as `mnist.npz`."""
    arrays = _load_numpy(path)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} should be an .npz file of several arrays; it is a single array")
    with arrays:
        present = [split for split in _NPZ_SPLITS if f"x_{split}" in arrays]
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
    count = max(int(y.max()) for _, y in pairs.values() if y.size) + 1
    classes = tuple(map(str, range(count)))
    return {split: grey_to_rgb(_from_numpy(x, y, path, classes)) for split, (x, y) in pairs.items()}


def read_npy_set(path: Path, *, classes: tuple[str, ...], severity: int) -> Labelled:
    """A shifted test set as an array of images with an array of labels beside it.

    `cifar10.1_v6_data.npy` goes with `cifar10.1_v6_labels.npy` (Recht et al., 2018). Of CIFAR-10-C
    (Hendrycks & Dietterich, 2019), `fog.npy` goes with `labels.npy`, and a fifth of the rows is
    taken, that of `severity`.

    Raises:
        FileNotFoundError: one of the two files is absent.
        ValueError: arrays of another shape or type, or pickled ones; or no such severity.
    """
    paired = path.name.endswith("_data.npy")
    beside = path.name.replace("_data.npy", "_labels.npy") if paired else "labels.npy"
    images = _from_numpy(_load_numpy(path), _load_numpy(path.with_name(beside)), path, classes)
    if paired:
        return images
    if not 1 <= severity <= SEVERITIES:
        raise ValueError(f"severity lies from 1 to {SEVERITIES}, got {severity}")
    if len(images) % SEVERITIES:
        raise ValueError(f"{path} should hold {SEVERITIES} severities, it has {len(images)} images")
    return images.take(torch.arange(len(images)).chunk(SEVERITIES)[severity - 1])


def _load_numpy(path: Path) -> Any:
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


def _from_numpy(x: np.ndarray, y: np.ndarray, path: Path, classes: tuple[str, ...]) -> Labelled:
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


# MNIST


def _read_idx(path: Path) -> Tensor:
    """The array of an idx file of unsigned bytes, gzipped or not, uint8 of any shape.

    Four bytes (0, 0, 8, number of axes), each axis as a big-endian 32-bit integer, then the values,
    last axis fastest.
    """
    data = _bytes_of(path)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(
            f"{path} should be an idx file of unsigned bytes, starting with 00 00 08; it starts "
            f"with {data[:4].hex(' ') or 'nothing'}"
        )
    axes, start = data[3], 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} should have a header of {start} bytes; it has {len(data)} bytes")
    shape = struct.unpack(f">{axes}I", data[4:start])
    if len(data) - start != prod(shape):
        raise ValueError(
            f"{path} should hold {prod(shape)} values after its header, for shape {shape}; "
            f"it holds {len(data) - start}: fetch it again"
        )
    return _uint8(data[start:]).reshape(shape)


def _mnist(path: Path, size: int) -> Mapping[str, Source]:
    if path.suffix == ".npz":
        return _npz(path, size)
    return {"train": _mnist_split(path, "train"), "test": _mnist_split(path, "t10k")}


def _mnist_split(path: Path, name: str) -> Labelled:
    x, y = (
        _read_idx(_gzipped_or_not(path / f"{name}-{kind}-ubyte"))
        for kind in ("images-idx3", "labels-idx1")
    )
    if x.ndim != 3 or y.shape != x.shape[:1]:
        raise ValueError(
            f"{name} files of {path} should hold images (n, height, width) and labels (n,); "
            f"they hold {tuple(x.shape)} and {tuple(y.shape)}"
        )
    check_labels(y.long(), 10, path)
    return grey_to_rgb(Labelled(x[:, None], y.long(), tuple("0123456789")))


def _gzipped_or_not(path: Path) -> Path:
    gzipped = path.with_name(f"{path.name}.gz")
    return gzipped if gzipped.is_file() else path


# CIFAR and STL10


def _cifar10(path: Path, size: int) -> Mapping[str, Source]:
    _refuse_pickles(path, "data_batch_1", "cifar-10-binary.tar.gz")
    train = [path / f"data_batch_{k}.bin" for k in range(1, 6)]
    return {
        "train": _cifar_split(train, CIFAR10_CLASSES, labels=1),
        "test": _cifar_split([path / "test_batch.bin"], CIFAR10_CLASSES, labels=1),
    }


def _cifar100(path: Path, size: int) -> Mapping[str, Source]:
    _refuse_pickles(path, "meta", "cifar-100-binary.tar.gz")
    classes = _lines(path / "fine_label_names.txt")
    return {
        split: _cifar_split([path / f"{split}.bin"], classes, labels=2)
        for split in ("train", "test")
    }


def _cifar_split(paths: Sequence[Path], classes: tuple[str, ...], *, labels: int) -> Labelled:
    """Records of `labels` bytes, the last of which is the class, and 3 x 32 x 32 bytes."""
    length = labels + 3 * 32 * 32
    rows = torch.cat([_records(path, length, f"records of {length} bytes") for path in paths])
    targets = rows[:, labels - 1].long()
    check_labels(targets, len(classes), paths[0])
    return Labelled(rows[:, labels:].reshape(-1, 3, 32, 32).contiguous(), targets, classes)


def _refuse_pickles(path: Path, pickled: str, binary: str) -> None:
    if (path / pickled).is_file():
        raise ValueError(
            f"{path} holds pickled Python objects ({pickled}), which can run code when they are "
            f"read and are refused; give the folder unpacked from the binary version, {binary}"
        )


def _stl10(path: Path, size: int) -> Mapping[str, Source]:
    classes = _lines(path / "class_names.txt")
    return {split: _stl_split(path, split, classes) for split in ("train", "test")}


def _stl_split(path: Path, split: str, classes: tuple[str, ...]) -> Labelled:
    length = 3 * 96 * 96
    rows = _records(path / f"{split}_X.bin", length, f"images of {length} bytes")
    pixels = rows.reshape(-1, 3, 96, 96).transpose(2, 3).contiguous()  # columns first in the file
    targets = _uint8(_bytes_of(path / f"{split}_y.bin")).long() - 1
    if len(pixels) != len(targets):
        raise ValueError(
            f"{split}_X.bin and {split}_y.bin of {path} should hold as many images as labels; "
            f"they hold {len(pixels)} and {len(targets)}: fetch them again"
        )
    check_labels(targets, len(classes), path / f"{split}_y.bin")
    return Labelled(pixels, targets, classes)


# image files with annotations beside them


def _flowers102(path: Path, size: int) -> Mapping[str, Pictures]:
    files = open_files(path)
    labels = _matlab_numbers(files, "imagelabels.mat", "labels") - 1
    splits = {"train": "trnid", "valid": "valid", "test": "tstid"}
    numbers = {split: _matlab_numbers(files, "setid.mat", key) for split, key in splits.items()}
    check_labels(torch.cat(list(numbers.values())) - 1, len(labels), path / "setid.mat")
    return {
        split: pictures(
            files,
            [(f"jpg/image_{k:05}.jpg", int(labels[k - 1])) for k in rows.tolist()],
            classes=[str(k) for k in range(1, _FLOWERS + 1)],
            size=size,
        )
        for split, rows in numbers.items()
    }


def _flowers102_swapped(path: Path, size: int) -> Mapping[str, Source]:
    """Most images to train on: the published test images, and the other two splits to test."""
    splits = _flowers102(path, size)
    train, valid, test = (splits[split] for split in ("train", "valid", "test"))
    return {"train": test, "test": joined(train, valid)}


def _stanford_cars(path: Path, size: int) -> Mapping[str, Source]:
    files = open_files(path)
    names = _matlab(files, "devkit/cars_meta.mat", "class_names")
    annotations = {
        "train": "devkit/cars_train_annos.mat",
        "test": "cars_test_annos_withlabels.mat",
    }
    return {
        split: pictures(
            files,
            [
                (f"cars_{split}/{row['fname']}", int(row["class"]) - 1)
                for row in _matlab(files, name, "annotations")
            ],
            classes=[str(name) for name in names],
            size=size,
        )
        for split, name in annotations.items()
    }


def _domainnet(path: Path, size: int) -> Mapping[str, Source]:
    files, domain = open_files(path), path.name
    lists = {split: _listed(path.with_name(f"{domain}_{split}.txt")) for split in ("train", "test")}
    # "real/aircraft_carrier/real_001_000001.jpg": domain, class, file
    names = {label: name.split("/")[1] for rows in lists.values() for name, label in rows}
    classes = [names.get(label, str(label)) for label in range(max(names) + 1)]
    return {
        split: pictures(
            files,
            [(name.removeprefix(f"{domain}/"), label) for name, label in rows],
            classes=classes,
            size=size,
        )
        for split, rows in lists.items()
    }


def _listed(path: Path) -> list[tuple[str, int]]:
    rows = [line.rsplit(maxsplit=1) for line in _lines(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not row[1].isdecimal() or "/" not in row[0]:
            raise ValueError(
                f"line {number} of {path} should be <domain>/<class>/<file> and a class id; "
                f"it is {' '.join(row)!r}"
            )
    return [(name, int(label)) for name, label in rows]


def _matlab(files: Files, name: str, key: str) -> Any:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # what the reader raises for foreign, newer and truncated files
    unreadable = (KeyError, ValueError, TypeError, OSError, EOFError, zlib.error, MatReadError)
    (data,) = files.read([name])
    try:
        return np.atleast_1d(loadmat(BytesIO(data), squeeze_me=True)[key])
    except unreadable as error:
        raise ValueError(
            f"{name} in {files.path} should be a MATLAB file with the variable {key}: {error}"
        ) from error


def _matlab_numbers(files: Files, name: str, key: str) -> Tensor:
    return torch.from_numpy(_matlab(files, name, key).astype(np.int64))


def _folder(path: Path, size: int) -> Mapping[str, Source]:
    return read_by_class(path, size=size)


LAYOUTS = {
    "folder": Layout(_folder, 32, "folder or zip file with <split>/<class>/<file>"),
    "npz": Layout(_npz, 32, ".npz file with x_train, y_train, x_test, y_test"),
    "mnist": Layout(
        _mnist,
        32,
        "mnist.npz, or a folder of train-images-idx3-ubyte.gz, ...",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
    "cifar10": Layout(
        _cifar10,
        32,
        "folder of data_batch_1.bin, ..., data_batch_5.bin, test_batch.bin",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    ),
    "cifar100": Layout(
        _cifar100,
        32,
        "folder of train.bin, test.bin, fine_label_names.txt",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    ),
    "stl10": Layout(
        _stl10,
        96,
        "folder of train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt",
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    ),
    "flowers102": Layout(_flowers102, 64, _FLOWER_FILES, _FLOWER_PLACE),
    "flowers102_swapped": Layout(_flowers102_swapped, 64, _FLOWER_FILES, _FLOWER_PLACE),
    "stanford_cars": Layout(
        _stanford_cars,
        64,
        "folder of cars_train/, cars_test/, devkit/cars_meta.mat, devkit/cars_train_annos.mat, "
        "cars_test_annos_withlabels.mat",
        "https://www.kaggle.com/datasets/eduardo4jesus/stanford-cars-dataset (a copy; "
        "ai.stanford.edu/~jkrause/cars no longer has it)",
    ),
    "domainnet": Layout(
        _domainnet,
        64,
        "folder of one domain, such as real/<class>/<file>, beside real_train.txt, real_test.txt",
        "http://ai.bu.edu/M3SDA/ (cleaned version)",
    ),
}
"""Published layouts by name."""
