"""Which tau to finetune from, for a third of what finetuning from several of them would cost.

Candidates lie evenly in energy along one probe, where taus lie densely at first and far apart at
last. They are finetuned a little, those that validate best go on from where they were, and so on:
successive halving (Jamieson and Talwalkar, 2016). Candidates are paused, not run on a schedule of
their own, so that the last one left ends with what finetuning from it alone ends with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import TypeVar

from molhpft.core.metrics import comparable

C = TypeVar("C")

CANDIDATES = 6  # as many as a config lists when it does not say; finetuning from all is the grid
SHARE = 3  # the grid's epochs over the budget's
_DENSE = 32  # tau up to which every epoch is looked at; beyond it, one in ten of those passed
_RATIO = 1.1


def ranked(scores: Sequence[float]) -> list[int]:
    """Indices of the scores, highest first, ties in their order; NaN comes last."""
    return sorted(range(len(scores)), key=lambda i: -comparable(scores[i]))


def highest(scores: Sequence[float]) -> int:
    """Index of the highest score, on ties the first; NaN is never the highest.

    Raises:
        ValueError: no score is finite.
    """
    best = next(iter(ranked(scores)), None)
    if best is None or not isfinite(scores[best]):
        raise ValueError(
            f"nothing to choose among: {len(scores)} scores, none of them finite, as those "
            "of predictions that are not finite are not; try a lower learning rate"
        )
    return best


@dataclass(frozen=True)
class Round:
    """One round of halving.

    Attributes:
        size: candidates that are finetuned on.
        until: epochs of finetuning that each of them has behind it at the end of the round.
    """

    size: int
    until: int


def watched(longest: int) -> tuple[int, ...]:
    """Epochs at which the heads along a probe are looked at, 0 and `longest` among them."""
    taus = list(range(min(longest, _DENSE) + 1))
    while taus[-1] < longest:
        taus.append(min(longest, ceil(taus[-1] * _RATIO)))
    return tuple(taus)


def spaced(energies: Mapping[int, float], count: int) -> tuple[int, ...]:
    """Taus from 0 on between which energy falls by equal parts.

    Where one epoch takes more than its part, what is left is parted anew, so that data on which
    the first epoch does most of the work still have candidates afterwards.

    Args:
        energies: tau to energy, rising in tau and with 0 among them.
        count: most taus to give.

    Returns:
        rising and each once, fewer than `count` where energy falls in fewer steps.

    Raises:
        ValueError: `count` is below 1, or tau 0 is not first.
    """
    if count < 1 or next(iter(energies), None) != 0:
        raise ValueError(f"candidates are at least 1, from tau 0 on; got {count} of {[*energies]}")
    lowest, taus = min(energies.values()), [0]
    for left in range(count - 1, 0, -1):
        now = energies[taus[-1]]
        # the last part ends at the lowest energy itself, whatever rounding makes of the sum
        goal = now - (now - lowest) / left if left > 1 else lowest
        # half of the least number above 0 is 0, which leaves the goal where it was
        falls = {tau: energy for tau, energy in energies.items() if energy < now}
        below = [tau for tau, energy in falls.items() if tau > taus[-1] and energy <= goal]
        if not below or now <= lowest:
            break
        taus.append(below[0])
    return tuple(taus)


def budget(epochs: int) -> int:
    """Most epochs of finetuning in all, for a method that finetunes for `epochs`."""
    return CANDIDATES * epochs // SHARE


def affordable(epochs: int) -> int:
    """Most candidates that the budget can finetune for an epoch each, the chosen one to its end."""
    return min(CANDIDATES, 1 + budget(epochs) - epochs)


def rounds(candidates: int, *, epochs: int) -> tuple[Round, ...]:
    """Rounds that halve `candidates` within the budget; none for a single one.

    Every round but the last doubles the epochs that survivors have behind them; the last one
    spends what the budget has left. Where it does not reach for all rounds, later ones are left
    out, and the one before them chooses among more.

    Args:
        candidates: to begin with, at most `affordable(epochs)`.
        epochs: of the whole finetuning, which the chosen one goes on to.

    Raises:
        ValueError: there are none, or more than is affordable.
    """
    if not 1 <= candidates <= affordable(epochs):
        raise ValueError(
            f"{budget(epochs)} epochs of finetuning choose among 1 to {affordable(epochs)} "
            f"candidates when each is finetuned for {epochs}; got {candidates}"
        )
    spare, sizes, size = budget(epochs) - epochs, [], candidates
    while size > 1:
        sizes.append(size)
        size = ceil(size / 2)
    while sizes and _extra(sizes, _doubling(1, sizes)) > spare:
        sizes.pop()
    if not sizes:
        return ()
    first = 1
    while _extra(sizes, _doubling(first + 1, sizes)) <= spare:
        first += 1
    untils = _doubling(first, sizes)
    untils[-1] += (spare - _extra(sizes, untils)) // (sizes[-1] - 1)
    return tuple(Round(size, until) for size, until in zip(sizes, untils, strict=True))


def survivors(candidates: Sequence[C], scores: Sequence[float], count: int) -> list[C]:
    """The `count` candidates of the highest scores, in their order; NaN is worst.

    Raises:
        ValueError: no score is finite.
    """
    highest(scores)  # refuses a round in which nothing is left to choose by
    return [candidates[i] for i in sorted(ranked(scores)[:count])]


def _doubling(first: int, sizes: Sequence[int]) -> list[int]:
    return [first * 2**number for number in range(len(sizes))]


def _extra(sizes: Sequence[int], untils: Sequence[int]) -> int:
    """Epochs of those that are not chosen; what the chosen one has behind it is not lost."""
    steps = (until - before for until, before in zip(untils, (0, *untils), strict=False))
    return sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
