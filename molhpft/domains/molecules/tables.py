"""Anybody's table: a file with a column of SMILES and columns of labels becomes a task."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from molhpft.core.annotations import BelowOne, Seed
from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import listed
from molhpft.domains.molecules.calibration_split import (
    calibration_notes,
    calibration_share,
    with_calibration,
)
from molhpft.domains.molecules.examples import Molecules, molecule_task
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.group_columns import group_labels, row_times
from molhpft.domains.molecules.grouped_splits import grouped_split, replicates
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    NAMES,
    SPELLINGS,
    Split,
    check_choice,
    column_split,
    molecule_splits,
)
from molhpft.domains.molecules.table_files import (
    Sheet,
    read_sheet,
    spelled,
    spelling_note,
    table_name,
)
from molhpft.domains.molecules.table_options import COLUMNS, how_to_give
from molhpft.domains.molecules.target_columns import AnyKind, Targets, read_targets

TableSplit = Literal[Split, "column", "group", "time"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was read: n rows, in the order of the file.

    Attributes:
        sheet: its cells, and the line where each row begins.
        smiles: (n,), those that cannot be read too.
        readable: bool (n,), whether the SMILES is that of a molecule.
        targets: of the target columns.
    """

    sheet: Sheet
    smiles: tuple[str, ...]
    readable: Tensor
    targets: Targets

    def groups(self, column: str, rows: Tensor) -> tuple[str, ...]:
        """The group of each row, (n,), as a column has it; `rows` have to have one.

        Raises:
            ValueError: one of them has none.
        """
        return group_labels(self.sheet, column, rows.tolist())

    def times(self, column: str, rows: Tensor) -> tuple[float, ...]:
        """When each row was measured, (n,), as a column says; `rows` have to have a time.

        Raises:
            ValueError: one of them has none.
        """
        return row_times(self.sheet, column, rows.tolist())


def read_table(
    path: Path,
    *,
    smiles_column: str = "smiles",
    target_columns: Sequence[str] | None = None,
    kind: AnyKind = "auto",
    besides: Mapping[str, str | None] = MappingProxyType({}),
) -> Table:
    """Molecules and targets of a table of any kind that `table_files` reads.

    A label is a number as spreadsheets write it, one of two words (which of them is 1, a note
    says), or missing (`target_columns.MISSING`). A censored number (`>1.5`) counts as missing in a
    column that was asked for by name, and a note says so.

    Args:
        path: of the file.
        smiles_column: name of the column with the molecules; in another case where that is the only
            one, which a note says.
        target_columns: names of the columns to predict; ("all",) for every column that can be a
            target; None for the only one that can be.
        kind: what the targets are; auto is a classification where all labels of a column are 0 or
            1, any other two integers, or two words.
        besides: columns that the table has to have and that are no targets, by the option that
            names each, such as split_column; None is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table, most of its molecules cannot be read, or the columns
            or their kind have to be named; the message says where and why.
    """
    if kind not in get_args(AnyKind):
        raise ValueError(f"kind should be auto, classification or regression, got {kind!r}")
    sheet = read_sheet(path)
    given, smiles_column = smiles_column, spelled(smiles_column, sheet.names)
    smiles = sheet.molecules(smiles_column)
    for option, column in besides.items():
        if column is not None:
            sheet.column(column, option=option)
    others = {smiles_column, *besides.values()}
    targets = read_targets(sheet, target_columns, kind, besides=others)
    if note := spelling_note(given, smiles_column):
        targets = replace(targets, notes=(note, *targets.notes))
    readable = load_or_pack(smiles).readable
    check_mostly_molecules(sheet, smiles_column, range(len(smiles)), readable)
    return Table(sheet, smiles, readable, targets)


def check_mostly_molecules(
    sheet: Sheet, column: str, rows: Sequence[int], readable: Tensor
) -> None:
    """Refuse a column that is hardly one of molecules: it was not the one that was meant.

    Args:
        sheet: the table.
        column: given as that of the molecules.
        rows: those that are read (n,); empty cells do not count.
        readable: bool (n,), whether each is a molecule.

    Raises:
        ValueError: none of them is, or most of those that are not empty are none.
    """
    cells, n = sheet.molecules(column), int(readable.sum())
    wrong = [row for row, known in zip(rows, readable.tolist(), strict=True) if not known]
    if n and sum(cells[row] != "" for row in wrong) <= n:
        return
    row = next((row for row in wrong if cells[row]), wrong[0])
    raise ValueError(
        f"column {column!r} of {sheet.path} should hold SMILES; {f'only {n:,}' if n else 'none'} "
        f"of its {len(rows):,} cells can be read, {sheet.unit} {sheet.lines[row]} has "
        f"{cells[row]!r:.60}; give the column of molecules by {how_to_give('smiles_column')}"
    )


def table_task(
    *,
    path: Path,
    smiles_column: str = "smiles",
    target_columns: tuple[str, ...] | None = None,
    kind: AnyKind = "auto",
    split: TableSplit = "scaffold",
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
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
            random_and_scaffold, where the test molecules of a scaffold split are a further split,
            `ood`, and the others are dealt as `random` does; group, which deals whole groups at
            random; time, where the newest molecules test; or column, as `split_column` says. Rows
            of one molecule, by InChIKey, are in one split of all but the first and the last.
        split_column: column of train, valid, test and any further split names; for "column" only.
        group_column: column of groups, for "group", and for "time" where these stay together.
        time_column: column of numbers or of dates that begin with the year; for "time" only.
        split_seed: draws the random splits, 0 by default; for those only.
        calibration: share of a split for prediction sets (`calibration_share`), drawn as the test
            split is and taken from training, with a column from at most half of its validation
            rows. 0 for none; "auto" for that of the column where it names one, else a tenth.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table, a target has no labels or only one class of them, or
            the options contradict each other; the message says where and why.
    """
    columns = {
        "split_column": split_column,
        "group_column": group_column,
        "time_column": time_column,
    }
    check_split(split, split_seed, **columns)
    table = read_table(
        path,
        smiles_column=smiles_column,
        target_columns=target_columns,
        kind=kind,
        besides=columns,
    )
    return divided_task(table, split, split_seed=split_seed, calibration=calibration, **columns)


def divided_task(
    table: Table,
    split: TableSplit,
    *,
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
    split_seed: Seed | None = None,
    calibration: BelowOne | Literal["auto"] = 0.0,
) -> Task:
    """The task of a table that was read, with options of `table_task` that `check_split` allows.

    Raises:
        ValueError: as there.
    """
    if split == "column":
        return _task(table, *_column_splits(table, split_column or "", calibration))
    if split == "group" or split == "time":
        how = (group_column, time_column, split_seed, calibration)
        return _task(table, *_grouped_splits(table, *how))
    return _task(table, *_drawn_splits(table, split, split_seed, calibration))


def pooled_task(table: Table, *, split_column: str | None = None) -> Task:
    """The task of a table whose molecules choose fold by fold: all of them are in "train".

    Args:
        table: that was read.
        split_column: column of split names; its test and further splits are kept, and train, valid
            and calibration together are "train".

    Raises:
        ValueError: as in `table_task`.
    """
    if split_column is None:
        return _task(table, {"train": table.readable.nonzero().flatten()}, ())
    given = _named_splits(table, split_column, needed=("train",))
    notes = _further_splits(split_column, given)
    own = [given.pop(name) for name in ("train", "valid", CALIBRATION) if name in given]
    return _task(table, {"train": torch.cat(own).sort().values, **given}, notes)


@wraps(table_task)
def csv_task(*, path: Path, **options: Any) -> Task:
    """`table_task`, whose notes and unreadable molecules are logged as warnings."""
    task = table_task(path=path, **options)
    molecules = cast(Molecules, task.examples)
    for note in (*molecules.notes, molecules.unreadable):
        if note:
            _log.warning("%s: %s", path, note)
    return task


def check_split(
    split: str,
    split_seed: int | None,
    *,
    split_column: str | None = None,
    group_column: str | None = None,
    time_column: str | None = None,
) -> None:
    """Refuse an unknown split, a column that its split lacks, and a seed of what nothing draws.

    Raises:
        ValueError: one of these.
    """
    check_choice(split, split_seed, get_args(TableSplit))
    # groups may also stay together in the order of time
    own_groups = None if split == "time" else group_column
    for name, option, column in (
        ("column", "split_column", split_column),
        ("group", "group_column", own_groups),
        ("time", "time_column", time_column),
    ):
        if split == name and column is None:
            raise ValueError(
                f"split {name!r} needs a column of {COLUMNS[option]}; name it by "
                f"{how_to_give(option)}"
            )
        if split != name and column is not None:
            raise ValueError(
                f"a column of {COLUMNS[option]} ({option}), {column!r}, is read by split {name!r} "
                f"alone, and the split is {split!r}; say {how_to_give('split', name)}, or leave "
                "the column out"
            )


def _drawn_splits(
    table: Table, split: Split, seed: int | None, calibration: float | Literal["auto"]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The splits, and sentences on calibration molecules where they were asked for."""
    rows = table.readable.nonzero().flatten()
    splits = molecule_splits(
        table.smiles,
        split,
        seed,
        rows=rows,
        calibration=_share(len(rows), calibration),
        labels=_classes(table),
        together=None if split == "scaffold" else replicates(table.smiles),  # that is OGB's
    )
    return splits, calibration_notes(splits) if calibration else ()


def _grouped_splits(
    table: Table,
    group_column: str | None,
    time_column: str | None,
    seed: int | None,
    calibration: float | Literal["auto"],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """`_drawn_splits` by groups, by times, or by both."""
    rows = table.readable.nonzero().flatten()
    splits = grouped_split(
        replicates(table.smiles),
        groups=None if group_column is None else table.groups(group_column, rows),
        times=None if time_column is None else table.times(time_column, rows),
        seed=seed or 0,
        calibration=_share(len(rows), calibration),
    )
    return splits, calibration_notes(splits) if calibration else ()


def _column_splits(
    table: Table, column: str, calibration: float | Literal["auto"]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """`_drawn_splits` of a table that names them itself, perhaps but for calibration."""
    sheet, n = table.sheet, int(table.readable.sum())
    share = _share(n, calibration)
    given = _named_splits(table, column)
    further = _further_splits(column, given)
    if not calibration:
        return given, further
    if CALIBRATION in given and calibration != "auto":
        raise ValueError(
            f"the split column of {sheet.path} names calibration molecules itself, beside which "
            f"calibration {calibration:g} would do nothing; leave it out"
        )
    rng, size = torch.Generator().manual_seed(0), round(share * n)
    together = replicates(table.smiles)
    splits = with_calibration(given, rng=rng, together=together, labels=_classes(table), size=size)
    return splits, (*further, *calibration_notes(splits, given))


def _further_splits(column: str, splits: Mapping[str, Tensor]) -> tuple[str, ...]:
    """A sentence on splits of other names than the usual ones, of which one may be mistyped."""
    further = [
        f"{name} ({len(rows):,} row{'s' * (len(rows) != 1)})"
        for name, rows in splits.items()
        if name not in SPELLINGS
    ]
    if not further:
        return ()
    which = "a further split" if len(further) == 1 else "further splits"
    return (
        f"Column {column!r} names {which}, which nothing learns from: {listed(further, most=10)}; "
        f"known names are {listed(dict.fromkeys(SPELLINGS.values()))}.",
    )


def _named_splits(table: Table, column: str, *, needed: Sequence[str] = NAMES) -> dict[str, Tensor]:
    """Splits as a column of the table names them, those `needed` among them."""
    sheet = table.sheet
    return column_split(
        sheet.column(column, option="split_column"),
        source=str(sheet.path),
        lines=sheet.lines,
        unit=sheet.unit,
        needed=needed,
    )


def _share(n: int, calibration: float | Literal["auto"]) -> float:
    return calibration_share(max(n, 1), *(() if calibration == "auto" else (calibration,)))


def _classes(table: Table) -> Tensor | None:
    """Labels to deal in proportion, (n, t); None for numbers."""
    return table.targets.values if table.targets.kind == "classification" else None


def _task(table: Table, splits: dict[str, Tensor], notes: Sequence[str]) -> Task:
    sheet, targets = table.sheet, table.targets
    is_classification = targets.kind == "classification"
    return molecule_task(
        table_name(sheet.path),
        smiles=table.smiles,
        targets=targets.values,
        target_names=targets.names,
        splits=splits,
        objective=Multilabel() if is_classification else Squared(),
        standardise=not is_classification,
        classes=targets.classes,
        notes=(*targets.notes, *notes),
        lines=sheet.lines,
        unit=sheet.unit,
    )
