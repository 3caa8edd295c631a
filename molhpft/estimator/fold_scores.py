"""Scores of molecules that folds hold out, each as members predict it that did not train on it."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from molhpft.core.objectives import Multilabel, Objective

Score = Callable[[Tensor, Tensor], float]
"""Of logits (n, t) and targets (n, t); a ValueError where there is nothing to score."""


def by_fold(
    score: Score, logits: Tensor, targets: Tensor, fold: Tensor | None
) -> list[float | None]:
    """The score of each fold; None of one that cannot be scored. No fold has no scores.

    Args:
        score: of the molecules of a fold.
        logits: (n, t).
        targets: (n, t), NaN where unmeasured.
        fold: number of the fold of each molecule, (n,); None where there are no folds.
    """
    if fold is None:
        return []
    places = [fold == number for number in torch.unique(fold)]
    return [_or_none(partial(score, logits[one], targets[one])) for one in places]


def ranking_score(score: Score, logits: Tensor, targets: Tensor, fold: Tensor | None) -> float:
    """A score of how molecules are ranked: within each fold, then the mean over folds.

    Members of different folds are different members, whose outputs do not compare. One that an
    active is held out from learns a lower rate of actives than the others do, so that members that
    know nothing rank all molecules together the wrong way round (Forman and Scholz, 2010).

    Args:
        score: of the molecules of a fold.
        logits: (n, t).
        targets: (n, t), NaN where unmeasured.
        fold: number of the fold of each molecule, (n,); None for the score of all of them.

    Raises:
        ValueError: no fold can be scored.
    """
    if fold is None:
        return score(logits, targets)
    scores = [one for one in by_fold(score, logits, targets, fold) if one is not None]
    if not scores:
        raise ValueError("none of the folds can be scored")
    return sum(scores) / len(scores)


def held_out_score(
    objective: Objective, logits: Tensor, targets: Tensor, fold: Tensor | None
) -> float:
    """The metric of an objective: classes are ranked, errors are those of all molecules together.

    Args:
        objective: whose metric it is.
        logits: (n, t).
        targets: (n, t), NaN where unmeasured.
        fold: number of the fold of each molecule, (n,); None where there are no folds.

    Raises:
        ValueError: there is nothing to score, as where no fold has both classes of a target.
    """
    if isinstance(objective, Multilabel):
        return ranking_score(objective.score, logits, targets, fold)
    return objective.score(logits, targets)


def _or_none(score: Callable[[], float]) -> float | None:
    try:
        return score()
    except ValueError:
        return None
