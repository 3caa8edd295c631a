"""Which members answer together, and with which weights, by predictions they did not train on."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from molhpft.tuning.halving import highest

MOST = 20  # times that a member is added


def blend_weights(
    logits: Sequence[Tensor], score: Callable[[Tensor], float], *, most: int = MOST
) -> list[float]:
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
        most: how often a member is added.

    Returns:
        a weight for each member; they sum to 1.

    Raises:
        ValueError: there is no member.
    """
    if not logits:
        raise ValueError("a blend needs at least one member, got none")
    counts, total = [0] * len(logits), torch.zeros_like(logits[0])
    best: tuple[float, list[int]] | None = None
    for size in range(1, most + 1):
        scores = [score((total + one) / size) for one in logits]
        chosen = highest(scores)
        counts[chosen] += 1
        total = total + logits[chosen]
        # only what is better counts: of equals the smaller blend
        if best is None or scores[chosen] > best[0]:
            best = (scores[chosen], list(counts))
    assert best is not None
    return [count / sum(best[1]) for count in best[1]]
