"""How far a sweep is: a table where a person is watching, a line a minute elsewhere.

A sweep's trials, and what they say over seeds, as tables for the terminal.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import mean, stdev
from time import monotonic

from rich.live import Live
from rich.table import Table
from rich.text import Text

from molhpft.core.metrics import score_name, show
from molhpft.domains.console import plain_console
from molhpft.domains.files import Json
from molhpft.sweep.spec import described, told

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
        for run, begin in list(self.running.values())[:_SHOWN]:
            since = timedelta(seconds=round(monotonic() - begin))
            table.add_row(Text(run), str(since))
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


_SCORED = ("valid", "test")


def sweep_table(rows: Sequence[Json]) -> Table:
    """A line a trial: what it was run with, the tau that validation chose, and its scores.

    Args:
        rows: those of `sweep`.
    """
    scored = {f"{row['task']}, {score_name(row['metric'])}" for row in rows if "task" in row}
    title = Text("; ".join(sorted(scored)) or "sweep")
    table = Table(title=title, title_justify="left")
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    for key in keys:
        table.add_column(Text(key), overflow="fold")
    for column in ("tau", "valid", "test", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        settings = (Text(told(row["settings"].get(key, ""))) for key in keys)
        table.add_row(*settings, *_cells(row), style="red" if row["status"] == "failed" else "")
    return table


def seeds_table(rows: Sequence[Json]) -> Table:
    """A line for each setting: mean and unbiased standard deviation over seeds.

    It is what OGB's leaderboards ask for: scores, number of seeds, parameters, and in the last
    columns the mean time of a trial and what it ran on.

    Args:
        rows: those of `sweep`.
    """
    groups: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done":
            apart = {key: told(value) for key, value in row["settings"].items() if key != "seed"}
            groups[json.dumps(apart)].append(row)
    table = Table(title="over seeds: mean ± standard deviation", title_justify="left")
    keys = list(dict.fromkeys(key for settings in groups for key in json.loads(settings)))
    for key in keys:
        table.add_column(Text(key), overflow="fold")
    for column in ("seeds", "tau", "valid", "test", "parameters", "seconds", "hardware"):
        table.add_column(column, justify="left" if column == "hardware" else "right")
    for settings, group in groups.items():
        named = json.loads(settings)
        table.add_row(*(Text(named.get(key, "")) for key in keys), *_over_seeds(group))
    return table


def _over_seeds(group: Sequence[Json]) -> list[str]:
    scores = [_spread([row[split] for row in group], group[0]["metric"]) for split in _SCORED]
    return [
        str(len(group)),
        ", ".join(dict.fromkeys(str(row["tau"]) for row in group)),
        *scores,
        f"{group[0]['parameters']:,}",
        f"{mean(row['seconds'] for row in group):.0f}",
        ", ".join(dict.fromkeys(str(row["hardware"]) for row in group)),
    ]


def _spread(values: Sequence[float], metric: str) -> str:
    known = [show(mean(values), metric), *([show(stdev(values), metric)] if values[1:] else [])]
    return " ± ".join(known)


def sweep_reading(rows: Sequence[Json]) -> str:
    """How many trials are done, and what each of the others failed of."""
    failed = [row for row in rows if row["status"] == "failed"]
    counts = f"{len(rows) - len(failed)} of {len(rows)} trials done"
    if not failed:
        return f"{counts}."
    told = [f"  {described(row['settings'])}: {row['error']}" for row in failed]
    return "\n".join([f"{counts}; failed (--retry attempts them again):", *told])


def _cells(row: Json) -> list[str]:
    if row["status"] == "failed":
        return ["failed", "", "", f"{row['seconds']:.0f}"]
    scores = [show(row[split], row["metric"]) for split in _SCORED]
    return [str(row["tau"]), *scores, f"{row['seconds']:.0f}"]
