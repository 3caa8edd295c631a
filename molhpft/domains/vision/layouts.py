"""Image data sets in the layouts they are published in."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from molhpft.domains.vision.arrays import (
    check_labels,
    grey_to_rgb,
    read_cifar,
    read_idx,
    read_npz,
    read_stl_images,
    read_stl_labels,
)
from molhpft.domains.vision.examples import Labelled, Source
from molhpft.domains.vision.images import Files, open_files, pictures, read_by_class

CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()  # noqa: SIM905
)
_FLOWERS = 102


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes:
        read: path and side in pixels to split name to images, "all" where nothing is split.
        size: side of the images unless a task says otherwise.
        expects: what to give as path, in words.
    """

    read: Callable[[Path, int], Mapping[str, Source]]
    size: int
    expects: str


def _folder(path: Path, size: int) -> Mapping[str, Source]:
    return read_by_class(path, size=size)


def _npz(path: Path, size: int) -> Mapping[str, Source]:
    return {split: grey_to_rgb(images) for split, images in read_npz(path).items()}


def _mnist(path: Path, size: int) -> Mapping[str, Source]:
    if path.suffix == ".npz":
        return _npz(path, size)
    return {split: _mnist_split(path, name) for split, name in _MNIST_FILES.items()}


_MNIST_FILES = {"train": "train", "test": "t10k"}


def _mnist_split(path: Path, name: str) -> Labelled:
    x, y = (
        read_idx(_gzipped_or_not(path / f"{name}-{kind}-ubyte"))
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


def _cifar10(path: Path, size: int) -> Mapping[str, Source]:
    _refuse_pickles(path, "data_batch_1", "cifar-10-binary.tar.gz")
    batches = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
    return {
        split: _cifar_split([path / name for name in names], CIFAR10_CLASSES, labels=1)
        for split, names in batches.items()
    }


def _cifar100(path: Path, size: int) -> Mapping[str, Source]:
    _refuse_pickles(path, "meta", "cifar-100-binary.tar.gz")
    classes = _lines(path / "fine_label_names.txt")
    return {
        split: _cifar_split([path / f"{split}.bin"], classes, labels=2)
        for split in ("train", "test")
    }


def _cifar_split(paths: Sequence[Path], classes: tuple[str, ...], *, labels: int) -> Labelled:
    pixels, ids = zip(*(read_cifar(path, labels=labels) for path in paths), strict=True)
    targets = torch.cat(ids)[:, -1]
    check_labels(targets, len(classes), paths[0])
    return Labelled(torch.cat(pixels), targets, classes)


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
    pixels = read_stl_images(path / f"{split}_X.bin")
    targets = read_stl_labels(path / f"{split}_y.bin")
    if len(pixels) != len(targets):
        raise ValueError(
            f"{split}_X.bin and {split}_y.bin of {path} should hold as many images as labels; "
            f"they hold {len(pixels)} and {len(targets)}: fetch them again"
        )
    check_labels(targets, len(classes), path / f"{split}_y.bin")
    return Labelled(pixels, targets, classes)


def _flowers102(path: Path, size: int) -> Mapping[str, Source]:
    files = open_files(path)
    labels = _numbers(files, "imagelabels.mat", "labels") - 1
    names = tuple(str(k) for k in range(1, _FLOWERS + 1))
    splits = {"train": "trnid", "valid": "valid", "test": "tstid"}
    numbers = {split: _numbers(files, "setid.mat", key) for split, key in splits.items()}
    check_labels(torch.cat(list(numbers.values())) - 1, len(labels), path / "setid.mat")
    return {
        split: pictures(
            files,
            [(f"jpg/image_{k:05}.jpg", int(labels[k - 1])) for k in rows.tolist()],
            classes=names,
            size=size,
        )
        for split, rows in numbers.items()
    }


def _stanford_cars(path: Path, size: int) -> Mapping[str, Source]:
    files = open_files(path)
    names = _mat(files, "devkit/cars_meta.mat", "class_names")
    annotations = {
        "train": "devkit/cars_train_annos.mat",
        "test": "cars_test_annos_withlabels.mat",
    }
    return {
        split: pictures(
            files,
            [
                (f"cars_{split}/{row['fname']}", int(row["class"]) - 1)
                for row in _mat(files, name, "annotations")
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


def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())


def _numbers(files: Files, name: str, key: str) -> Tensor:
    return torch.from_numpy(_mat(files, name, key).astype(np.int64))


def _mat(files: Files, name: str, key: str) -> Any:
    (data,) = files.read([name])
    try:
        return np.atleast_1d(loadmat(BytesIO(data), squeeze_me=True)[key])
    except _UNREADABLE as error:
        raise ValueError(
            f"{name} in {files.path} should be a MATLAB file with the variable {key}: {error}"
        ) from error


# what scipy's reader raises for foreign, newer and truncated files
_UNREADABLE = (*(KeyError, ValueError, TypeError, OSError, EOFError), zlib.error, MatReadError)

LAYOUTS = {
    "folder": Layout(_folder, 32, "folder or zip file with <split>/<class>/<file>"),
    "npz": Layout(_npz, 32, ".npz file with x_train, y_train, x_test, y_test"),
    "mnist": Layout(_mnist, 32, "mnist.npz, or folder of train-images-idx3-ubyte.gz, ..."),
    "cifar10": Layout(_cifar10, 32, "folder of data_batch_1.bin, ..., test_batch.bin"),
    "cifar100": Layout(_cifar100, 32, "folder of train.bin, test.bin, fine_label_names.txt"),
    "stl10": Layout(_stl10, 96, "folder of train_X.bin, train_y.bin, ..., class_names.txt"),
    "flowers102": Layout(_flowers102, 64, "folder of jpg/, imagelabels.mat, setid.mat"),
    "stanford_cars": Layout(
        _stanford_cars, 64, "folder of cars_train/, cars_test/, devkit/, cars_test_annos..."
    ),
    "domainnet": Layout(
        _domainnet, 64, "folder of one domain, such as real, beside real_train.txt"
    ),
}
"""Published layouts by name."""
