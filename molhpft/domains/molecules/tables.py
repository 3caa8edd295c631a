"""Anybody's table: a file with a column of SMILES and columns of labels becomes a task."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.ranges import BelowOne, Seed
from molhpft.domains.molecules.examples import Molecules, molecule_task
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    Split,
    cached_scaffold_split,
    calibration_notes,
    calibration_share,
    check_choice,
    chosen_split,
    column_split,
    with_calibration,
)
from molhpft.domains.molecules.table_files import read_sheet, table_name
from molhpft.domains.molecules.target_columns import AnyKind, Kind, read_targets

TableSplit = Literal[Split, "column"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was read: n rows, in the order of the file.

    Attributes:
        path: of the file.
        smiles: (n,), those that cannot be read too.
        targets: float32 (n, t), NaN where missing.
        target_names: (t,), names of the target columns.
        classes: (t,), of a classification what the table writes for 0 and for 1.
        kind: what the targets are.
        notes: sentences about which columns were taken and how their cells were read.
        lines: (n,), the line of the file where each row begins; a header is line 1.
        unit: what `lines` are, "line" or "row".
        readable: bool (n,), whether the SMILES is that of a molecule.
        split_values: (n,), the split column; empty without one.
    """

    path: Path
    smiles: tuple[str, ...]
    targets: Tensor
    target_names: tuple[str, ...]
    classes: tuple[tuple[str, str], ...]
    kind: Kind
    notes: tuple[str, ...]
    lines: tuple[int, ...]
    unit: str
    readable: Tensor
    split_values: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """File name without the endings that say what the file is."""
        return table_name(self.path)


def read_table(
    path: Path,
    *,
    smiles_column: str = "smiles",
    target_columns: Sequence[str] | None = None,
    kind: AnyKind = "auto",
    split_column: str | None = None,
) -> Table:
    """Molecules and targets of a table of any kind that `sheets` reads.

    A label is a number as spreadsheets write it, one of two words (which of them is 1, a note
    says), or missing (`cells.MISSING`). A censored number (`>1.5`) counts as missing in a column
    that was asked for by name, and a note says so.

    Args:
        path: of the file.
        smiles_column: name of the column with the molecules.
        target_columns: names of the columns to predict; ("all",) for every column that can be a
            target; None for the only one that can be.
        kind: what the targets are; auto is a classification where all labels of a column are 0 or
            1, any other two integers, or two words.
        split_column: name of the column that says which split a row is in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table; or it is to be said which columns, or which kind, are
            meant. The message says where and why.
    """
    if kind not in get_args(AnyKind):
        raise ValueError(f"kind should be auto, classification or regression, got {kind!r}")
    sheet = read_sheet(path)
    smiles = sheet.molecules(smiles_column)
    split_values = () if split_column is None else sheet.column(split_column)
    targets = read_targets(sheet, target_columns, kind, besides={smiles_column, split_column})
    readable = load_or_pack(smiles).readable
    if not readable.any():
        raise ValueError(
            f"column {smiles_column!r} of {path} should hold SMILES; none of its {len(smiles):,} "
            f"cells can be read, the first is {smiles[0]!r:.60}"
        )
    return Table(
        path=path,
        smiles=smiles,
        targets=targets.values,
        target_names=targets.names,
        classes=targets.classes,
        kind=targets.kind,
        notes=targets.notes,
        lines=sheet.lines,
        unit=sheet.unit,
        readable=readable,
        split_values=split_values,
    )


def table_task(
    *,
    path: Path,
    smiles_column: str = "smiles",
    target_columns: tuple[str, ...] | None = None,
    kind: AnyKind = "auto",
    split: TableSplit = "scaffold",
    split_column: str | None = None,
    split_seed: Seed | None = None,
    calibration: BelowOne | Literal["auto"] = 0.0,
) -> Task:
    """The task of a table: classification by ROC-AUC, or regression in the table's own units.

    Rows whose SMILES cannot be read stay in the table and enter no split; the task's molecules know
    their lines, and the notes of the table.

    Args:
        path: of the file, as in `read_table`, like the three options that follow.
        smiles_column: name of the column with the molecules.
        target_columns: names of the columns to predict, ("all",), or None for the only candidate.
        kind: what the targets are.
        split: by scaffold as OGB does; at random, labels of classes in proportion (8 : 1 : 1 both);
            random_and_scaffold, where the test molecules of the scaffold split are a further split,
            `ood`, and the others are dealt as `random` does; or as `split_column` says.
        split_column: column of train, valid, test and any further split names; for "column" only.
        split_seed: draws the random splits, 0 by default; for those only.
        calibration: share of a split of that name, drawn as the test split is and taken from
            training, for prediction sets (`calibration_share` raises and lowers it); with a column
            taken from its validation rows, at most half of them. 0 for no such split; "auto" for
            that of the column where it names one, else a tenth.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table, a target has no labels or only one class of them, or
            the options contradict each other; the message says where and why.
    """
    check_choice(split, split_seed, get_args(TableSplit))
    _check_column(split, split_column)
    table = read_table(
        path,
        smiles_column=smiles_column,
        target_columns=target_columns,
        kind=kind,
        split_column=split_column,
    )
    splits, about_calibration = _splits(table, split, split_seed, calibration)
    return molecule_task(
        table.name,
        smiles=table.smiles,
        targets=table.targets,
        target_names=table.target_names,
        splits=splits,
        objective=Multilabel() if table.kind == "classification" else Squared(),
        standardise=table.kind == "regression",
        classes=table.classes,
        notes=(*table.notes, *about_calibration),
        lines=table.lines,
        unit=table.unit,
    )


@wraps(table_task)
def csv_task(*, path: Path, **options: Any) -> Task:
    """`table_task`, whose notes and unreadable molecules are logged as warnings."""
    task = table_task(path=path, **options)
    molecules = cast(Molecules, task.examples)
    for note in (*molecules.notes, molecules.unreadable):
        if note:
            _log.warning("%s: %s", path, note)
    return task


def _check_column(split: str, column: str | None) -> None:
    if (split == "column") != (column is not None):
        raise ValueError(
            "split 'column' and the option split_column should come together; "
            f"got split {split!r} and split_column {column!r}"
        )


def _splits(
    table: Table, split: TableSplit, seed: int | None, calibration: float | Literal["auto"]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The splits, and sentences on calibration molecules where they were asked for."""
    labels = table.targets if table.kind == "classification" else None
    readable = table.readable.nonzero().flatten()
    n = max(len(readable), 1)
    share = calibration_share(n) if calibration == "auto" else calibration_share(n, calibration)
    if split != "column":
        drawn = chosen_split(
            split,
            seed,
            rows=readable,
            scaffold=lambda: cached_scaffold_split(
                table.smiles, calibration=share if split == "scaffold" else 0.0
            ),
            calibration=share,
            labels=labels,
        )
        return drawn, calibration_notes(drawn) if calibration else ()
    found = column_split(
        table.split_values, source=str(table.path), lines=table.lines, unit=table.unit
    )
    if not calibration:
        return found, ()
    if CALIBRATION in found and calibration != "auto":
        raise ValueError(
            f"the split column of {table.path} names calibration molecules itself, beside which "
            f"calibration {calibration:g} would do nothing; leave it out"
        )
    splits = with_calibration(
        found,
        rng=torch.Generator().manual_seed(0),
        labels=labels,
        size=round(share * len(readable)),
    )
    return splits, calibration_notes(splits, found)
