"""Which molecules choose and calibrate: a held-out part of a table, or each fold in turn."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.few_labels import in_own_deviations
from molhpft.core.objectives import Multilabel, ScoredByLoss, Squared
from molhpft.domains.files import digest
from molhpft.domains.molecules.calibration_split import calibration_share
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.grouped_splits import (
    group_folds,
    grouped_split,
    replicates,
    time_folds,
)
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    joined_groups,
    molecule_splits,
    random_folds,
    scaffold_groups,
)

Holdout = Literal["scaffold", "random"]

VALID = "valid"
"""Of predictions, the molecules that choose: the split of that name, or those of all folds."""

FOLDS = 5
"""So many by default."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Molecules that are held out together, and those that train meanwhile.

    Attributes:
        train: ascending rows of the task; with times those that are older, else all others.
        held: ascending rows of the task.
    """

    train: Tensor
    held: Tensor


def draw_folds(
    task: Task,
    how: Holdout,
    *,
    count: int,
    seed: int,
    groups: Sequence[Hashable] | None = None,
    times: Sequence[float] | None = None,
) -> list[Fold]:
    """Parts of the training split that are held out in turn.

    Together they are all of it; with times only its newer half is ever held out. Rows of one
    molecule, by InChIKey, are in one fold.

    Args:
        task: on molecules.
        how: "random", labels of classes in proportion, or "scaffold", no scaffold in two folds.
        count: of folds; 0 for none.
        seed: of random folds.
        groups: (n,), of every row of the task; no group is then in two folds, whatever `how` says.
        times: (n,), of every row of the task; what trains for a fold is then older than it.

    Raises:
        ValueError: that is no number of folds, or there are fewer molecules, scaffolds, groups or
            times.
    """
    check_folds(count)
    if not count:
        return []
    rows = task.rows("train")
    together, of = _together(task, rows, how if times is None else "random", groups)
    if len(together) < count:
        fewer = "fewer folds" if of == "molecules" else f"fewer folds, or smaller {of}"
        which = "different molecules" if of == "molecules" else of
        raise ValueError(
            f"{count} folds need at least {count} {which}, and {task.name} has {len(together)} to "
            f"train on, in {len(rows):,} rows; take {fewer}{_and_unreadable(task)}"
        )
    if times is not None:
        pairs = time_folds(together, [times[row] for row in rows.tolist()], count)
        return [Fold(rows[older], rows[held]) for older, held in pairs]
    if of == "molecules":
        classes = isinstance(task.objective, Multilabel)
        labels = task.examples.targets[rows].float() if classes else None
        rng = torch.Generator().manual_seed(seed)
        parts = random_folds(len(rows), count, rng=rng, labels=labels, together=together)
    else:
        parts = group_folds(together, count)
    return [Fold(rows[~torch.isin(rows, rows[part])], rows[part]) for part in parts]


def check_folds(count: object, *, or_else: str = "") -> None:
    """Refuse what is no number of folds; a single fold would leave nothing to train on.

    Args:
        count: as somebody gave it.
        or_else: what else would do, for the message.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(count, Integral) or count < 0 or count == 1:
        choices = f"{or_else}, " if or_else else ""
        raise ValueError(
            f"folds should be {choices}at least 2, or 0 for one held-out part, got {count!r}"
        )


def _and_unreadable(task: Task) -> str:
    """The molecules that cannot be read, as what may be mended; empty where all can."""
    unreadable = molecules_of(task).unreadable.rstrip(".")
    return f", or mend what is no SMILES: {unreadable}" if unreadable else ""


def _together(
    task: Task, rows: Tensor, how: Holdout, groups: Sequence[Hashable] | None
) -> tuple[list[list[int]], str]:
    """Places of `rows` (m,) that no fold parts, and what they are, for people."""
    smiles = [molecules_of(task).smiles[row] for row in rows.tolist()]
    if groups is not None:
        return joined_groups(replicates(smiles), [groups[row] for row in rows.tolist()]), "groups"
    if how == "scaffold":
        return scaffold_groups(smiles, replicates(smiles)), "scaffolds"
    return replicates(smiles), "molecules"


def held_rows(folds: Sequence[Fold]) -> Tensor:
    """Ascending rows of all that is ever held out."""
    return torch.cat([fold.held for fold in folds]).sort().values


def choosing_task(task: Task, folds: Sequence[Fold]) -> Task:
    """The task with the molecules that choose as "valid": with folds all that they hold out."""
    if not folds:
        return task
    return replace(task, splits={**task.splits, VALID: held_rows(folds)})


def fold_of(choosing: Task, folds: Sequence[Fold]) -> Tensor | None:
    """Number of the fold of each molecule that chooses, (n,); None where there are no folds."""
    if not folds:
        return None
    rows = choosing.rows(VALID)
    numbers = torch.full((len(rows),), -1)
    for number, fold in enumerate(folds):
        numbers[torch.isin(rows, fold.held)] = number
    return numbers


def fold_tasks(task: Task, folds: Sequence[Fold]) -> list[Task]:
    """A task for each fold, which validates on what it holds out.

    Numbers are in standard deviations of what trains for the fold.
    """
    parts = []
    for fold in folds:
        splits = {"train": fold.train, "valid": fold.held}
        part = in_own_deviations(replace(task, splits=splits))
        about = [task.fingerprint, *(part for split in splits.items() for part in split)]
        if isinstance(part.objective, Squared):
            about.append(repr(part.objective))
        parts.append(replace(part, fingerprint=digest(*about)))
    return parts


def holdout_split(
    smiles: Sequence[str],
    how: Holdout,
    *,
    validation: float,
    seed: int,
    labels: Tensor | None = None,
    groups: Sequence[Hashable] | None = None,
    times: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Rows of "train", "valid" and "calibration"; unreadable molecules are in none.

    Nothing is chosen by calibration molecules: prediction sets are fitted to them. Where molecules
    (`calibration_share`) or their scaffolds (`scaffold_split`) are too few, there is no such split.

    Args:
        smiles: (n,).
        how: "scaffold" holds out rare scaffolds, "random" draws molecules.
        validation: share of molecules, between 0 and 1.
        seed: of the random split.
        labels: (n, t) of 0, 1 or NaN, to stratify a random split by; None for a regression.
        groups: (n,), which stay together, dealt at random whatever `how` says.
        times: (n,); the newest molecules are then held out, whatever `how` says.

    Raises:
        ValueError: the share is out of range, or leaves a split empty.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation should be a share between 0 and 1, got {validation}")
    readable = load_or_pack(smiles).readable.nonzero().flatten()
    calibration = calibration_share(max(len(readable), 1))
    calibration = calibration if calibration < 1 - validation else 0.0
    together, shares = replicates(smiles), dict[str, Any](calibration=calibration)
    if groups is None and times is None:
        held = "test"  # to which a split by scaffold deals the rare ones
        shares["fractions"] = (1 - validation, 0.0, validation)
        parts = molecule_splits(
            smiles, how, seed, rows=readable, labels=labels, together=together, **shares
        )
    else:
        held = VALID  # older than what calibrates
        shares["fractions"] = (1 - validation, validation, 0.0)
        parts = grouped_split(together, groups=groups, times=times, seed=seed, **shares)
    splits = {"train": parts["train"], "valid": parts[held]}
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(
                f"{len(smiles):,} molecules leave none to {split}; give more, or an eval_set"
            )
    own = parts.get(CALIBRATION)
    return splits if own is None or not len(own) else {**splits, CALIBRATION: own}


def without_calibration(task: Task) -> Task:
    """The task without its calibration split and without splits that cannot be scored.

    Where no target has both classes in validation, validation is scored by the loss, so that there
    is something to choose by.

    Raises:
        ValueError: there is nothing to train on, or to choose by.
    """
    objective = task.objective
    scorable = {split: bool(scored_targets(task, split).any()) for split in task.splits}
    if isinstance(objective, Multilabel):
        if not scorable.get("train"):
            raise ValueError(
                f"no target of {task.name} has labels of both classes among its "
                f"{len(task.splits['train']):,} training molecules; give more molecules, or "
                "another split: a random one deals each class to all of its parts"
            )
        if not scorable.get("valid"):
            objective = ScoredByLoss(objective)
            scorable = {s: bool(split_targets(task, s).isfinite().any()) for s in task.splits}
    for split in ("train", "valid"):
        if not scorable.get(split):
            raise ValueError(
                f"split {split!r} of {task.name} has no molecule with a label; give more "
                "molecules or another split"
            )
    splits = {s: rows for s, rows in task.splits.items() if s != CALIBRATION and scorable[s]}
    return replace(task, objective=objective, splits=splits)


def scored_targets(task: Task, split: str) -> Tensor:
    """Whether each target can be scored on a split: has both classes, or any number; bool (t,)."""
    y = split_targets(task, split)
    if isinstance(task.objective, Multilabel):
        return (y == 0).any(0) & (y == 1).any(0)
    return (~y.isnan()).any(0)


def unscored_targets(task: Task) -> dict[str, list[str]]:
    """Names of the targets that cannot be scored, by split."""
    return {
        split: [
            name
            for name, is_scored in zip(
                task.target_names, scored_targets(task, split).tolist(), strict=True
            )
            if not is_scored
        ]
        for split in task.splits
        if split != CALIBRATION
    }


def split_targets(task: Task, split: str) -> Tensor:
    """Targets of a split's molecules, float32 (n, t)."""
    return molecules_of(task).targets[task.splits[split]].float()


def further_splits(task: Task) -> list[str]:
    """Splits that are predicted: all with molecules but training."""
    return [split for split, rows in task.splits.items() if split != "train" and len(rows)]


def labelled_rows(task: Task, rows: Tensor) -> Tensor:
    """Those of some rows that have a label: what taught nothing is no neighbour to learn from."""
    return rows[~task.examples.targets[rows].isnan().all(1)]


def molecules_of(task: Task) -> Molecules:
    """The examples of a task on molecules."""
    assert isinstance(task.examples, Molecules)
    return task.examples
