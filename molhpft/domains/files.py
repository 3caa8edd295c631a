"""Files: where they lie, how they are written whole, named by content, cached and downloaded."""

import hashlib
import json
import logging
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from glob import escape
from http.client import HTTPException, HTTPResponse
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path, PureWindowsPath
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from molhpft.domains.console import track

Json = dict[str, Any]

ASIDE = ".aside"
"""Ending of what is being written, `.<name>.<32 hex digits>.aside`; a killed process leaves it."""

_HOME_CACHE = "~/.cache/molhpft"
_ABANDONED = 86_400  # seconds since anything was written to it
_CHUNK = 1 << 20  # bytes
_BEGINNING = 1 << 16  # bytes
_TIMEOUT = 30.0  # seconds without a byte
ANOTHER_FILE = "make room or choose another file"
_ANOTHER_FOLDER = (
    "make room and run again, which goes on where it was, or choose another folder (--out)"
)

_log = logging.getLogger(__name__)


def data_folder() -> Path:
    """Folder that holds data sets: `MOLHPFT_DATA`, or `~/.cache/molhpft`."""
    return Path(os.environ.get("MOLHPFT_DATA") or _HOME_CACHE).expanduser()


def cache_folder() -> Path:
    """Folder for derived files, safe to delete: `MOLHPFT_CACHE`, or `~/.cache/molhpft`."""
    return Path(os.environ.get("MOLHPFT_CACHE") or _HOME_CACHE).expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A block that writes a file or folder, which then takes its place, whole.

    After a failure nothing of it is left and what was there before stays. Files that killed
    processes left beside the place, a day ago or earlier, are removed.

    Args:
        path: the place, in a folder that exists; a folder there must be empty when the block ends.

    Yields:
        where to write: a path beside the place that nobody else uses.
    """
    _sweep(path)
    aside = path.with_name(f".{path.name}.{uuid4().hex}{ASIDE}")
    try:
        yield aside
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):  # the failure that is on its way says more
            if aside.is_dir():
                rmtree(aside)
            else:
                aside.unlink(missing_ok=True)
        raise


def _sweep(path: Path) -> None:
    with suppress(OSError):  # another process may have been faster
        for left in path.parent.glob(f".{escape(path.name)}.*{ASIDE}"):
            if left.is_file() and left.stat().st_mtime < time() - _ABANDONED:
                left.unlink()


class UnwritableError(OSError):
    """A folder cannot be written to, such as on a full disk.

    A class of its own, because nothing is wrong with the run: a sweep stops instead of trying on.
    """


@contextmanager
def writing(path: Path | str, *, remedy: str = _ANOTHER_FOLDER) -> Iterator[None]:
    """A block that only writes, and whose failure is one sentence.

    Args:
        path: what is written, a path or a URL.
        remedy: what to do when it cannot be.

    Raises:
        UnwritableError: it cannot be.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnwritableError(f"cannot write {path}: {error}; {remedy}") from error


def read_json(path: Path, *, remedy: str) -> Json:
    """Content of a JSON file that is there.

    Args:
        path: of the file.
        remedy: what to do about a damaged one, which ends the error.

    Raises:
        ValueError: the file is damaged.
    """
    content: Json = parse_json(path.read_bytes(), path, remedy=remedy)
    return content


def parse_json(text: bytes, where: object, *, remedy: str) -> Any:
    """What a text in JSON says.

    Args:
        text: in UTF-8.
        where: it was read, which begins the error.
        remedy: what to do about a damaged one, which ends the error.

    Raises:
        ValueError: the text is damaged.
    """
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # no UTF-8, or no JSON
        raise ValueError(f"{where} is damaged ({error}); {remedy}") from error


def check_output(out: Path, *inputs: Path) -> None:
    """Refuse to write over what is read, before anything is read or written.

    Args:
        out: file or folder that is to be written.
        inputs: files and folders that are read; one that is not there is no matter.

    Raises:
        ValueError: one of them is `out`, by whatever path or link.
    """
    for path in inputs:
        # of a terminal or a pipe nothing is lost
        if (path.is_file() or path.is_dir()) and out.exists() and out.samefile(path):
            raise ValueError(
                f"{out} would be written over {path}, which is read; choose another place (--out)"
            )


def check_folder(out: Path) -> None:
    """Refuse a place for a folder that is a file, or is below one, before anything is made.

    Raises:
        ValueError: it is.
    """
    there = next((place for place in (out, *out.parents) if place.exists()), out)
    if there.exists() and not there.is_dir():
        raise ValueError(f"{there} is a file, and {out} is to be a folder; choose another (--out)")


def digest(*parts: bytes | str | Tensor | Path) -> str:
    """SHA-256, in 64 hex digits, of bytes, texts in UTF-8, tensors and files, one after another.

    >>> digest("ab", b"c") == digest("abc")
    True
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            total.update(part.read_bytes())
        elif isinstance(part, Tensor):
            total.update(part.contiguous().numpy().data)
        else:
            total.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
    return total.hexdigest()


def short_digest(content: Any) -> str:
    """Ten hex digits that name plain values; too few to prove anything."""
    return digest(json.dumps(content, sort_keys=True))[:10]


def path_digest(path: Path) -> str:
    """`digest` of a file; of a folder, one of its files' names, sizes, times and beginnings.

    What does not exist is "absent".
    """
    if path.is_dir():  # its files may be many and large; the run itself knows what they hold
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return short_digest(
            [[f.relative_to(path).as_posix(), *_state(f), _beginning(f)] for f in files]
        )
    return _file_digest(path.resolve(), *_state(path)) if path.is_file() else "absent"


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _beginning(path: Path) -> str:
    """Digest of what a file begins with: unpacked archives give many files one time."""
    with path.open("rb") as file:
        return digest(file.read(_BEGINNING))


@lru_cache(maxsize=256)
def _file_digest(path: Path, changed: int, size: int) -> str:
    """Digest of a file, read again where it has changed: many runs of a sweep ask for the same."""
    return digest(path)


def cached_tensors(key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `build()` gives, read from `cache_folder()/<key>.safetensors` where that exists.

    A damaged file is built anew, with a logged warning; where the folder cannot be written,
    another warning says that the tensors live in memory only.

    Args:
        key: folder and digest of everything the tensors depend on, such as "nci/3f2a...".
        build: gives the tensors by name; called only when the file is absent or damaged.
    """
    path = cache_folder() / f"{key}.safetensors"
    if path.is_file():
        try:
            return load_file(path)
        except SafetensorError as error:
            _log.warning("cache file %s is damaged (%s); it is built anew", path, error)
    tensors = {name: tensor.contiguous() for name, tensor in build().items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside:
            save_tensors(tensors, aside)
    except (OSError, SafetensorError) as error:
        _log.warning("%s is not cached, the cache folder cannot be used: %s", path.name, error)
    return tensors


def save_tensors(
    tensors: dict[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that others may read as the user's other files.

    Safetensors writes files that their owner alone can read, whatever the umask.

    Args:
        tensors: contiguous, on the CPU.
        path: of the file.
        metadata: texts beside the tensors.

    Raises:
        OSError: the file cannot be written.
        SafetensorError: the same, as safetensors says it.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata=metadata)
    path.chmod(mode)


def texts_to_tensors(texts: Sequence[str]) -> dict[str, Tensor]:
    """Texts as a cache can hold them: all in UTF-8, and the length of each in characters."""
    content = "".join(texts).encode("utf-8", "surrogatepass")
    return {
        "texts": torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()),
        "lengths": torch.tensor([len(text) for text in texts], dtype=torch.int32),
    }


def texts_from_tensors(tensors: Mapping[str, Tensor]) -> list[str]:
    """The texts that `texts_to_tensors` was given."""
    content = tensors["texts"].numpy().tobytes().decode("utf-8", "surrogatepass")
    ends = accumulate(tensors["lengths"].tolist(), initial=0)
    return [content[begin:end] for begin, end in pairwise(ends)]


def listed(items: Iterable[str], *, most: int | None = None) -> str:
    """Items as a person lists them; empty for none.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'

    Args:
        items: in order.
        most: how many are named; of more the first ones are, and the others are counted.
    """
    shown = list(items)
    if most is not None and len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most:,} more"]
    *first, last = shown or [""]
    return f"{', '.join(first)} and {last}" if first else last


def fetch_archive(url: str, folder: Path, *, expected_top: str | None = None) -> None:
    """Download a zip archive and unpack it as `folder`, which never exists half written.

    Args:
        url: of the archive; http, https or file.
        folder: what the contents become; must not exist yet. Missing parents are made.
        expected_top: folder inside the archive that becomes `folder`; None for all of the archive.

    Raises:
        FileExistsError: `folder` exists already.
        ConnectionError: the address cannot be reached, or gives another number of bytes than it
            announced.
        ValueError: what came is no sound zip archive, has no folder `expected_top`, or has a member
            that would land outside the folder.
        OSError: the folder cannot be written.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; delete it to fetch {url} again")
    with _open_url(url) as response:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            archive, unpacked = Path(temporary) / "archive.zip", Path(temporary) / "unpacked"
            _save(response, archive, url)
            _unpack(archive, unpacked, url)
            source = unpacked / (expected_top or "")
            if not source.is_dir():
                names = ", ".join(sorted(path.name for path in unpacked.iterdir())) or "nothing"
                raise ValueError(f"{url} should hold a folder {source.name!r}; it holds: {names}")
            try:
                os.replace(source, folder)
            except OSError:
                # another process may have fetched the archive meanwhile: its copy serves as well
                if not folder.is_dir():
                    raise


def _open_url(url: str) -> HTTPResponse:
    try:
        response: HTTPResponse = urlopen(url, timeout=_TIMEOUT)
    except (URLError, TimeoutError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is also the response
        raise ConnectionError(f"{url} cannot be reached: {_reason(error)}") from error
    return response


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _save(response: HTTPResponse, archive: Path, url: str) -> None:
    announced = response.headers.get("Content-Length")
    total = None if announced is None else ceil(int(announced) / _CHUNK)
    chunks = iter(partial(response.read, _CHUNK), b"")
    try:
        with archive.open("wb") as file:
            for chunk in track(chunks, f"fetching {url}", total=total):
                file.write(chunk)
    except (HTTPException, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"the connection to {url} broke while fetching: {_reason(error)}"
        ) from error
    received = archive.stat().st_size
    if announced is not None and received != int(announced):
        raise ConnectionError(
            f"{url} should give {announced} bytes, gave {received}: try again, the connection broke"
        )


def _unpack(archive: Path, folder: Path, url: str) -> None:
    folder.mkdir()
    try:
        with zipfile.ZipFile(archive) as members:
            for member in members.infolist():
                _refuse_outside(member, url)
            members.extractall(folder)
    # RuntimeError is how zipfile refuses an encrypted member
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{url} should be a sound zip archive, but: {error}") from error


def _refuse_outside(member: zipfile.ZipInfo, url: str) -> None:
    # Windows rules on every system: they know both separators and drives
    path = PureWindowsPath(member.filename)
    leaves = bool(path.anchor) or ".." in path.parts
    if leaves or stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(
            f"members of an archive should be files inside its folder, but {url} holds "
            f"{member.filename!r}; nothing was unpacked"
        )
