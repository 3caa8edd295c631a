"""Shared by the speed benchmarks: works timed in turn, tables, and a last line of JSON.

In turn, because whatever else the machine does in a minute then slows all of them.
"""

import json
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def in_turn(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call over `repeats` rounds, after a round that does not count."""
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(1 + repeats)]
    return {name: median(times[name] for times in rounds[1:]) for name in works}


def print_table(title: str, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Print a table of one line a name; the cells of all lines have the same headings."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in next(iter(rows.values())):
        table.add_column(heading, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells.values())
    Console(width=140).print(table)


def print_figures(figures: Mapping[str, object]) -> None:
    """Print the last line, one of JSON, for programs."""
    print(json.dumps(figures), flush=True)
