"""Figures 2, 3, 6 and 11 of Ren et al. (2023), as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from molhpft.experiments.figures import BLUE, GREY, ORANGE
from molhpft.experiments.folder import Json
from molhpft.experiments.toy_branches import HEAD_SCALE, Branch, KernelPath

_TAU = "tau: epochs of head probing before finetuning"
_SHIFTS = {
    "distance": "distance $||z_T - z_0||$",
    "cosine": r"cosine of $z_T$ and $z_0$",
    "dot": r"dot product $z_T \cdot z_0$",
    "norm": "norm $||z_T||$, dotted: $||z_0||$",
}


def confidence_figure(
    probabilities: Mapping[str, Tensor], branches: Mapping[str, Branch], path: Path
) -> None:
    """Draw Figure 2: what the head knows before finetuning, and how fast it then turns.

    Args:
        probabilities: tau, as text, to p(correct) of every training example, (m,).
        branches: the same taus to what was finetuned from them.
        path: file to write, its ending says the format.
    """
    figure = Figure(figsize=(11, max(5.0, 0.8 * len(probabilities) + 1.2)), layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(3, 2)))
    panels = left.subplots(len(probabilities), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (tau, p) in zip(panels, probabilities.items(), strict=True):
        axes.hist(p.numpy(), bins=40, range=(0, 1), color=BLUE)
        axes.set_ylabel(f"tau {tau}", rotation=0, ha="right", va="center")
        axes.set_yticks([])
        _open(axes)
    panels[0].set_title("p(correct) of training examples after probing", loc="left", fontsize=10)
    panels[-1].set_xlabel("p(correct)")
    start, along = right.subplots(2, 1)
    _draw_gradients(start, branches)
    _draw_turns(along, branches)
    _save(figure, path)


def exchange_figure(scores: Mapping[str, Tensor], taus: Sequence[str], path: Path) -> None:
    """Draw Figure 3: every backbone under every head, without retuning; columns are backbones.

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
        axes.imshow(matrix.T.numpy(), cmap="viridis", vmin=low, vmax=high)
        for (backbone, head), score in np.ndenumerate(matrix.numpy()):
            # dark writing on the bright half of the colours
            color = "black" if score > (low + high) / 2 else "white"
            text = f"{100 * score:.1f}"
            axes.text(backbone, head, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(len(taus)), taus)
        axes.set_yticks(range(len(taus)), taus)
        axes.set_xlabel("backbone of tau")
        axes.set_ylabel("head of tau")
        axes.set_title(f"Accuracy (%), {split} split", loc="left", fontsize=10)
    _save(figure, path)


def kernel_figure(paths: Mapping[str, KernelPath], path: Path) -> None:
    """Draw Figure 6: how the tangent kernel changes along finetuning, by backbone.

    Args:
        paths: name of a backbone to what was seen of it; two at most.
        path: file to write.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    accuracy, start, last = figure.subplots(1, 3)
    for (name, seen), color in zip(paths.items(), (BLUE, ORANGE), strict=False):
        line = {"color": color, "marker": "o", "ms": 3}
        accuracy.plot(seen.epochs, [100 * share for share in seen.train], label=name, **line)
        start.plot(seen.epochs[1:], seen.from_start[1:], **line)
        last.plot(seen.epochs[1:], seen.from_last, **line)
    accuracy.set_title("Training accuracy (%)", loc="left", fontsize=10)
    start.set_title(
        "Change of the tangent kernel since the start,\n$||K_t - K_0|| / ||K_0||$",
        loc="left",
        fontsize=10,
    )
    last.set_title(
        "Its change in two epochs,\n$||K_t - K_{t-2}|| / ||K_{t-2}||$", loc="left", fontsize=10
    )
    accuracy.legend(frameon=False, fontsize=9)
    for axes in (accuracy, start, last):
        axes.set_xlabel("epochs of finetuning")
        axes.grid(axis="y", alpha=0.25)
        _open(axes)
    for axes in (start, last):
        axes.set_yscale("log")
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


def _draw_gradients(axes: Axes, branches: Mapping[str, Branch]) -> None:
    lengths = [branch.gradient for branch in branches.values()]
    axes.bar(range(len(lengths)), lengths, color=_shades(len(branches)))
    axes.set_yscale("log")
    axes.set_xticks(range(len(branches)), list(branches))
    axes.set_xlabel("tau")
    axes.set_title(
        "Gradient of the loss in the head\nwhere finetuning starts, length", loc="left", fontsize=10
    )
    _open(axes)


def _draw_turns(axes: Axes, branches: Mapping[str, Branch]) -> None:
    for shade, (tau, branch) in zip(_shades(len(branches)), branches.items(), strict=True):
        epochs = range(1, len(branch.turned))
        axes.plot(epochs, branch.turned[1:], color=shade, label=f"tau {tau}")
    axes.set_yscale("log")
    axes.set_xlabel("epochs of finetuning")
    axes.set_title(
        "Change of the direction term: of the head\nsince then, $||W_t - W_0|| / ||W_0||$",
        loc="left",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8, ncols=2)
    _open(axes)


def _shades(count: int) -> list[tuple[float, ...]]:
    return [tuple(shade) for shade in colormaps["viridis"](np.linspace(0, 0.9, count))]


def _open(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    note = f"Random heads {HEAD_SCALE:g} times as large as PyTorch makes them: our choice"
    figure.supxlabel(note, fontsize=8, color=GREY, x=0.99, ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
