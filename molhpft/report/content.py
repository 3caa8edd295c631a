"""What a report is made of, before it becomes HTML or Markdown."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from molhpft.core.metrics import SHARES
from molhpft.domains.files import Json


@dataclass(frozen=True)
class Cell:
    """One cell of a sheet.

    Attributes:
        text: as shown.
        value: to sort by; None sorts last.
    """

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Sheet:
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
class Panel:
    """Figures that show one thing, or why there are none.

    Attributes:
        title: above them.
        note: what is shown and how to read it; where there is no figure, why.
        figures: plotly figures as plain values.
    """

    title: str
    note: str
    figures: tuple[Json, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A molecule of the gallery.

    Attributes:
        svg: drawing; empty where RDKit cannot draw it.
        smiles: of the molecule.
        lines: what is said of it.
    """

    svg: str
    smiles: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """Molecules that stand out in one way, or why there are none.

    Attributes:
        title: in which way.
        note: where they are from; where there are none, why.
        pictures: most outstanding first.
    """

    title: str
    note: str
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Section:
    """Everything about one task.

    Attributes:
        task: name.
        answer: sentences, the most important first.
        sheets: tables.
        panels: figures.
        galleries: molecules, where the task has any.
    """

    task: str
    answer: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    panels: tuple[Panel, ...]
    galleries: tuple[Gallery, ...]


def words(value: Any) -> Cell:
    """A cell of text."""
    missing = value is None or value != value
    return Cell("-" if missing else str(value), None if missing else str(value))


def number(value: Any, digits: int = 0) -> Cell:
    """A cell of a bare number."""
    known = real(value)
    if known is None:
        return Cell("-", None)
    return Cell(f"{known:,.{digits}f}", known)


def score(row: Mapping[Any, Any], name: str, metric: str) -> Cell:
    """A mean score with half its interval; percent where the score is a share."""
    mean = real(row.get(name))
    if mean is None:
        return Cell("-", None)
    low = real(row.get(f"{name}_low"))
    spread = "" if low is None else f" ± {scaled(mean - low, metric):.{digits(metric)}f}"
    return Cell(f"{scaled(mean, metric):.{digits(metric)}f}{spread}", mean)


def scaled(value: float, metric: str) -> float:
    """A score or a difference of scores as it is shown: points for shares."""
    return 100 * value if metric in SHARES else value


def digits(metric: str) -> int:
    """Digits after the point of a score as it is shown."""
    return 2 if metric in SHARES else 4


def real(value: Any) -> float | None:
    """A float, or None for what is missing or no number."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
