"""Which molecules a model learns from that cannot take all of them."""

import numpy as np
from numpy.typing import NDArray

MOST_KERNEL_ROWS = 10_000
"""Molecules whose similarities to one another, a kernel, take 0.8 GB."""


def row_sample(
    labels: NDArray[np.float64], size: int, *, classes: bool, seed: int
) -> NDArray[np.int64]:
    """Ascending rows with a label, all of them or a random sample.

    Of classes, rows with the rarer label of any target come first, up to half of the sample, so
    that few actives are all learned from.

    >>> row_sample(np.array([[0.0], [1.0], [0.0], [0.0]]), 2, classes=True, seed=0).tolist()
    [1, 2]

    Args:
        labels: (n, t), NaN where unmeasured.
        size: of the sample.
        classes: whether labels are 0 and 1.
        seed: of the sample.
    """
    measured = ~np.isnan(labels)
    rows = np.flatnonzero(measured.any(1))
    if len(rows) <= size:
        return rows
    order = np.random.default_rng(seed).permutation(rows)
    if classes:
        rate = np.nansum(labels, 0) / np.maximum(measured.sum(0), 1)
        is_rare = (labels[order] == (rate < 0.5)).any(1)
        first = order[is_rare][: size // 2]
        order = np.concatenate([first, order[~np.isin(order, first)]])
    return np.sort(order[:size])
