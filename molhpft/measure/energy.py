"""Initial energy: how far the predictions are from the labels when finetuning starts.

The energy of an example depends on that example alone, whatever else its split or batch holds: of
an objective that compares examples, or serves a second task, it is that of the part that predicts
the new task's labels. An energy is NaN where a prediction for a measured label is not finite.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from molhpft.core.measured import measured
from molhpft.core.objectives import Objective
from molhpft.core.snapshot import Predictions

_ROWS = 4_096  # taken at a time


@dataclass(frozen=True)
class Energy:
    """Energies of one split, in units of probability (of the target for regression).

    Attributes:
        aie: average initial energy, see `initial_energy`.
        per_entry: see `entry_energy`.
        balanced: see `balanced_energy`; NaN for a regression.
    """

    aie: float
    per_entry: float
    balanced: float


def energy(predictions: Predictions, objective: Objective) -> Energy:
    """Every energy of the training split, predicted just before finetuning."""
    return Energy(
        initial_energy(predictions, objective),
        entry_energy(predictions, objective),
        balanced_energy(predictions, objective),
    )


def initial_energy(predictions: Predictions, objective: Objective) -> float:
    """Mean Euclidean length of the residual `p - y` over labelled units (molecules, or pixels).

    The average initial energy of Ren et al. (2023), Proposition 1, which bounds how far finetuning
    moves features. Unmeasured labels of a molecule count as 0; a molecule without labels is left
    out.

    Args:
        predictions: of the training split, made just before finetuning.
        objective: the finetuning objective, without label smoothing.

    Returns:
        the energy: 0 for a perfect head, sqrt(2) for a confidently wrong softmax head.
    """
    parts = _residuals(predictions, objective)
    lengths = [torch.linalg.vector_norm(residual, dim=1) for residual, _ in parts]
    return torch.cat(lengths).mean().item()


def entry_energy(predictions: Predictions, objective: Objective) -> float:
    """Mean |p - y| over measured labels: comparable between different numbers of tasks."""
    total, count = 0.0, 0
    for residual, y in _residuals(predictions, objective):
        entries = residual[measured(y)]
        total += entries.abs().sum(dtype=torch.float64).item()
        count += len(entries)
    return total / count if count else float("nan")


def balanced_energy(predictions: Predictions, objective: Objective) -> float:
    """Mean |p - y| in which both classes of a task weigh the same, averaged over tasks.

    With few positives the plain energy says how well the negatives are fitted. Tasks that lack a
    class are left out; NaN where no task has two classes, as in a regression.
    """
    if not objective.has_classes:
        return float("nan")
    sums, counts = [], []
    for residual, y in _residuals(predictions, objective):
        of_class = torch.stack([y == label for label in (0, 1)])
        sums.append(torch.where(of_class, residual.abs(), 0.0).sum(1))
        counts.append(of_class.sum(1))
    total, count = torch.stack(sums).sum(0), torch.stack(counts).sum(0)
    both = (count > 0).all(0)
    return (total / count)[:, both].mean().item()


def _residuals(predictions: Predictions, objective: Objective) -> Iterator[tuple[Tensor, Tensor]]:
    """Residuals and labels, some rows at a time: copies of a whole large split fill the memory."""
    pieces = (torch.split(t, _ROWS) for t in (predictions.logits, predictions.targets))
    for logits, targets in zip(*pieces, strict=True):
        residual = objective.residual(logits, targets)
        yield residual, objective.labels(targets, outputs=residual.shape[1])
