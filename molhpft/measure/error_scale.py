"""How large the error of a prediction is beside those of others, from what is known without labels.

Intervals of one width for all molecules are too wide for most and too narrow for the rest. Divided
by their expected size, errors are alike, so that one quantile of them bounds all: normalised
conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

INPUTS = ("std", "dissimilarity", "value")
"""What the size of an error is read from; it never falls as one of the first two grows."""

_RISING = 2
_SMALLEST = 0.05  # standard deviation, in those of the target: below it members agree
_PRIOR = 5.0  # molecules' worth of doubt that errors differ in size at all

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ErrorScale:
    """exp(slopes @ x), where x are three inputs in standard deviations from their mean.

    1 for an average molecule. Inputs beyond those that it was fitted to count as the outermost.

    Attributes:
        slopes: (t, 3), those of std and dissimilarity not below 0.
        centres: means of the inputs, (t, 3).
        units: their standard deviations, (t, 3); infinite for an input that never varied.
        lows: least inputs, (t, 3).
        highs: greatest inputs, (t, 3).
    """

    slopes: Tensor
    centres: Tensor
    units: Tensor
    lows: Tensor
    highs: Tensor

    def of(self, std: Tensor | None, similarity: Tensor, values: Tensor) -> Tensor:
        """Expected errors, float64 (n, t), as multiples of that of an average molecule.

        Args:
            std: standard deviation over members, (n, t); None where there is one.
            similarity: to the nearest training molecule, (n,).
            values: predictions, (n, t).
        """
        x = _inputs(std, similarity, values).clamp(self.lows, self.highs)
        standardised = (x - self.centres) / self.units
        scale: Tensor = (standardised * self.slopes).sum(-1).exp()
        return scale

    def to_tensors(self) -> dict[str, Tensor]:
        """Its state: `ErrorScale(**tensors)` is the same."""
        return dict(vars(self))


def fit_error_scale(
    errors: Tensor, std: Tensor | None, similarity: Tensor, values: Tensor
) -> ErrorScale:
    """The scale under which errors are most probable, as absolute values of one distribution.

    A Gamma regression with a logarithmic link: it minimises the mean of log(scale) + error / scale,
    which is convex in the slopes, with a ridge that lets few molecules tell little.

    Args:
        errors: absolute ones of molecules that members did not train on, (n, t), NaN where
            unmeasured.
        std: as of `ErrorScale.of`, like the two that follow.
        similarity: (n,).
        values: (n, t).
    """
    x, targets = _inputs(std, similarity, values), range(errors.shape[1])
    columns = [_fit_target(errors[:, k].double(), x[:, k]) for k in targets]
    return ErrorScale(*(torch.stack(parts) for parts in zip(*columns, strict=True)))


def cross_fitted_scale(
    errors: Tensor, std: Tensor | None, similarity: Tensor, values: Tensor, parts: Tensor
) -> Tensor:
    """Scales of molecules by a fit to the others, (n, t): a quantile of them is then not flattered.

    Args:
        errors: as of `fit_error_scale`, like the three that follow.
        std: (n, t) or None.
        similarity: (n,).
        values: (n, t).
        parts: number of the part that each molecule is left out with, int64 (n,).
    """
    scales = torch.ones_like(values, dtype=torch.float64)
    for part in sorted(set(parts.tolist())):
        out = parts == part
        own, others = (
            (None if std is None else std[rows], similarity[rows], values[rows])
            for rows in (out, ~out)
        )
        scales[out] = fit_error_scale(errors[~out], *others).of(*own)
    return scales


def _inputs(std: Tensor | None, similarity: Tensor, values: Tensor) -> Tensor:
    """(n, t, 3), float64."""
    values = values.detach().double()
    std = torch.zeros_like(values) if std is None else std.detach().double()
    dissimilarity = (1 - similarity.double())[:, None].expand_as(values)
    return torch.stack([(std + _SMALLEST).log(), dissimilarity, values], -1)


def _fit_target(errors: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Slopes, centres, units, lows and highs, each (3,), of one target with inputs (n, 3)."""
    measured = ~errors.isnan()
    r, inputs = errors[measured].numpy(), x[measured].numpy()
    zeros = torch.zeros(len(INPUTS), dtype=torch.float64)
    if not len(r) or not r.any():
        return zeros, zeros, torch.full_like(zeros, torch.inf), zeros, zeros
    centres, units = inputs.mean(0), inputs.std(0)
    units = np.where(units > 1e-9 * np.abs(centres).clip(1), units, np.inf)
    slopes = _rising_slopes(r / r.mean(), (inputs - centres) / units)
    ends = inputs.min(0), inputs.max(0)
    return tuple(map(torch.from_numpy, (slopes, centres, units, *ends)))


def _rising_slopes(r: Array, x: Array) -> Array:
    """Slopes (3,) of least loss, none of the first two below 0.

    The loss is convex, so the least of those that are allowed has some of the two at 0 and is
    otherwise free: all four cases are tried.
    """
    fits = []
    for used in product((True, False), repeat=_RISING):
        columns = np.array([*used, *[True] * (len(INPUTS) - _RISING)])
        loss, slopes = _free_slopes(r, np.where(columns, x, 0.0))
        if (slopes[:_RISING] >= 0).all():
            fits.append((loss, slopes))
            if all(used):
                break
    return min(fits, key=lambda fit: fit[0])[1]


def _free_slopes(r: Array, x: Array) -> tuple[float, Array]:
    """Least loss and its slopes (3,), by Newton's method with halved steps."""
    design = np.hstack([np.ones((len(r), 1)), x])
    ridge = _PRIOR * np.diag([0.0, *[1.0] * x.shape[1]])

    def loss(b: Array) -> float:
        level = design @ b
        return float((level + r * np.exp(-level)).sum() + b @ ridge @ b / 2)

    b = np.zeros(design.shape[1])  # the mean of r is 1
    now = loss(b)
    for _ in range(50):
        weight = r * np.exp(-design @ b)
        gradient = design.T @ (1 - weight) + ridge @ b
        hessian = (design * weight[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(b)), gradient)
        falls = gradient @ step
        if falls <= 1e-12 * (1 + abs(now)):
            break
        size = 1.0
        while (then := loss(b - size * step)) > now - 1e-4 * size * falls and size > 1e-9:
            size /= 2
        b, now = b - size * step, then
    return now, b[1:]
