"""Anybody's table: a CSV file with a column of SMILES and columns of numbers becomes a task."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.lists import warn_of_unreadable
from molhpft.domains.molecules.sheets import Sheet, read_sheet
from molhpft.domains.molecules.splits import (
    Split,
    cached_scaffold_split,
    check_choice,
    chosen_split,
    column_split,
)

Kind = Literal["classification", "regression"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was read: n rows, in the order of the file.

    Attributes:
        path: of the file.
        smiles: (n,), those that cannot be read too.
        targets: float32 (n, t), NaN where missing.
        describes: (t,), names of the target columns.
        kind: what the targets are.
        lines: (n,), the line of the file where each row begins; the header is line 1.
        readable: bool (n,), whether the SMILES is that of a molecule.
        split_values: (n,), the split column; empty without one.
    """

    path: Path
    smiles: tuple[str, ...]
    targets: Tensor
    describes: tuple[str, ...]
    kind: Kind
    lines: tuple[int, ...]
    readable: Tensor
    split_values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name without `.csv` or `.csv.gz`."""
        return self.path.name.removesuffix(".gz").removesuffix(".csv")

    @property
    def unreadable_lines(self) -> list[int]:
        """Lines whose SMILES cannot be read, ascending."""
        return [line for line, ok in zip(self.lines, self.readable.tolist(), strict=True) if not ok]


def read_table(
    path: Path,
    *,
    smiles_column: str = "smiles",
    target_columns: Sequence[str] | None = None,
    kind: Literal["auto", "classification", "regression"] = "auto",
    split_column: str | None = None,
) -> Table:
    """Molecules and targets of a comma-separated table, `.csv` or `.csv.gz`, in UTF-8.

    Args:
        path: of the file; its first line names the columns.
        smiles_column: name of the column with the molecules.
        target_columns: names of the columns to predict; None for every column of numbers that has
            a name and is neither of the other two. An empty cell, NaN, NA, N/A, null or none is a
            missing label.
        kind: what the targets are; auto is a classification where all labels are 0 or 1.
        split_column: name of the column that says which split a row is in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table; the message says where and why.
    """
    sheet = read_sheet(path)
    smiles = sheet.column(smiles_column)
    split_values = () if split_column is None else sheet.column(split_column)
    describes = _target_columns(sheet, target_columns, besides={smiles_column, split_column})
    targets = _targets(sheet, describes)
    readable = load_or_pack(smiles).readable
    if not readable.any():
        raise ValueError(
            f"column {smiles_column!r} of {path} should hold SMILES; none of its {len(smiles):,} "
            f"cells can be read, the first is {smiles[0]!r}"
        )
    return Table(
        path=path,
        smiles=smiles,
        targets=targets,
        describes=tuple(describes),
        kind=_kind(kind, sheet, targets, describes),
        lines=sheet.lines,
        readable=readable,
        split_values=split_values,
    )


def csv_task(
    *,
    path: Path,
    smiles_column: str = "smiles",
    target_columns: tuple[str, ...] | None = None,
    kind: Literal["auto", "classification", "regression"] = "auto",
    split: Split | Literal["column"] = "scaffold",
    split_column: str | None = None,
    split_seed: int | None = None,
) -> Task:
    """The task of a table: classification by ROC-AUC, or regression in the table's own units.

    Rows whose SMILES cannot be read stay in the table, enter no split, and are reported by their
    lines as one logged warning.

    Args:
        path: of the file, as in `read_table`, like the three options that follow.
        smiles_column: name of the column with the molecules.
        target_columns: names of the columns to predict, None for every column of numbers.
        kind: what the targets are.
        split: by scaffold as OGB does; at random (8 : 1 : 1 both); random_and_scaffold, where the
            test molecules of the scaffold split are a fourth split, `ood`, and the others are dealt
            at random; or as `split_column` says.
        split_column: column of train, valid, test and any further split names; for "column" only.
        split_seed: draws the random splits, 0 by default; for those only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table, a target has no labels or only one class of them, or
            the options contradict each other; the message says where and why.
    """
    check_choice(split, split_seed, (*get_args(Split), "column"))
    _check_column(split, split_column)
    table = read_table(
        path,
        smiles_column=smiles_column,
        target_columns=target_columns,
        kind=kind,
        split_column=split_column,
    )
    warn_of_unreadable(table.path, table.lines, table.readable)
    return molecule_task(
        table.name,
        smiles=table.smiles,
        targets=table.targets,
        describes=table.describes,
        splits=_splits(table, split, split_seed),
        objective=Multilabel() if table.kind == "classification" else Squared(),
        standardise=table.kind == "regression",
    )


def _target_columns(
    sheet: Sheet, wanted: Sequence[str] | None, *, besides: set[str | None]
) -> list[str]:
    names = [name for name in sheet.columns if name and name not in besides]
    chosen = [n for n in names if sheet.has_numbers(n)] if wanted is None else list(wanted)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"targets of {sheet.path} should be columns of numbers, each named once; "
            f"got {', '.join(chosen) or 'none'} of the columns: {', '.join(sheet.columns)}"
        )
    if wanted is None:
        left = [name for name in names if name not in chosen]
        _log.info("targets of %s: %s; columns left out: %s", sheet.path, chosen, left)
    return chosen


def _targets(sheet: Sheet, names: Sequence[str]) -> Tensor:
    # float32 before the check: a number too large for it is infinite from here on
    columns = [torch.tensor(sheet.numbers(name), dtype=torch.float64) for name in names]
    targets = torch.stack(columns, 1).float()
    for row, k in targets.isinf().nonzero().tolist()[:1]:
        raise ValueError(
            f"target {names[k]!r} should be finite numbers; {sheet.place(row, names[k])}"
        )
    return targets


def _kind(kind: str, sheet: Sheet, targets: Tensor, names: Sequence[str]) -> Kind:
    others = ~(targets.isnan() | (targets == 0) | (targets == 1))
    if kind not in ("auto", "classification", "regression"):
        raise ValueError(f"kind should be auto, classification or regression, got {kind!r}")
    if kind == "regression" or (kind == "auto" and others.any()):
        return "regression"
    for row, k in others.nonzero().tolist()[:1]:
        raise ValueError(
            f"target {names[k]!r} of a classification should be 0, 1 or missing; "
            f"{sheet.place(row, names[k])}"
        )
    return "classification"


def _check_column(split: str, column: str | None) -> None:
    if (split == "column") != (column is not None):
        raise ValueError(
            "split 'column' and the option split_column should come together; "
            f"got split {split!r} and split_column {column!r}"
        )


def _splits(table: Table, split: Split | Literal["column"], seed: int | None) -> dict[str, Tensor]:
    if split != "column":
        readable = table.readable.nonzero().flatten()
        return chosen_split(
            split, seed, rows=readable, scaffold=lambda: cached_scaffold_split(table.smiles)
        )
    if "" in table.split_values:
        line = table.lines[table.split_values.index("")]
        raise ValueError(f"every row of {table.path} should name its split; line {line} names none")
    return column_split(table.split_values)
