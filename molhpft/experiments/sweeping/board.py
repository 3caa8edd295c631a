"""How far a sweep is: a table where a person is watching, a line a minute elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic

from rich.live import Live
from rich.table import Table
from rich.text import Text

from molhpft.domains.progress import plain_console

_A_MINUTE = 60.0
_SHOWN = 20  # trials under way that a terminal has room for


@dataclass
class Board:
    """Counts of a sweep's trials, and those under way.

    Attributes:
        done: with those of earlier calls.
        failed: with those of earlier calls.
        left: not yet begun.
        running: name to settings and when they began.
    """

    done: int
    failed: int
    left: int
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    ended: int = 0

    def __post_init__(self) -> None:
        self.begin = monotonic()

    def start(self, name: str, described: str) -> None:
        """A trial is under way; one that is begun again was already."""
        if name not in self.running:
            self.left -= 1
        self.running[name] = (described, monotonic())

    def end(self, name: str, *, well: bool) -> None:
        """A trial has ended."""
        self.running.pop(name, None)
        self.done += well
        self.failed += not well
        self.ended += 1

    @property
    def time_left(self) -> str:
        """By the pace so far, as "0:12:00"; empty before the first trial has ended."""
        if not self.ended:
            return ""
        pace = (monotonic() - self.begin) / self.ended
        return str(timedelta(seconds=round(pace * (self.left + len(self.running)))))

    @property
    def line(self) -> str:
        """The counts in one line."""
        counts = (
            f"sweep: {self.done} done, {len(self.running)} running, {self.failed} failed, "
            f"{self.left} left"
        )
        return f"{counts}, {self.time_left} to go" if self.time_left else counts

    def table(self) -> Table:
        """The counts, and a line for each trial under way."""
        table = Table(title=self.line, title_justify="left", box=None)
        table.add_column("running", overflow="fold")
        table.add_column("for", justify="right")
        for described, begin in list(self.running.values())[:_SHOWN]:
            since = timedelta(seconds=round(monotonic() - begin))
            table.add_row(Text(described), str(since))
        if len(self.running) > _SHOWN:
            table.add_row(f"and {len(self.running) - _SHOWN} more", "")
        return table


@contextmanager
def shown(board: Board) -> Iterator[None]:
    """A block during which the board is on a terminal; nothing elsewhere, see `Lines`."""
    console = plain_console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=board.table, console=console, transient=True, refresh_per_second=2):
        yield


class Lines:
    """A line a minute on standard error, for logs; short sweeps leave none."""

    def __init__(self, board: Board) -> None:
        self.board, self.console = board, plain_console(stderr=True)
        self.last = monotonic()

    def __call__(self) -> None:
        """To be called often."""
        if not self.console.is_terminal and monotonic() - self.last >= _A_MINUTE:
            self.last = monotonic()
            self.console.print(self.board.line, soft_wrap=True)
