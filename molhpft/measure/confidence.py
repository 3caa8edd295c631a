"""p(correct): the probability that a network gives to the right answer, example by example."""

from torch import Tensor

from molhpft.core.measured import measured
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
        values in [0, 1] of every measured label, (m,), in the order of the targets: for class ids
        p_y, for independent labels p or 1 - p. NaN where a prediction is not finite.

    Raises:
        ValueError: it is a regression.
    """
    if not objective.has_classes:
        raise ValueError("p(correct) is a probability of classes; a regression has none")
    objective = objective.smoothed(0.0)
    residual = objective.residual(predictions.logits, predictions.targets)
    y = objective.labels(predictions.targets, outputs=residual.shape[1]).to(residual)
    if predictions.targets.is_floating_point():
        return 1 - residual.abs()[measured(y)]
    # softmax: the entries of the other classes say how they share what is left, not how right it is
    return 1 - residual.gather(1, y.argmax(1, keepdim=True)).squeeze(1).abs()
