"""One process at a time at a run, a model or a sweep; whoever comes second waits and says for whom.

The lock is the operating system's, on the file `.<name>.lock` beside what it guards: it ends with
the process that holds it, killed or not, so none is ever stale.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from filelock import FileLock, Timeout

from molhpft.domains.console import plain_console
from molhpft.domains.files import writing
from molhpft.tuning.distributed import ALONE, Machine

_POLL = 0.2  # seconds between two looks at a lock that another process holds
_PATIENCE = 60.0  # seconds after which processes that share a run hear that they still wait
_NO_LOCKS = (ENOLCK, ENOSYS, EOPNOTSUPP)


@contextmanager
def locked(place: Path, *, machine: Machine = ALONE) -> Iterator[None]:
    """A block during which no other process that asks for the same place is in it.

    Where another one is, this waits, and says so once on standard error. A file system without
    locks is said too, and the block is entered all the same.

    Args:
        place: what the block makes; its parent folder is made where it is missing.
        machine: of a run that several processes share: the first one takes the lock for all.

    Raises:
        UnwritableError: the lock file cannot be written.
    """
    path = place.with_name(f".{place.name}.lock")
    # a lock that is the mere existence of a file would outlive a killed process
    lock = FileLock(path, poll_interval=_POLL, fallback_to_soft=False)
    first = machine.rank == 0
    if first:
        with writing(place):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # where no file can be made, the lock would be waited for without end
    patience = 0.0
    while not machine.agreed(not first or _taken(lock, path, place, patience)):
        if first and not patience:
            _say(f"waiting for {place}, on which {_holder(path)}")
        patience = _PATIENCE
    try:
        yield
    finally:
        if lock.is_locked:
            # before it is released: whoever waits sees that the file is gone, and makes a new one
            with suppress(OSError):
                path.unlink()
            lock.release()


def _taken(lock: FileLock, path: Path, place: Path, patience: float) -> bool:
    """Whether the block may be entered, found out within `patience` seconds."""
    with writing(place):
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _say(
                f"{path.parent} is on a file system without locks ({error.strerror}): see to it "
                f"that no other process works on {place}"
            )
            return True
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        path.write_text(f"process {os.getpid()} on {socket.gethostname()} works since {since}")
    return True


def _holder(path: Path) -> str:
    with suppress(OSError):  # Windows lets nobody else read it
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            return text[:200]
    return "another process works"


def _say(sentence: str) -> None:
    plain_console(stderr=True).print(sentence, soft_wrap=True)
