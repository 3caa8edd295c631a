"""What a report consists of, before it becomes HTML or Markdown."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from molhpft.core.metrics import PERCENTAGES
from molhpft.domains.files import Json


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: as shown.
        value: to sort by; None sorts last.
    """

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: above it.
        note: how to read it.
        columns: names.
        rows: cells, as many as columns.
        marked: number of the row that matters most, None for none.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    marked: int | None = None


@dataclass(frozen=True)
class Picture:
    """A molecule with a caption.

    Attributes:
        svg: drawing; empty where RDKit cannot draw it.
        smiles: of the molecule.
        lines: of the caption.
    """

    svg: str
    smiles: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """Figures or molecules that show one thing, or why there are none.

    Attributes:
        title: above them.
        note: what is shown and how to read it; where nothing is, why.
        figures: plotly figures as plain values.
        pictures: of molecules.
    """

    title: str
    note: str
    figures: tuple[Json, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Section:
    """Everything about one task.

    Attributes:
        task: name.
        conclusions: sentences, the most important first.
        tables: of numbers.
        panels: of figures, then of molecules.
    """

    task: str
    conclusions: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()


def text_cell(value: Any) -> Cell:
    """A cell of text; a dash for None and NaN."""
    missing = value is None or value != value
    return Cell("-" if missing else str(value), None if missing else str(value))


def number_cell(value: Any) -> Cell:
    """A cell of a whole number."""
    return mean_cell(value, None, "{:,.0f}".format)


def score_cell(row: Mapping[Any, Any], name: str, metric: str) -> Cell:
    """A mean score with half its interval; percent where the score is a fraction."""
    return mean_cell(row.get(name), row.get(f"{name}_low"), lambda x: score_text(x, metric))


def mean_cell(
    mean: Any, low: Any, text: Callable[[float], str], *, half: Callable[[float], str] | None = None
) -> Cell:
    """A mean with half its interval; a dash for a mean that is missing or not finite.

    Args:
        mean: to show and to sort by.
        low: lower end of its interval; none is shown where this is missing.
        text: how to write the mean.
        half: how to write half the interval; None for the same way.
    """
    number, end = finite_or_none(mean), finite_or_none(low)
    if number is None:
        return Cell("-", None)
    reach = "" if end is None else f" ± {(half or text)(number - end)}"
    return Cell(f"{text(number)}{reach}", number)


def score_text(value: float, metric: str, *, sign: str = "") -> str:
    """A score or a difference of scores; with `sign` "+" it always has one."""
    return f"{in_points(value, metric):{sign}.{2 if metric in PERCENTAGES else 4}f}"


def in_points(value: float, metric: str) -> float:
    """A score or a difference of scores as it is shown: percentage points for fractions."""
    return 100 * value if metric in PERCENTAGES else value


def finite_or_none(value: Any) -> float | None:
    """A float, or None for what is missing, infinite or no number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
