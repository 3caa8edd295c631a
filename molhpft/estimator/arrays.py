"""What people hand to an estimator, lists, arrays and data frames, as molecules and targets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """Targets as they are learned.

    Attributes:
        targets: float32 (n, t), NaN where missing.
        names: (t,).
        classes: of a classification, the two values of each target that are learned as 0 and 1.
        flat: whether they came as (n,), and answers go back so.
    """

    targets: Tensor
    names: tuple[str, ...]
    classes: tuple[tuple[Any, Any], ...]
    flat: bool


def smiles_of(molecules: Any) -> tuple[str, ...]:
    """SMILES strings of a list, array, series, or table with one column (or one named smiles).

    Raises:
        ValueError: these are no strings, or a table of several columns.
    """
    if isinstance(molecules, pd.DataFrame) and "smiles" in molecules.columns:
        molecules = molecules["smiles"]
    found = np.asarray(molecules, dtype=object)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise ValueError(
            "molecules should be SMILES strings, one a row (n,), or a table with a column named "
            f"smiles; got an array of shape {found.shape}"
        )
    for row, value in enumerate(found):
        if not isinstance(value, str):
            raise ValueError(
                f"molecules should be SMILES strings; row {row} is {value!r} "
                f"({type(value).__name__})"
            )
    return tuple(str(value) for value in found)


def number_labels(y: Any, n: int) -> Labels:
    """Targets of a regression.

    Args:
        y: (n,) or (n, t), NaN where missing.
        n: molecules there are.

    Raises:
        ValueError: these are no finite numbers, or not a row a molecule.
    """
    table, names, flat = _table(y, n)
    try:
        # float32 before the check: a number too large for it is infinite from here on
        targets = torch.from_numpy(table.astype(np.float64)).float()
    except (TypeError, ValueError) as error:
        raise ValueError(f"targets of a regression should be numbers: {error}") from error
    _check_finite(targets, names)
    return Labels(targets, names, (), flat)


def class_labels(y: Any, n: int, *, classes: tuple[tuple[Any, Any], ...] | None = None) -> Labels:
    """Labels of a classification; each target has two values, the greater one is learned as 1.

    Args:
        y: (n,) or (n, t) of any two values, NaN or None where missing.
        n: molecules there are.
        classes: the two values of each target, where they are known; else both must occur.

    Raises:
        ValueError: a target has not exactly two classes, or other ones than `classes`, or there is
            not a row a molecule.
    """
    table, names, flat = _table(y, n)
    if classes is None:
        classes = tuple(_two(column, name) for column, name in zip(table.T, names, strict=True))
    if len(classes) != len(names):
        raise ValueError(f"there should be {len(classes)} targets, got {len(names)}")
    told = zip(table.T, classes, names, strict=True)
    targets = [torch.from_numpy(_zero_or_one(*column)) for column in told]
    return Labels(torch.stack(targets, 1).float(), names, classes, flat)


def _two(column: NDArray[Any], name: str) -> tuple[Any, Any]:
    known = column[~pd.isna(column)]
    try:
        found = list(np.unique(known))
    except TypeError as error:
        raise ValueError(f"target {name!r} has labels of several types: {error}") from error
    if len(found) != 2:
        values = f": {', '.join(map(str, found[:5]))}" if found else ""
        raise ValueError(
            f"target {name!r} should have labels of two classes, got {len(found)} "
            f"class{'es' * (len(found) != 1)}{values}"
        )
    return found[0], found[1]


def _zero_or_one(column: NDArray[Any], pair: tuple[Any, Any], name: str) -> NDArray[np.float64]:
    missing = np.asarray(pd.isna(column))
    for value in column[~missing & (column != pair[0]) & (column != pair[1])][:1]:
        raise ValueError(f"target {name!r} should be {pair[0]} or {pair[1]}, got {value!r}")
    return np.where(missing, np.nan, column == pair[1]).astype(np.float64)


def _table(y: Any, n: int) -> tuple[NDArray[Any], tuple[str, ...], bool]:
    """Columns (n, t), their names, and whether there is one because `y` was (n,)."""
    found = np.array(y, dtype=object)
    found[pd.isna(found)] = np.nan  # pandas has an NA, which is no number and equal to nothing
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
    return table, tuple(map(str, names)), flat


def _check_finite(targets: Tensor, names: Sequence[str]) -> None:
    for row, k in targets.isinf().nonzero().tolist()[:1]:
        raise ValueError(f"target {names[k]!r} should be finite numbers; row {row} is infinite")
