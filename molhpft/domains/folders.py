"""Where data lies, where derived files may be kept, and how a file is written whole or not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from shutil import rmtree
from time import time
from uuid import uuid4

ASIDE = ".aside"
"""Ending of what is being written, `.<name>.<32 hex digits>.aside`; a kill leaves it."""

_ABANDONED = 86_400  # seconds since anything was written to it


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


_HOME_CACHE = "~/.cache/molhpft"
