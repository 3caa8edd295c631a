"""Calibrate a model on molecules it was not trained on, and score its predictions of others.

Three things are fitted: a calibration of probabilities, prediction sets (split conformal
prediction), and the applicability domain by similarity to the training molecules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.metrics import mean_absolute_error, rank_correlation
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.fingerprints import Neighbours, unpack_bits
from molhpft.domains.weights import strip_prefix
from molhpft.estimator.fold_scores import Score, ranking_score
from molhpft.estimator.held_out import HeldOut
from molhpft.measure.error_scale import ErrorScale, cross_fitted_scale, fit_error_scale
from molhpft.measure.uncertainty import (
    Calibration,
    expected_calibration_error,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    fit_venn_abers,
    from_tensors,
    interval_coverage,
    interval_widths,
    log_loss,
    prediction_sets,
    set_coverage,
    set_thresholds,
    uncalibrated,
)

CalibrationName = Literal["auto", "platt", "venn_abers", "temperature", "isotonic", "none"]
_FITS: dict[str, Callable[[Tensor, Tensor], Calibration]] = {
    "platt": fit_platt,
    "venn_abers": fit_venn_abers,
    "temperature": fit_temperature,
    "isotonic": fit_isotonic,
    "none": lambda logits, _: uncalibrated(logits.shape[1]),
}
_AUTO = ("platt", "venn_abers")
"""What "auto" chooses from; the first one answers unless the other is better."""

_CALIBRATION, _SCALE = "calibration.", "error_scale."
_COMMON = ("logits", "targets", "similarity")
_STEPS = 100  # of similarity, from 0 to 1; there are thresholds for each
_BANDWIDTH = 0.2  # of similarity: how fast calibration molecules nearer to training lose weight


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Calibration, prediction sets and applicability domain of a model.

    Attributes:
        calibration: from logits to probabilities; None for a regression.
        limits: thresholds for a molecule whose similarity to training is k / 100. For classes
            (101, t, 2), the largest nonconformity at which 0 and 1 are in the set; for a regression
            (101, t), half the width of the interval of an average molecule, in standard deviations
            of the target.
            Infinite where calibration molecules are too few to rule anything out.
        target_coverage: share of molecules whose label should be in its prediction set.
        fingerprints: of the training molecules, eight bits a byte, uint8 (m, 256).
        domain_threshold: similarity below which a molecule is outside the applicability domain.
        label_counts: measured calibration labels, (t, 2) for classes, (t,) for a regression.
        error_scale: how much wider an interval is than that of an average molecule; None of
            classes.
        log_losses: of the calibrations that were chosen from, each by fits to other molecules.
    """

    calibration: Calibration | None
    limits: Tensor
    target_coverage: float
    fingerprints: NDArray[np.uint8]
    domain_threshold: float
    label_counts: Tensor
    error_scale: ErrorScale | None = None
    log_losses: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The training molecules, to search for the nearest."""
        return Neighbours(unpack_bits(self.fingerprints))

    def values(self, logits: Tensor, objective: Multilabel | Squared) -> Tensor:
        """Calibrated probabilities, or numbers in the unit of their target, float64 (n, t)."""
        if isinstance(objective, Squared):
            return objective.values(logits)
        if self.calibration is None:
            raise ValueError("a regression model has no probabilities")
        return self.calibration.probabilities(logits.double())

    def thresholds(self, logits: Tensor, similarity: Tensor, std: Tensor | None) -> Tensor:
        """The `limits` of each molecule, (n, t, 2) or (n, t); infinite outside the domain.

        Args:
            logits: (n, t).
            similarity: to the nearest training molecule, (n,).
            std: (n, t) or None, as in `HeldOut`.
        """
        limits = self.limits[(similarity.double() * _STEPS).round().long()]
        if self.error_scale is not None:
            limits = limits * self.error_scale.of(std, similarity, logits)
        outside = (similarity < self.domain_threshold).reshape(-1, *[1] * (limits.dim() - 1))
        return limits.masked_fill(outside, torch.inf)

    def sets(
        self,
        logits: Tensor,
        objective: Multilabel | Squared,
        similarity: Tensor,
        std: Tensor | None = None,
    ) -> Tensor:
        """Prediction sets or intervals, (n, t, 2); see `Prediction.sets`."""
        limits = self.thresholds(logits, similarity, std)
        if isinstance(objective, Squared):
            ends = (objective.values(logits + sign * limits) for sign in (-1, 1))
            return torch.stack(list(ends), 2)
        return prediction_sets(logits, limits)

    @property
    def unbounded(self) -> Tensor:
        """Where calibration molecules are too few at any similarity, bool (t, 2) or (t,).

        Such a label is in every set; such an interval has no ends.
        """
        return self.limits[-1].isinf()

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors that `uncertainty_from` reads."""
        fitted = self.calibration.to_tensors() if self.calibration else {}
        scale = self.error_scale.to_tensors() if self.error_scale else {}
        return {
            **{f"{_CALIBRATION}{name}": tensor for name, tensor in fitted.items()},
            **{f"{_SCALE}{name}": tensor for name, tensor in scale.items()},
            "limits": self.limits,
            "fingerprints": torch.from_numpy(self.fingerprints),
            "label_counts": self.label_counts,
        }

    def to_json(self) -> Json:
        """The rest of what `uncertainty_from` reads."""
        return {
            "calibration": self.calibration.name if self.calibration else None,
            "target_coverage": self.target_coverage,
            "domain_threshold": self.domain_threshold,
            "log_losses": dict(self.log_losses),
        }


def uncertainty_from(tensors: Mapping[str, Tensor], config: Json) -> Uncertainty:
    """The inverse of `to_tensors` and `to_json`."""
    fitted, scale = (strip_prefix(tensors, prefix) for prefix in (_CALIBRATION, _SCALE))
    name = config["calibration"]
    return Uncertainty(
        calibration=from_tensors(name, fitted) if name else None,
        limits=tensors["limits"],
        target_coverage=config["target_coverage"],
        fingerprints=tensors["fingerprints"].numpy(),
        domain_threshold=config["domain_threshold"],
        label_counts=tensors["label_counts"],
        error_scale=ErrorScale(**scale) if scale else None,
        log_losses=config["log_losses"],
    )


def fit_uncertainty(
    calibrating: HeldOut | None,
    objective: Multilabel | Squared,
    *,
    validating: HeldOut | None = None,
    calibration: CalibrationName,
    target_coverage: float,
    fingerprints: NDArray[np.uint8],
) -> Uncertainty:
    """Fit prediction sets to molecules that calibrate, probabilities to validation ones as well.

    Sets depend only on the order of logits, which no calibration of probabilities changes, so
    fitting both to the same molecules does not weaken the coverage guarantee.

    Args:
        calibrating: molecules that sets are fitted to: the calibration split, or those of all
            folds; None rules nothing out.
        objective: of the model.
        validating: the validation split, by which network, epoch and tau were chosen, for
            probabilities alone; None with folds.
        calibration: method for probabilities; "none" keeps the weighted members as they are, each
            along its line.
        target_coverage: share of molecules whose label should be in its prediction set.
        fingerprints: of the training molecules, uint8 (m, 256).

    Raises:
        ValueError: the target coverage does not lie between 0 and 1, or no molecules are given.
    """
    given = [one for one in (validating, calibrating) if one is not None]
    if not given:
        raise ValueError(
            "uncertainty is fitted to molecules that members did not train on; give those that "
            "calibrate, those that chose, or both, got neither"
        )
    held = given[0].none() if calibrating is None else calibrating
    weights = _weights(held.similarity)
    threshold = Neighbours(unpack_bits(_distinct(fingerprints))).typical()
    fitted, scale, losses = None, None, dict[str, float]()
    if isinstance(objective, Squared):
        limits, scale = _intervals(held, target_coverage, weights)
        counts = (~held.targets.isnan()).sum(0)
    else:
        limits = set_thresholds(
            held.logits, held.targets, target_coverage=target_coverage, weights=weights
        )
        counts = torch.stack([(held.targets == label).sum(0) for label in (0, 1)], dim=-1)
        fitted, losses = _calibrated(_joined(given), calibration)
    return Uncertainty(
        calibration=fitted,
        limits=limits,
        target_coverage=target_coverage,
        fingerprints=fingerprints,
        domain_threshold=threshold,
        label_counts=counts,
        error_scale=scale,
        log_losses=losses,
    )


def _intervals(held: HeldOut, target_coverage: float, weights: Tensor) -> tuple[Tensor, ErrorScale]:
    """Widths of intervals in units of their scale, and the scale."""
    a, y = held.logits.double(), held.targets.double()
    inputs = (held.std, held.similarity, a)
    errors = (y - a).abs()
    scales = cross_fitted_scale(errors, *inputs, held.parts)
    widths = interval_widths(
        a / scales, y / scales, target_coverage=target_coverage, weights=weights
    )
    return widths, fit_error_scale(errors, *inputs)


def _calibrated(
    held: HeldOut, calibration: CalibrationName
) -> tuple[Calibration, dict[str, float]]:
    """The calibration of this name, and what "auto" chose it by: mean log losses by name."""
    losses = _log_losses(held) if calibration == "auto" else {}
    chosen = _chosen(losses) if calibration == "auto" else calibration
    means = {name: loss.mean().item() for name, loss in losses.items()}
    return _FITS[chosen](held.logits, held.targets), means


def _distinct(fingerprints: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each fingerprint once, in order: a second measurement is no neighbour. All if that is one."""
    first = np.sort(np.unique(fingerprints, axis=0, return_index=True)[1])
    return fingerprints[first] if len(first) > 1 else fingerprints


def _joined(parts: Sequence[HeldOut]) -> HeldOut:
    """All of them as one; a single one keeps its folds."""
    if len(parts) == 1:
        return parts[0]
    return HeldOut(**{name: torch.cat([getattr(one, name) for one in parts]) for name in _COMMON})


def _log_losses(held: HeldOut) -> dict[str, Tensor]:
    """Log loss on each label of the calibrations of "auto", fitted without its part; or none.

    There is none where no label is measured.
    """
    if held.targets.isnan().all():
        return {}
    return {name: log_loss(_cross_fitted(held, name), held.targets) for name in _AUTO}


def _cross_fitted(held: HeldOut, name: str) -> Tensor:
    """Probabilities by calibrations that were fitted without the part of each molecule, (n, t)."""
    p = torch.zeros_like(held.logits, dtype=torch.float64)
    for part in sorted(set(held.parts.tolist())):
        out = held.parts == part
        fitted = _FITS[name](held.logits[~out], held.targets[~out])
        p[out] = fitted.probabilities(held.logits[out].double())
    return p


def held_out_values(
    held: Mapping[str, HeldOut],
    objective: Multilabel | Squared,
    uncertainty: Uncertainty,
    *,
    fitted_to: Sequence[str],
    calibration: CalibrationName,
) -> dict[str, Tensor]:
    """Probabilities, or numbers in the unit of their target, of each split, float64 (n, t).

    Those of molecules that the calibration was fitted to are by one fitted to others of them.

    Args:
        held: by split.
        objective: of the model.
        uncertainty: gives the values of the other splits.
        fitted_to: splits that probabilities were calibrated by.
        calibration: how, as `fit_uncertainty` was told.
    """
    values = {split: uncertainty.values(one.logits, objective) for split, one in held.items()}
    if uncertainty.calibration is None:
        return values
    how = uncertainty.calibration.name if calibration == "auto" else calibration
    p = _cross_fitted(_joined([held[split] for split in fitted_to]), how)
    parts = torch.split(p, [len(held[split].logits) for split in fitted_to])
    return values | dict(zip(fitted_to, parts, strict=True))


def _chosen(losses: Mapping[str, Tensor]) -> str:
    """The second calibration where it is better by more than chance, else the first.

    Chance is the standard error of the mean difference. Venn-Abers makes steps, on which molecules
    are no longer told apart, so it has to be worth it.
    """
    first, second = _AUTO
    if not losses:
        return first
    gains = losses[first] - losses[second]
    error = gains.std() / len(gains) ** 0.5  # NaN of a single label, which proves nothing
    return second if gains.mean() > error else first


def _weights(similarity: Tensor) -> Tensor:
    """Weights of n calibration molecules for new ones of each similarity, (101, n).

    A calibration molecule no nearer to training than the new one weighs 1; a nearer one weighs the
    less the nearer it is, because the network errs less on it and would promise too much.
    """
    new = torch.linspace(0, 1, _STEPS + 1, dtype=torch.float64)
    excess = (similarity.double() - new[:, None]).clamp(min=0)
    return (-(excess / _BANDWIDTH).square() / 2).exp()


def held_out_scores(
    held: HeldOut,
    objective: Multilabel | Squared,
    uncertainty: Uncertainty,
    *,
    values: Tensor | None = None,
) -> Json:
    """Scores, calibration error and coverage on a split.

    Args:
        held: predictions for the split.
        objective: of the model.
        uncertainty: gives sets and domain.
        values: of the split, see `held_out_values`; None for those of `uncertainty`, where it
            was not fitted to the split.

    Returns:
        For classes: the score by its metric's name, `ece_before` (of the weighted members alone),
        `ece`, and `set_size`. For a regression: `rmse`, `mae` and `spearman` in the unit of the
        target, and `width`. For both: `in_domain`, the share of molecules within the applicability
        domain, and `coverage`, the share of their labels that are in their set; sizes and widths
        are over those molecules, too. What ranks molecules is counted within folds
        (`ranking_score`). None for a number that cannot be computed: a score of one class,
        coverage without a label, an unbounded width.
    """
    inside = held.similarity >= uncertainty.domain_threshold
    if isinstance(objective, Squared):
        scores = _regression_scores(held, objective)
        scores |= _interval_scores(held.where(inside), objective, uncertainty)
    else:
        p = uncertainty.values(held.logits, objective) if values is None else values
        scores = _class_scores(held, objective, p)
        scores |= _set_scores(held.where(inside), objective, uncertainty)
    scores["in_domain"] = inside.double().mean().item()
    return {name: value if isfinite(value) else None for name, value in scores.items()}


def _regression_scores(held: HeldOut, objective: Squared) -> dict[str, float]:
    if held.targets.isnan().all():
        return dict.fromkeys(("rmse", "mae", "spearman"), nan)
    y, predicted = objective.values(held.targets), objective.values(held.logits)
    return {
        "rmse": -objective.score(held.logits, held.targets),
        "mae": mean_absolute_error(y, predicted),
        "spearman": _or_nan(lambda q, y: rank_correlation(y, q), predicted, y, held.fold),
    }


def _or_nan(score: Score, logits: Tensor, targets: Tensor, fold: Tensor | None) -> float:
    try:
        return ranking_score(score, logits, targets, fold)
    except ValueError:
        return nan


def _interval_scores(
    held: HeldOut, objective: Squared, uncertainty: Uncertainty
) -> dict[str, float]:
    measured = ~held.targets.isnan()
    if not measured.any():
        return {"coverage": nan, "width": nan}
    half = uncertainty.thresholds(held.logits, held.similarity, held.std)
    widths = 2 * half * torch.tensor(objective.std)
    coverage = interval_coverage(held.logits, held.targets, half)
    return {"coverage": coverage, "width": widths[measured].mean().item()}


def _class_scores(held: HeldOut, objective: Multilabel, values: Tensor) -> dict[str, float]:
    y = held.targets
    score = _or_nan(objective.score, held.logits, y, held.fold)
    if y.isnan().all():
        return {objective.metric: score, "ece_before": nan, "ece": nan}
    return {
        objective.metric: score,
        "ece_before": expected_calibration_error(held.logits.double().sigmoid(), y),
        "ece": expected_calibration_error(values, y),
    }


def _set_scores(held: HeldOut, objective: Multilabel, uncertainty: Uncertainty) -> dict[str, float]:
    if held.targets.isnan().all():
        return {"coverage": nan, "set_size": nan}
    sets = uncertainty.sets(held.logits, objective, held.similarity, held.std)
    covered = set_coverage(sets, held.targets)
    return {"coverage": covered.coverage, "set_size": covered.mean_size}
