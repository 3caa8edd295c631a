"""Work on many items, shared between all processors.

RDKit holds Python's lock, so threads do not help it. Processes are forked: they see the items
without copying them, start in milliseconds, and need no guard in the user's script. They may only
do what is safe after a fork, which rules out PyTorch's arithmetic on several threads.
"""

import multiprocessing
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from typing import Any, TypeVar

from molhpft.domains.console import bar

T = TypeVar("T")
R = TypeVar("R")

VARIABLE = "MOLHPFT_WORKERS"
_CHUNK = 1_000

_work: Callable[[Any], Any]  # in a worker: what all of it is for


def parallel_map(
    function: Callable[[Sequence[T]], R], items: Sequence[T], what: str, *, chunk: int = _CHUNK
) -> list[R]:
    """`function` of every stretch of at most `chunk` items, in order.

    Args:
        function: reads nothing but its argument; its result is sent between processes.
        items: all of them.
        what: what is being done, for the progress bar, such as "packing molecules".
        chunk: most items in a stretch; a single stretch is done in this process.

    Raises:
        ValueError: the environment variable `MOLHPFT_WORKERS` is no positive number.
    """
    stretches = [slice(start, start + chunk) for start in range(0, len(items), chunk)]
    parts = parallel_stream(lambda stretch: function(items[stretch]), stretches)
    results: list[R] = []
    with bar(what, total=len(items)) as move:
        for stretch, part in zip(stretches, parts, strict=True):
            results.append(part)
            move(min(stretch.stop, len(items)))
    return results


def parallel_stream(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of every item, in order, while later items are being worked on.

    Items may be without end: two for each worker are read ahead, and no more are in memory.

    Args:
        function: reads nothing but its argument; what it holds, however large, is not sent.
        items: large enough to be worth a process; they and results go between processes.

    Raises:
        ValueError: the environment variable `MOLHPFT_WORKERS` is no positive number.
    """
    workers, left = worker_count(), iter(items)
    ahead = list(islice(left, 2 * workers if workers > 1 else 1))
    workers = min(workers, len(ahead))
    if workers <= 1:
        yield from map(function, chain(ahead, left))
        return
    with _pool(workers, function) as pool:
        waiting = deque(pool.submit(_do, item) for item in ahead)
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_do, item) for item in islice(left, 1))
            yield result


def worker_count() -> int:
    """Processes to work with: `MOLHPFT_WORKERS`, or as many as there are processors for us.

    One in a worker of somebody's `multiprocessing.Pool`, which may not have processes of its own.

    Raises:
        ValueError: the environment variable is no positive number.
    """
    value = os.environ.get(VARIABLE)
    if value is not None and (not value.isdecimal() or not int(value)):
        raise ValueError(f"{VARIABLE} should be a number of processes from 1, got {value!r}")
    if multiprocessing.current_process().daemon:
        return 1
    if value is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return int(value)


def _pool(workers: int, work: Callable[[Any], Any]) -> ProcessPoolExecutor:
    with warnings.catch_warnings():
        # newer Pythons warn of forks beside threads; see above for what keeps these safe
        warnings.simplefilter("ignore", DeprecationWarning)
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(
            workers, mp_context=context, initializer=_remember, initargs=(work,)
        )


def _remember(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _do(item: Any) -> Any:
    return _work(item)
