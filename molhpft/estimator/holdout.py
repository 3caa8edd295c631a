"""Which molecules a model is chosen and calibrated by, and what they are too few for."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from molhpft.core.objectives import Multilabel
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    calibration_share,
    random_split,
    scaffold_split,
)
from molhpft.domains.texts import listed

Holdout = Literal["scaffold", "random"]

NAMED = 5
"""Targets that a sentence names; of more the others are counted."""


def held_out(
    smiles: Sequence[str],
    how: Holdout,
    *,
    share: float,
    seed: int,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """Rows of "train", "valid" and "calibration"; molecules that cannot be read are in none.

    Nothing is chosen by calibration molecules: prediction sets are fitted to them. Where molecules
    (`calibration_share`) or their scaffolds (`scaffold_split`) are too few for that, none is set
    aside, and there is no such split.

    Args:
        smiles: (n,).
        how: by scaffold, the rare ones dealt to validation and calibration; or at random.
        share: of molecules for validation, between 0 and 1.
        seed: draws the random one.
        labels: (n, t) of 0, 1 or NaN, to deal in proportion at random; None for numbers.

    Raises:
        ValueError: the share is none, or leaves a split empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation should be a share between 0 and 1, got {share}")
    fractions = (1 - share, 0.0, share)
    readable = load_or_pack(smiles).readable.nonzero().flatten()
    apart = calibration_share(max(len(readable), 1))
    apart = apart if apart < 1 - share else 0.0
    if how == "scaffold":
        found = scaffold_split(smiles, fractions=fractions, calibration=apart)
    else:
        dealt = random_split(
            len(readable),
            rng=torch.Generator().manual_seed(seed),
            fractions=fractions,
            calibration=apart,
            labels=None if labels is None else labels[readable],
        )
        found = {split: readable[rows] for split, rows in dealt.items()}
    splits = {"train": found["train"], "valid": found["test"]}
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(
                f"{len(smiles):,} molecules leave none to {split}; give more, or an eval_set"
            )
    aside = found.get(CALIBRATION)
    return splits if aside is None or not len(aside) else {**splits, CALIBRATION: aside}


def labels_of(task: Task, split: str) -> Tensor:
    """Labels of a split's molecules, float32 (n, t)."""
    molecules = task.examples
    assert isinstance(molecules, Molecules)
    return molecules.targets[task.splits[split]].float()


def scored_targets(task: Task, split: str) -> Tensor:
    """Targets whose score a split has: with labels of both classes, or with any number; (t,)."""
    y = labels_of(task, split)
    if isinstance(task.objective, Multilabel):
        return (y == 0).any(0) & (y == 1).any(0)
    return (~y.isnan()).any(0)


def unscored_targets(task: Task) -> dict[str, list[str]]:
    """Names of the targets that each split lacks labels of, or labels of both classes."""
    found = {}
    for split in (s for s in task.splits if s != CALIBRATION):
        named = zip(task.describes, scored_targets(task, split).tolist(), strict=True)
        found[split] = [name for name, is_scored in named if not is_scored]
    return found


def thin_notes(task: Task) -> list[str]:
    """Sentences on targets that a split has too few labels of to train on, choose by or score.

    Args:
        task: on molecules.
    """
    lack = "labels of both classes" if isinstance(task.objective, Multilabel) else "labels"
    found = []
    for split, missing in unscored_targets(task).items():
        n = len(task.splits[split])
        where = f"the {split} split ({n:,} molecule{'s' * (n != 1)})"
        if split == "valid" and len(missing) == len(task.describes):
            found.append(
                f"Never validated: {where} has no target with {lack}; epochs, tau and members were "
                "chosen by the loss on it."
            )
        elif missing:
            start = _THIN.get(split, "Not scored")
            found.append(f"{start}, for {where} lacks {lack}: {listed(missing, most=NAMED)}.")
    return found


_THIN = {"train": "Not learned", "valid": "Never validated"}
