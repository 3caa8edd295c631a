"""A picture of the paper: drawn as PNG and SVG, its numbers written beside it as CSV."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import NamedTuple

from molhpft.domains.files import Json, replacing, writing
from molhpft.results.statistics import mean_interval
from molhpft.studies.drawing import Line, TauPanel

DISTANCES = {
    "distance": "Distance $||z_T - z_0||$\n(units of the features)",
    "cosine": "Cosine between $z_T$ and $z_0$\n(1: the same direction)",
    "dot": "Dot product $z_T \\cdot z_0$\n(squared units of the features)",
    "norm": "Norm $||z_T||$\n(units of the features)",
}


class Number(NamedTuple):
    """A point of a picture.

    Attributes:
        panel: where it is drawn.
        line: what it belongs to.
        x: as text or number.
        y: the number itself.
        low: lower end of its 95 % interval over seeds; None for none, as where seeds agree.
        high: upper end, likewise.
    """

    panel: str
    line: str
    x: str | float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Picture:
    """A figure that is not drawn yet.

    Attributes:
        draw: draws it into a file, under a title.
        numbers: every number in it.
        reading: what it shows, in words.
    """

    draw: Callable[[Path, str], None]
    numbers: Sequence[Number]
    reading: str = ""

    def write(self, out: Path, name: str, title: str) -> list[Path]:
        """Draw it twice and write its numbers: `name`.png, .svg and .csv in the folder `out`."""
        files = [out / f"{name}.{ending}" for ending in ("png", "svg", "csv")]
        for path in files[:2]:
            with writing(path):
                self.draw(path, title)
        write_csv(files[2], Number._fields, self.numbers)
        return files


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table whole; None is an empty cell. Its folder is made."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])


def averaged(name: str, seeds: Sequence[Sequence[float]]) -> Line:
    """A line of means over seeds with 95 % intervals, one list of numbers a seed."""
    points = [mean_interval(values) for values in zip(*seeds, strict=True)]
    means = [point.mean for point in points]
    if len(seeds) == 1:
        return Line(name, means)
    lows, highs = [point.low for point in points], [point.high for point in points]
    return Line(name, means, seeds, lows, highs)


def distance_panels(
    taus: Sequence[str], seeds: Sequence[Sequence[Json]], *, group: str = ""
) -> list[TauPanel]:
    """The four distances of features against tau, as Figures 11 and 13 to 15 have them.

    Args:
        taus: as text.
        seeds: a list a seed, of rows of branches, one a tau.
        group: as of `TauPanel`.
    """
    return [
        TauPanel(title, taus, _distance_lines(key, seeds), group)
        for key, title in DISTANCES.items()
    ]


def _distance_lines(key: str, seeds: Sequence[Sequence[Json]]) -> list[Line]:
    def line(name: str, key: str) -> Line:
        return averaged(name, [[row["shift"][key] for row in rows] for rows in seeds])

    if key != "norm":
        return [line("", key)]
    level = line("before, $||z_0||$", "start_norm")
    return [line("after finetuning, $||z_T||$", key), Line(level.name, level.means, dotted=True)]


def tau_numbers(panels: Sequence[TauPanel]) -> list[Number]:
    """Every point of some panels over tau."""
    numbers = []
    for panel in panels:
        where = " | ".join(_plain(part) for part in (panel.group, panel.title) if part)
        for line in panel.lines:
            ends: list[tuple[float | None, float | None]] = (
                [
                    (None, None) if isnan(low) else (low, high)
                    for low, high in zip(line.low, line.high, strict=True)
                ]
                if line.low
                else [(None, None)] * len(line.means)
            )
            numbers += [
                Number(where, _plain(line.name), tau, mean, *end)
                for tau, mean, end in zip(panel.taus, line.means, ends, strict=True)
            ]
    return numbers


def _plain(text: str) -> str:
    """Text in one line without the marks of its formulas."""
    return text.replace("$", "").replace(r"\cdot", "·").replace("\n", " ")


def over_seeds(count: int) -> str:
    """What the lines are, for the foot of a figure."""
    if count == 1:
        return "one seed"
    return f"thick: mean over {count} seeds, thin: each seed; 95 % intervals of the means: CSV"
