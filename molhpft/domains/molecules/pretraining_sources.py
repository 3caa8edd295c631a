"""Molecules to pretrain on: data sets, tables and lists, and what of them other sets test on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast, get_args

import numpy as np
import torch
from annotated_types import Interval
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.annotations import Count, Seed
from molhpft.core.objectives import Multilabel, Objective, Squared
from molhpft.domains.files import listed
from molhpft.domains.molecules.examples import Molecules, unreadable_note
from molhpft.domains.molecules.graphs import GraphStore, load_or_pack
from molhpft.domains.molecules.ogb import ogb_names, ogb_task
from molhpft.domains.molecules.overlap import inchikey_blocks, is_among
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import NAMES, Split, check_choice, molecule_splits
from molhpft.domains.molecules.table_files import (
    LIST_COLUMNS,
    Sheet,
    is_table,
    read_sheet,
    spelled,
    spelling_note,
    table_name,
)
from molhpft.domains.molecules.tables import check_mostly_molecules, read_table
from molhpft.domains.molecules.target_columns import ALL

Use = Literal["train", "all"]
Splits = Mapping[str, Tensor]
HeldOut = Annotated[float, Interval(gt=0, lt=0.5)]

_TENTH = 0.1
_GOLDEN = 0.6180339887498949
_TRIED = 50  # cells of a column that are read to see whether it holds SMILES

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Molecules to pretrain on, and their labels where they have any.

    Attributes:
        name: for people.
        smiles: (n,).
        store: their graphs.
        splits: of those that can be read.
        labels: (n, t), NaN where unmeasured; no columns without labels.
        objective: that the labels are for.
        label_names: (t,).
    """

    name: str
    smiles: Sequence[str]
    store: GraphStore
    splits: Splits
    labels: Tensor
    objective: Objective
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class FileOptions:
    """How files are read and split; None where nothing was said."""

    smiles_column: str | None
    split: Split | None
    split_seed: int | None
    held_out: float | None


def read_sources(
    of: Sequence[Path], how: FileOptions, most: tuple[int, ...] | None, *, labelled: bool
) -> list[Source]:
    """Sources by name of a data set or path of a file.

    Args:
        of: as in `pretraining_task`, as is `most`.
        how: files are read and split.
        most: molecules of each source.
        labelled: whether labels of tables are read.

    Raises:
        FileNotFoundError: one is absent.
        ValueError: one cannot be used, or the options contradict each other.
    """
    if not of:
        raise ValueError("of should name what to pretrain on: data sets, tables or lists of SMILES")
    check_choice(how.split or "scaffold", how.split_seed, get_args(Split))
    given = [key for key, value in vars(how).items() if value is not None]
    if given and all(str(one) in ogb_names() for one in of):
        raise ValueError(f"{given[0]} is for tables and lists, and all sources are OGB's data sets")
    numbers = (None,) * len(of) if most is None else one_each("most", most, of)
    return [_source(one, how, n, labelled=labelled) for one, n in zip(of, numbers, strict=True)]


def used_splits(
    sources: Sequence[Source], use: Use, without: Sequence[Path]
) -> list[dict[str, Tensor]]:
    """The splits of each source, without what is tested on elsewhere."""
    if not without:
        return [_used(source, use, torch.zeros(len(source.smiles)).bool()) for source in sources]
    tested = np.concatenate([tested_on(other) for other in without])
    names, splits = listed([str(one) for one in without]), []
    for source in sources:
        left_out = is_among(inchikey_blocks(source.smiles), tested)
        _log.warning(
            "%d of %d molecules of %s are left out: %s validate or test on them",
            *(int(left_out.sum()), len(left_out), source.name, names),
        )
        splits.append(_used(source, use, left_out))
    return splits


def molecules_trained_on(
    *,
    of: tuple[Path, ...],
    use: Use = "train",
    most: tuple[Count, ...] | None = None,
    without: tuple[Path, ...] = (),
    smiles_column: str | None = None,
    split: Split | None = None,
    split_seed: Seed | None = None,
    held_out: HeldOut | None = None,
) -> list[str]:
    """SMILES of the molecules that `pretraining_task` with these options trains on.

    Raises:
        FileNotFoundError: the data are absent.
        ValueError: the data cannot be used.
    """
    how = FileOptions(smiles_column, split, split_seed, held_out)
    sources = read_sources(of, how, most, labelled=False)
    splits = used_splits(sources, use, without)
    return [
        source.smiles[row]
        for source, own in zip(sources, splits, strict=True)
        for row in own["train"].tolist()
    ]


def tested_on(of: Path) -> NDArray[np.bytes_]:
    """InChIKey blocks of what `without` leaves out for a set.

    Args:
        of: OGB data set by name: its validation and test molecules; or path of a table, whose
            column of SMILES may have any name, or of a folder of tables: all of theirs.

    Raises:
        FileNotFoundError: it is absent.
        ValueError: it has no molecules.
    """
    if of.is_dir():
        tables = sorted(path for path in of.iterdir() if is_table(path.name))
        if not tables:
            raise ValueError(f"{of}, whose tables are to be left out, has none")
        return np.concatenate([tested_on(path) for path in tables])
    if str(of) not in ogb_names():
        columns = _any_molecules(read_sheet(of))
        return np.concatenate([inchikey_blocks(column) for column in columns])
    other = _of_ogb(str(of))
    rows = torch.cat([other.splits["valid"], other.splits["test"]]).tolist()
    return inchikey_blocks([other.smiles[row] for row in rows])


def starts_of(sources: Sequence[Source]) -> list[int]:
    """Row of the first molecule of each source where they stand one after another."""
    return [*accumulate((len(source.smiles) for source in sources), initial=0)][:-1]


def names_of(sources: Sequence[Source]) -> str:
    """Names of sources in that of their task."""
    return "-and-".join(source.name for source in sources)


def one_each(key: str, values: tuple[T, ...], of: Sequence[Path]) -> tuple[T, ...]:
    """One value for each source; a lone one is for all."""
    if len(values) not in (1, len(of)):
        raise ValueError(
            f"{key} should be one number, or one for each of {len(of)} sources, got {list(values)}"
        )
    return values * len(of) if len(values) == 1 else values


def _source(of: Path, how: FileOptions, most: int | None, *, labelled: bool) -> Source:
    if str(of) in ogb_names():
        return _spread(_of_ogb(str(of)), most)
    sheet, given = read_sheet(of), how.smiles_column or "smiles"
    column = spelled(given, sheet.names)
    if note := spelling_note(given, column):
        _log.warning("%s: %s", of, note)
    if labelled and not {*sheet.names} <= {column, *LIST_COLUMNS}:
        source = _spread(_of_table(of, column), most)
    else:
        source = _of_list(sheet, column, most)
    held_out = _TENTH if how.held_out is None else how.held_out
    splits = molecule_splits(
        source.smiles,
        how.split or "scaffold",
        how.split_seed,
        rows=source.store.readable.nonzero().flatten(),
        fractions=(1 - 2 * held_out, held_out, held_out),
    )
    return replace(source, splits={name: splits[name] for name in NAMES})


def _of_ogb(name: str) -> Source:
    task = ogb_task(name)
    molecules = cast(Molecules, task.examples)
    return Source(
        name,
        molecules.smiles,
        molecules.store,
        {split: task.splits[split] for split in NAMES},
        cast(Tensor, molecules.targets),
        task.objective,
        task.target_names,
    )


def _of_table(path: Path, column: str) -> Source:
    """Molecules and labels of a table, without splits."""
    table = read_table(path, smiles_column=column, target_columns=(ALL,))
    sheet, targets = table.sheet, table.targets
    unreadable = unreadable_note(table.smiles, table.readable, lines=sheet.lines, unit=sheet.unit)
    for note in (*targets.notes, unreadable):
        if note:
            _log.warning("%s: %s", path, note)
    return Source(
        table_name(path),
        table.smiles,
        load_or_pack(table.smiles),
        {},
        targets.values,
        Multilabel() if targets.kind == "classification" else Squared(),
        tuple(targets.names),
    )


def _of_list(sheet: Sheet, column: str, most: int | None) -> Source:
    """Molecules of a file, those that are used, without labels and splits."""
    smiles, lines = sheet.molecules(column), sheet.lines
    rows: Sequence[int] = range(len(smiles))
    if most is not None and most < len(smiles):
        rows = _spread_rows(len(smiles), most).tolist()
        smiles, lines = (tuple(column[row] for row in rows) for column in (smiles, lines))
    store = load_or_pack(smiles)
    check_mostly_molecules(sheet, column, rows, store.readable)
    if note := unreadable_note(smiles, store.readable, lines=lines, unit=sheet.unit):
        _log.warning("%s: %s", sheet.path, note)
    return Source(
        table_name(sheet.path), smiles, store, {}, torch.empty(len(smiles), 0), Squared(), ()
    )


def _spread(source: Source, most: int | None) -> Source:
    """So many of the molecules, spread evenly."""
    n = len(source.smiles)
    if most is None or most >= n:
        return source
    rows = _spread_rows(n, most)
    place = torch.full((n,), -1)
    place[rows] = torch.arange(most)
    splits = {name: place[index] for name, index in source.splits.items()}
    return replace(
        source,
        smiles=tuple(source.smiles[row] for row in rows.tolist()),
        store=source.store.subset(rows),
        splits={name: index[index >= 0] for name, index in splits.items()},
        labels=source.labels[rows],
    )


def _spread_rows(n: int, most: int) -> Tensor:
    """Row numbers of `most` of n rows, spread evenly; of fewer they are the first of these."""
    # multiples of the golden ratio: however many are taken, they leave no large gap
    return torch.from_numpy((np.arange(n) * _GOLDEN % 1).argsort(kind="stable")[:most].copy())


def _used(source: Source, use: Use, left_out: Tensor) -> dict[str, Tensor]:
    splits = {name: rows[~left_out[rows]] for name, rows in source.splits.items()}
    if use == "train":
        return splits
    rows = torch.cat(list(splits.values())).sort().values
    _log.warning(
        "pretraining on all %d molecules of %s: scores of its valid and test splits are of "
        "molecules trained on",
        *(len(rows), source.name),
    )
    return {**splits, "train": rows}


def _any_molecules(sheet: Sheet) -> list[tuple[str, ...]]:
    """The columns of a table whose cells are SMILES, whatever their names; one named so suffices.

    All of them: classes B and C are molecules too, and must not hide the column of the real ones.

    Raises:
        ValueError: there is none.
    """
    of_smiles = {name: cells for name, cells in sheet.columns.items() if _are_smiles(cells)}
    named = [cells for name, cells in of_smiles.items() if name.lower() == "smiles"]
    if not of_smiles:
        raise ValueError(
            f"{sheet.path} should have a column of SMILES; it has: {listed(sheet.names)}"
        )
    return named or list(of_smiles.values())


def _are_smiles(cells: Sequence[str]) -> bool:
    """Whether most of the first cells that are not empty are molecules; numbers are none."""
    tried = [cell for cell in cells if cell][:_TRIED]
    return sum(parse(cell) is not None for cell in tried) > len(tried) / 2
