"""How members answer together, by predictions of molecules that they did not train on.

Lines bring what they say to one scale, and weights say whom to believe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from molhpft.core.objectives import Objective, Squared
from molhpft.measure.uncertainty import fit_platt
from molhpft.tuning.halving import highest

MOST = 20  # times that a member is added


def blend_weights(logits: Sequence[Tensor], score: Callable[[Tensor], float]) -> list[float]:
    """Weights of members whose weighted mean scores best, by greedy selection with replacement.

    Forward selection of Caruana et al. (2004): the member is added that the mean so far gains most
    by, again and again; the weights are those of the best mean on the way. Few additions to a mean
    of few members fit a validation set far less than least squares would.

    >>> y = torch.tensor([0.0, 1.0, 2.0])
    >>> high, low, wrong = y + 1, y - 1, torch.zeros(3)
    >>> blend_weights([high, low, wrong], lambda a: -float((a - y).square().mean()))
    [0.5, 0.5, 0.0]

    Args:
        logits: of each member, (n, t).
        score: of logits (n, t), higher is better.

    Returns:
        a weight for each member; they sum to 1.

    Raises:
        ValueError: there is no member.
    """
    if not logits:
        raise ValueError("a blend needs at least one member, got none")
    counts, total = [0] * len(logits), torch.zeros_like(logits[0])
    best: tuple[float, list[int]] | None = None
    for size in range(1, MOST + 1):
        scores = [score((total + one) / size) for one in logits]
        chosen = highest(scores)
        counts[chosen] += 1
        total = total + logits[chosen]
        # only what is better counts: of equals the smaller blend
        if best is None or scores[chosen] > best[0]:
            best = (scores[chosen], list(counts))
    assert best is not None
    return [count / sum(best[1]) for count in best[1]]


@dataclass(frozen=True, eq=False)
class Line:
    """What a member says of each target, and what that means as a logit.

    A network that was trained for long is too sure of itself, and a Gaussian process says how near
    a molecule is to those of label 1: only on one scale can they be averaged.

    Attributes:
        slope: (t,), positive.
        offset: (t,).
    """

    slope: Tensor
    offset: Tensor

    @classmethod
    def unchanged(cls, outputs: int) -> "Line":
        """What is said of so many targets stays as it is."""
        return cls(torch.ones(outputs), torch.zeros(outputs))

    def __call__(self, outputs: Tensor) -> Tensor:
        """Logits (..., t)."""
        return outputs * self.slope + self.offset

    def after(self, first: "Line") -> "Line":
        """Both in one, another line before this one."""
        return Line(first.slope * self.slope, self(first.offset))


def between(own: Objective, whole: Objective, *, outputs: int) -> Line:
    """From numbers in the standard deviations of one task to those of another; else what is said.

    Args:
        own: objective of the task that was learned.
        whole: objective of the task that is answered.
        outputs: how many there are.
    """
    if not isinstance(own, Squared) or not isinstance(whole, Squared) or not own.std:
        return Line.unchanged(outputs)
    zero = whole.standard(own.values(torch.zeros(1, outputs)))[0]
    one = whole.standard(own.values(torch.ones(1, outputs)))[0]
    return Line((one - zero).float(), zero.float())


_FLATTEST = 4.0  # 1 / (p (1 - p)), how much a logit rises with its probability p, at p = 1/2


def fit_line(
    outputs: Tensor, targets: Tensor, *, classes: bool, rates: Tensor | None = None
) -> Line:
    """Platt's line of a member; numbers are left as they are.

    Where labels cannot say it, since they are of one class or rank the wrong way round, a logit
    stays as it is, and a number that stands for a probability p becomes
    `logit(rate) + 4 (p - rate)`.

    Args:
        outputs: (n, t), for molecules that the member did not train on: logits, or numbers around
            `rates` where these are given.
        targets: (n, t), NaN where unmeasured.
        classes: whether targets are 0 and 1; otherwise they are numbers.
        rates: shares of label 1, between 0 and 1, (t,), of a member that learned labels as numbers;
            NaN of targets without labels, whose outputs are logits of 0 already.
    """
    t = outputs.shape[1]
    if not classes:
        return Line.unchanged(t)
    slope, offset = torch.ones(t).double(), torch.zeros(t).double()
    if rates is not None:
        learned, rates = ~rates.isnan(), rates.double()
        slope = slope.where(~learned, _FLATTEST)
        offset = (rates.logit() - _FLATTEST * rates).where(learned, 0)
    fitted = fit_platt(outputs.double() * slope + offset, targets)
    slopes, offsets = fitted.slopes * slope, fitted.slopes * offset + fitted.offsets
    return Line(slopes.float(), offsets.float())
