"""Means with their uncertainty, and differences between methods on the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the interval that Student's t gives for it.

    Attributes:
        mean: of the values.
        low: lower end; NaN for a single value, which says nothing about its own spread.
        high: upper end, as `low`.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """One method against another on the seeds that both have.

    Attributes:
        difference: of the scores, first minus second, seed by seed; its n is that of shared seeds.
        p: of the two-sided paired t-test; NaN below two shared seeds.
    """

    difference: Interval
    p: float


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean of independent values and its t-interval; NaN values are left out.

    Args:
        values: one a seed.
        confidence: share of such intervals that hold the true mean, in (0, 1).

    Raises:
        ValueError: `confidence` is no share, or no value is a number.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a share between 0 and 1, such as 0.95, got {confidence}")
    known = _known(values)
    if not len(known):
        raise ValueError("a mean needs at least one number, got none")
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    reach = float(student.ppf((1 + confidence) / 2, len(known) - 1)) * _error(known)
    return Interval(mean, mean - reach, mean + reach, len(known))


def paired(
    first: Mapping[int, float], second: Mapping[int, float], *, confidence: float = 0.95
) -> Comparison:
    """Mean difference of two methods on the seeds that both have, with interval and p.

    Args:
        first: seed to score.
        second: seed to score of what it is compared with.
        confidence: as for `mean_interval`.

    Raises:
        ValueError: no seed is in both.
    """
    shared = sorted(first.keys() & second.keys())
    differences = _known([first[seed] - second[seed] for seed in shared])
    if not len(differences):
        raise ValueError(
            f"a paired comparison needs seeds that both have, got {sorted(first)} and "
            f"{sorted(second)}: run both with the same seeds"
        )
    difference = mean_interval(differences.tolist(), confidence=confidence)
    return Comparison(difference, _p(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that any false alarm among them stays as rare as one.

    The step-down procedure of Holm (1979); NaN stays NaN and is not counted as a test.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    order = [int(k) for k in np.argsort(p, kind="stable") if not np.isnan(p[k])]
    largest = 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, float(p[k]) * (len(order) - rank)))
        adjusted[k] = largest
    return [float(value) for value in adjusted]


def _known(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64).reshape(-1)
    return array[~np.isnan(array)]


def _error(known: NDArray[np.float64]) -> float:
    """Standard error of the mean."""
    return float(known.std(ddof=1)) / sqrt(len(known))


def _p(differences: NDArray[np.float64]) -> float:
    if len(differences) < 2:
        return float("nan")
    error, mean = _error(differences), abs(float(differences.mean()))
    if not error:
        # equal differences on every seed: t is infinite, or 0 / 0 where there is no difference
        return 1.0 if not mean else 0.0
    return 2 * float(student.sf(mean / error, len(differences) - 1))
