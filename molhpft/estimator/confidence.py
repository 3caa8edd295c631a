"""How far a model's answers can be trusted: calibration, sets of labels, nearness to training.

What a model says of molecules, and how far each answer can be trusted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.fingerprints import Neighbours, unpack_bits
from molhpft.domains.weights import strip_prefix
from molhpft.measure.uncertainty import (
    Calibration,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    from_tensors,
    interval_widths,
    prediction_sets,
    set_thresholds,
    uncalibrated,
)

CalibrationName = Literal["platt", "temperature", "isotonic", "none"]
_FITS: dict[str, Callable[[Tensor, Tensor], Calibration]] = {
    "platt": fit_platt,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
}
_CALIBRATION = "calibration."
_STEPS = 100  # of similarity, from 0 to 1, for each of which there are thresholds
_BANDWIDTH = 0.2  # of similarity: how fast calibration molecules nearer to training lose weight


@dataclass(frozen=True)
class HeldOut:
    """What the networks say of a split they were not trained on.

    Attributes:
        logits: averaged over members, (n, t).
        targets: (n, t), NaN where unmeasured; of a regression in standard deviations.
        similarity: to the nearest training molecule, (n,) in [0, 1].
    """

    logits: Tensor
    targets: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class Trust:
    """What was learned about a network's answers from molecules that it was not trained on.

    Attributes:
        calibration: from logits to probabilities; None for numbers.
        limits: thresholds for a molecule whose similarity to training is k / 100; for classes
            (101, t, 2), the largest nonconformity at which 0 and 1 are in the set; for numbers
            (101, t), half the width of the interval, in standard deviations of the target.
            Infinite where calibration molecules are too few to rule anything out.
        level: share of molecules whose label is to be in its set.
        prints: fingerprints of the training molecules, eight bits a byte, uint8 (m, 256).
        near: similarity below which a molecule is outside the applicability domain.
        counts: measured calibration labels, for classes (t, 2), for numbers (t,).
    """

    calibration: Calibration | None
    limits: Tensor
    level: float
    prints: NDArray[np.uint8]
    near: float
    counts: Tensor

    @cached_property
    def neighbours(self) -> Neighbours:
        """The training molecules."""
        return Neighbours(unpack_bits(self.prints))

    def values(self, logits: Tensor, objective: Multilabel | Squared) -> Tensor:
        """Probabilities, or numbers in their own unit, float64 (n, t)."""
        if isinstance(objective, Squared):
            return objective.values(logits)
        return _probabilities(self.calibration, logits)

    def thresholds(self, similarity: Tensor) -> Tensor:
        """Each molecule's own `limits`, (n, t, 2) or (n, t).

        Args:
            similarity: to the nearest training molecule, (n,). Outside the applicability domain
                nothing is ruled out: the limits are infinite.
        """
        limits = self.limits[(similarity.double() * _STEPS).round().long()]
        outside = (similarity < self.near).reshape(-1, *[1] * (limits.dim() - 1))
        return limits.masked_fill(outside, torch.inf)

    def sets(self, logits: Tensor, objective: Multilabel | Squared, similarity: Tensor) -> Tensor:
        """What each label may be, (n, t, 2), as `Prediction.sets` has it.

        Args:
            logits: (n, t).
            objective: of the model.
            similarity: as in `thresholds`.
        """
        limits = self.thresholds(similarity)
        if isinstance(objective, Squared):
            ends = (objective.values(logits + sign * limits) for sign in (-1, 1))
            return torch.stack(list(ends), 2)
        return prediction_sets(logits, limits)

    @property
    def unbounded(self) -> Tensor:
        """For which tasks and labels calibration molecules are too few at any similarity.

        Bool, (t, 2) or (t,); such a label is in every set, such an interval has no end.
        """
        return self.limits[-1].isinf()

    def tensors(self) -> dict[str, Tensor]:
        """What `trust_from` needs to give the same again, with numbers beside it."""
        own = self.calibration.to_tensors() if self.calibration else {}
        fitted = {f"{_CALIBRATION}{name}": tensor for name, tensor in own.items()}
        prints = torch.from_numpy(self.prints)
        return {**fitted, "limits": self.limits, "prints": prints, "counts": self.counts}

    def about(self) -> Json:
        """The rest of what `trust_from` needs."""
        name = self.calibration.name if self.calibration else None
        return {"calibration": name, "level": self.level, "near": self.near}


def trust_from(tensors: Mapping[str, Tensor], about: Json) -> Trust:
    """What gave these `tensors` and that `about`."""
    own = strip_prefix(tensors, _CALIBRATION)
    calibration = from_tensors(about["calibration"], own) if about["calibration"] else None
    return Trust(
        calibration=calibration,
        limits=tensors["limits"],
        level=about["level"],
        prints=tensors["prints"].numpy(),
        near=about["near"],
        counts=tensors["counts"],
    )


def fit_trust(
    valid: HeldOut,
    aside: HeldOut | None,
    objective: Multilabel | Squared,
    *,
    calibration: CalibrationName,
    level: float,
    prints: NDArray[np.uint8],
) -> Trust:
    """Sets from the calibration split, probabilities from this and the validation split.

    Sets hang on the order of logits alone, which no calibration of probabilities changes: that it
    is fitted to the same molecules costs the promise nothing.

    Args:
        valid: the validation split, by which network, epoch and tau were chosen.
        aside: the calibration split, by which nothing was; None where there is none, and nothing
            is ruled out.
        objective: of the model.
        calibration: how probabilities are repaired; "none" takes them as they are.
        level: share of molecules whose label is to be in its set.
        prints: fingerprints of the training molecules, uint8 (m, 256).

    Raises:
        ValueError: the level does not lie between 0 and 1.
    """
    own = aside or HeldOut(*(part[:0] for part in (valid.logits, valid.targets, valid.similarity)))
    weights = _weights(own.similarity)
    measured = ~own.targets.isnan()
    fitted: Calibration | None = None
    if isinstance(objective, Squared):
        y = own.targets.double()
        limits = interval_widths(own.logits.double(), y, target_coverage=level, weights=weights)
        counts = measured.sum(0)
    else:
        limits = set_thresholds(own.logits, own.targets, target_coverage=level, weights=weights)
        counts = torch.stack([(own.targets == label).sum(0) for label in (0, 1)], dim=-1)
        held = [
            torch.cat([getattr(one, of) for one in (valid, own)]) for of in ("logits", "targets")
        ]
        fitted = _fitted(calibration, *held)
    near = Neighbours(unpack_bits(prints)).typical()
    return Trust(fitted, limits, level, prints, near, counts)


def _weights(similarity: Tensor) -> Tensor:
    """Weights of n calibration molecules for new ones of each similarity, (101, n).

    Those that are less near to training than the new one weigh 1, and those that are nearer the
    less the nearer they are: the network errs less on them, and would promise too much.
    """
    asked = torch.linspace(0, 1, _STEPS + 1, dtype=torch.float64)
    nearer = (similarity.double() - asked[:, None]).clamp(min=0)
    return (-(nearer / _BANDWIDTH).square() / 2).exp()


def _fitted(calibration: CalibrationName, logits: Tensor, targets: Tensor) -> Calibration:
    if calibration == "none":
        return uncalibrated(logits.shape[1])
    return _FITS[calibration](logits, targets)


def _probabilities(calibration: Calibration | None, logits: Tensor) -> Tensor:
    if calibration is None:
        raise ValueError("a model of numbers has no probabilities")
    return calibration.probabilities(logits.double())


@dataclass(frozen=True)
class Prediction:
    """Answers for n molecules and t targets; NaN, or False, for molecules that cannot be read.

    Attributes:
        readable: bool (n,), whether the SMILES is that of a molecule.
        values: float64 (n, t), calibrated probabilities, or numbers in the unit of the target.
        spread: float64 (n, t), standard deviation over the members of the ensemble, in the unit of
            `values`; 0 with a single member.
        sets: what the label may be at the model's level: for classes bool (n, t, 2), whether 0 and
            whether 1; for numbers float64 (n, t, 2), the ends of an interval. Outside the
            applicability domain, and where calibration molecules are too few, nothing is ruled
            out: both classes, or infinite ends.
        similarity: float32 (n,), Tanimoto similarity to the nearest training molecule.
        nearest: int64 (n,), number of that molecule in `Model.training_smiles`.
        in_domain: bool (n,), whether it is as near as training molecules are to one another: the
            applicability domain.
    """

    readable: Tensor
    values: Tensor
    spread: Tensor
    sets: Tensor
    similarity: Tensor
    nearest: Tensor
    in_domain: Tensor

    def __len__(self) -> int:
        return len(self.readable)
