"""How far a model's answers can be trusted: calibration, sets of labels, nearness to training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.fingerprints import unpacked
from molhpft.domains.molecules.similarity import Neighbours
from molhpft.experiments.folder import Json
from molhpft.measure.calibration import (
    Calibration,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    from_tensors,
    uncalibrated,
)
from molhpft.measure.conformal import fit_sets, fit_widths, sets

CalibrationName = Literal["platt", "temperature", "isotonic", "none"]
_FITS: dict[str, Callable[[Tensor, Tensor], Calibration]] = {
    "platt": fit_platt,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
}
_CALIBRATION = "calibration."


@dataclass(frozen=True)
class Trust:
    """What was learned about a network's answers from the validation split.

    Attributes:
        calibration: from logits to probabilities; None for numbers.
        limits: for classes (t, 2), the largest 1 - p at which 0 and 1 are in the set; for numbers
            (t,), half the width of the interval, in standard deviations of the target.
        level: share of molecules whose label is to be in its set.
        prints: fingerprints of the training molecules, eight bits a byte, uint8 (m, 256).
        near: similarity below which a molecule is outside the applicability domain.
    """

    calibration: Calibration | None
    limits: Tensor
    level: float
    prints: NDArray[np.uint8]
    near: float

    @cached_property
    def neighbours(self) -> Neighbours:
        """The training molecules."""
        return Neighbours(unpacked(self.prints))

    def values(self, logits: Tensor, objective: Multilabel | Squared) -> Tensor:
        """Probabilities, or numbers in their own unit, float64 (n, t)."""
        if isinstance(objective, Squared):
            return objective.values(logits)
        return _probabilities(self.calibration, logits)

    def sets(self, logits: Tensor, objective: Multilabel | Squared) -> Tensor:
        """What each label may be, (n, t, 2), as `Prediction.sets` has it."""
        if isinstance(objective, Squared):
            ends = (objective.values(logits + sign * self.limits) for sign in (-1, 1))
            return torch.stack(list(ends), 2)
        return sets(_probabilities(self.calibration, logits), self.limits)

    def tensors(self) -> dict[str, Tensor]:
        """What `trust_from` needs to give the same again, with numbers beside it."""
        own = self.calibration.to_tensors() if self.calibration else {}
        fitted = {f"{_CALIBRATION}{name}": tensor for name, tensor in own.items()}
        return {**fitted, "limits": self.limits, "prints": torch.from_numpy(self.prints)}

    def about(self) -> Json:
        """The rest of what `trust_from` needs."""
        name = self.calibration.name if self.calibration else None
        return {"calibration": name, "level": self.level, "near": self.near}


def trust_from(tensors: Mapping[str, Tensor], about: Json) -> Trust:
    """What gave these `tensors` and that `about`."""
    own = {
        k.removeprefix(_CALIBRATION): t for k, t in tensors.items() if k.startswith(_CALIBRATION)
    }
    calibration = from_tensors(about["calibration"], own) if about["calibration"] else None
    prints = tensors["prints"].numpy()
    return Trust(calibration, tensors["limits"], about["level"], prints, about["near"])


def fit_trust(
    logits: Tensor,
    targets: Tensor,
    objective: Multilabel | Squared,
    *,
    calibration: CalibrationName,
    level: float,
    prints: NDArray[np.uint8],
) -> Trust:
    """Calibration and sets from the validation split.

    Args:
        logits: of its molecules, (n, t).
        targets: (n, t), NaN where unmeasured.
        objective: of the model.
        calibration: how probabilities are repaired; "none" takes them as they are.
        level: share of molecules whose label is to be in its set.
        prints: fingerprints of the training molecules, uint8 (m, 256).

    Raises:
        ValueError: the level does not lie between 0 and 1.
    """
    near = Neighbours(unpacked(prints)).typical()
    if isinstance(objective, Squared):
        widths = fit_widths(logits.double(), targets.double(), level=level)
        return Trust(None, widths, level, prints, near)
    fitted = _fitted(calibration, logits, targets)
    limits = fit_sets(_probabilities(fitted, logits), targets, level=level)
    return Trust(fitted, limits, level, prints, near)


def _fitted(calibration: CalibrationName, logits: Tensor, targets: Tensor) -> Calibration:
    if calibration == "none":
        return uncalibrated(logits.shape[1])
    return _FITS[calibration](logits, targets)


def _probabilities(calibration: Calibration | None, logits: Tensor) -> Tensor:
    if calibration is None:
        raise ValueError("a model of numbers has no probabilities")
    return calibration.probabilities(logits.double())
