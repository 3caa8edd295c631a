"""Where a label was measured, and what follows where a prediction is not finite.

A missing label and a broken prediction are opposites. Whatever stands behind a missing label
changes no loss, score or energy. Where a label was measured, a prediction that is NaN or infinite
makes all of them NaN: it is never left out with the missing labels, and never the best.
"""

from math import inf, isnan

import torch
from torch import Tensor

IGNORE = -100


def measured(targets: Tensor, *, ignore: int = IGNORE) -> Tensor:
    """Where there is a label, bool, the shape of the targets.

    Args:
        targets: real numbers, NaN where unmeasured; or class ids.
        ignore: the class id of an unlabelled unit.
    """
    return ~targets.isnan() if targets.is_floating_point() else targets != ignore


def finite_or_nan(predictions: Tensor) -> Tensor:
    """The predictions, NaN where they are infinite.

    Of an infinite logit a probability would be 0 or 1, and its label perhaps perfectly met.
    """
    return torch.where(predictions.isfinite(), predictions, torch.nan)


def comparable(score: float | None) -> float:
    """A score to choose the highest by: NaN, of which a file makes None, is below all others."""
    return -inf if score is None or isnan(score) else score
