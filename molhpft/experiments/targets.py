"""The score of every target by itself: a mean over targets hides those that were lost."""

from dataclasses import replace

import torch
from torch import Tensor

from molhpft.core.contrast import ClassContrast
from molhpft.core.joint import Joint
from molhpft.core.measured import measured
from molhpft.core.metrics import accuracy
from molhpft.core.objectives import Multiclass, Multilabel, Objective, Squared
from molhpft.core.scored import ScoredByLoss
from molhpft.core.task import Task

Scores = dict[str, float | None]


def target_scores(task: Task, logits: Tensor, targets: Tensor) -> Scores:
    """Name of each target to its score on one split, higher is better.

    A class is scored by the share of its own units that are predicted right (its recall), any other
    target by its metric on its column alone, one that is served beside the task's by its own.

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
        scores = [_score(_of_column(objective, k), *column) for k, column in enumerate(columns)]
    return dict(zip(names, scores, strict=True))


def _recall(own: Tensor, logits: Tensor, *, ignore: int) -> float | None:
    return accuracy(own, logits, ignore=ignore) if (own != ignore).any() else None


def _score(objective: Objective, logits: Tensor, targets: Tensor) -> float | None:
    labels = targets[measured(targets)]
    if not len(labels):
        return None
    one_class = isinstance(objective, Multilabel) and bool((labels == labels[0]).all())
    return None if one_class else objective.score(logits, targets)


def _of_column(objective: Objective, k: int) -> Objective:
    """What is asked of output k alone."""
    if isinstance(objective, Joint):
        t = objective.outputs
        own, k = (objective.main, k) if k < t else (objective.kept, k - t)
        return _of_column(own, k)
    if isinstance(objective, ScoredByLoss):
        return replace(objective, objective=_of_column(objective.objective, k))
    return objective.column(k) if isinstance(objective, Squared) else objective
