"""Rules of the user guide (Ren et al., 2023, section 5): what a probe shows, and what it means.

Where the guide gives a number, the threshold is that number; where it gives a word, the threshold
is our reading of it, and its comment says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from molhpft.experiments.folder import Json
from molhpft.experiments.tables import score_name, show

Expectation = Literal["strong", "mild", "tiny"]
"""How much a user expects finetuning to change the features: where section 5.1 starts."""

# "HP training accuracy reaches 100 %": the last percent is left to wrong labels
SATURATED = 0.99
# "90 % and more very fast" (the authors' poster); ROC-AUC begins at 50 %, so as far on the way
HIGH = {"accuracy": 0.9, "miou": 0.9, "ap": 0.9, "rocauc": 0.95}
# "very fast": our reading, within this share of the probe
FAST = 0.1
# energies of each expectation, as shares of the random head's: our reading, from the linear theory,
# where adaptation is strong above half of the energy of outputs of 0 and tiny at none
BANDS = {"strong": (0.5, float("inf")), "mild": (0.1, 0.5), "tiny": (0.0, 0.1)}
# "too little energy": our reading, what only tiny adaptation wants
GONE = BANDS["tiny"][1]
# a probe whose second half still takes this share of the energy has not plateaued: our reading
FALLS = 0.1
SMOOTHING = 0.1  # of lsHP, our choice: the paper does not give its own


@dataclass(frozen=True)
class Trail:
    """What was seen along a probe.

    Attributes:
        metric: name of the score.
        energies: tau to energy (AIE), from tau 0 on, rising in tau.
        looks: some of these taus, the largest among them, to `aie`, `train` and `valid` score.
    """

    metric: str
    energies: Mapping[int, float]
    looks: Mapping[int, Json]

    @property
    def longest(self) -> int:
        """The largest tau."""
        return max(self.energies)

    @property
    def left(self) -> float:
        """Share of the random head's energy that probing to the end leaves, in [0, 1] or above."""
        return self.share(self.longest)

    @property
    def still_falls(self) -> bool:
        """Whether the second half of the probe took much energy, so that more epochs take more."""
        halfway = max(tau for tau in self.energies if tau <= self.longest / 2)
        return self.energies[halfway] > (1 + FALLS) * self.energies[self.longest]

    @property
    def saturation(self) -> int | None:
        """The first tau looked at whose head fits the training split; None where none does."""
        return self.reached(SATURATED)

    def share(self, tau: int) -> float:
        """Energy at a tau as a share of the random head's."""
        return self.energies[tau] / self.energies[0] if self.energies[0] else 0.0

    def reached(self, score: float) -> int | None:
        """The first tau looked at with this training score; None without one, or for a loss."""
        if self.metric not in HIGH:
            return None
        return next((t for t, seen in self.looks.items() if seen["train"] >= score), None)


def check_expectation(expects: str | None) -> None:
    """Refuse what is no expectation.

    Raises:
        ValueError: it is neither None nor one of the three.
    """
    names = get_args(Expectation)
    if expects is not None and expects not in names:
        raise ValueError(f"the adaptation expected is one of {', '.join(names)}, got {expects!r}")


def wanted_taus(
    trail: Trail, candidates: Sequence[int], expects: Expectation | None
) -> tuple[int, ...]:
    """Those of the candidates whose energy is what the expected adaptation wants.

    Strong adaptation always has tau 0 and tiny adaptation always the longest probe, however little
    or much energy they have; mild adaptation has the candidate nearest to its band where none lies
    in it. Without an expectation all of them are wanted.

    Args:
        trail: what was seen.
        candidates: taus, rising from 0.
        expects: what the user expects; None for no idea.
    """
    if expects is None:
        return tuple(candidates)
    low, high = BANDS[expects]
    ends = {"strong": candidates[0], "tiny": candidates[-1]}
    inside = {tau for tau in candidates if low <= trail.share(tau) <= high}
    inside |= {ends[expects]} if expects in ends else set()
    if not inside:
        inside = {min(candidates, key=lambda tau: _outside(trail.share(tau), low, high))}
    return tuple(sorted(inside))


def has_too_little_energy(trail: Trail) -> str | None:
    """Why probing to the end leaves too little to adapt features with; None if it does not.

    The guide answers with a smaller tau, or label smoothing while probing (lsHP).
    """
    if trail.metric not in HIGH:
        return None
    high = HIGH[trail.metric]
    early, fitted = trail.reached(high), trail.saturation
    if early is not None and early <= max(1, FAST * trail.longest):
        return _reaches(trail, high, early)
    if fitted is not None:
        return _reaches(trail, SATURATED, fitted)
    if trail.left <= GONE:
        return f"tau {trail.longest} leaves {trail.left:.0%} of the random head's energy"
    return None


def plateaus(trail: Trail) -> str | None:
    """Why this head cannot give less energy than it has; None if it can, or might in more epochs.

    The guide answers with an MLP head where less is wanted (sections 5.1 and 5.3).
    """
    if trail.metric not in HIGH or trail.saturation is not None:
        return None
    if trail.left <= GONE or trail.still_falls:
        return None
    train = trail.looks[trail.longest]["train"]
    return (
        f"after tau {trail.longest} energy hardly falls any more: the head has stopped at "
        f"{score_name(trail.metric)} {show(train, trail.metric)} on its training split, with "
        f"{trail.left:.0%} of the random head's energy"
    )


def _reaches(trail: Trail, score: float, tau: int) -> str:
    return (
        f"the probed head reaches {score_name(trail.metric)} {show(score, trail.metric)} on its "
        f"training split by tau {tau} of {trail.longest}"
    )


def _outside(share: float, low: float, high: float) -> float:
    return max(low - share, share - high)
