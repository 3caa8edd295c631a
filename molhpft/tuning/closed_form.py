"""Loss and slope of many heads at once, written down instead of recorded.

Every objective here has the slope `p - y` in its logits, up to the averaging constant. What
labels and smoothing contribute is known before training begins, so a step only has to compute `p`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.measured import measured
from molhpft.core.objectives import Multiclass, Multilabel, Objective, Squared


@dataclass(frozen=True)
class Labels:
    """What the k heads that read the same rows are taught.

    Attributes:
        y: labels by every smoothing that some head has, (s, t, n), 0 where unmeasured.
        which: the smoothing of each of the k heads, numbers of rows of `y`.
        measured: 1 where there is a label, else 0; (t, n), or (1, n) for classes.
        predictions: `p` of logits (..., t, n).
        losses: of logits and `y`, an entry for each of `measured`.
    """

    y: Tensor
    which: tuple[int, ...]
    measured: Tensor
    predictions: Callable[[Tensor], Tensor]
    losses: Callable[[Tensor, Tensor], Tensor]


def has_closed_form(objective: Objective, targets: Tensor) -> bool:
    """Whether `labels` knows the objective, and targets are a row an example."""
    return type(objective) in _FORMS and targets.ndim == (1 if _by_class(objective) else 2)


def labels(
    objective: Objective, targets: Tensor, *, outputs: int, smoothing: Sequence[float]
) -> Labels:
    """Labels of every row, for heads that differ in smoothing.

    Args:
        objective: one that `has_closed_form`.
        targets: (n, t), or class ids (n,).
        outputs: number of logits.
        smoothing: one number a head.

    Raises:
        ValueError: labels cannot be smoothed (regression).
    """
    predictions, losses = _FORMS[type(objective)]
    mask = _measured(objective, targets)
    labelled = mask.any(1)
    amounts = list(dict.fromkeys(smoothing))
    rows = [objective.smoothed(s).labels(targets, outputs=outputs) for s in amounts]
    y = torch.zeros(len(rows), len(targets), outputs, dtype=rows[0].dtype, device=targets.device)
    y[:, labelled] = torch.stack(rows).nan_to_num(0.0)
    which = tuple(amounts.index(s) for s in smoothing)
    return Labels(y.mT.contiguous(), which, mask.to(y).T.contiguous(), predictions, losses)


def _by_class(objective: Objective) -> bool:
    return isinstance(objective, Multiclass)


def _measured(objective: Objective, targets: Tensor) -> Tensor:
    if isinstance(objective, Multiclass):
        return measured(targets, ignore=objective.ignore)[:, None]
    return measured(targets)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-2)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    # y sums to 1: smoothed or not, the cross-entropy is this
    return logits.logsumexp(-2, keepdim=True) - (y * logits).sum(-2, keepdim=True)


def _binary_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none")


def _itself(logits: Tensor) -> Tensor:
    return logits


def _half_square(logits: Tensor, y: Tensor) -> Tensor:
    return (logits - y).square() / 2


_Form = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
_FORMS: dict[type, _Form] = {
    Multilabel: (torch.sigmoid, _binary_cross_entropy),
    Multiclass: (_softmax, _cross_entropy),
    Squared: (_itself, _half_square),
}
