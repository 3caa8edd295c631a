"""What people hand to an estimator, lists, arrays and data frames, as molecules and targets."""

from collections.abc import Sequence
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

from molhpft.domains.molecules.table_files import text_of
from molhpft.domains.molecules.target_columns import is_censored, labels_of, number


@dataclass(frozen=True)
class Labels:
    """Targets as they are learned.

    Attributes:
        targets: float32 (n, t), NaN where missing.
        names: (t,).
        classes: of a classification, the two values of each target that are learned as 0 and 1.
        flat: whether they came as (n,), and answers go back so.
        notes: sentences about how text was read.
    """

    targets: Tensor
    names: tuple[str, ...]
    classes: tuple[tuple[Any, Any], ...]
    flat: bool
    notes: tuple[str, ...] = ()


def smiles_of(molecules: Any) -> tuple[str, ...]:
    """SMILES strings of a list, array, series, or table with one column (or one named smiles).

    Cells mean what they mean in a file (`table_files.text_of`): bytes are UTF-8, and None, NaN and
    pandas' NA an unreadable molecule.

    Raises:
        ValueError: these are no texts, or a table of several columns.
    """
    if isinstance(molecules, pd.DataFrame) and "smiles" in molecules.columns:
        molecules = molecules["smiles"]
    given = np.asarray(molecules, dtype=object)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        raise ValueError(
            "molecules should be SMILES strings, one a row (n,), or a table with a column named "
            f"smiles; got an array of shape {given.shape}"
        )
    texts = []
    for row, value in enumerate(given):
        text = text_of(value)
        if text is None:
            raise ValueError(
                f"molecules should be SMILES strings; row {row} is {value!r:.60} "
                f"({type(value).__name__})"
            )
        texts.append(text)
    return tuple(texts)


def number_labels(y: Any, n: int) -> Labels:
    """Targets of a regression.

    Args:
        y: (n,) or (n, t), NaN where missing; text is read as the cells of a file are, censored
            numbers (`>1.5`) as missing, which a note says.
        n: molecules there are.

    Raises:
        ValueError: these are no finite numbers, or not a row a molecule.
    """
    table, names, flat = _table(y, n)
    notes: list[str] = []
    if table.dtype == object:
        for k, name in enumerate(names):
            table[:, k], said = _uncensored(table[:, k], name)
            notes += said
        pairs = zip(table.T, names, strict=True)
        columns = [[_number(x, row, name) for row, x in enumerate(col)] for col, name in pairs]
        table = np.array(columns).T
    # float32 before the check: a number too large for it is infinite from here on
    targets = torch.from_numpy(table.astype(np.float64)).float()
    _check_finite(targets, names)
    return Labels(targets, names, (), flat, tuple(notes))


def class_labels(y: Any, n: int, *, classes: tuple[tuple[Any, Any], ...] | None = None) -> Labels:
    """Labels of a classification; each target has two values, the greater one is learned as 1.

    The greater one also where `finetune` would take the other word for yes: it is the order of
    scikit-learn's `classes_`, by which its scores read probabilities.

    Args:
        y: (n,) or (n, t) of any two values, NaN, None or a file's missing marks where missing.
            Words are read as in a file: spaces around them and their case do not count.
        n: molecules there are.
        classes: the two values of each target, where they are known; else both must occur.

    Raises:
        ValueError: a target has not exactly two classes, or other ones than `classes`, or there is
            not a row a molecule.
    """
    table, names, flat = _table(y, n)
    if classes is not None and len(classes) != len(names):
        raise ValueError(f"there should be {len(classes)} targets, got {len(names)}")
    notes: list[str] = []
    if table.dtype == object:
        for k, name in enumerate(names):
            table[:, k], said = _spelled(table[:, k], name, classes[k] if classes else ())
            notes += said
    if classes is None:
        classes = tuple(_two(column, name) for column, name in zip(table.T, names, strict=True))
    pairs = zip(table.T, classes, names, strict=True)
    targets = [torch.from_numpy(_zero_or_one(*column)) for column in pairs]
    return Labels(torch.stack(targets, 1).float(), names, classes, flat, tuple(notes))


def class_name(label: Any) -> str:
    """What a label is called in tables: "1" for 1, 1.0 and "1", "True" for True."""
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return f"{label:.0f}"
    return str(label)


def _two(column: NDArray[Any], name: str) -> tuple[Any, Any]:
    known = column[~pd.isna(column)]
    if known.dtype == object:
        _check_types(known, name)
    found = list(np.unique(known))
    if len(found) != 2:
        values = f": {', '.join(map(str, found[:5]))}" if found else ""
        raise ValueError(
            f"target {name!r} should have labels of two classes, got {len(found)} "
            f"class{'es' * (len(found) != 1)}{values}"
        )
    return found[0], found[1]


def _check_types(labels: NDArray[Any], name: str) -> None:
    """Refuse words beside numbers; numbers of all types, and truth values, are of one."""
    kinds = {
        Number if isinstance(x, Number | np.number | np.bool_) else type(x): x for x in labels[::-1]
    }
    if len(kinds) > 1:
        examples = " and ".join(f"{x!r:.40} ({type(x).__name__})" for x in kinds.values())
        raise ValueError(
            f"target {name!r} has labels of several types, {examples}; give numbers or words alone"
        )


def _zero_or_one(column: NDArray[Any], pair: tuple[Any, Any], name: str) -> NDArray[np.float64]:
    missing = np.asarray(pd.isna(column))
    for value in column[~missing & (column != pair[0]) & (column != pair[1])][:1]:
        raise ValueError(f"target {name!r} should be {pair[0]} or {pair[1]}, got {value!r}")
    return np.where(missing, np.nan, column == pair[1]).astype(np.float64)


def _table(y: Any, n: int) -> tuple[NDArray[Any], tuple[str, ...], bool]:
    """Columns (n, t), their names, and whether there is one because `y` was (n,)."""
    found = _array(y)
    flat = found.ndim == 1
    table = found[:, None] if flat else found
    if table.ndim != 2 or len(table) != n or not table.shape[1]:
        raise ValueError(
            f"targets should be (n,) or (n, t) with a row for each of {n:,} molecules, "
            f"got {found.shape}"
        )
    given = getattr(y, "columns", None)
    named = [getattr(y, "name", None) or "target"] if flat else given
    names = [f"target {k}" for k in range(table.shape[1])] if named is None else list(named)
    if table.dtype == object:
        cells = [_cell(value, row) for row, values in enumerate(table) for value in values]
        table = np.fromiter(cells, dtype=object, count=table.size).reshape(table.shape)
    return table, tuple(map(str, names)), flat


def _array(y: Any) -> NDArray[Any]:
    """An array of numbers, or of the objects that were given; what NumPy masks is None."""
    if isinstance(y, np.ma.MaskedArray):
        labels = np.array(y.data, dtype=object)
        labels[np.ma.getmaskarray(y)] = None
        return labels
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


def _cell(value: Any, row: int) -> Any:
    """A label: NaN where it is missing, text of bytes, everything else as it is."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return str(value)  # of a subclass, such as NumPy's
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Number | np.number | np.bool_):
        return value
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return np.nan  # pandas' NA is equal to nothing
    raise ValueError(
        f"a target should be a number or a word a molecule; row {row} is {value!r:.60} "
        f"({type(value).__name__})"
    )


def _spelled(
    column: NDArray[Any], name: str, known: Sequence[Any]
) -> tuple[NDArray[Any], list[str]]:
    """Labels (n,) whose words are spelled alike, NaN where missing, and what was not so before."""
    words = [value.strip() for value in (*known, *column) if isinstance(value, str)]
    spelling = labels_of(words)
    spelled = column.copy()
    others: dict[str, str] = {}
    for row, value in enumerate(column):
        if isinstance(value, str):
            label = spelling[value.strip()]
            spelled[row] = label or np.nan
            if label and label != value:
                others.setdefault(value, f"{value!r} counts as {label!r} (row {row})")
    more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
    first = ", ".join(list(others.values())[:3])
    return spelled, [f"{name}: {first}{more}."] if first else []


def _uncensored(column: NDArray[Any], name: str) -> tuple[NDArray[Any], list[str]]:
    """Labels (n,), NaN where missing and, beside numbers, where censored; which these were."""
    texts = {row: value.strip() for row, value in enumerate(column) if isinstance(value, str)}
    labels = labels_of(texts.values())
    known = column.copy()
    known[[row for row, text in texts.items() if not labels[text]]] = np.nan
    rows = [row for row, text in texts.items() if is_censored(text)]
    if not rows or len(rows) == sum(not pd.isna(value) for value in known):
        return known, []
    known[rows] = np.nan
    count = f"{len(rows):,} censored label{'s count' if len(rows) > 1 else ' counts'}"
    return known, [f"{name}: {count} as missing, row {rows[0]} has {column[rows[0]]!r}."]


def _number(value: Any, row: int, name: str) -> float:
    try:
        found = number(value.strip()) if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        found = None
    if found is None:
        raise ValueError(
            f"target {name!r} of a regression should be numbers; row {row} is {value!r:.60} "
            f"({type(value).__name__})"
        )
    return found


def _check_finite(targets: Tensor, names: Sequence[str]) -> None:
    for row, k in targets.isinf().nonzero().tolist()[:1]:
        raise ValueError(f"target {names[k]!r} should be finite numbers; row {row} is infinite")
