"""Sets and intervals that hold the truth as often as they promise: split conformal prediction.

Thresholds come from molecules that no training saw, the calibration split. A new molecule that is
exchangeable with them then gets a set with its label, or an interval with its value, with a
probability of at least `level`, however wrong the network is (Vovk et al. 2005; Angelopoulos and
Bates 2021). Unmeasured labels are NaN and change nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from molhpft.measure.calibration import measured_labels


@dataclass(frozen=True)
class SetCoverage:
    """How sets fared against measured labels.

    Attributes:
        share: of labels that are in their set, in [0, 1].
        size: mean number of classes in a set, in [0, 2]; 1 is decided, 2 says nothing, and 0 means
            that neither class looks like its own.
    """

    share: float
    size: float


def fit_sets(p: Tensor, targets: Tensor, *, level: float) -> Tensor:
    """How improbable a class may be and still be in the set, for each task and class.

    Classes are calibrated apart (Mondrian), so the rare class is covered like the common one: the
    threshold is the ceil((m + 1) level)-th smallest of 1 - p(class) over its m molecules.

    Args:
        p: probabilities of label 1 on the calibration split, (n, t).
        targets: (n, t) of 0, 1 or NaN.
        level: the share of molecules of each class to be covered, in (0, 1).

    Returns:
        float64 (t, 2), class 0 first; 1, which lets every molecule in, where m is too small.

    Raises:
        ValueError: shapes differ, or a label, a probability or the level is none.
    """
    measured_labels(p, targets)
    of_class = torch.stack([targets == label for label in (0, 1)], dim=-1)
    return _quantiles(_strangeness(p), of_class, level).clamp(max=1)


def sets(p: Tensor, thresholds: Tensor) -> Tensor:
    """Which classes cannot be ruled out, bool (n, t, 2).

    Args:
        p: probabilities of label 1, (n, t).
        thresholds: of `fit_sets`, (t, 2).

    Raises:
        ValueError: a probability lies outside [0, 1], or the tasks are others.
    """
    if p.shape[1:] != thresholds.shape[:1]:
        raise ValueError(f"p must be (n, {len(thresholds)}), got {tuple(p.shape)}")
    return _strangeness(p) <= thresholds


def set_coverage(sets: Tensor, targets: Tensor) -> SetCoverage:
    """How many measured labels are in their set, and how large the sets are.

    Args:
        sets: of `sets`, (n, t, 2).
        targets: (n, t) of 0, 1 or NaN.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or none is measured.
    """
    measured = _some(measured_labels(sets[..., 0], targets))
    held = sets[measured].gather(1, targets[measured].long()[:, None])
    return SetCoverage(held.double().mean().item(), sets[measured].sum(1).double().mean().item())


def fit_widths(values: Tensor, targets: Tensor, *, level: float) -> Tensor:
    """Half the length of the intervals `value +- width`, for each task.

    The ceil((m + 1) level)-th smallest of |y - value| over the m molecules with a target.

    Args:
        values: predictions for the calibration split, (n, t), finite where measured.
        targets: (n, t), NaN where unmeasured.
        level: the share of molecules to be covered, in (0, 1).

    Returns:
        float64 (t,), in the units of the targets; infinite where m is too small.

    Raises:
        ValueError: shapes differ, an error is not finite, or the level is none.
    """
    errors = _errors(values, targets)
    strange = errors[~targets.isnan() & ~errors.isfinite()]
    if len(strange):
        raise ValueError(f"errors to calibrate by must be finite, got {strange[0].item():g}")
    return _quantiles(errors, ~targets.isnan(), level)


def interval_coverage(values: Tensor, targets: Tensor, widths: Tensor) -> float:
    """Share of measured targets within `width` of their value, in [0, 1].

    Args:
        values: predictions, (n, t).
        targets: (n, t), NaN where unmeasured.
        widths: of `fit_widths`, (t,).

    Raises:
        ValueError: shapes differ, or no target is measured.
    """
    held = _errors(values, targets) <= widths
    return held[_some(~targets.isnan())].double().mean().item()


def _quantiles(scores: Tensor, counted: Tensor, level: float) -> Tensor:
    """The ceil((m + 1) level)-th smallest of the m counted scores of each column; inf beyond m."""
    if not 0 < level < 1:
        raise ValueError(f"the level of coverage must lie between 0 and 1, got {level:g}")
    # rounded first: 0.55 * 100 is a little more than 55, and would be taken for 56
    rank = ((counted.sum(0) + 1).double() * level).round(decimals=9).ceil().long().clamp(min=1)
    infinite = scores.new_full((1, *scores.shape[1:]), torch.inf)
    ordered = torch.cat([scores.where(counted, torch.inf), infinite]).sort(0).values
    return ordered.gather(0, rank[None] - 1)[0]


def _strangeness(p: Tensor) -> Tensor:
    """1 - p(class), (n, t, 2)."""
    strange = p[~((p >= 0) & (p <= 1))]
    if len(strange):
        raise ValueError(f"probabilities must lie in [0, 1], got {strange[0].item():g}")
    p = p.detach().double()
    return torch.stack([p, 1 - p], dim=-1)


def _errors(values: Tensor, targets: Tensor) -> Tensor:
    if values.shape != targets.shape or targets.dim() != 2:
        raise ValueError(
            f"values and targets must both be (n, t), "
            f"got {tuple(values.shape)} and {tuple(targets.shape)}"
        )
    return (targets.double() - values.detach().double()).abs()


def _some(measured: Tensor) -> Tensor:
    if not measured.any():
        raise ValueError(f"coverage needs a measured label; all {measured.numel()} are missing")
    return measured
