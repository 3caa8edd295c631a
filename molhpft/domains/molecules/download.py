"""Fetches a zip archive from an address and puts its contents in place, whole or not at all."""

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from http.client import HTTPException, HTTPResponse
from math import ceil
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

from molhpft.domains.progress import track

_CHUNK = 1 << 20
_PATIENCE = 30.0  # seconds without a byte


def fetch_archive(url: str, folder: Path, *, expected_top: str | None = None) -> None:
    """Download a zip archive and unpack it as `folder`.

    All work happens in a temporary folder beside `folder` that is removed in any case, and the
    last step is a rename: `folder` never exists half written.

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
    with _opened(url) as response:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            archive, unpacked = Path(temporary) / "archive.zip", Path(temporary) / "unpacked"
            _save(response, archive, url)
            _unpack(archive, unpacked, url)
            _put(unpacked / (expected_top or ""), folder, url)


def _opened(url: str) -> HTTPResponse:
    try:
        response: HTTPResponse = urlopen(url, timeout=_PATIENCE)
    except (URLError, TimeoutError, HTTPException) as error:
        raise ConnectionError(f"{url} cannot be reached: {_reason(error)}") from error
    return response


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _save(response: HTTPResponse, archive: Path, url: str) -> None:
    announced = response.headers.get("Content-Length")
    chunks = None if announced is None else ceil(int(announced) / _CHUNK)
    with archive.open("wb") as file:
        for chunk in track(_chunks(response, url), f"fetching {url}", total=chunks):
            file.write(chunk)
    received = archive.stat().st_size
    if announced is not None and received != int(announced):
        raise ConnectionError(
            f"{url} should give {announced} bytes, gave {received}: try again, the connection broke"
        )


def _chunks(response: HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        yield from iter(partial(response.read, _CHUNK), b"")
    except (HTTPException, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"the connection to {url} broke while fetching: {_reason(error)}"
        ) from error


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


def _put(source: Path, folder: Path, url: str) -> None:
    if not source.is_dir():
        names = sorted(path.name for path in source.parent.iterdir())
        raise ValueError(
            f"{url} should hold a folder {source.name!r}; it holds: {', '.join(names) or 'nothing'}"
        )
    try:
        os.replace(source, folder)
    except OSError:
        # another process may have fetched the same archive meanwhile: its copy serves as well
        if not folder.is_dir():
            raise
