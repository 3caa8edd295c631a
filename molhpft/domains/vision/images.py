"""Image files to tensors of one size, from folders and zip files, without unpacking them."""

import logging
import mimetypes
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from molhpft.domains.console import track
from molhpft.domains.extras import require
from molhpft.domains.files import cached_tensors, digest
from molhpft.domains.vision.examples import Labelled

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    ".bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
_VERSION = 2  # raised with every change of how a file becomes pixels
_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
Decode = Callable[["Image.Image"], Tensor]


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


def open_files(path: Path) -> Files:
    """The files of a folder or zip file, hidden ones left out.

    Raises:
        FileNotFoundError: nothing is there.
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


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # a RuntimeError is an entry behind a password, or of a compression that Python lacks
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is a damaged or protected zip file: {error}") from error


def _is_visible(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


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
        pixels = read_pixels(
            self.files, names, partial(_square, size=self.size), f"rgb {self.size}"
        )
        return Labelled(pixels, self.targets[index], self.classes)


def pictures(
    files: Files, entries: Sequence[tuple[str, int]], *, classes: Sequence[str], size: int
) -> Pictures:
    """Images by their paths and class ids, in the order of `entries`.

    Raises:
        ValueError: there is no entry, or a class id has no name.
    """
    if not entries:
        raise ValueError(f"{files.path} should have a list of images; it is empty")
    names, labels = zip(*entries, strict=True)
    targets = torch.tensor(labels)
    check_labels(targets, len(classes), files.path)
    return Pictures(files, names, targets, tuple(classes), size)


def joined(first: Pictures, second: Pictures) -> Pictures:
    """The images of both, which lie in one place and have the same classes."""
    targets = torch.cat([first.targets, second.targets])
    return replace(first, names=(*first.names, *second.names), targets=targets)


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Raise ValueError for class ids below 0 or from `classes` on."""
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise ValueError(
            f"labels of {path} should lie from 0 to {classes - 1}; {len(wrong)} do not, "
            f"such as {int(wrong[0])}"
        )


def read_by_class(path: Path, *, size: int) -> dict[str, Pictures]:
    """Images in a folder for each class, perhaps below a folder for each split.

    A class is the folder right below the split, or right below `path` where there are no splits;
    folders inside it make no difference. A folder that a zip file has around everything does not
    count.

    Args:
        path: folder or zip file with `<split>/<class>/.../<file>` or `<class>/.../<file>`, where a
            split is called train, valid, val or test.
        size: side of the images in pixels, see `Pictures`.

    Returns:
        split name to images; "all" where there are no split folders. Class ids follow the
        alphabetical order of the class names.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no image is found, a class has none, some lie beside the splits' folders, or one
            folder holds everything.
    """
    files = open_files(path)
    images = [name for name in files.stamps if PurePosixPath(name).suffix.lower() in SUFFIXES]
    around = _folders_around(images) if path.is_file() else 0
    places = {name: place for name in images if (place := _split_and_class(name, around))}
    _check_splits(files, places)
    _check_left_out(files, places, around)
    _check_depth(files, places, around)
    classes = sorted({label for _, label in places.values()})
    in_order = sorted(places, key=lambda name: places[name][1])
    return {
        split: pictures(
            files,
            [(n, classes.index(places[n][1])) for n in in_order if places[n][0] == split],
            classes=classes,
            size=size,
        )
        for split in dict.fromkeys(split for split, _ in places.values())
    }


def _folders_around(names: Sequence[str]) -> int:
    """Number of folders, 0 or 1, that an archive has around everything: not splits or classes."""
    tops = {PurePosixPath(name).parts[0].lower() for name in names}
    inside = all(len(PurePosixPath(name).parts) > 2 for name in names)
    return int(len(tops) == 1 and inside and not tops & set(_SPLITS))


def _split_and_class(name: str, around: int) -> tuple[str, str] | None:
    """Split and class of an image by its path; None for one that lies in no class's folder."""
    folders = PurePosixPath(name).parts[around:-1]
    if len(folders) > 1 and (split := _SPLITS.get(folders[0].lower())):
        return split, folders[1]
    return ("all", folders[0]) if folders else None


def _check_splits(files: Files, places: Mapping[str, tuple[str, str]]) -> None:
    if not places:
        raise ValueError(
            f"{files.path} should hold images as <class>/<file> or <split>/<class>/<file> with the "
            f"suffix {', '.join(sorted(SUFFIXES))}; it has none among {len(files.stamps)} files"
        )
    outside = [name for name, (split, _) in places.items() if split == "all"]
    if 0 < len(outside) < len(places):
        raise ValueError(
            f"every image of {files.path} should lie in a split's folder; {outside[0]} does not"
        )


def _check_depth(files: Files, places: Mapping[str, tuple[str, str]], around: int) -> None:
    splits, classes = ({place[k] for place in places.values()} for k in range(2))
    depth = around + (2 if "all" in splits else 3)
    if len(classes) == 1 and any(len(PurePosixPath(name).parts) > depth for name in places):
        raise ValueError(
            f"all images of {files.path} lie in the folder {classes.pop()}, which would be the "
            "only class; give the folder whose own folders are the splits or the classes"
        )


def _check_left_out(files: Files, places: Mapping[str, tuple[str, str]], around: int) -> None:
    """Warn of files that are no images by their ending; a class must not vanish with them."""
    others = {n: _split_and_class(n, around) for n in files.stamps if n not in places}
    lost = {n: p for n, p in others.items() if p or PurePosixPath(n).suffix.lower() in SUFFIXES}
    if not lost:
        return
    for name, place in lost.items():
        # a folder of notes or tables is no class; one of pictures that cannot be read is
        is_picture = (mimetypes.guess_type(name)[0] or "image/").startswith("image/")
        if place and place not in places.values() and is_picture:
            split, label = place
            raise ValueError(
                f"{files.path} should hold images in every class's folder; {label}"
                f"{'' if split == 'all' else f' of {split}'} has none, only files such as {name}; "
                f"an image ends in {', '.join(sorted(SUFFIXES))}"
            )
    endings = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in lost)
    _log.warning(
        "%s has files that are left out, as they are no images by their ending or lie in no "
        "class's folder: %s, such as %s",
        files.path,
        ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5)),
        next(iter(lost)),
    )


def read_pixels(files: Files, names: Sequence[str], decode: Decode, how: str) -> Tensor:
    """Every image decoded to one shape, (n, ...), from the cache where they were read before.

    `how` is a text that changes with the result of `decode`.

    Raises:
        ValueError: an image is absent or cannot be read.
    """
    stamps = [f"{name} {files.stamps.get(name)}" for name in names]
    about = "\n".join([str(_VERSION), how, str(files.path.absolute()), *stamps])

    def build() -> dict[str, Tensor]:
        pairs = zip(names, files.read(names), strict=True)
        decoded = [
            _decode(data, decode, f"{name} in {files.path}")
            for name, data in track(pairs, "reading images", total=len(names))
        ]
        return {"pixels": torch.stack(decoded)}

    return cached_tensors(f"images/{digest(about)}", build)["pixels"]


def _decode(data: bytes, decode: Decode, what: str) -> Tensor:
    pillow = require("PIL.Image", extra="vision")
    try:
        with pillow.open(BytesIO(data)) as image:
            return decode(image)
    except (OSError, SyntaxError, ValueError, EOFError, pillow.DecompressionBombError) as error:
        raise ValueError(f"{what} should be an image that Pillow reads, but: {error}") from error


def _square(image: "Image.Image", *, size: int) -> Tensor:
    fit = require("PIL.ImageOps", extra="vision").fit
    smooth = require("PIL.Image", extra="vision").Resampling.BILINEAR
    return to_tensor(fit(_rgb(image), (size, size), smooth))


def to_tensor(image: "Image.Image") -> Tensor:
    """An RGB image as uint8 (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _rgb(image: "Image.Image") -> "Image.Image":
    """An image as the camera was held, in three channels of 8 bits.

    Greys of 16 bits are scaled, 65,535 to 255; 32 bits have no common scale and are refused.
    """
    upright: Image.Image = require("PIL.ImageOps", extra="vision").exif_transpose(image)
    # a PNG has 16 bits at most, also where Pillow widens them
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.asarray(upright).astype(np.float64) * (255 / 65535)
        upright = require("PIL.Image", extra="vision").fromarray(np.round(grey).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"it has 32 bits a value (mode {image.mode}); save it with 8 or 16")
    return upright.convert("RGB")
