"""Venn-Abers prediction: two isotonic fits for every score, one for each label that it may have."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def venn_abers(scores: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Probabilities of label 1 that isotonic regression gives a new score, with either label.

    The inductive predictor of Vovk et al. (2015), "Large-scale probabilistic predictors with and
    without guarantees of validity". Were the label of a new score known, isotonic regression on all
    scores and this one would be calibrated; it is 0 or 1, so one of both probabilities is.

    >>> knots, p0, p1 = venn_abers(np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]))
    >>> p0.tolist(), p1.round(2).tolist()
    ([0.0, 0.0, 0.0, 0.5], [0.33, 0.5, 1.0, 1.0])

    Args:
        scores: (n,), of n at least 1.
        labels: (n,) of 0 and 1.

    Returns:
        the m distinct scores, ascending; the probability with label 0 of a score not below k of
        them, (m + 1,); that with label 1 of a score above k of them, (m + 1,).
    """
    knots, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ones = np.bincount(place, weights=labels, minlength=len(knots)).astype(float)
    upper = np.append(_with_one_more(counts, ones), 1.0)
    # a label 0 among scores is a label 1 among their mirror images
    mirrored = _with_one_more(counts[::-1], (counts - ones)[::-1])
    lower = np.append(0.0, 1 - mirrored[::-1])
    return knots, lower, upper


def merged(lower: Array, upper: Array) -> Array:
    """One probability of both: p1 / (1 - p0 + p1), which makes the log loss least at its worst."""
    result: Array = upper / (1 - lower + upper)
    return result


def _with_one_more(counts: NDArray[Any], ones: Array) -> Array:
    """Isotonic value of one more label 1 at the lower end of each of m groups, (m,).

    It is the slope, there, of the greatest convex minorant of cumulative labels against cumulative
    counts. Moving the label from one group to the next moves one point of the diagram, so that all
    m minorants cost as much as a few (algorithms 1 and 2 of the paper).
    """
    x = np.append(0.0, np.cumsum(counts)).tolist()
    y = np.append(0.0, np.cumsum(ones)).tolist()
    points = list(zip(x, y, strict=True))
    corners: list[tuple[float, float]] = []
    for point in ((-1.0, -1.0), *points):
        while len(corners) > 1 and not _turns_left(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    corners.reverse()  # the leftmost is on top
    slopes = []
    for k in range(len(counts)):
        (x0, y0), (x1, y1) = corners[-1], corners[-2]
        slopes.append((y1 - y0) / (x1 - x0))
        # the label moves behind group k, whose end is then that much lower and further left
        moved = (points[k + 1][0] - 1, points[k + 1][1] - 1)
        if not _turns_left(corners[-1], moved, corners[-2]):
            continue
        corners.pop()
        while len(corners) > 1 and not _turns_left(moved, corners[-1], corners[-2]):
            corners.pop()
        corners.append(moved)
    return np.array(slopes)


def _turns_left(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether the way from a by b to c turns left: b is then below the line from a to c."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) > 0
