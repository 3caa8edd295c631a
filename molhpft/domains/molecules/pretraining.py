"""Tasks to pretrain an encoder on: assays with missing labels, descriptors that need none, or both.

They are scored by minus their loss: the metric of assays with a handful of actives is noise, and
validation decides which epoch's encoder is kept. `joint_task` goes on serving such a task while
finetuning, on the same molecules.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import compress
from math import nan
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from torch import Tensor

from molhpft.core.annotations import Positive, Seed
from molhpft.core.data import Task
from molhpft.core.objectives import Joint, ScoredByLoss, Squared
from molhpft.domains.files import digest
from molhpft.domains.molecules.examples import Molecules, molecule_task, unreadable_note
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.ogb import ogb_names, ogb_task
from molhpft.domains.molecules.overlap import inchikey_blocks, is_among
from molhpft.domains.molecules.smiles import cached_rows, parse_flagged, smiles_digest
from molhpft.domains.molecules.splits import Split, check_choice, molecule_splits
from molhpft.domains.molecules.table_files import read_sheet, table_name
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.molecules.target_columns import ALL

Target = Literal["assays", "descriptors"]
Use = Literal["train", "all"]
Splits = Mapping[str, Tensor]

_VERSION = 1  # raised with every change of what is computed below
_SLOW = ("qed", "SPS", "Ipc", "AvgIpc", "BCUT2D_", "FpDensity")
_TAIL = 0.01

_log = logging.getLogger(__name__)


def pretraining_task(
    *,
    of: Path,
    targets: tuple[Target, ...] = ("descriptors",),
    weight: Positive | None = None,
    use: Use = "train",
    without: tuple[str, ...] = (),
    smiles_column: str | None = None,
    split: Split = "scaffold",
    split_seed: Seed | None = None,
) -> Task:
    """A data set, a table or a plain list of SMILES to pretrain on, scored by minus the loss.

    Args:
        of: an OGB data set by name, or the path of a table or list of any kind that can be read.
        targets: "assays" are the labels of the data set, or of all columns of a table that can be
            targets; "descriptors" those of RDKit in standard deviations, which need no labels.
        weight: of the descriptors' loss beside the assays', 1 by default; for both targets only.
        use: "train" leaves the other splits out; "all" trains on their molecules as well, and what
            is then scored on them is no estimate any more.
        without: OGB data sets whose validation and test molecules (of OGB's split) are left out of
            every split, so that an encoder is never tested on molecules it was pretrained on; see
            `overlap.is_among`.
        smiles_column: of a file, "smiles" by default.
        split: by scaffold, at random or both, as for any data set.
        split_seed: draws the random splits, 0 by default; for those only.

    Raises:
        FileNotFoundError: the data are absent.
        ValueError: the data cannot be used, or the options contradict each other.
    """
    _check(targets, weight, use)
    check_choice(split, split_seed, get_args(Split))
    source = _source(of, "assays" in targets, smiles_column, split, split_seed)
    splits = _used(source, use, _left_out(source, without))
    parts = []
    if source.assays is not None and "assays" in targets:
        parts.append(_with_splits(source.assays, splits))
    if "descriptors" in targets:
        parts.append(_descriptors(source, splits))
    task = parts[0] if len(parts) == 1 else joint_task(*parts, weight=weight or 1.0)
    # scored by the loss of both kinds of targets, which are then one task
    both = digest(f"{task.fingerprint} {task.auxiliary}")
    return replace(
        task,
        name=f"pretraining-on-{use}-of-{source.name}",
        fingerprint=both if task.auxiliary else task.fingerprint,
        auxiliary="",
        objective=ScoredByLoss(task.objective),
    )


def molecules_trained_on(
    *,
    of: Path,
    use: Use = "train",
    without: tuple[str, ...] = (),
    smiles_column: str | None = None,
    split: Split = "scaffold",
    split_seed: Seed | None = None,
) -> list[str]:
    """SMILES of the molecules that `pretraining_task` with these options trains on.

    Raises:
        FileNotFoundError: the data are absent.
        ValueError: the data cannot be used.
    """
    labelled = str(of) in ogb_names()
    source = _source(of, labelled, smiles_column, split, split_seed)
    rows = _used(source, use, _left_out(source, without))["train"]
    return [source.smiles[row] for row in rows.tolist()]


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
    row_of = {smiles: row for row, smiles in enumerate(old.smiles)}
    rows = torch.tensor([row_of.get(smiles, -1) for smiles in new.smiles])
    if (rows < 0).all():
        raise ValueError(
            f"{pretraining.name} has targets for none of the {len(rows):,} molecules of "
            f"{task.name}; name a pretraining task on the same molecules"
        )
    auxiliary = torch.where(rows[:, None] < 0, torch.nan, old.targets[rows])
    return replace(
        task,
        examples=replace(new, targets=torch.cat([new.targets, auxiliary], dim=1)),
        objective=Joint(task.objective, pretraining.objective, task.outputs, weight),
        outputs=task.outputs + pretraining.outputs,
        target_names=(*task.target_names, *pretraining.target_names),
        auxiliary=digest(f"{pretraining.fingerprint} {weight}"),
    )


def descriptor_targets(smiles: Sequence[str], train: Tensor) -> tuple[Tensor, list[str]]:
    """RDKit's descriptors of molecules, in standard deviations, for a regression.

    All of `Descriptors.descList` but the slow ones and fragment counts (`fr_`), which are close to
    structural alerts; about 3 ms a molecule. Heavy tails are cut off at the 1st and 99th
    percentile; descriptors that are then constant are left out. Percentiles, means and standard
    deviations are those of the measured values of the training split.

    Args:
        smiles: (n,).
        train: row numbers of the training split (k,).

    Returns:
        targets, float32 (n, t), and names of the descriptors (t,). A target is NaN, missing, where
        the descriptor is not finite, and all of a molecule's are where RDKit does not read it
        strictly: descriptors of impossible valences mean nothing.

    Raises:
        ValueError: no descriptor differs between training molecules.
    """
    key = f"descriptors/{_VERSION}-{smiles_digest(smiles)}"  # raw values: splits come and go
    values = cached_rows(key, "values", smiles, _descriptor_rows, "computing descriptors")
    columns = [_standardised(column, train) for column in torch.from_numpy(values).T]
    varying = [column for column in columns if column is not None]
    if not varying:
        raise ValueError(
            f"descriptors should differ between the {len(train):,} training molecules; none does: "
            "give more molecules, written so that RDKit reads them"
        )
    names = compress(_descriptor_functions(), [column is not None for column in columns])
    return torch.stack(varying, 1), list(names)


@cache
def _descriptor_functions() -> dict[str, Callable[[Chem.Mol], float]]:
    from rdkit.Chem import Descriptors  # a tenth of a second, and only here

    return {
        name: function
        for name, function in Descriptors.descList
        if not name.startswith(("fr_", *_SLOW))
    }


def _descriptor_rows(smiles: Sequence[str]) -> NDArray[np.float32]:
    with rdBase.BlockLogs(), np.errstate(over="ignore"):
        rows = [_descriptors_of(string) for string in smiles]
        return np.array(rows, dtype=np.float64).astype(np.float32)


def _descriptors_of(smiles: str) -> list[float]:
    functions = _descriptor_functions().values()
    mol, invalid_valence = parse_flagged(smiles)
    if mol is None or invalid_valence:
        return [nan] * len(functions)
    return [_value(function, mol) for function in functions]


def _value(function: Callable[[Chem.Mol], float], mol: Chem.Mol) -> float:
    try:
        return float(function(mol))
    # what descriptors raise for molecules that they are not defined for
    except (ArithmeticError, LookupError, ValueError, RuntimeError):
        return nan


def _standardised(column: Tensor, train: Tensor) -> Tensor | None:
    """A column (n,) with its tails cut, in training deviations; None where it does not vary.

    One at a time: `Tensor.quantile` takes no more than 16 million numbers.
    """
    column = torch.where(column.isfinite(), column, torch.nan).double()
    measured = column[train]
    measured = measured[~measured.isnan()]
    if not len(measured):
        return None
    low, high = measured.quantile(torch.tensor([_TAIL, 1 - _TAIL], dtype=measured.dtype))
    if low >= high:
        return None
    std, mean = torch.std_mean(measured.clamp(low, high))
    return ((column.clamp(low, high) - mean) / std).float()


@dataclass(frozen=True)
class _Source:
    """Molecules to pretrain on, and the task of their labels where they have any."""

    name: str
    smiles: Sequence[str]
    splits: Splits
    assays: Task | None = None


def _check(targets: Sequence[Target], weight: float | None, use: Use) -> None:
    if not targets or len(set(targets)) < len(targets) or not {*targets} <= {*get_args(Target)}:
        choices = " and ".join(get_args(Target))
        raise ValueError(f"targets should be one or both of {choices}, got {list(targets)}")
    if use not in get_args(Use):
        raise ValueError(f"use should be {' or '.join(get_args(Use))}, got {use!r}")
    if weight is not None and (len(targets) == 1 or not weight > 0):
        raise ValueError(
            "weight is that of descriptors beside assays and above 0, for both targets only; "
            f"got weight {weight} with targets {', '.join(targets)}"
        )


def _source(
    of: Path, labelled: bool, column: str | None, split: Split, seed: int | None
) -> _Source:
    if str(of) in ogb_names():
        if column is not None:
            raise ValueError(f"smiles_column is for tables; {of} is an OGB data set: leave it out")
        return _of_task(ogb_task(str(of), split=split, split_seed=seed))
    column = column or "smiles"
    if not labelled:
        return _unlabelled(of, column, split, seed)
    options = {"smiles_column": column, "split": split, "split_seed": seed}
    return _of_task(csv_task(path=of, target_columns=(ALL,), **options))


def _of_task(task: Task) -> _Source:
    examples = cast(Molecules, task.examples)
    return _Source(task.name, examples.smiles, task.splits, task)


def _unlabelled(path: Path, column: str, split: Split, seed: int | None) -> _Source:
    sheet = read_sheet(path)
    smiles = sheet.molecules(column)
    readable = load_or_pack(smiles).readable
    if not readable.any():
        raise ValueError(
            f"{path} should hold SMILES; none of its {len(smiles):,} rows can be read, the first "
            f"is {smiles[0]!r:.60}"
        )
    if note := unreadable_note(smiles, readable, lines=sheet.lines, unit=sheet.unit):
        _log.warning("%s: %s", path, note)
    splits = molecule_splits(smiles, split, seed, rows=readable.nonzero().flatten())
    return _Source(table_name(path), smiles, splits)


def _left_out(source: _Source, without: Sequence[str]) -> Tensor:
    """Which molecules are tested on elsewhere, bool (n,)."""
    tested = torch.zeros(len(source.smiles), dtype=torch.bool)
    for name in without:
        other = _of_task(ogb_task(name))
        rows = torch.cat([other.splits["valid"], other.splits["test"]]).numpy()
        tested |= is_among(inchikey_blocks(source.smiles), inchikey_blocks(other.smiles)[rows])
    if without:
        _log.warning(
            "%d of %d molecules of %s are left out: %s validate or test on them",
            *(int(tested.sum()), len(tested), source.name, " and ".join(without)),
        )
    return tested


def _used(source: _Source, use: Use, left_out: Tensor) -> dict[str, Tensor]:
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


def _with_splits(task: Task, splits: Splits) -> Task:
    """The same task with other splits, which its fingerprint must know."""
    examples = cast(Molecules, task.examples)
    return molecule_task(
        task.name,
        smiles=examples.smiles,
        targets=examples.targets,
        target_names=task.target_names,
        splits=splits,
        objective=task.objective,
        classes=examples.classes,
        notes=examples.notes,
        lines=examples.lines,
        unit=examples.unit,
    )


def _descriptors(source: _Source, splits: Splits) -> Task:
    targets, names = descriptor_targets(source.smiles, splits["train"])
    return molecule_task(
        f"descriptors of {source.name}",
        smiles=source.smiles,
        targets=targets,
        target_names=names,
        splits=splits,
        objective=Squared(),
    )
