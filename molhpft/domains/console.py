"""What is printed: text as it is, and progress, a bar where a person is watching, else lines."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints text as it is.

    Users name columns, files and tasks: Rich would read their brackets and colons as styles
    (`[red]`) and emoji (`:smile:`), and end a finished command with an error at a stray `[/b]`.

    Args:
        stderr: whether on standard error, else on standard output.
        width: in characters; None for that of the terminal.
    """
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


@contextmanager
def bar(what: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar; where there is no terminal, a line a minute.

    The context gives a function to call with the number of steps done.

    Args:
        what: what is being done, such as "packing molecules".
        total: number of steps; None for an unknown number, which leaves no line.
    """
    with _progress(what, total) as move:
        move(0)
        yield move


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


@contextmanager
def pace(what: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """A bar with examples a second and the time left; where there is no terminal, a line a minute.

    The context gives a function to call with the number of examples done.

    Args:
        what: what is being done, such as "finetuning, tau 4".
        total: examples in all.
        shown: False shows nothing, for the processes that help the first one.
    """
    if not shown:
        yield _quiet
        return
    with _progress(what, total, of="examples") as move:
        yield move


@contextmanager
def _progress(what: str, total: int | None, *, of: str = "") -> Iterator[Callable[[int], None]]:
    """As `bar` and `pace` say; with a speed where the steps are `of` something."""
    console = plain_console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, total, console, of) if total else _quiet
        return
    speed = [_Speed()] if of else []
    columns = (_Description(), BarColumn(), TaskProgressColumn(), *speed, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        step = progress.add_task(what, total=total)
        yield lambda done: progress.update(step, completed=done)


class _Description(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.description)


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} examples/s" if task.speed else "")


class _Lines:
    """A line a minute, for logs; short work leaves none."""

    def __init__(self, what: str, total: int, console: Console, of: str) -> None:
        self.what, self.total, self.console, self.of = what, total, console, of
        self.begin: tuple[float, int] | None = None  # when this process started, and with how many
        self.last = monotonic()

    def __call__(self, done: int) -> None:
        now = monotonic()
        self.begin = self.begin or (now, done)
        if now - self.last >= _A_MINUTE and self.begin[1] < done < self.total:
            self.last = now
            speed = (done - self.begin[1]) / (now - self.begin[0])
            left = (self.total - done) / speed / 60
            shown = f"{speed:,.0f} {self.of}/s, " if self.of else ""
            line = f"{self.what}: {done / self.total:.0%}, {shown}{left:,.0f} min left"
            self.console.print(line, soft_wrap=True)


_A_MINUTE = 60.0


def _quiet(done: int) -> None:
    pass
