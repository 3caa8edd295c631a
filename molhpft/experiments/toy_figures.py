"""Figures 2, 3 and 11 of Ren et al. (2023), as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from molhpft.experiments.figures import BLUE, GREY
from molhpft.experiments.folder import Json

_TAU = "tau: epochs of head probing before finetuning"
_SHIFTS = {
    "distance": "distance $||z_T - z_0||$",
    "cosine": r"cosine of $z_T$ and $z_0$",
    "dot": r"dot product $z_T \cdot z_0$",
    "norm": "norm $||z_T||$, dotted: $||z_0||$",
}


def confidence_figure(
    probabilities: Mapping[str, Tensor], steepness: Mapping[str, Sequence[float]], path: Path
) -> None:
    """Draw Figure 2: what the head knows before finetuning, and how steep it is along the way.

    Args:
        probabilities: tau, as text, to p(correct) of every training example, (m,).
        steepness: tau, as text, to mean `||grad_z q||` before finetuning and after each epoch.
        path: file to write, its ending says the format.
    """
    figure = Figure(figsize=(11, 0.8 * len(probabilities) + 1.2), layout="constrained")
    grid = figure.add_gridspec(len(probabilities), 2, width_ratios=(3, 2))
    panels = [figure.add_subplot(grid[i, 0]) for i in range(len(probabilities))]
    for axes, (tau, p) in zip(panels, probabilities.items(), strict=True):
        axes.hist(p.numpy(), bins=40, range=(0, 1), color=BLUE)
        axes.set_ylabel(f"tau {tau}", rotation=0, ha="right", va="center")
        axes.set_yticks([])
        axes.tick_params(labelbottom=axes is panels[-1])
        _open(axes)
    panels[0].set_title("p(correct) of training examples after probing", loc="left", fontsize=10)
    panels[-1].set_xlabel("p(correct)")
    _draw_steepness(figure.add_subplot(grid[:, 1]), steepness)
    _save(figure, path)


def exchange_figure(scores: Mapping[str, Tensor], taus: Sequence[str], path: Path) -> None:
    """Draw Figure 3: every backbone under every head, without retuning.

    Args:
        scores: split to scores in [0, 1], (m, m); row i has backbone i, column j head j.
        taus: of the m networks, as text.
        path: file to write.
    """
    figure = Figure(figsize=(5.2 * len(scores), 4.8), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    low = min(matrix.min().item() for matrix in scores.values())
    high = max(matrix.max().item() for matrix in scores.values())
    for axes, (split, matrix) in zip(panels, scores.items(), strict=True):
        axes.imshow(matrix.numpy(), cmap="viridis", vmin=low, vmax=high)
        for (i, j), score in np.ndenumerate(matrix.numpy()):
            # dark writing on the bright half of the colours
            color = "black" if score > (low + high) / 2 else "white"
            axes.text(j, i, f"{100 * score:.1f}", ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(len(taus)), taus)
        axes.set_yticks(range(len(taus)), taus)
        axes.set_xlabel("head of tau")
        axes.set_ylabel("backbone of tau")
        axes.set_title(f"Accuracy (%), {split} split", loc="left", fontsize=10)
    _save(figure, path)


def shift_figure(rows: Sequence[Json], taus: Sequence[str], path: Path) -> None:
    """Draw Figure 11: the four distances of features, after finetuning against before, by tau.

    Args:
        rows: of the branches, as a run's summary has them.
        taus: of the branches, as text.
        path: file to write.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, _SHIFTS.items(), strict=True):
        axes.plot([row["shift"][name] for row in rows], "-o", color=BLUE, ms=4)
        if name == "norm":
            axes.axhline(rows[0]["shift"]["start_norm"], color=GREY, lw=1, ls=":")
        axes.set_xticks(range(len(taus)), taus)
        axes.set_xlabel(_TAU)
        axes.set_title(f"Mean {title}", loc="left", fontsize=10)
        axes.grid(axis="y", alpha=0.25)
        _open(axes)
    _save(figure, path)


def _draw_steepness(axes: Axes, steepness: Mapping[str, Sequence[float]]) -> None:
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(steepness)))
    for shade, (tau, values) in zip(shades, steepness.items(), strict=True):
        axes.plot([value / values[0] for value in values], color=shade, label=f"tau {tau}")
    axes.set_title(r"Direction term, mean $||\nabla_z q||$ / its start", loc="left", fontsize=10)
    axes.set_xlabel("epochs of finetuning")
    axes.ticklabel_format(useOffset=False)
    axes.legend(frameon=False, fontsize=8)
    _open(axes)


def _open(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
