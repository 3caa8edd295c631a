"""How far predicted probabilities can be trusted, and how validation labels repair them.

Logits, probabilities (of label 1) and targets are (n, t); targets are 0, 1 or NaN for unmeasured.
Other shapes and values are a ValueError. A task without both classes keeps `sigmoid(a)`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from torch.nn import functional as F

_ALIKE = 1e-9  # a standard deviation of logits that is but rounding, as a share of their mean
_HOTTEST = 20.0  # T, and 1/20 the coldest: validation that is ranked perfectly asks for T = 0


class Calibration(Protocol):
    """A map from the logits of each task to probabilities that never turns a ranking around."""

    name: str

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of label 1, (n, t) like the logits."""

    def to_tensors(self) -> dict[str, Tensor]:
        """All it consists of, for a file and `from_tensors`."""


@dataclass(frozen=True, eq=False)
class Temperature:
    """`p = sigmoid(a / T)` of Guo et al. (2017), with `temperatures` T > 0 of float64 (t,).

    It keeps the ranking of each task. T is above 1 where the network is too sure of itself.
    """

    temperatures: Tensor
    name = "temperature"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of label 1, (n, t) like the logits."""
        a = _of_tasks(logits, len(self.temperatures))
        # in float64 as T is: sigmoid in float32 rounds one logit in two ways, by its place in `a`
        return (a / self.temperatures.to(a.device)).sigmoid().to(logits)

    def to_tensors(self) -> dict[str, Tensor]:
        """All it consists of, for a file and `from_tensors`."""
        return {"temperatures": self.temperatures}


@dataclass(frozen=True, eq=False)
class Platt:
    """`p = sigmoid(s a + b)` of Platt (1999), with slopes s > 0 and offsets b, float64 (t,).

    It keeps the ranking of each task like a temperature, and repairs the rate of label 1 as well,
    which is far off in a network that was finetuned for an epoch or two.
    """

    slopes: Tensor
    offsets: Tensor
    name = "platt"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of label 1, (n, t) like the logits."""
        a = _of_tasks(logits, len(self.slopes)).double()
        line = a * self.slopes.to(a.device) + self.offsets.to(a.device)
        return line.sigmoid().to(logits)

    def to_tensors(self) -> dict[str, Tensor]:
        """All it consists of, for a file and `from_tensors`."""
        return {"slopes": self.slopes, "offsets": self.offsets}


@dataclass(frozen=True, eq=False)
class Isotonic:
    """The rising function of `sigmoid(a)` nearest to the labels (Zadrozny and Elkan 2002).

    Attributes:
        inputs: `sigmoid(a)` at the knots, one task after another, float64 (k,).
        outputs: probabilities there, (k,); linear between knots, constant beyond the outermost.
        sizes: knots of each task, int64 (t,); a task without any keeps `sigmoid(a)`.
    """

    inputs: Tensor
    outputs: Tensor
    sizes: Tensor
    name = "isotonic"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of label 1, (n, t) like the logits."""
        p = _of_tasks(logits, len(self.sizes)).detach().cpu().double().sigmoid().numpy()
        knots = (torch.split(end, self.sizes.tolist()) for end in (self.inputs, self.outputs))
        for column, x, y in zip(p.T, *knots, strict=True):
            if len(x):
                column[:] = np.interp(column, x.numpy(), y.numpy())
        return torch.from_numpy(p).clamp(0, 1).to(logits)  # interpolation may round beyond 1

    def to_tensors(self) -> dict[str, Tensor]:
        """All it consists of, for a file and `from_tensors`."""
        return {"inputs": self.inputs, "outputs": self.outputs, "sizes": self.sizes}


def uncalibrated(tasks: int) -> Temperature:
    """`sigmoid(a)` itself: temperature 1 for each of the tasks."""
    return Temperature(torch.ones(tasks, dtype=torch.float64))


def fit_temperature(logits: Tensor, targets: Tensor) -> Temperature:
    """The temperatures, from 1/20 to 20, of least cross-entropy on validation.

    Cross-entropy is convex in b = 1/T, and the sign of its slope, the sum of (sigmoid(b a) - y) a,
    says on which side of b it is least. T stays 1 for a task without both classes. Labels are
    those of Platt (1999), as if each class had one more molecule: few molecules that are ranked
    perfectly are no reason to be certain.
    """
    measured, both = _teaching(logits, targets)
    a, y = logits.detach().double().where(measured, 0), _hedged(targets).where(measured, 0)
    low, high = (torch.full_like(a.sum(0), end) for end in (1 / _HOTTEST, _HOTTEST))
    for _ in range(40):  # halvings of the span of log b: to some 11 digits of T
        middle = (low * high).sqrt()
        falls = (((middle * a).sigmoid() - y) * a).sum(0) < 0
        low, high = middle.where(falls, low), high.where(falls, middle)
    return Temperature((1 / low).where(both, 1).cpu())


def fit_platt(logits: Tensor, targets: Tensor) -> Platt:
    """The lines of least cross-entropy on held-out labels, which are as in `fit_temperature`.

    Newton's method on logits in standard deviations, from a flat line at the rate of label 1; each
    step is halved until the cross-entropy falls enough. It is convex and its labels lie between 0
    and 1, so it has one least point and Newton's method gets there, whatever the logits are. A task
    that lacks a class, or whose logits rank the wrong way round, keeps `sigmoid(a)`; where its
    logits are all alike, the line has slope 1.
    """
    measured, both = _teaching(logits, targets)
    a, y = logits.detach().double().where(measured, 0), _hedged(targets).where(measured, 0)
    count = measured.sum(0).clamp(min=1)
    mean = a.sum(0) / count
    centred = (a - mean).where(measured, 0)
    std = (centred.square().sum(0) / count).sqrt()
    alike = std <= _ALIKE * mean.abs().clamp(min=1)
    slope, level = _logistic_line(centred / std.where(~alike, torch.inf), y, measured)
    slope, offset = slope / std, level - slope / std * mean
    slope, offset = slope.where(~alike, 1), offset.where(~alike, level - mean)
    kept = both & (slope > 0)
    return Platt(slope.where(kept, 1).cpu(), offset.where(kept, 0).cpu())


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


def fit_isotonic(logits: Tensor, targets: Tensor) -> Isotonic:
    """scikit-learn's isotonic regression of validation labels on `sigmoid(a)`, task by task."""
    measured, both = _teaching(logits, targets)
    knots = [torch.empty(2, 0).double()] * len(both)
    for task in both.nonzero().flatten().tolist():
        a, y = (values[measured[:, task], task].detach().cpu() for values in (logits, targets))
        fitted = IsotonicRegression().fit(a.double().sigmoid().numpy(), y.double().numpy())
        knots[task] = torch.tensor(np.stack([fitted.X_thresholds_, fitted.y_thresholds_]))
    inputs, outputs = torch.cat(knots, dim=1)
    return Isotonic(inputs, outputs, torch.tensor([pair.shape[1] for pair in knots]))


def from_tensors(name: str, tensors: dict[str, Tensor]) -> Calibration:
    """What had this name and gave these tensors; another name is a ValueError."""
    kinds = {kind.name: kind for kind in (Temperature, Platt, Isotonic)}
    if name not in kinds:
        raise ValueError(f"no calibration named {name!r}; there are: {', '.join(kinds)}")
    return kinds[name](**tensors)


def expected_calibration_error(p: Tensor, targets: Tensor, *, bins: int = 15) -> float:
    """|mean p - mean y| of bins of p, weighted by their share of labels (Naeini et al. 2015).

    Bins are (k / bins, (k + 1) / bins] as in Guo et al. (2017), and pool the labels of all tasks.
    """
    measured = measured_labels(p, targets)
    if not measured.any():
        raise ValueError(f"calibration needs a measured label; all {targets.numel()} are missing")
    p, y = p[measured].detach().double(), targets[measured].double()
    _refuse(p[~((p >= 0) & (p <= 1))], "probabilities must lie in [0, 1]")
    # the share of a bin times the gap of its means is the sum of its gaps over all labels
    bin_of = torch.bucketize(p, torch.arange(1, bins, device=p.device).double() / bins)
    return torch.bincount(bin_of, weights=p - y).abs().sum().item() / len(p)


def _hedged(targets: Tensor) -> Tensor:
    """(n + 1) / (n + 2) for label 1 of n molecules that have it, 1 / (n + 2) for label 0."""
    yes, no = ((targets == label).double().sum(0) for label in (1, 0))
    return torch.where(targets == 1, (yes + 1) / (yes + 2), 1 / (no + 2))


def measured_labels(values: Tensor, targets: Tensor) -> Tensor:
    """Where there is a label, bool (n, t); other shapes and labels than 0 and 1 are refused."""
    shapes = tuple(values.shape), tuple(targets.shape)
    if targets.dim() != 2 or shapes[0] != shapes[1]:
        raise ValueError(f"predictions and targets must both be (n, t), got {shapes}")
    measured = ~targets.isnan()
    _refuse(targets[measured & (targets != 0) & (targets != 1)], "labels must be 0, 1 or NaN")
    return measured


def _teaching(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    measured = measured_labels(logits, targets)
    _refuse(logits[measured & ~logits.isfinite()], "logits to calibrate by must be finite")
    return measured, (targets == 0).any(0) & (targets == 1).any(0)


def _refuse(strange: Tensor, rule: str) -> None:
    if len(strange):
        raise ValueError(f"{rule}, got {strange[0].item():g}")


def _of_tasks(logits: Tensor, tasks: int) -> Tensor:
    if logits.dim() != 2 or logits.shape[1] != tasks:
        raise ValueError(f"logits must be (n, {tasks}), got {tuple(logits.shape)}")
    return logits
