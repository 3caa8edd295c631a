"""Columns of numbers on a common scale, fitted to known rows, without the tails of each column."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TAIL = 0.01  # of the rows that are known, at either end of a column


@dataclass(frozen=True, eq=False)
class Scale:
    """How numbers in different units become comparable: tails cut off, in standard deviations.

    Attributes:
        low: below which a value is cut off, (k,).
        high: above which it is.
        mean: (k,), subtracted.
        std: (k,), by which is divided.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Numbers (n, k) on the scale; NaN stays NaN."""
        return (values.clamp(self.low, self.high) - self.mean) / self.std

    def filled(self, values: Tensor) -> Tensor:
        """Numbers (n, k) on the scale; what is not defined (NaN) is as ordinary as the mean, 0."""
        return self(values).nan_to_num(nan=0.0)


def fit_scale(values: NDArray[Any]) -> Scale:
    """The scale of the columns of known rows, (n, k); NaN where not defined.

    Returns:
        float64; what does not vary becomes 0.
    """
    columns = values.astype(np.float64)
    columns[:, np.isnan(columns).all(0)] = 0.0
    low, high = np.nanquantile(columns, [_TAIL, 1 - _TAIL], axis=0)
    cut = np.clip(columns, low, high)
    varies = high > low
    mean, std = np.nanmean(cut, axis=0), np.nanstd(cut, axis=0)
    parts = (low, high, np.where(varies, mean, low), np.where(varies, std, 1.0))
    return Scale(*map(torch.from_numpy, parts))
