"""Which molecules choose and calibrate: a held-out part of a table, or each fold in turn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, ScoredByLoss
from molhpft.domains.files import digest
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    calibration_share,
    group_folds,
    molecule_splits,
    random_folds,
    scaffold_groups,
)

Holdout = Literal["scaffold", "random"]

VALID = "valid"
"""Of predictions, the molecules that choose: the split of that name, or those of all folds."""

FOLDS = 5
FEW = 2_000
"""Molecules below which every one of them trains and chooses, fold by fold, by default."""


def draw_folds(
    task: Task,
    how: Holdout,
    *,
    count: int,
    seed: int,
    groups: Sequence[object] | None = None,
) -> list[Tensor]:
    """Rows of the training split that are held out in turn; together they are all of them.

    Args:
        task: on molecules.
        how: "random", labels of classes in proportion, or "scaffold", no scaffold in two folds.
        count: of folds, at least 2.
        seed: of random folds.
        groups: (n,), of every row of the task; no group is then in two folds, whatever `how` says.

    Raises:
        ValueError: there are fewer molecules, scaffolds or groups than folds.
    """
    rows = task.rows("train")
    if count < 2:
        raise ValueError(f"folds should be at least 2, or 0 for one held-out part, got {count}")
    if groups is None and how == "random":
        classes = isinstance(task.objective, Multilabel)
        labels = task.examples.targets[rows].float() if classes else None
        rng = torch.Generator().manual_seed(seed)
        parts, of = random_folds(len(rows), count, rng=rng, labels=labels), "molecules"
    else:
        smiles = [molecules_of(task).smiles[row] for row in rows.tolist()]
        together = scaffold_groups(smiles) if groups is None else _grouped(groups, rows)
        parts, of = group_folds(together, count), "scaffolds" if groups is None else "groups"
    if not all(map(len, parts)):
        filled = sum(1 for part in parts if len(part))
        raise ValueError(
            f"{count} folds need at least {count} {of}, and {task.name} has {filled} to train on; "
            "take fewer folds"
        )
    return [rows[part] for part in parts]


def _grouped(groups: Sequence[object], rows: Tensor) -> list[list[int]]:
    together: dict[object, list[int]] = {}
    for place, row in enumerate(rows.tolist()):
        together.setdefault(groups[row], []).append(place)
    return list(together.values())


def fold_tasks(task: Task, folds: Sequence[Tensor]) -> list[Task]:
    """A task for each fold, which validates on it and trains on the other training rows."""
    train, parts = task.rows("train"), []
    for held in folds:
        splits = {"train": train[~torch.isin(train, held)], "valid": held}
        name = digest(task.fingerprint, *(part for split in splits.items() for part in split))
        parts.append(replace(task, splits=splits, fingerprint=name))
    return parts


def holdout_split(
    smiles: Sequence[str],
    how: Holdout,
    *,
    validation: float,
    seed: int,
    labels: Tensor | None = None,
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

    Raises:
        ValueError: the share is out of range, or leaves a split empty.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation should be a share between 0 and 1, got {validation}")
    fractions = (1 - validation, 0.0, validation)
    readable = load_or_pack(smiles).readable.nonzero().flatten()
    calibration = calibration_share(max(len(readable), 1))
    calibration = calibration if calibration < 1 - validation else 0.0
    parts = molecule_splits(
        smiles,
        how,
        seed,
        rows=readable,
        fractions=fractions,
        calibration=calibration,
        labels=labels,
    )
    splits = {"train": parts["train"], "valid": parts["test"]}
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(
                f"{len(smiles):,} molecules leave none to {split}; give more, or an eval_set"
            )
    held = parts.get(CALIBRATION)
    return splits if held is None or not len(held) else {**splits, CALIBRATION: held}


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
            scorable = {s: bool(_targets(task, s).isfinite().any()) for s in task.splits}
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
    y = _targets(task, split)
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


def _targets(task: Task, split: str) -> Tensor:
    """Targets of a split's molecules, float32 (n, t)."""
    return molecules_of(task).targets[task.splits[split]].float()


def molecules_of(task: Task) -> Molecules:
    """The examples of a task on molecules."""
    assert isinstance(task.examples, Molecules)
    return task.examples
