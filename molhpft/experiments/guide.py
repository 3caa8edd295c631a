"""Rules of the user guide (Ren et al., 2023, section 5.1): what a probe shows, and what it means.

Where the guide gives a number, the threshold is that number; where it gives a word, the threshold
is our reading of it, and its comment says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from molhpft.experiments.folder import Json
from molhpft.experiments.tables import score_name, show

# "HP training accuracy reaches 100 %": the last percent is left to wrong labels
SATURATED = 0.99
# "too little energy": our reading, a tenth of what the random head has
GONE = 0.1
# "HP training accuracy below 50 %"; ROC-AUC begins at 50 %, and half-way from there is our reading
POOR = {"accuracy": 0.5, "miou": 0.5, "ap": 0.5, "rocauc": 0.75}
# a head that fits poorly also keeps its energy: our reading, more than half of it
LEFT = 0.5
# a probe whose second half still takes this share of the energy says little of where it ends: ours
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
        return self.energies[self.longest] / self.energies[0] if self.energies[0] else 0.0

    @property
    def still_falls(self) -> bool:
        """Whether the second half of the probe took much energy, so that more epochs take more."""
        halfway = max(tau for tau in self.energies if tau <= self.longest / 2)
        return self.energies[halfway] > (1 + FALLS) * self.energies[self.longest]

    @property
    def saturation(self) -> int | None:
        """The first tau looked at whose head fits the training split; None where none does."""
        if self.metric not in POOR:
            return None
        return next((t for t, seen in self.looks.items() if seen["train"] >= SATURATED), None)


def has_too_little_energy(trail: Trail) -> str | None:
    """Why probing to the end leaves nothing to adapt features with; None if it does not.

    The guide answers with a smaller tau, or label smoothing while probing (lsHP).
    """
    if trail.metric not in POOR:
        return None
    if trail.saturation is not None:
        return (
            f"the probed head reaches {score_name(trail.metric)} "
            f"{show(SATURATED, trail.metric)} on its training split by "
            f"tau {trail.saturation}"
        )
    if trail.left <= GONE:
        return f"tau {trail.longest} leaves {trail.left:.0%} of the random head's energy"
    return None


def fits_too_little(trail: Trail) -> str | None:
    """Why a linear head cannot give tiny energy here; None if it can, or might in more epochs.

    The guide answers with an MLP head.
    """
    train = trail.looks[trail.longest]["train"]
    if trail.metric not in POOR or train >= POOR[trail.metric]:
        return None
    if trail.left <= LEFT or trail.still_falls:
        return None
    return (
        f"after tau {trail.longest} the head has only {score_name(trail.metric)} "
        f"{show(train, trail.metric)} on its training "
        f"split and still {trail.left:.0%} of the random head's energy"
    )
