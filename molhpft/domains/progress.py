"""Progress bars on standard error, shown only where a person is watching."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

T = TypeVar("T")


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar while they are consumed.

    Args:
        items: passed through unchanged.
        what: what is being done, such as "packing molecules".
        total: number of items; taken from `len(items)` where that exists.
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=what)
