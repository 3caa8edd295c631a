"""Uncertainty of predictions: calibrated probabilities, and conformal sets and intervals.

Calibration. Logits, probabilities (of label 1) and targets are (n, t); targets are 0, 1 or NaN for
unmeasured. Other shapes and values are a ValueError. A task without both classes keeps
`sigmoid(a)`.

Split conformal prediction. Thresholds come from the calibration split: molecules that nothing was
trained on and nothing was chosen by. A new molecule that is exchangeable with them then gets a set
with its label, or an interval with its value, with a probability of at least `target_coverage`,
however wrong the network is (Vovk et al. 2005; Angelopoulos and Bates 2021). Unmeasured labels are
NaN and change nothing.

Where the network errs more the less a molecule is like its training molecules, and new molecules
are less like them than calibration molecules are, the promise breaks. Weights mend that: thresholds
for a molecule of some similarity, from calibration molecules weighted by how near theirs is
(Tibshirani et al. 2019; Guan 2023).

Predictions go in and thresholds come out, wherever the predictions come from: those of models that
were each fitted without a fold do as well.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.annotations import Bool, Float, Int
from molhpft.measure.venn_abers import merged, venn_abers

BINS = 15
"""Of a calibration error, of equal width."""

_ROUNDING = 1e-9  # a std of logits, relative to their mean, that is nothing but rounding
_MAX_TEMPERATURE = 20.0  # and 1/20 the least: validation that is ranked perfectly asks for T = 0


def weighted_mean(
    members: Float[Tensor, "k ..."], weights: Float[Tensor, " k"]
) -> Float[Tensor, "..."]:
    """Mean over k members by weights that sum to 1."""
    mean: Tensor = torch.tensordot(weights.to(members), members, dims=1)
    return mean


def weighted_std(
    members: Float[Tensor, "k ..."], weights: Float[Tensor, " k"]
) -> Float[Tensor, "..."]:
    """Standard deviation over k members by weights that sum to 1; NaN of one, which cannot differ.

    >>> weighted_std(torch.tensor([[1.0], [3.0]]), torch.tensor([0.5, 0.5]))
    tensor([1.])
    """
    if len(members) == 1:
        return torch.full_like(members[0], torch.nan)
    centred = members - weighted_mean(members, weights)
    return weighted_mean(centred.square(), weights).sqrt()


@runtime_checkable
class Calibration(Protocol):
    """A map from the logits of each task to probabilities that never reverses a ranking."""

    name: str

    def probabilities(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "n t"]:
        """Probabilities of label 1."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Its state, for a file and `from_tensors`."""


@dataclass(frozen=True, eq=False)
class Temperature:
    """`p = sigmoid(a / T)` of Guo et al. (2017), with `temperatures` T > 0 in float64.

    It keeps the ranking of each task. T is above 1 where the network is too sure of itself.
    """

    temperatures: Float[Tensor, " t"]
    name = "temperature"

    def probabilities(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "n t"]:
        """Probabilities of label 1."""
        a = _of_tasks(logits, len(self.temperatures))
        # in float64 as T is: sigmoid in float32 rounds one logit in two ways, by its place in `a`
        return (a / self.temperatures.to(a.device)).sigmoid().to(logits)

    def to_tensors(self) -> dict[str, Tensor]:
        """Its state, for a file and `from_tensors`."""
        return {"temperatures": self.temperatures}


@dataclass(frozen=True, eq=False)
class Platt:
    """`p = sigmoid(s a + b)` of Platt (1999), with slopes s > 0 and offsets b, in float64.

    It keeps the ranking of each task like a temperature, and repairs the rate of label 1 as well,
    which is far off in a network that was finetuned for an epoch or two.
    """

    slopes: Float[Tensor, " t"]
    offsets: Float[Tensor, " t"]
    name = "platt"

    def probabilities(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "n t"]:
        """Probabilities of label 1."""
        a = _of_tasks(logits, len(self.slopes)).double()
        line = a * self.slopes.to(a.device) + self.offsets.to(a.device)
        return line.sigmoid().to(logits)

    def to_tensors(self) -> dict[str, Tensor]:
        """Its state, for a file and `from_tensors`."""
        return {"slopes": self.slopes, "offsets": self.offsets}


@dataclass(frozen=True, eq=False)
class Isotonic:
    """The rising function of `sigmoid(a)` nearest to the labels (Zadrozny and Elkan 2002).

    Attributes:
        inputs: `sigmoid(a)` at the knots, one task after another, float64.
        outputs: probabilities there; linear between knots, constant beyond the outermost.
        sizes: knots of each task; a task without any keeps `sigmoid(a)`.
    """

    inputs: Float[Tensor, " k"]
    outputs: Float[Tensor, " k"]
    sizes: Int[Tensor, " t"]
    name = "isotonic"

    def probabilities(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "n t"]:
        """Probabilities of label 1."""
        p = _of_tasks(logits, len(self.sizes)).detach().cpu().double().sigmoid().numpy()
        knots = (torch.split(end, self.sizes.tolist()) for end in (self.inputs, self.outputs))
        for column, x, y in zip(p.T, *knots, strict=True):
            if len(x):
                column[:] = np.interp(column, x.numpy(), y.numpy())
        return torch.from_numpy(p).clamp(0, 1).to(logits)  # interpolation may round beyond 1

    def to_tensors(self) -> dict[str, Tensor]:
        """Its state, for a file and `from_tensors`."""
        return {"inputs": self.inputs, "outputs": self.outputs, "sizes": self.sizes}


@dataclass(frozen=True, eq=False)
class VennAbers:
    """Isotonic fits with either label for the new molecule, merged (`measure.venn_abers`).

    Attributes:
        knots: distinct logits of each task, one task after another, float64.
        lower: probabilities with label 0 of a logit not below k of them, k from 0: one more a task.
        upper: probabilities with label 1 of a logit above k of them.
        sizes: knots of each task; a task without any keeps `sigmoid(a)` and has no probabilities.
    """

    knots: Float[Tensor, " k"]
    lower: Float[Tensor, " m"]
    upper: Float[Tensor, " m"]
    sizes: Int[Tensor, " t"]
    name = "venn_abers"

    def probabilities(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "n t"]:
        """Probabilities of label 1."""
        a = _of_tasks(logits, len(self.sizes)).detach().cpu().double()
        sizes = self.sizes.tolist()
        ends = [size + (size > 0) for size in sizes]
        parts = (
            torch.split(self.knots, sizes),
            torch.split(self.lower, ends),
            torch.split(self.upper, ends),
        )
        columns = []
        for column, knots, lower, upper in zip(a.T, *parts, strict=True):
            if not len(knots):
                columns.append(column.sigmoid())
                continue
            column = column.contiguous()
            low = lower[torch.searchsorted(knots, column, right=True)]
            high = upper[torch.searchsorted(knots, column)]
            columns.append(torch.from_numpy(merged(low.numpy(), high.numpy())))
        return torch.stack(columns, 1).to(logits)

    def to_tensors(self) -> dict[str, Tensor]:
        """Its state, for a file and `from_tensors`."""
        return dict(vars(self))


def uncalibrated(tasks: int) -> Temperature:
    """`sigmoid(a)` itself: temperature 1 for each of the tasks."""
    return Temperature(torch.ones(tasks, dtype=torch.float64))


def fit_temperature(logits: Float[Tensor, "..."], targets: Float[Tensor, "..."]) -> Temperature:
    """The temperatures, from 1/20 to 20, of least cross-entropy on validation.

    Cross-entropy is convex in b = 1/T, and the sign of its derivative, the sum of
    (sigmoid(b a) - y) a, says on which side of b it is least. T stays 1 for a task without both
    classes. Labels are those of Platt (1999), as if each class had one more molecule: few molecules
    that are ranked perfectly are no reason to be certain.

    >>> sure = torch.tensor([[4.0], [4.0], [-4.0], [-4.0]])
    >>> right = torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    >>> fit_temperature(sure, right).probabilities(sure)[:, 0].round(decimals=2)
    tensor([0.5500, 0.5500, 0.4500, 0.4500])
    """
    measured, both = _checked(logits, targets)
    a, y = logits.detach().double().where(measured, 0), _platt_labels(targets).where(measured, 0)
    low, high = (torch.full_like(a.sum(0), end) for end in (1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE))
    for _ in range(40):  # halvings of the span of log b: to some 11 digits of T
        middle = (low * high).sqrt()
        falls = (((middle * a).sigmoid() - y) * a).sum(0) < 0
        low, high = middle.where(falls, low), high.where(falls, middle)
    return Temperature((1 / low).where(both, 1).cpu())


def fit_platt(logits: Float[Tensor, "..."], targets: Float[Tensor, "..."]) -> Platt:
    """The lines of least cross-entropy on held-out labels, which are as in `fit_temperature`.

    Newton's method on logits in standard deviations, from a flat line at the rate of label 1; each
    step is halved until the cross-entropy falls enough. It is convex and its labels lie between 0
    and 1, so it has one least point and Newton's method gets there, whatever the logits are. A task
    that lacks a class, or whose logits rank the wrong way round, keeps `sigmoid(a)`; where its
    logits are all alike, the line has slope 1.
    """
    measured, both = _checked(logits, targets)
    a, y = logits.detach().double().where(measured, 0), _platt_labels(targets).where(measured, 0)
    count = measured.sum(0).clamp(min=1)
    mean = a.sum(0) / count
    centred = (a - mean).where(measured, 0)
    std = (centred.square().sum(0) / count).sqrt()
    alike = std <= _ROUNDING * mean.abs().clamp(min=1)
    slope, level = _logistic_line(centred / std.where(~alike, torch.inf), y, measured)
    slope, offset = slope / std, level - slope / std * mean
    slope, offset = slope.where(~alike, 1), offset.where(~alike, level - mean)
    rises = both & (slope > 0)
    return Platt(slope.where(rises, 1).cpu(), offset.where(rises, 0).cpu())


def _logistic_line(x: Tensor, y: Tensor, measured: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and level (t,) of the lines on x (n, t) of least cross-entropy to y in (0, 1)."""

    def loss(slope: Tensor, level: Tensor) -> Tensor:
        each = F.binary_cross_entropy_with_logits(slope * x + level, y, reduction="none")
        return each.where(measured, 0).sum(0)

    rate = (y.sum(0) / measured.sum(0).clamp(min=1)).clamp(1e-9, 1 - 1e-9)
    slope, level = torch.zeros_like(rate), rate.logit()
    now = loss(slope, level)
    for _ in range(100):
        p = (slope * x + level).sigmoid()
        miss, weight = (p - y).where(measured, 0), (p * (1 - p)).where(measured, 0)
        g0, g1 = (miss * x).sum(0), miss.sum(0)
        h00, h01, h11 = (weight * x * x).sum(0), (weight * x).sum(0), weight.sum(0)
        # a ridge that no line feels, for logits that are all alike
        h00, h11 = h00 + 1e-12, h11 + 1e-12
        determinant = h00 * h11 - h01 * h01
        d0, d1 = (h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant
        falls, step = g0 * d0 + g1 * d1, torch.ones_like(level)
        for _ in range(60):
            then = loss(slope - step * d0, level - step * d1)
            short = (then <= now - 1e-4 * step * falls) | (falls <= 1e-14 * (1 + now))
            if short.all():
                break
            step = step.where(short, step / 2)
        moves = falls > 1e-14 * (1 + now)
        if not moves.any():
            break
        slope, level = (
            (old - step * move).where(moves, old) for old, move in ((slope, d0), (level, d1))
        )
        now = then.where(moves, now)
    return slope, level


def fit_isotonic(logits: Float[Tensor, "..."], targets: Float[Tensor, "..."]) -> Isotonic:
    """scikit-learn's isotonic regression of validation labels on `sigmoid(a)`, task by task."""
    from sklearn.isotonic import IsotonicRegression

    measured, both = _checked(logits, targets)
    knots = [torch.empty(2, 0).double()] * len(both)
    for task in both.nonzero().flatten().tolist():
        a, y = (values[measured[:, task], task].detach().cpu() for values in (logits, targets))
        fitted = IsotonicRegression().fit(a.double().sigmoid().numpy(), y.double().numpy())
        knots[task] = torch.tensor(np.stack([fitted.X_thresholds_, fitted.y_thresholds_]))
    inputs, outputs = torch.cat(knots, dim=1)
    return Isotonic(inputs, outputs, torch.tensor([pair.shape[1] for pair in knots]))


def fit_venn_abers(logits: Float[Tensor, "..."], targets: Float[Tensor, "..."]) -> VennAbers:
    """Venn-Abers prediction from held-out labels; a task without both classes keeps `sigmoid(a)`.

    >>> a, y = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[0.0], [0.0], [1.0]])
    >>> fit_venn_abers(a, y).probabilities(torch.tensor([[-2.0], [2.0]]))[:, 0]
    tensor([0.2500, 0.6667])
    """
    measured, both = _checked(logits, targets)
    parts = []
    for task, is_fitted in enumerate(both.tolist()):
        rows = measured[:, task] & is_fitted
        a, y = (values[rows, task].detach().cpu().double() for values in (logits, targets))
        empty = (np.empty(0),) * 3
        parts.append(venn_abers(a.numpy(), y.numpy()) if is_fitted else empty)
    knots, lower, upper = (torch.from_numpy(np.concatenate(p)) for p in zip(*parts, strict=True))
    return VennAbers(knots, lower, upper, torch.tensor([len(part[0]) for part in parts]))


def log_loss(p: Float[Tensor, "..."], targets: Float[Tensor, "..."]) -> Float[Tensor, " m"]:
    """-log of the probability of each measured label, all tasks in one row."""
    measured = _measured_labels(p, targets)
    p, y = p[measured].detach().double(), targets[measured].double()
    # 0 and 1, where isotonic regression says so, would be infinitely wrong
    return F.binary_cross_entropy(p.clamp(1e-9, 1 - 1e-9), y, reduction="none")


def from_tensors(name: str, tensors: dict[str, Tensor]) -> Calibration:
    """What had this name and gave these tensors; another name is a ValueError."""
    kinds = {kind.name: kind for kind in (Temperature, Platt, Isotonic, VennAbers)}
    if name not in kinds:
        raise ValueError(f"no calibration named {name!r}; there are: {', '.join(kinds)}")
    return kinds[name](**tensors)


def expected_calibration_error(p: Float[Tensor, "..."], targets: Float[Tensor, "..."]) -> float:
    """|mean p - mean y| of bins of p, weighted by their number of labels (Naeini et al. 2015).

    Bins pool the labels of all tasks.
    """
    measured = _measured_labels(p, targets)
    if not measured.any():
        raise ValueError(f"calibration needs a measured label; all {targets.numel()} are missing")
    p, y = p[measured].detach().double(), targets[measured].double()
    _refuse(p[~((p >= 0) & (p <= 1))], "probabilities must lie in [0, 1]")
    return calibration_gaps(p, y).abs().sum().item() / len(p)


def calibration_gaps(p: Float[Tensor, " m"], y: Float[Tensor, " m"]) -> Float[Tensor, " bins"]:
    """Sum of p - y in each bin (k / BINS, (k + 1) / BINS] of p, as in Guo et al. (2017).

    The number of labels in a bin times the gap of its means is the sum of its gaps.
    """
    edges = torch.arange(1, BINS, device=p.device).double() / BINS
    gaps = torch.bincount(torch.bucketize(p, edges), weights=p - y, minlength=BINS)
    return gaps.double()  # which those of nothing are not


def _platt_labels(targets: Tensor) -> Tensor:
    """(n + 1) / (n + 2) for label 1 of n molecules that have it, 1 / (n + 2) for label 0."""
    yes, no = ((targets == label).double().sum(0) for label in (1, 0))
    return torch.where(targets == 1, (yes + 1) / (yes + 2), 1 / (no + 2))


def _measured_labels(values: Tensor, targets: Tensor) -> Tensor:
    """Where there is a label, bool (n, t); other shapes and labels than 0 and 1 are refused."""
    shapes = tuple(values.shape), tuple(targets.shape)
    if targets.dim() != 2 or shapes[0] != shapes[1]:
        raise ValueError(f"predictions and targets must both be (n, t), got {shapes}")
    measured = ~targets.isnan()
    _refuse(targets[measured & (targets != 0) & (targets != 1)], "labels must be 0, 1 or NaN")
    return measured


def _checked(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    measured = _measured_labels(logits, targets)
    _refuse(logits[measured & ~logits.isfinite()], "logits to calibrate by must be finite")
    return measured, (targets == 0).any(0) & (targets == 1).any(0)


def _refuse(wrong: Tensor, rule: str) -> None:
    if len(wrong):
        raise ValueError(f"{rule}, got {wrong[0].item():g}")


def _of_tasks(logits: Tensor, tasks: int) -> Tensor:
    if logits.dim() != 2 or logits.shape[1] != tasks:
        raise ValueError(f"logits must be (n, {tasks}), got {tuple(logits.shape)}")
    return logits


@dataclass(frozen=True)
class SetCoverage:
    """Prediction sets against measured labels.

    Attributes:
        coverage: fraction of labels that are in their set, in [0, 1].
        mean_size: number of classes in a set, in [0, 2]; 1 is decided, 2 says nothing, 0 means that
            neither class looks like its own.
    """

    coverage: float
    mean_size: float


def set_thresholds(
    logits: Float[Tensor, "..."],
    targets: Float[Tensor, "..."],
    *,
    target_coverage: float,
    weights: Float[Tensor, "g n"] | None = None,
) -> Float[Tensor, "*g t 2"]:
    """How nonconforming a class may be and still be in the set, for each task and class.

    The nonconformity of label 1 is minus its logit, that of label 0 the logit. Classes are
    calibrated apart (Mondrian), so the rare class is covered like the common one: the threshold is
    the ceil((m + 1) target_coverage)-th smallest nonconformity of its m molecules. Only the order
    of logits counts, so sets are the same before and after any calibration of probabilities.

    Args:
        logits: on the calibration split, (n, t), finite where measured.
        targets: (n, t) of 0, 1 or NaN.
        target_coverage: the fraction of molecules of each class to be covered, in (0, 1).
        weights: of the n molecules, one row for each of g kinds of new molecule, not negative, 1
            for a molecule of just that kind; None weights all alike.

    Returns:
        In float64, class 0 first; infinite, which lets every molecule in, where there are too few.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, a logit is not finite, or the target
            coverage is not between 0 and 1.
    """
    measured = _measured_labels(logits, targets)
    _refuse(logits[measured & ~logits.isfinite()], "logits to calibrate by must be finite")
    of_class = torch.stack([targets == label for label in (0, 1)], dim=-1)
    return _quantiles(_nonconformity(logits), of_class, target_coverage, weights)


def prediction_sets(
    logits: Float[Tensor, "n ..."], thresholds: Float[Tensor, "*n t 2"]
) -> Bool[Tensor, "n t 2"]:
    """Which classes cannot be ruled out.

    Args:
        logits: (n, t).
        thresholds: of `set_thresholds`, or each molecule's own.

    Raises:
        ValueError: a logit is NaN, or the tasks are others.

    >>> y, a = torch.tensor([[1.0], [1.0], [0.0], [0.0]]), torch.tensor([[2.0], [1.0], [-1.0], [0]])
    >>> thresholds = set_thresholds(a, y, target_coverage=0.6)
    >>> prediction_sets(torch.tensor([[3.0], [0.5], [-3.0]]), thresholds)[:, 0].tolist()
    [[False, True], [False, False], [True, False]]
    """
    if logits.shape[1:] != thresholds.shape[-2:-1]:
        raise ValueError(f"logits must be (n, {thresholds.shape[-2]}), got {tuple(logits.shape)}")
    if logits.isnan().any():
        raise ValueError("logits to make sets of must be numbers, got nan")
    return _nonconformity(logits) <= thresholds


def set_coverage(sets: Bool[Tensor, "n t 2"], targets: Float[Tensor, "..."]) -> SetCoverage:
    """How many measured labels are in their set, and how large the sets are.

    Args:
        sets: of `prediction_sets`.
        targets: (n, t) of 0, 1 or NaN.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, or none is measured.
    """
    measured = _some(_measured_labels(sets[..., 0], targets))
    covered = sets[measured].gather(1, targets[measured].long()[:, None])
    return SetCoverage(covered.double().mean().item(), sets[measured].sum(1).double().mean().item())


def interval_widths(
    values: Float[Tensor, "..."],
    targets: Float[Tensor, "..."],
    *,
    target_coverage: float,
    weights: Float[Tensor, "g n"] | None = None,
) -> Float[Tensor, "*g t"]:
    """Half the length of the intervals `value +- width`, for each task.

    The ceil((m + 1) target_coverage)-th smallest of |y - value| over the m molecules with a target.

    Args:
        values: predictions for the calibration split, (n, t), finite where measured.
        targets: (n, t), NaN where unmeasured.
        target_coverage: the fraction of molecules to be covered, in (0, 1).
        weights: as in `set_thresholds`.

    Returns:
        In float64, in the units of the targets; infinite where there are too few.

    Raises:
        ValueError: shapes differ, an error is not finite, or the target coverage is not between 0
            and 1.
    """
    errors, measured = _errors(values, targets), ~targets.isnan()
    _refuse(errors[measured & ~errors.isfinite()], "errors to calibrate by must be finite")
    return _quantiles(errors, measured, target_coverage, weights)


def interval_coverage(
    values: Float[Tensor, "..."], targets: Float[Tensor, "..."], widths: Float[Tensor, "*n t"]
) -> float:
    """Fraction of measured targets within `width` of their value, in [0, 1].

    Args:
        values: predictions, (n, t).
        targets: (n, t), NaN where unmeasured.
        widths: of `interval_widths`, or each molecule's own.

    Raises:
        ValueError: shapes differ, or no target is measured.
    """
    covered = _errors(values, targets) <= widths
    return covered[_some(~targets.isnan())].double().mean().item()


def _quantiles(
    scores: Tensor, counted: Tensor, target_coverage: float, weights: Tensor | None
) -> Tensor:
    """The smallest score up to which weights reach `target_coverage`, of each column.

    The new molecule counts too, with weight 1 and a score beyond all others: infinite where the
    counted ones do not reach it. With equal weights, the ceil((m + 1) target_coverage)-th smallest.
    """
    if not 0 < target_coverage < 1:
        raise ValueError(f"the target coverage must lie between 0 and 1, got {target_coverage:g}")
    scores = scores.where(counted, torch.inf)
    ordered, order = torch.cat([scores, scores.new_full((1, *scores.shape[1:]), torch.inf)]).sort(0)
    counts = torch.cat([counted, counted.new_ones(1, *counted.shape[1:])]).double()
    rows = scores.new_ones(1, len(scores)) if weights is None else weights.double()
    quantiles = []
    for row in torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1):
        masses = row.reshape(-1, *[1] * (counts.dim() - 1)) * counts
        # rounded: 0.55 * 100 is a little more than 55, and would be 56
        least = (masses.sum(0) * target_coverage).mul(1 - 1e-12)
        reached = masses.gather(0, order).cumsum(0) >= least
        quantiles.append(ordered.gather(0, reached.int().argmax(0, keepdim=True))[0])
    return quantiles[0] if weights is None else torch.stack(quantiles)


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


def _some(measured: Tensor) -> Tensor:
    if not measured.any():
        raise ValueError(f"coverage needs a measured label; all {measured.numel()} are missing")
    return measured
