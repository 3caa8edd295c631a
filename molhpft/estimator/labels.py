"""What people hand to an estimator, lists, arrays and data frames, as molecules and targets.

Cells mean what they mean in a file (`table_files.text_of`, `target_columns.labels_of`).
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.domains.files import listed
from molhpft.domains.molecules.group_columns import time_of
from molhpft.domains.molecules.table_files import spelled, text_of
from molhpft.domains.molecules.target_columns import (
    decades_notes,
    is_censored,
    labels_of,
    missing_note,
    number,
)

Column = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Labels:
    """Targets as they are learned.

    Attributes:
        targets: float64 (n, t) of numbers, float32 of classes; NaN where missing.
        names: (t,).
        classes: of a classification, the two values of each target that are learned as 0 and 1.
        flat: whether they came as (n,), so that predictions go back so.
        notes: sentences about how they were read.
    """

    targets: Tensor
    names: tuple[str, ...]
    classes: tuple[tuple[Any, Any], ...]
    flat: bool
    notes: tuple[str, ...] = ()


def smiles_of(molecules: Any) -> tuple[str, ...]:
    """SMILES strings of a list, array, series, or table with one column (or one named smiles).

    In another case that name will do, too, where only one column has it.

    Bytes are UTF-8; None, NaN and pandas' NA are an unreadable molecule.

    >>> smiles_of([b"CCO", "c1ccccc1", None])
    ('CCO', 'c1ccccc1', '')

    Raises:
        ValueError: these are no texts, or a table of several columns.
    """
    if isinstance(molecules, pd.DataFrame):
        column = spelled("smiles", map(str, molecules.columns))
        molecules = molecules.get(column, molecules)
    cells = np.asarray(molecules, dtype=object)
    if cells.ndim == 2 and cells.shape[1] == 1:
        cells = cells[:, 0]
    if cells.ndim != 1:
        raise ValueError(
            "molecules should be SMILES strings, one a row (n,), or a table with a column named "
            f"smiles; got an array of shape {cells.shape}"
        )
    texts = [text_of(cell) for cell in cells]
    for row, text in enumerate(texts):
        if text is None:
            raise ValueError(f"molecules should be SMILES strings; {_shown(cells[row], row)}")
    return tuple(text or "" for text in texts)


def number_labels(y: Any, n: int) -> Labels:
    """Targets of a regression.

    Args:
        y: (n,) or (n, t), NaN where missing; text is read as the cells of a file are, censored
            numbers (`>1.5`) as missing, which a note says. Another is on numbers of many orders of
            magnitude.
        n: number of molecules.

    Raises:
        ValueError: these are no finite numbers, or not a row for each molecule.
    """
    table, names, flat = _table(y, n)
    notes: list[str] = []
    columns = []
    for name, column in zip(names, table.T, strict=True):
        if table.dtype == object:
            column, note = _without_censored(column, name)
            column = np.array([_number(value, row, name) for row, value in enumerate(column)])
            notes += note
        columns.append(column.astype(np.float64))
    targets = torch.from_numpy(np.array(columns).T)
    for row, k in targets.float().isinf().nonzero().tolist()[:1]:
        raise ValueError(f"target {names[k]!r} should be finite numbers; row {row} is infinite")
    for name, column in zip(names, columns, strict=True):
        measured = np.flatnonzero(~np.isnan(column))
        if measured.size:
            rows = (measured[choose(column[measured])] for choose in (np.argmin, np.argmax))
            ends = [(float(column[row]), f"row {row} has {column[row]:.15g}") for row in rows]
            notes += decades_notes(name, *ends)
    return Labels(targets, names, (), flat, tuple(notes))


def class_labels(y: Any, n: int, *, classes: tuple[tuple[Any, Any], ...] | None = None) -> Labels:
    """Labels of a classification; each target has two values, the greater one is learned as 1.

    The greater one also where `finetune` would take the other word for yes: it is the order of
    scikit-learn's `classes_`, by which its scores read probabilities. Where a label is spelled in
    several ways, which those scores do not read, neither spaces around it nor its case count in it.

    >>> labels = class_labels(["toxic", "harmless", None], 3)
    >>> labels.classes, labels.targets.flatten().tolist()
    ((('harmless', 'toxic'),), [1.0, 0.0, nan])

    Args:
        y: (n,) or (n, t) of any two values; NaN, None or a file's missing marks where missing.
            Words are read as in a file: spaces around them and their case do not count.
        n: number of molecules.
        classes: the two values of each target, where they are given; else both must occur.

    Raises:
        ValueError: a target has not exactly two classes, or other ones than `classes`, or there is
            not a row for each molecule.
    """
    table, names, flat = _table(y, n)
    if classes is not None and len(classes) != len(names):
        raise ValueError(f"there should be {len(classes)} targets, got {len(names)}")
    notes: list[str] = []
    pairs, targets = [], []
    for k, (name, column) in enumerate(zip(names, table.T, strict=True)):
        given = classes[k] if classes else ()
        several = False
        if table.dtype == object:
            column, several, note = _with_one_spelling(column, name, given)
            notes += note
        missing = np.asarray(pd.isna(column))
        pair = given or _two_classes(column[~missing], name, by_word=several)
        for value in column[~missing & (column != pair[0]) & (column != pair[1])][:1]:
            raise ValueError(f"target {name!r} should be {pair[0]} or {pair[1]}, got {value!r}")
        pairs.append(pair)
        targets.append(np.where(missing, np.nan, column == pair[1]).astype(np.float32))
    return Labels(torch.from_numpy(np.array(targets).T), names, tuple(pairs), flat, tuple(notes))


def groups_of(groups: Any, n: int) -> tuple[Hashable, ...]:
    """The group of each molecule, (n,), of a list, array or series of any values.

    Raises:
        ValueError: there is not one for each molecule, or one is missing or a list.
    """
    if isinstance(groups, list | tuple):
        groups = pd.Series(groups, dtype=object)  # NumPy would take pairs for rows of a table
    cells = np.asarray(groups, dtype=object)
    _check_one_each(cells, n, "groups")
    for row in np.flatnonzero(pd.isna(cells))[:1]:
        raise ValueError(f"every molecule should have a group; {_shown(cells[row], row)}")
    for row, cell in enumerate(cells):
        if not isinstance(cell, Hashable):
            raise ValueError(f"a group should be a name or a number; {_shown(cell, row)}")
    return tuple(cells)


def times_of(times: Any, n: int) -> tuple[float, ...]:
    """When each molecule was measured, (n,): numbers, dates, or text as in a table (`time_of`).

    >>> times_of(["1970-01-02", "1970-01-01"], 2)
    (86400.0, 0.0)

    Raises:
        ValueError: there is not one for each molecule, or one is no time.
    """
    series = pd.Series(times)
    cells = series.to_numpy(dtype=object)
    _check_one_each(cells, n, "times")
    values = [None if pd.isna(cell) else time_of(str(cell)) for cell in cells]
    for row, value in enumerate(values):
        if value is None:
            raise ValueError(
                f"times should be numbers, or dates that begin with the year; "
                f"{_shown(cells[row], row)}"
            )
    if len({number(str(cell)) is None for cell in cells}) > 1:
        raise ValueError("times should be numbers or dates, not both")
    return tuple(value for value in values if value is not None)


def _check_one_each(cells: NDArray[Any], n: int, what: str) -> None:
    if cells.shape != (n,):
        raise ValueError(
            f"{what} should be (n,), one for each of {n:,} molecules, got {cells.shape}"
        )


def class_name(label: Any) -> str:
    """What a label is called in tables: "1" for 1, 1.0 and " 1", "True" for True."""
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return f"{label:.0f}"
    return str(label).strip()


def _table(y: Any, n: int) -> tuple[NDArray[Any], tuple[str, ...], bool]:
    """Targets (n, t), their names, and whether there is one because `y` was (n,)."""
    cells = _array(y)
    flat = cells.ndim == 1
    table = cells[:, None] if flat else cells
    if table.ndim != 2 or len(table) != n or not table.shape[1]:
        raise ValueError(
            f"targets should be (n,) or (n, t) with a row for each of {n:,} molecules, "
            f"got {cells.shape}"
        )
    if flat:
        names = [getattr(y, "name", None) or "target"]
    else:
        given = getattr(y, "columns", None)
        names = [f"target {k}" for k in range(table.shape[1])] if given is None else list(given)
    if table.dtype == object:
        values = [_value(cell, row) for row, cells in enumerate(table) for cell in cells]
        table = np.fromiter(values, dtype=object, count=table.size).reshape(table.shape)
    return table, tuple(map(str, names)), flat


def _array(y: Any) -> NDArray[Any]:
    """An array of numbers, or of the objects that were given; what NumPy masks is None."""
    if isinstance(y, np.ma.MaskedArray):
        cells = np.array(y.data, dtype=object)
        cells[np.ma.getmaskarray(y)] = None
        return cells
    with suppress(ValueError):  # rows of several lengths
        numbers = np.asarray(y)
        if numbers.dtype.kind in "biuf":
            return numbers
    try:
        return np.array(y, dtype=object)
    except ValueError as error:
        raise ValueError(
            f"targets should be (n,) or (n, t), of one length each: {error}"
        ) from error


def _value(cell: Any, row: int) -> Any:
    """A label: NaN where it is missing, everything else as it is."""
    if isinstance(cell, bytes):
        raise ValueError(
            f"targets should be numbers or text, no bytes; {_shown(cell, row)}; "
            "decode them, by y.astype(str) of an array"
        )
    if isinstance(cell, str):
        return str(cell)  # of a subclass, such as NumPy's
    if isinstance(cell, Decimal):
        return float(cell)
    if isinstance(cell, Number | np.number | np.bool_):
        return cell
    if pd.api.types.is_scalar(cell) and pd.isna(cell):
        return np.nan  # pandas' NA is equal to nothing
    raise ValueError(f"a target should be a number or a word a molecule; {_shown(cell, row)}")


def _shown(value: Any, row: int) -> str:
    return f"row {row} is {value!r:.60} ({type(value).__name__})"


def _two_classes(labels: Column, name: str, *, by_word: bool) -> tuple[Any, Any]:
    """The two values of a target, the lesser first; numbers of all types are of one type.

    Args:
        labels: of the target, none missing.
        name: of the target.
        by_word: whether text is compared as it is read, without its spaces and case.
    """
    if labels.dtype == object:
        types = {
            Number if isinstance(x, Number | np.number | np.bool_) else type(x): x
            for x in labels[::-1]
        }
        if len(types) > 1:
            examples = " and ".join(f"{x!r:.40} ({type(x).__name__})" for x in types.values())
            raise ValueError(
                f"target {name!r} has labels of several types, {examples}; give numbers or words "
                "alone"
            )
    values = list(np.unique(labels))
    if len(values) != 2:
        listed = f": {', '.join(map(str, values[:5]))}" if values else ""
        numbers = len(values) > 2 and all(isinstance(value, Number) for value in values)
        remedy = "; HPFTRegressor learns numbers" if numbers else ""
        raise ValueError(
            f"target {name!r} should have labels of two classes, got {len(values)} "
            f"class{'es' * (len(values) != 1)}{listed}{remedy}"
        )
    if by_word:
        words = [value.strip().lower() for value in values]
        parsed = [number(word) for word in words]
        order: list[Any] = words if None in parsed else parsed
        if order[0] > order[1]:
            values.reverse()
    return values[0], values[1]


def _with_one_spelling(
    column: Column, name: str, classes: Sequence[Any]
) -> tuple[Column, bool, list[str]]:
    """Labels with every word in its first spelling, NaN where missing.

    Also whether there are other spellings, and a note on them.
    """
    words = [value for value in (*classes, *column) if isinstance(value, str)]
    labels = labels_of(word.strip() for word in words)
    # as it was given, spaces included: what is predicted has to equal what was learned from
    first_spelled = {labels[word.strip()]: word for word in reversed(words)}
    spelled = column.copy()
    others: dict[str, str] = {}
    marks: list[int] = []
    for row, value in enumerate(column):
        if isinstance(value, str):
            label = labels[value.strip()]
            if not label:
                marks.append(row)
                spelled[row] = np.nan
                continue
            spelled[row] = first_spelled[label]
            if spelled[row] != value:
                others.setdefault(value, f"{value!r} counts as {spelled[row]!r} (row {row})")
    first = listed(others.values(), most=3)
    notes = [f"{name}: {first}."] if first else []
    return spelled, bool(others), notes + _missing_notes(column, marks, name)


def _missing_notes(
    column: Column, rows: Sequence[int], name: str, *, what: str = "label"
) -> list[str]:
    """A note on words that count as missing, in these rows; an empty one surprises nobody."""
    words = [row for row in rows if column[row].strip()]
    if not words:
        return []
    return [missing_note(name, len(words), f"row {words[0]} has {column[words[0]]!r}", what=what)]


def _without_censored(column: Column, name: str) -> tuple[Column, list[str]]:
    """Labels, NaN where missing and, beside numbers, where censored; a note on the latter."""
    texts = {row: value.strip() for row, value in enumerate(column) if isinstance(value, str)}
    labels = labels_of(texts.values())
    marks = [row for row, text in texts.items() if not labels[text]]
    notes = _missing_notes(column, marks, name)
    column = column.copy()
    column[marks] = np.nan
    rows = [row for row, text in texts.items() if is_censored(text)]
    if not rows or len(rows) == sum(not pd.isna(value) for value in column):
        return column, notes
    notes += _missing_notes(column, rows, name, what="censored label")
    column[rows] = np.nan
    return column, notes


def _number(value: Any, row: int, name: str) -> float:
    with suppress(TypeError, ValueError):
        parsed = number(value.strip()) if isinstance(value, str) else float(value)
        if parsed is not None:
            return parsed
    raise ValueError(f"target {name!r} of a regression should be numbers; {_shown(value, row)}")
