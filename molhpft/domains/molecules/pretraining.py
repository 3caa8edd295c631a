"""Tasks to pretrain an encoder on: molecules of several sources, targets of several kinds.

They are scored by minus their loss: the metric of assays with a handful of actives is noise, and
validation decides which epoch's encoder is kept. `joint_task` goes on serving such a task while
finetuning, on the same molecules.
"""

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
from rdkit import rdBase
from torch import Tensor

from molhpft.core.annotations import Count, Positive, Seed
from molhpft.core.data import Portion, Task
from molhpft.core.objectives import Joint, Multilabel, Objective, Part, ScoredByLoss, Squared
from molhpft.domains.files import digest, listed
from molhpft.domains.molecules.computed_targets import (
    COMPUTED_VERSION,
    KINDS,
    Kind,
    Labels,
    Scaled,
    TargetColumns,
    computed_targets,
)
from molhpft.domains.molecules.examples import Molecules, unreadable_note
from molhpft.domains.molecules.graphs import GraphStore, joined, load_or_pack
from molhpft.domains.molecules.ogb import ogb_names, ogb_task
from molhpft.domains.molecules.overlap import inchikey_blocks, is_among
from molhpft.domains.molecules.smiles import FEATURISER_VERSION, parse
from molhpft.domains.molecules.splits import (
    Split,
    check_choice,
    molecule_splits,
)
from molhpft.domains.molecules.table_files import (
    LIST_COLUMNS,
    Sheet,
    is_table,
    read_sheet,
    table_name,
)
from molhpft.domains.molecules.tables import read_table
from molhpft.domains.molecules.target_columns import ALL

Target = Literal["assays", Kind]
Use = Literal["train", "all"]
Splits = Mapping[str, Tensor]

_TARGETS: tuple[Target, ...] = ("assays", *KINDS)
_NAMES = ("train", "valid", "test")
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


def pretraining_task(
    *,
    of: tuple[Path, ...],
    targets: tuple[Target, ...] = ("descriptors",),
    weights: tuple[Positive, ...] | None = None,
    use: Use = "train",
    most: tuple[Count, ...] | None = None,
    share: tuple[Positive, ...] | None = None,
    without: tuple[Path, ...] = (),
    smiles_column: str | None = None,
    split: Split | None = None,
    split_seed: Seed | None = None,
    held_out: Annotated[float, Interval(gt=0, lt=0.5)] | None = None,
) -> Task:
    """Data sets, tables and plain lists of SMILES to pretrain on, scored by minus the loss.

    Args:
        of: OGB data sets by name, and paths of tables or lists of any kind that can be read.
        targets: "assays" are the labels of data sets, and of all columns of tables that can be
            targets; the others are computed from structure, see `computed_targets`.
        weights: of the loss of each kind of targets, 1 by default; only their ratios matter.
        use: "train" leaves the other splits out; "all" trains on their molecules as well, and what
            is then scored on them is no estimate any more.
        most: molecules of each source to use, spread evenly over it; all of them by default.
        share: of its training molecules that an epoch takes of each source, drawn anew for every
            epoch, 1 by default; 2 takes each of them twice.
        without: OGB data sets whose validation and test molecules (of OGB's split), and tables, or
            folders of tables, whose molecules, all of them, are left out of every split, so that an
            encoder is never tested on molecules it was pretrained on; see `overlap.is_among`.
        smiles_column: of files, "smiles" by default.
        split: of files, by scaffold (the default), at random or both; OGB's sets have their own.
        split_seed: draws the random splits, 0 by default; for those only.
        held_out: fraction of a file's molecules to validate on, and another as large to test on;
            a tenth by default.

    Raises:
        FileNotFoundError: the data are absent.
        ValueError: the data cannot be used, or the options contradict each other.
    """
    _check(targets, weights, use)
    how = _Reading(smiles_column, split, split_seed, held_out)
    sources = _sources(of, how, most, labelled="assays" in targets)
    splits = _used_of_each(sources, use, without)
    starts = _starts(sources)
    whole = {
        name: torch.cat([own[name] + start for own, start in zip(splits, starts, strict=True)])
        for name in _NAMES
    }
    if not len(whole["train"]):
        raise ValueError(f"no molecule of {_listed_names(sources)} is left to pretrain on")
    smiles = tuple(smiles for source in sources for smiles in source.smiles)
    if use == "train":
        _warn_of_shared(smiles, whole)
    columns, parts = _targets(sources, whole["train"], targets, weights or (1.0,) * len(targets))
    first, *others = parts
    objective = Joint(first.objective, first.outputs, tuple(others)) if others else first.objective
    portions = _portions(splits, _one_each("share", share, of)) if share else ()
    return Task(
        name=f"pretraining-on-{use}-of-{_listed_names(sources)}",
        examples=Molecules(
            joined([source.store for source in sources]),
            columns,
            smiles,
        ),
        splits=whole,
        objective=ScoredByLoss(objective),
        outputs=len(columns.names),
        fingerprint=_fingerprint(sources, whole, (objective, columns.names, share)),
        target_names=columns.names,
        portions=portions,
    )


def molecules_trained_on(
    *,
    of: tuple[Path, ...],
    use: Use = "train",
    most: tuple[Count, ...] | None = None,
    without: tuple[Path, ...] = (),
    smiles_column: str | None = None,
    split: Split | None = None,
    split_seed: Seed | None = None,
    held_out: Annotated[float, Interval(gt=0, lt=0.5)] | None = None,
) -> list[str]:
    """SMILES of the molecules that `pretraining_task` with these options trains on.

    Raises:
        FileNotFoundError: the data are absent.
        ValueError: the data cannot be used.
    """
    how = _Reading(smiles_column, split, split_seed, held_out)
    sources = _sources(of, how, most, labelled=False)
    splits = _used_of_each(sources, use, without)
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


def joint_task(task: Task, pretraining: Task, *, weight: float) -> Task:
    """The new task with the pretraining targets of its molecules as further outputs.

    Molecules are the same when their SMILES are written the same; others lack pretraining targets.

    Args:
        task: of molecules; its splits, score and energy stay its own.
        pretraining: of molecules, any splits.
        weight: of the pretraining loss beside the new task's.

    Raises:
        ValueError: a task is not one of molecules, or they have no molecule in common.
    """
    new, old = task.examples, pretraining.examples
    if not isinstance(new, Molecules) or not isinstance(old, Molecules):
        raise ValueError(
            f"pretraining targets can be kept between tasks of molecules, "
            f"got {task.name} and {pretraining.name}"
        )
    auxiliary = _targets_of(new.smiles, old, pretraining.outputs)
    if auxiliary is None:
        raise ValueError(
            f"{pretraining.name} has targets for none of the {len(new):,} molecules of "
            f"{task.name}; name a pretraining task on the same molecules"
        )
    everything = torch.arange(len(new))
    part = Part(pretraining.objective, pretraining.outputs, weight)
    return replace(
        task,
        examples=replace(new, targets=torch.cat([new.targets[everything], auxiliary], dim=1)),
        objective=Joint(task.objective, task.outputs, (part,)),
        outputs=task.outputs + pretraining.outputs,
        target_names=(*task.target_names, *pretraining.target_names),
        auxiliary=digest(f"{pretraining.fingerprint} {weight}"),
    )


def _targets_of(smiles: Sequence[str], old: Molecules, outputs: int) -> Tensor | None:
    """What a task knows of molecules written so, (n, outputs); None if it has none of them.

    Of a molecule in several rows, as where sources overlap, each target is the first that is there.
    """
    rows_of: dict[str, list[int]] = {}
    for row, written in enumerate(old.smiles):
        rows_of.setdefault(written, []).append(row)
    rows = [rows_of.get(written, []) for written in smiles]
    if not any(rows):
        return None
    known = torch.full((len(smiles), outputs), torch.nan)
    for k in range(max(map(len, rows))):
        here = [place for place, several in enumerate(rows) if len(several) > k]
        found = old.targets[torch.tensor([rows[place][k] for place in here])].float()
        known[here] = torch.where(known[here].isnan(), found, known[here])
    return known


def _check(targets: Sequence[Target], weights: Sequence[float] | None, use: Use) -> None:
    if not targets or len(set(targets)) < len(targets) or not {*targets} <= {*_TARGETS}:
        raise ValueError(
            f"targets should be some of {', '.join(_TARGETS)}, each once, got {list(targets)}"
        )
    if use not in get_args(Use):
        raise ValueError(f"use should be {' or '.join(get_args(Use))}, got {use!r}")
    if weights is None:
        return
    if len(weights) != len(targets) or not all(weight > 0 for weight in weights):
        raise ValueError(
            f"weights should be numbers above 0, one for each of {len(targets)} targets "
            f"({', '.join(targets)}), got {list(weights)}"
        )


def _one_each(key: str, values: tuple[T, ...], of: Sequence[Path]) -> tuple[T, ...]:
    """One value for each source; a lone one is for all."""
    if len(values) not in (1, len(of)):
        raise ValueError(
            f"{key} should be one number, or one for each of {len(of)} sources, got {list(values)}"
        )
    return values * len(of) if len(values) == 1 else values


# Sources


@dataclass(frozen=True)
class _Reading:
    """How files are read and split; None where nothing was said."""

    smiles_column: str | None
    split: Split | None
    split_seed: int | None
    held_out: float | None


def _sources(
    of: Sequence[Path], how: _Reading, most: tuple[int, ...] | None, *, labelled: bool
) -> list[Source]:
    if not of:
        raise ValueError("of should name what to pretrain on: data sets, tables or lists of SMILES")
    check_choice(how.split or "scaffold", how.split_seed, get_args(Split))
    said = [key for key, value in vars(how).items() if value is not None]
    if said and all(str(one) in ogb_names() for one in of):
        raise ValueError(f"{said[0]} is for tables and lists, and all sources are OGB's data sets")
    numbers = (None,) * len(of) if most is None else _one_each("most", most, of)
    return [_source(one, how, n, labelled=labelled) for one, n in zip(of, numbers, strict=True)]


def _source(of: Path, how: _Reading, most: int | None, *, labelled: bool) -> Source:
    if str(of) in ogb_names():
        return _spread(_of_ogb(str(of)), most)
    sheet, column = read_sheet(of), how.smiles_column or "smiles"
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
    return replace(source, splits={name: splits[name] for name in _NAMES})


def _of_ogb(name: str) -> Source:
    task = ogb_task(name)
    molecules = cast(Molecules, task.examples)
    return Source(
        name,
        molecules.smiles,
        molecules.store,
        {split: task.splits[split] for split in _NAMES},
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
    if most is not None and most < len(smiles):
        rows = _spread_rows(len(smiles), most).tolist()
        smiles, lines = (tuple(column[row] for row in rows) for column in (smiles, lines))
    store = load_or_pack(smiles)
    if not store.readable.any():
        raise ValueError(
            f"{sheet.path} should hold SMILES; none of its {len(smiles):,} rows can be read, the "
            f"first is {smiles[0]!r:.60}"
        )
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


def _listed_names(sources: Sequence[Source]) -> str:
    return "-and-".join(source.name for source in sources)


def _starts(sources: Sequence[Source]) -> list[int]:
    """Row of the first molecule of each source where they stand one after another."""
    return [*accumulate((len(source.smiles) for source in sources), initial=0)][:-1]


# Which of their molecules are used


def _used_of_each(
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


def _warn_of_shared(smiles: Sequence[str], splits: Splits) -> None:
    """Say how many validation molecules train too: sources are split one by one, and overlap."""
    train = {smiles[row] for row in splits["train"].tolist()}
    valid = splits["valid"].tolist()
    if shared := sum(smiles[row] in train for row in valid):
        _log.warning(
            "%d of %d validation molecules are trained on as well, in another row or source; the "
            "loss on these is too good",
            *(shared, len(valid)),
        )


def _portions(splits: Sequence[Splits], share: Sequence[float]) -> tuple[Portion, ...]:
    sizes = [len(own["train"]) for own in splits]
    places = torch.split(torch.arange(sum(sizes)), sizes)
    return tuple(
        Portion(rows, max(1, round(fraction * len(rows))))
        for rows, fraction in zip(places, share, strict=True)
        if len(rows)
    )


# What is learned of them


def _targets(
    sources: Sequence[Source],
    train: Tensor,
    targets: Sequence[Target],
    weights: Sequence[float],
) -> tuple[TargetColumns, list[Part]]:
    """All columns and their objectives; assays have one for each source, computed targets one."""
    columns: list[Labels | Scaled] = []
    parts = []
    for target, weight in zip(targets, weights, strict=True):
        weight = weight / weights[0]
        if target != "assays":
            computed = computed_targets(target, [source.smiles for source in sources], train)
            columns.append(computed)
            parts.append(Part(Squared(), len(computed.names), weight))
            continue
        starts = _starts(sources)
        labelled = [(s, k) for s, k in zip(sources, starts, strict=True) if s.label_names]
        if not labelled:
            raise ValueError(
                f"assays should be labels of a data set or a table; "
                f"{_listed_names(sources)} has none: name such a source, or leave assays out"
            )
        for source, start in labelled:
            labels = _assays(source, train[train >= start] - start, start)
            columns.append(labels)
            kind = Multilabel() if isinstance(source.objective, Multilabel) else Squared()
            parts.append(Part(kind, len(labels.names), weight))
    return TargetColumns(tuple(columns)), parts


def _assays(source: Source, train: Tensor, start: int) -> Labels:
    """Labels that differ between training molecules, numbers in their standard deviations.

    Args:
        source: of the labels.
        train: row numbers of its training molecules; any beyond its end are of other sources.
        start: row number of its first molecule.

    Raises:
        ValueError: no labels differ.
    """
    measured = source.labels[train[train < len(source.labels)]].double()
    labelled = ~measured.isnan()
    counts = labelled.sum(0)
    mean = measured.nansum(0) / counts
    variance = torch.where(labelled, (measured - mean).square(), 0.0).sum(0) / counts
    learned = variance > 0  # nor is NaN, of no label at all
    names = tuple(name for name, one in zip(source.label_names, learned, strict=True) if one)
    if left := len(learned) - len(names):
        _log.warning(
            "%d of %d assays of %s are left out: their labels do not differ between training "
            "molecules, or there are none",
            *(left, len(learned), source.name),
        )
    if not names:
        raise ValueError(f"assays of {source.name} should differ between training molecules")
    values = source.labels[:, learned]
    if isinstance(source.objective, Multilabel):
        return Labels(values.half(), start, names)  # 0 and 1 lose nothing
    scaled = (values.double() - mean[learned]) / variance[learned].sqrt()
    return Labels(scaled.float(), start, names)


def _fingerprint(sources: Sequence[Source], splits: Splits, about: object) -> str:
    """What tells a task from every other; computed targets follow from their molecules."""
    return digest(
        f"{FEATURISER_VERSION} {COMPUTED_VERSION} {rdBase.rdkitVersion} {about!r}",
        *("\n".join(source.smiles) for source in sources),
        # every NaN is made the same one: its bytes carry a payload
        *(torch.where(source.labels.isnan(), torch.nan, source.labels) for source in sources),
        *(part for split in _NAMES for part in (split, splits[split])),
    )
