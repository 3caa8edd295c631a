"""Image files to tensors of one size, from folders and zip files, without unpacking them."""

import hashlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from molhpft.domains.cache import cached_tensors
from molhpft.domains.progress import track
from molhpft.domains.vision.arrays import check_labels
from molhpft.domains.vision.examples import Labelled

SUFFIXES = {".jpg", ".jpeg", ".png"}
_VERSION = 1  # raised with every change of how a file becomes pixels
_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
Decode = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Files:
    """Files below a folder, or inside a zip file, by their path from there.

    Attributes:
        path: the folder or zip file.
        stamps: path of each file, with slashes, to text that changes when its content does.
    """

    path: Path
    stamps: dict[str, str]

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """Bytes of each file.

        Raises:
            ValueError: a file is absent, or its archive is damaged.
        """
        absent = next((name for name in names if name not in self.stamps), None)
        if absent is not None:
            raise ValueError(f"{self.path} should hold {absent}; it is absent")
        if self.path.is_dir():
            yield from ((self.path / name).read_bytes() for name in names)
            return
        with _archive(self.path) as archive:
            yield from (archive.read(name) for name in names)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Image files with labels, read when rows are taken.

    Attributes:
        files: where they lie.
        names: path of each image there, (n,).
        targets: int64 class ids (n,).
        classes: name of each class id.
        size: side in pixels; the largest square at the centre of an image is scaled to it.
    """

    files: Files
    names: tuple[str, ...]
    targets: Tensor
    classes: tuple[str, ...]
    size: int

    def take(self, index: Tensor) -> Labelled:
        """The rows `index` (k,), uint8 RGB pixels (k, 3, size, size).

        Raises:
            ValueError: an image is absent or cannot be read.
        """
        names = [self.names[row] for row in index.tolist()]
        pixels = read_pixels(self.files, names, partial(_rgb, size=self.size), f"rgb {self.size}")
        return Labelled(pixels, self.targets[index], self.classes)


def open_files(path: Path) -> Files:
    """The files of a folder or zip file, hidden ones left out.

    Raises:
        FileNotFoundError: neither is there.
        ValueError: a file that is no zip file.
    """
    if path.is_dir():
        stats = ((file, file.stat()) for file in sorted(path.rglob("*")) if file.is_file())
        stamps = {
            file.relative_to(path).as_posix(): f"{s.st_size} {s.st_mtime_ns}" for file, s in stats
        }
    elif zipfile.is_zipfile(path):
        with _archive(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        stamps = {entry.filename: f"{entry.file_size} {entry.CRC}" for entry in entries}
    elif path.exists():
        raise ValueError(f"{path} should be a folder or a zip file of images; it is neither")
    else:
        raise FileNotFoundError(f"no images at {path}; give a folder or a zip file")
    return Files(path, {name: stamps[name] for name in sorted(stamps) if _is_visible(name)})


def read_by_class(path: Path, *, size: int) -> dict[str, Pictures]:
    """Images that lie in a folder a class, perhaps below a folder a split.

    Args:
        path: folder or zip file with `.../<split>/<class>/<file>` or `.../<class>/<file>`, where a
            split is called train, valid, val or test.
        size: side of the images in pixels, see `Pictures`.

    Returns:
        split name to images; "all" where there are no split folders. Class ids follow the
        alphabetical order of the class names.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no image is found, or some lie beside the splits' folders.
    """
    files, found = open_files(path), dict[str, dict[str, list[str]]]()
    for name in files.stamps:
        _, *folders = reversed(PurePosixPath(name).parts)
        if PurePosixPath(name).suffix.lower() in SUFFIXES and folders:
            split = _SPLITS.get(folders[1].lower(), "all") if len(folders) > 1 else "all"
            found.setdefault(split, {}).setdefault(folders[0], []).append(name)
    if not found:
        raise ValueError(
            f"{path} should hold images as <class>/<file> or <split>/<class>/<file> with the "
            f"suffix {', '.join(sorted(SUFFIXES))}; it has none among {len(files.stamps)} files"
        )
    if "all" in found and len(found) > 1:
        odd = next(iter(found["all"].values()))[0]
        raise ValueError(f"every image of {path} should lie in a split's folder; {odd} does not")
    classes = sorted({label for labels in found.values() for label in labels})
    return {
        split: pictures(
            files,
            [(name, classes.index(label)) for label in sorted(by) for name in by[label]],
            classes=classes,
            size=size,
        )
        for split, by in found.items()
    }


def pictures(
    files: Files, entries: Sequence[tuple[str, int]], *, classes: Sequence[str], size: int
) -> Pictures:
    """The images named by `entries`, in their order, to be read when they are taken.

    Args:
        files: where they lie.
        entries: path and class id of each image.
        classes: name of each class id.
        size: side of the images in pixels.

    Raises:
        ValueError: there is no entry, or a class id has no name.
    """
    if not entries:
        raise ValueError(f"{files.path} should have a list of images; it is empty")
    names, labels = zip(*entries, strict=True)
    targets = torch.tensor(labels)
    check_labels(targets, len(classes), files.path)
    return Pictures(files, names, targets, tuple(classes), size)


def read_pixels(files: Files, names: Sequence[str], decode: Decode, how: str) -> Tensor:
    """Every image decoded to one shape, (n, ...), from the cache where they were read before.

    Args:
        files: where they lie.
        names: of the files.
        decode: an opened image to a tensor.
        how: text that changes with what `decode` gives.

    Raises:
        ValueError: an image is absent or cannot be read.
    """
    stamps = [f"{name} {files.stamps.get(name)}" for name in names]
    about = "\n".join([str(_VERSION), how, str(files.path.absolute()), *stamps])
    key = hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()

    def build() -> dict[str, Tensor]:
        pairs = zip(names, files.read(names), strict=True)
        decoded = [
            _decode(data, decode, f"{name} in {files.path}")
            for name, data in track(pairs, "reading images", total=len(names))
        ]
        return {"pixels": torch.stack(decoded)}

    return cached_tensors(f"images/{key}", build)["pixels"]


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # a RuntimeError is an entry behind a password, or of a compression that Python lacks
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is a damaged or protected zip file: {error}") from error


def _decode(data: bytes, decode: Decode, what: str) -> Tensor:
    try:
        with Image.open(BytesIO(data)) as image:
            return decode(image)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{what} should be an image that Pillow reads, but: {error}") from error


def _rgb(image: Image.Image, *, size: int) -> Tensor:
    square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()


def _is_visible(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
