"""The score of every target by itself: a mean over targets hides those that were lost."""

import torch
from torch import Tensor

from molhpft.core.contrast import ClassContrast
from molhpft.core.metrics import accuracy
from molhpft.core.objectives import Multiclass, Multilabel, Objective, Squared
from molhpft.core.task import Task

Scores = dict[str, float | None]


def target_scores(task: Task, logits: Tensor, targets: Tensor) -> Scores:
    """Name of each target to its score on one split, higher is better.

    A class is scored by the share of its own units that are predicted right (its recall), any other
    target by the task's metric on its column alone.

    Args:
        task: gives the objective, and the names where it has them.
        logits: of the split.
        targets: of the split, as in `Batch`.

    Returns:
        a score a target; None where it cannot be scored: no example of the class, labels of one
        class only.
    """
    objective = task.objective
    if isinstance(objective, Multiclass | ClassContrast):
        names = task.describes or tuple(f"class {k}" for k in range(task.outputs))
        masked = [torch.where(targets == k, k, objective.ignore) for k in range(task.outputs)]
        scores = [_recall(own, logits, ignore=objective.ignore) for own in masked]
    else:
        names = task.describes or tuple(f"output {k}" for k in range(task.outputs))
        columns = (torch.stack([logits, targets])[..., [k]] for k in range(task.outputs))
        scores = [_score(objective, k, *column) for k, column in enumerate(columns)]
    return dict(zip(names, scores, strict=True))


def _recall(own: Tensor, logits: Tensor, *, ignore: int) -> float | None:
    return accuracy(own, logits, ignore=ignore) if (own != ignore).any() else None


def _score(objective: Objective, k: int, logits: Tensor, targets: Tensor) -> float | None:
    measured = targets[~targets.isnan()]
    if not len(measured):
        return None
    one_class = isinstance(objective, Multilabel) and bool((measured == measured[0]).all())
    own = objective.column(k) if isinstance(objective, Squared) else objective
    return None if one_class else own.score(logits, targets)
