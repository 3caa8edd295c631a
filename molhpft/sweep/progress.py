"""A sweep in the terminal: its progress while it runs, and its results as tables afterwards."""

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

from molhpft.core.metrics import score_name, show, show_tau
from molhpft.domains.console import plain_console
from molhpft.domains.files import Json
from molhpft.sweep.spec import settings_text, value_text

_A_MINUTE = 60.0
_MOST_ROWS = 20  # running trials that a terminal has room for


@dataclass
class Board:
    """Counts of a sweep's trials, and those running.

    Attributes:
        done: with those of earlier calls.
        failed: with those of earlier calls.
        left: not yet started.
        running: name to settings and start time.
        ended: in this call.
    """

    done: int
    failed: int
    left: int
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    ended: int = 0
    begin: float = field(default_factory=lambda: monotonic())

    def start(self, name: str, settings: str) -> None:
        """A trial starts."""
        self.left -= 1
        self.running[name] = (settings, monotonic())

    def end(self, name: str, *, done: bool) -> None:
        """A trial has ended, done or failed."""
        del self.running[name]
        self.done += done
        self.failed += not done
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
        """The counts, and a line for each running trial."""
        table = Table(title=self.line, title_justify="left", box=None)
        table.add_column("running", overflow="fold")
        table.add_column("for", justify="right")
        for settings, begin in list(self.running.values())[:_MOST_ROWS]:
            since = timedelta(seconds=round(monotonic() - begin))
            table.add_row(Text(settings), str(since))
        if len(self.running) > _MOST_ROWS:
            table.add_row(f"and {len(self.running) - _MOST_ROWS} more", "")
        return table


@contextmanager
def displayed(board: Board) -> Iterator[None]:
    """A block during which a terminal shows the board; elsewhere `Lines` reports."""
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


def sweep_table(rows: Sequence[Json]) -> Table:
    """A line a trial: its settings, the tau that validation chose, and its scores.

    Args:
        rows: those of `sweep`.
    """
    titles = {f"{row['task']}, {score_name(row['metric'])}" for row in rows if "task" in row}
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    table = _table("; ".join(sorted(titles)) or "sweep", keys, ("tau", "valid", "test", "seconds"))
    for row in rows:
        settings = (Text(value_text(row["settings"].get(key, ""))) for key in keys)
        failed = row["status"] == "failed"
        cells = ["failed", "", ""] if failed else [show_tau(row["tau"]), *_scores([row])]
        style = "red" if failed else ""
        table.add_row(*settings, *cells, f"{row['seconds']:.0f}", style=style)
    return table


def seeds_table(rows: Sequence[Json]) -> Table:
    """A line a setting, as OGB's leaderboards ask for: mean ± unbiased standard deviation.

    Scores are over seeds; the last columns have parameters, mean time of a trial and hardware.

    Args:
        rows: those of `sweep`.
    """
    groups: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done":
            texts = {k: value_text(v) for k, v in row["settings"].items() if k != "seed"}
            groups[json.dumps(texts)].append(row)
    keys = list(dict.fromkeys(key for settings in groups for key in json.loads(settings)))
    columns = ("seeds", "tau", "valid", "test", "parameters", "seconds", "hardware")
    table = _table("over seeds: mean ± standard deviation", keys, columns)
    for settings, group in groups.items():
        texts = json.loads(settings)
        table.add_row(
            *(Text(texts.get(key, "")) for key in keys),
            str(len(group)),
            ", ".join(dict.fromkeys(show_tau(row["tau"]) for row in group)),
            *_scores(group),
            f"{group[0]['parameters']:,}",
            f"{mean(row['seconds'] for row in group):.0f}",
            ", ".join(dict.fromkeys(str(row["hardware"]) for row in group)),
        )
    return table


def sweep_reading(rows: Sequence[Json]) -> str:
    """How many trials are done, and why each of the others failed."""
    failed = [row for row in rows if row["status"] == "failed"]
    counts = f"{len(rows) - len(failed)} of {len(rows)} trials done"
    if not failed:
        return f"{counts}."
    lines = [f"  {settings_text(row['settings'])}: {row['error']}" for row in failed]
    return "\n".join([f"{counts}; failed (--retry runs them again):", *lines])


def _table(title: str, settings: Sequence[str], columns: Sequence[str]) -> Table:
    # settings are named by people: in plain strings rich would read their brackets as styles
    table = Table(title=Text(title), title_justify="left")
    for key in settings:
        table.add_column(Text(key), overflow="fold")
    for column in columns:
        table.add_column(column, justify="left" if column == "hardware" else "right")
    return table


def _scores(rows: Sequence[Json]) -> list[str]:
    """Validation and test score: of several seeds, mean ± standard deviation.

    Where some have no score, how many have one.
    """
    metric, texts = rows[0]["metric"], []
    for split in ("valid", "test"):
        values = [row[split] for row in rows if row[split] is not None]
        std = f" ± {show(stdev(values), metric)}" if values[1:] else ""
        of = f" ({len(values)} of {len(rows)})" if 0 < len(values) < len(rows) else ""
        texts.append(f"{show(mean(values) if values else None, metric)}{std}{of}")
    return texts
