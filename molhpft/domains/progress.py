"""Progress bars on standard error, shown only where a person is watching."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")


@contextmanager
def bar(what: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar that is moved by calling what the context gives with the number of steps done.

    Args:
        what: what is being done, such as "packing molecules".
        total: number of steps; None for an unknown number.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        step = progress.add_task(what, total=total)
        yield lambda done: progress.update(step, completed=done)


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar while they are consumed.

    Args:
        items: passed through unchanged.
        what: what is being done, such as "packing molecules".
        total: number of items, where they do not know it themselves.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(what, total=total) as move:
        for done, item in enumerate(items, start=1):
            yield item
            move(done)
