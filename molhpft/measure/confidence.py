"""p(correct): the probability that a network gives to the right answer, example by example."""

import torch
from torch import Tensor

from molhpft.core.objectives import Objective
from molhpft.core.snapshot import Predictions


def correct_probability(predictions: Predictions, objective: Objective) -> Tensor:
    """Probability of the right answer, `1 - |p - y|` at every label that has one.

    Ren et al. (2023), Figure 2, shows it for the training split after each tau. Rows stand for the
    same units in every snapshot of a split, so that units can be followed from tau to tau.

    Args:
        predictions: of any split.
        objective: the task's; its label smoothing is not applied.

    Returns:
        values in [0, 1]: for class ids p_y of every labelled unit, (m,); for independent labels
        (m, t) over the examples that have any, NaN where unmeasured.

    Raises:
        ValueError: the labels are not yes or no, or the predictions are no probabilities.
    """
    objective = objective.smoothed(0.0)
    residual = objective.residual(predictions.logits, predictions.targets)
    y = objective.labels(predictions.targets, outputs=residual.shape[1]).to(residual)
    measured = ~y.isnan()
    _check(residual[measured], y[measured])
    if predictions.targets.is_floating_point():
        return torch.where(measured, 1 - residual.abs(), y)
    # softmax: the entries of the other classes say how they share what is left, not how right it is
    return 1 - residual.gather(1, y.argmax(1, keepdim=True)).squeeze(1).abs()


def _check(residual: Tensor, y: Tensor) -> None:
    if ((y != 0) & (y != 1)).any():
        strange = y[(y != 0) & (y != 1)][0].item()
        raise ValueError(f"p(correct) needs labels 0 or 1, got {strange:g}; a regression has none")
    p = residual + y
    if ((p < 0) | (p > 1)).any():
        strange = p[(p < 0) | (p > 1)][0].item()
        raise ValueError(
            f"p(correct) needs predictions in [0, 1], got {strange:g}; a regression has none"
        )
