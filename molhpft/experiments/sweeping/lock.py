"""One sweep at a time in a folder, held by the operating system: it ends with its processes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from molhpft.experiments.folder import UnwritableError

PATIENCE = 10.0  # seconds that the processes of a killed sweep may take to notice


@contextmanager
def locked(folder: Path | None) -> Iterator[int | None]:
    """A block during which no other sweep has `folder`.

    Gives a file descriptor: processes that inherit it hold the lock too, so that what a killed
    sweep leaves running keeps its folder from the next one, and nothing can be left locked.

    Args:
        folder: exists; None for a place that has no locks, of which the descriptor is None.

    Raises:
        ValueError: another sweep has it.
        UnwritableError: the folder cannot be written to.
    """
    if folder is None:
        yield None
        return
    descriptor = _opened(folder / "sweep.lock")
    try:
        _take(descriptor, folder)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UnwritableError(
            f"cannot write {path}: {error}; choose another folder (--out)"
        ) from error


def _take(descriptor: int, folder: Path) -> None:
    import fcntl  # absent on Windows, where everything but sweeps works

    end = monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() >= end:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace")
                raise ValueError(
                    f"{folder} has a sweep already ({holder or 'of another process'}); wait for "
                    "it, or choose another folder (--out)"
                ) from None
            sleep(0.1)
        else:
            return
