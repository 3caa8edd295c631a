"""What a model's answers are worth on molecules whose labels are known."""

from math import isfinite

import torch
from torch import Tensor

from molhpft.core.metrics import mean_absolute_error, rank_correlation
from molhpft.core.objectives import Multilabel, Squared
from molhpft.estimator.trust import Trust
from molhpft.experiments.folder import Json
from molhpft.measure.calibration import expected_calibration_error
from molhpft.measure.conformal import interval_coverage, set_coverage


def evaluated(
    logits: Tensor, targets: Tensor, objective: Multilabel | Squared, trust: Trust
) -> Json:
    """Scores, calibration and coverage on a split.

    Args:
        logits: of its molecules, averaged over members, (n, t).
        targets: (n, t), NaN where unmeasured; of a regression in standard deviations.
        objective: of the model.
        trust: of the model.

    Returns:
        for classes the score by its metric's name, `ece_before` and `ece` (after calibration),
        `coverage` and `set_size`; for numbers `rmse`, `mae` and `spearman` in the unit of the
        target, `coverage` and `width`. None where a number cannot be had.
    """
    if isinstance(objective, Squared):
        found = _of_numbers(logits, targets, objective, trust)
    else:
        found = _of_classes(logits, targets, objective, trust)
    return {name: value if isfinite(value) else None for name, value in found.items()}


def _of_numbers(
    logits: Tensor, targets: Tensor, objective: Squared, trust: Trust
) -> dict[str, float]:
    y, q = objective.values(targets), objective.values(logits)
    widths = 2 * trust.limits * torch.tensor(objective.std)
    return {
        "rmse": -objective.score(logits, targets),
        "mae": mean_absolute_error(y, q),
        "spearman": rank_correlation(y, q),
        "coverage": interval_coverage(logits, targets, trust.limits),
        "width": widths.mean().item(),
    }


def _of_classes(
    logits: Tensor, targets: Tensor, objective: Multilabel, trust: Trust
) -> dict[str, float]:
    p = trust.values(logits, objective)
    found = set_coverage(trust.sets(logits, objective), targets)
    return {
        objective.metric: objective.score(logits, targets),
        "ece_before": expected_calibration_error(logits.double().sigmoid(), targets),
        "ece": expected_calibration_error(p, targets),
        "coverage": found.share,
        "set_size": found.size,
    }
