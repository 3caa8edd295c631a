"""The molecules of a run that stand out: a report draws them without the data."""

from collections.abc import Sequence
from math import nan
from typing import Literal

import torch
from pydantic import BaseModel, FiniteFloat
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.evaluate import Snapshot
from molhpft.core.objectives import Joint, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.examples import Molecules

STANDOUTS = "molecules.json"
SHOWN = 6


class Standout(BaseModel):
    """A training molecule, and what finetuning did to it.

    Attributes:
        smiles: of the molecule.
        moved: distance of its features after finetuning from those before.
        energy: length of its `p - y` after finetuning.
        target: where `p - y` is largest.
        label: of that target, in its own unit; None where the molecule has no label.
        predicted: for that target.
    """

    smiles: str
    moved: FiniteFloat | None
    energy: FiniteFloat | None
    target: str
    label: FiniteFloat | None
    predicted: FiniteFloat | None


Standouts = dict[Literal["moved", "energy"], list[Standout]]


def standouts(before: Snapshot, after: Snapshot, task: Task) -> Json | None:
    """Molecules whose features moved most, and those whose energy stayed highest, as plain values.

    Args:
        before: of the training split, before finetuning.
        after: of the same molecules, after it.
        task: what was trained on.

    Returns:
        "moved" and "energy" to `SHOWN` molecules each, the most outstanding first, see `Standout`;
        only "energy" where features are those of atoms, as of a cut backbone; None for a task
        without molecules.
    """
    if not isinstance(task.examples, Molecules):
        return None
    smiles = [task.examples.smiles[row] for row in task.rows("train").tolist()]
    moved = (after.features - before.features).flatten(1).norm(dim=1)
    of_molecules = len(moved) == len(smiles)
    residual, labels, predicted = _answers(after, task)
    energy = residual.norm(dim=1)

    def entry(row: int) -> Json:
        worst = int(residual[row].abs().argmax())
        return {
            "smiles": smiles[row],
            "moved": float(moved[row]) if of_molecules else nan,
            "energy": float(energy[row]),
            "target": task.target_names[worst] if task.target_names else f"output {worst}",
            "label": float(labels[row, worst]),
            "predicted": float(predicted[row, worst]),
        }

    by_value = {"moved": moved, "energy": energy} if of_molecules else {"energy": energy}
    return {name: [entry(row) for row in _largest(values)] for name, values in by_value.items()}


def _answers(after: Snapshot, task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Residual, label and prediction of every molecule and target, (n, t) each.

    The residual of a molecule without a label is 0, its label and prediction NaN.
    """
    objective = task.objective.main if isinstance(task.objective, Joint) else task.objective
    residual = task.objective.residual(after.logits, after.targets)
    count = residual.shape[1]
    labels = after.targets[:, :count].to(residual)
    labelled = ~labels.isnan().all(1)
    full = torch.zeros_like(labels)
    full[labelled] = residual
    predicted = labels + full
    if isinstance(objective, Squared):
        labels, predicted = objective.values(labels), objective.values(predicted)
    return full, labels, predicted


def _largest(values: Tensor) -> Sequence[int]:
    """Rows of the largest numbers, the first of equals first."""
    order: list[int] = values.nan_to_num(-1).argsort(descending=True, stable=True).tolist()
    return order[:SHOWN]
