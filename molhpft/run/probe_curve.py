"""What a probe shows: energy and scores along tau, and the rules that they are read by.

The rules are those of the user guide (Ren et al., 2023, section 5). Where the guide gives a number,
the threshold is that number; where it gives a word, the threshold is our reading of it, and its
comment says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from molhpft.core.metrics import score_name, show
from molhpft.domains.files import Json

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
class ProbeCurve:
    """What was seen along a probe.

    Attributes:
        metric: name of the score.
        energies: tau to energy (AIE), from tau 0 on, rising in tau.
        rows: some of these taus, the largest among them, to `aie`, `train` and `valid` score.
    """

    metric: str
    energies: Mapping[int, float]
    rows: Mapping[int, Json]

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
        return next((t for t, seen in self.rows.items() if seen["train"] >= score), None)


def check_expectation(expects: str | None) -> None:
    """Refuse what is no expectation.

    Raises:
        ValueError: it is neither None nor one of the three.
    """
    names = get_args(Expectation)
    if expects is not None and expects not in names:
        raise ValueError(f"the adaptation expected is one of {', '.join(names)}, got {expects!r}")


def wanted_taus(
    curve: ProbeCurve, candidates: Sequence[int], expects: Expectation | None
) -> tuple[int, ...]:
    """Those of the candidates whose energy is what the expected adaptation wants.

    Strong adaptation always has tau 0 and tiny adaptation always the longest probe, however little
    or much energy they have; mild adaptation has the candidate nearest to its band where none lies
    in it. Without an expectation all of them are wanted.

    Args:
        curve: what was seen.
        candidates: taus, rising from 0.
        expects: what the user expects; None for no idea.
    """
    if expects is None:
        return tuple(candidates)
    low, high = BANDS[expects]
    ends = {"strong": candidates[0], "tiny": candidates[-1]}
    inside = {tau for tau in candidates if low <= curve.share(tau) <= high}
    inside |= {ends[expects]} if expects in ends else set()
    if not inside:
        inside = {min(candidates, key=lambda tau: _outside(curve.share(tau), low, high))}
    return tuple(sorted(inside))


def has_too_little_energy(curve: ProbeCurve) -> str | None:
    """Why probing to the end leaves too little to adapt features with; None if it does not.

    The guide answers with a smaller tau, or label smoothing while probing (lsHP).
    """
    if curve.metric not in HIGH:
        return None
    high = HIGH[curve.metric]
    early, fitted = curve.reached(high), curve.saturation
    if early is not None and early <= max(1, FAST * curve.longest):
        return _reaches(curve, high, early)
    if fitted is not None:
        return _reaches(curve, SATURATED, fitted)
    if curve.left <= GONE:
        return f"tau {curve.longest} leaves {curve.left:.0%} of the random head's energy"
    return None


def plateaus(curve: ProbeCurve) -> str | None:
    """Why this head cannot give less energy than it has; None if it can, or might in more epochs.

    The guide answers with an MLP head where less is wanted (sections 5.1 and 5.3).
    """
    if curve.metric not in HIGH or curve.saturation is not None:
        return None
    if curve.left <= GONE or curve.still_falls:
        return None
    train = curve.rows[curve.longest]["train"]
    return (
        f"after tau {curve.longest} energy hardly falls any more: the head has stopped at "
        f"{score_name(curve.metric)} {show(train, curve.metric)} on its training split, with "
        f"{curve.left:.0%} of the random head's energy"
    )


def _reaches(curve: ProbeCurve, score: float, tau: int) -> str:
    return (
        f"the probed head reaches {score_name(curve.metric)} {show(score, curve.metric)} on its "
        f"training split by tau {tau} of {curve.longest}"
    )


def _outside(share: float, low: float, high: float) -> float:
    return max(low - share, share - high)
