"""Sets and intervals that hold the truth as often as they promise: split conformal prediction.

Thresholds come from the calibration split: molecules that nothing was trained on and nothing was
chosen by. A new molecule that is exchangeable with them then gets a set with its label, or an
interval with its value, with a probability of at least `level`, however wrong the network is (Vovk
et al. 2005; Angelopoulos and Bates 2021). Unmeasured labels are NaN and change nothing.

Where the network errs more the less a molecule is like its training molecules, and new molecules
are less like them than calibration molecules are, the promise breaks. Weights mend that: thresholds
for a molecule of some similarity, from calibration molecules weighted by how near theirs is
(Tibshirani et al. 2019; Guan 2023).

Scores in, thresholds out: nothing here asks where the scores come from, so predictions of models
that were each fitted without a fold do as well.
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


def fit_sets(
    logits: Tensor, targets: Tensor, *, level: float, weights: Tensor | None = None
) -> Tensor:
    """How nonconforming a class may be and still be in the set, for each task and class.

    The nonconformity of label 1 is minus its logit, that of label 0 the logit. Classes are
    calibrated apart (Mondrian), so the rare class is covered like the common one: the threshold is
    the ceil((m + 1) level)-th smallest nonconformity of its m molecules. Only the order of logits
    counts, so sets are the same before and after any calibration of probabilities.

    Args:
        logits: on the calibration split, (n, t), finite where measured.
        targets: (n, t) of 0, 1 or NaN.
        level: the share of molecules of each class to be covered, in (0, 1).
        weights: of the n molecules, one row for each of g kinds of new molecule, (g, n), not
            negative, 1 for a molecule of just that kind; None weights all alike.

    Returns:
        float64 (t, 2), class 0 first, or (g, t, 2); infinite, which lets every molecule in, where
        there are too few.

    Raises:
        ValueError: shapes differ, or a label, a logit or the level is none.
    """
    measured = measured_labels(logits, targets)
    _check_finite(logits[measured], "logits")
    of_class = torch.stack([targets == label for label in (0, 1)], dim=-1)
    return _quantiles(_nonconformity(logits), of_class, level, weights)


def sets(logits: Tensor, thresholds: Tensor) -> Tensor:
    """Which classes cannot be ruled out, bool (n, t, 2).

    Args:
        logits: (n, t).
        thresholds: of `fit_sets`, (t, 2), or each molecule's own, (n, t, 2).

    Raises:
        ValueError: a logit is NaN, or the tasks are others.
    """
    if logits.shape[1:] != thresholds.shape[-2:-1]:
        raise ValueError(f"logits must be (n, {thresholds.shape[-2]}), got {tuple(logits.shape)}")
    if logits.isnan().any():
        raise ValueError("logits to make sets of must be numbers, got nan")
    return _nonconformity(logits) <= thresholds


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


def fit_widths(
    values: Tensor, targets: Tensor, *, level: float, weights: Tensor | None = None
) -> Tensor:
    """Half the length of the intervals `value +- width`, for each task.

    The ceil((m + 1) level)-th smallest of |y - value| over the m molecules with a target.

    Args:
        values: predictions for the calibration split, (n, t), finite where measured.
        targets: (n, t), NaN where unmeasured.
        level: the share of molecules to be covered, in (0, 1).
        weights: (g, n), as in `fit_sets`.

    Returns:
        float64 (t,) or (g, t), in the units of the targets; infinite where there are too few.

    Raises:
        ValueError: shapes differ, an error is not finite, or the level is none.
    """
    errors = _errors(values, targets)
    _check_finite(errors[~targets.isnan()], "errors")
    return _quantiles(errors, ~targets.isnan(), level, weights)


def interval_coverage(values: Tensor, targets: Tensor, widths: Tensor) -> float:
    """Share of measured targets within `width` of their value, in [0, 1].

    Args:
        values: predictions, (n, t).
        targets: (n, t), NaN where unmeasured.
        widths: of `fit_widths`, (t,), or each molecule's own, (n, t).

    Raises:
        ValueError: shapes differ, or no target is measured.
    """
    held = _errors(values, targets) <= widths
    return held[_some(~targets.isnan())].double().mean().item()


def _quantiles(scores: Tensor, counted: Tensor, level: float, weights: Tensor | None) -> Tensor:
    """The smallest score up to which weights reach `level`, of each column and row of weights.

    The new molecule counts too, with weight 1 and a score beyond all others: infinite where the
    counted ones do not reach the level. With equal weights, the ceil((m + 1) level)-th smallest.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of coverage must lie between 0 and 1, got {level:g}")
    scores = scores.where(counted, torch.inf)
    ordered, order = torch.cat([scores, scores.new_full((1, *scores.shape[1:]), torch.inf)]).sort(0)
    counts = torch.cat([counted, counted.new_ones(1, *counted.shape[1:])]).double()
    rows = scores.new_ones(1, len(scores)) if weights is None else weights.double()
    found = []
    for row in torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1):
        masses = row.reshape(-1, *[1] * (counts.dim() - 1)) * counts
        # rounded: 0.55 * 100 is a little more than 55, and would be taken for 56
        reached = masses.gather(0, order).cumsum(0) >= (masses.sum(0) * level).mul(1 - 1e-12)
        found.append(ordered.gather(0, reached.int().argmax(0, keepdim=True))[0])
    return found[0] if weights is None else torch.stack(found)


def _nonconformity(logits: Tensor) -> Tensor:
    """Of label 0 and of label 1, (n, t, 2)."""
    a = logits.detach().double()
    return torch.stack([a, -a], dim=-1)


def _errors(values: Tensor, targets: Tensor) -> Tensor:
    if values.shape != targets.shape or targets.dim() != 2:
        raise ValueError(
            f"values and targets must both be (n, t), "
            f"got {tuple(values.shape)} and {tuple(targets.shape)}"
        )
    return (targets.double() - values.detach().double()).abs()


def _check_finite(values: Tensor, what: str) -> None:
    for value in values[~values.isfinite()][:1].tolist():
        raise ValueError(f"{what} to calibrate by must be finite, got {value:g}")


def _some(measured: Tensor) -> Tensor:
    if not measured.any():
        raise ValueError(f"coverage needs a measured label; all {measured.numel()} are missing")
    return measured
