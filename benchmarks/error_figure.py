"""A figure of many models on many sets: each error relative to that of one of the models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from development_sets import DevelopmentSet
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray


def relative_errors(
    scores: NDArray[np.float64], sets: Sequence[DevelopmentSet], reference: int
) -> NDArray[np.float64]:
    """Errors of every model, RMSE or 100 - ROC-AUC, in units of one model's.

    Args:
        scores: (models, sets).
        sets: of the columns.
        reference: row of that model.
    """
    classes = np.array([data.classes for data in sets])
    errors = np.where(classes, 100 - scores, scores)
    return errors / errors[reference]


def draw_errors(
    names: Sequence[str],
    sets: Sequence[DevelopmentSet],
    scores: NDArray[np.float64],
    path: Path,
    *,
    reference: str,
) -> None:
    """Draw a panel for each group of sets: a dot for each set, a bar at their geometric mean.

    Args:
        names: of the models, from the top.
        sets: of the columns.
        scores: (models, sets), RMSE or ROC-AUC in percent.
        path: of the figure; its ending says of which kind.
        reference: the model whose error is 1.

    Raises:
        ValueError: the reference is none of the models.
    """
    if reference not in names:
        raise ValueError(f"the figure is relative to {reference}, which is no column of the table")
    errors = relative_errors(scores, sets, list(names).index(reference))
    groups = list(dict.fromkeys(data.group for data in sets))
    figure = Figure(
        figsize=(1.5 + 3.2 * len(groups), 0.9 + 0.34 * len(names)), layout="constrained"
    )
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    rows = np.arange(len(names))
    for panel, group in zip(panels, groups, strict=True):
        own = errors[:, [k for k, data in enumerate(sets) if data.group == group]]
        panel.axvline(1, color="0.6", linewidth=1, zorder=1)
        for row, values in zip(rows, own, strict=True):
            panel.plot(values, np.full(len(values), row), "o", color="#3b7dd8", alpha=0.35, ms=4)
        means = np.exp(np.log(own).mean(1))
        panel.plot(means, rows, "|", color="black", markersize=16, markeredgewidth=2.2)
        count = own.shape[1]
        panel.set_title(f"{group}, {count} set{'s' * (count > 1)}", fontsize=10)
        panel.set_ylim(-0.6, len(names) - 0.4)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.tick_params(labelsize=9)
        panel.grid(axis="x", color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(rows, names)
    panels[0].invert_yaxis()
    figure.supxlabel(
        f"error (RMSE, or 100 - ROC-AUC) relative to {reference}: left is better; dots are sets, "
        "bars their geometric means",
        fontsize=9,
    )
    figure.savefig(path, dpi=160)
