"""Figures of the studies: a run against tau, and those of Ren et al. (2023) in one style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from molhpft.domains.extras import require
from molhpft.domains.files import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# colours of Okabe and Ito (2008), which colour-blind readers can tell apart, and so in grey
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
ALONG_TAU = ("FT", "HP-FT", "LP-FT")

_NOTE_LETTERS = 14  # of a note in an inch

_TAU = "tau: epochs of head probing before finetuning"
_SHIFTS = {
    "distance": "distance $||z_T - z_0||$",
    "cosine": r"cosine of $z_T$ and $z_0$",
    "dot": r"dot product $z_T \cdot z_0$",
    "norm": "norm $||z_T||$, dotted: $||z_0||$",
}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure: Figure = require("matplotlib.figure", extra="report").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure


def save(figure: "Figure", path: Path, *, note: str = "", title: str = "") -> None:
    """Write a figure, in the format that the ending of `path` names.

    Args:
        figure: to write.
        path: of the file; its folder is made.
        note: at the foot, small, in as many lines as it takes.
        title: above all panels.
    """
    if note:
        lines = fill(note, int(_NOTE_LETTERS * figure.get_figwidth()))
        figure.supxlabel(lines, fontsize=8, color=GREY, x=0.99, ha="right")
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def open_frame(axes: "Axes", title: str = "") -> None:
    """A frame open above and on the right, and a title on the left."""
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=10)


def tau_figure(rows: Sequence[tuple[str, Json]], path: Path, *, score: str) -> None:
    """Draw score, energy and shift of features against tau.

    Args:
        rows: method name and row of each branch; those of FT, HP-FT and LP-FT make the curves,
            scratch a level line in the first panel.
        path: file to write; its ending is the format.
        score: name of the score, for titles.
    """
    branches = [row for name, row in rows if name in ALONG_TAU]
    figure = new_figure(12, 3.6)
    scores, energies, shifts = figure.subplots(1, 3)
    _curve(scores, branches, ("final", "valid"), BLUE, label="validation")
    _curve(scores, branches, ("final", "test"), ORANGE, label="test")
    for level in (row["final"]["test"] for name, row in rows if name == "scratch"):
        scores.axhline(100 * level, color=GREY, lw=1, ls=":", label="test, from scratch")
    # above the lowest line, which is that from scratch
    scores.legend(fontsize=8, facecolor="white", edgecolor="none", framealpha=1, loc=(0.02, 0.08))
    _two_scales(energies, branches, ("energy", "aie"), ("probe", "valid"))
    _two_scales(shifts, branches, ("shift", "distance"), ("shift", "cosine"))
    titles = (
        f"{score} after finetuning",
        "The head: energy (left), validation score (right)",
        "Features: distance moved (left), cosine (right)",
    )
    for axes, title in zip((scores, energies, shifts), titles, strict=True):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(range(len(branches)), [str(row["tau"]) for row in branches])
        axes.set_xlabel(_TAU)
        axes.spines["top"].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    save(figure, path)


def _two_scales(
    axes: "Axes", rows: Sequence[Json], left: tuple[str, str], right: tuple[str, str]
) -> None:
    other = axes.twinx()
    for side, key, color in ((axes, left, BLUE), (other, right, GREEN)):
        _curve(side, rows, key, color)
        side.tick_params(axis="y", colors=color)
    other.spines["top"].set_visible(False)


def _curve(
    axes: "Axes", rows: Sequence[Json], key: tuple[str, str], color: str, *, label: str = ""
) -> None:
    scale = 100 if key[0] in ("probe", "final") else 1
    axes.plot([scale * row[key[0]][key[1]] for row in rows], "-o", color=color, label=label, ms=4)


def confidence_figure(
    probabilities: Mapping[str, Tensor],
    gradients: Sequence[float],
    changes: Sequence[Sequence[float]],
    path: Path,
    *,
    note: str = "",
    title: str = "",
) -> None:
    """Draw Figure 2: p(correct) before finetuning, and how fast the head then turns.

    `probabilities` has p(correct) of every training example, (m,), by tau as text; of the same taus
    are `gradients`, the length of the loss's gradient in the head at the start, and `changes`, the
    relative change of the head after every epoch, from 0 on.
    """
    figure = new_figure(11, max(5.0, 0.8 * len(probabilities) + 1.2))
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(3, 2)))
    panels = left.subplots(len(probabilities), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (tau, p) in zip(panels, probabilities.items(), strict=True):
        axes.hist(p.numpy(), bins=40, range=(0, 1), color=BLUE)
        # most examples are in the last bin, and the others are what there is to see
        axes.set_yscale("log")
        axes.set_ylim(0.8, 2 * len(p))
        axes.set_ylabel(f"tau {tau}", rotation=0, ha="right", va="center")
        axes.tick_params(axis="y", labelsize=7)
        open_frame(axes)
    open_frame(panels[0], "p(correct) of training examples after probing, number of them")
    panels[-1].set_xlabel("p(correct)")
    start, later = right.subplots(2, 1)
    taus = list(probabilities)
    colours = shades(len(taus))
    start.bar(range(len(taus)), gradients, color=colours)
    start.set_yscale("log")
    start.set_xticks(range(len(taus)), taus)
    start.set_xlabel("tau")
    open_frame(start, "Gradient of the loss in the head\nwhere finetuning starts, length")
    for colour, tau, values in zip(colours, taus, changes, strict=True):
        later.plot(range(1, len(values)), values[1:], color=colour, label=f"tau {tau}")
    later.set_yscale("log")
    later.set_xlabel("epochs of finetuning")
    later.legend(frameon=False, fontsize=8, ncols=2)
    open_frame(
        later, "Change of the direction term: of the head\nsince then, $||W_t - W_0|| / ||W_0||$"
    )
    save(figure, path, note=note, title=title)


def shades(count: int) -> list[tuple[float, ...]]:
    """A colour for each of some taus, from dark to bright as they rise."""
    viridis = require("matplotlib", extra="report").colormaps["viridis"]
    return [tuple(shade) for shade in viridis(np.linspace(0, 0.9, count))]


def exchange_figure(
    scores: Mapping[str, Tensor], taus: Sequence[str], path: Path, *, note: str = ""
) -> None:
    """Draw Figure 3: every backbone under every head, without retuning; columns are backbones.

    `scores` has a matrix (m, m) in [0, 1] for each split; row i is backbone i, column j head j.
    """
    figure = new_figure(5.2 * len(scores), 4.8)
    _exchange_panels(figure.subplots(1, len(scores), squeeze=False)[0], scores, taus)
    save(figure, path, note=note)


def _exchange_panels(
    panels: Sequence["Axes"], scores: Mapping[str, Tensor], taus: Sequence[str]
) -> None:
    low = min(matrix.min().item() for matrix in scores.values())
    high = max(matrix.max().item() for matrix in scores.values())
    for axes, (split, matrix) in zip(panels, scores.items(), strict=True):
        axes.imshow(matrix.T.numpy(), cmap="viridis", vmin=low, vmax=high)
        for (backbone, head), value in np.ndenumerate(matrix.numpy()):
            # dark writing on the bright half of the colours
            color = "black" if value > (low + high) / 2 else "white"
            text = f"{100 * value:.1f}"
            axes.text(backbone, head, text, ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(len(taus)), taus)
        axes.set_yticks(range(len(taus)), taus)
        axes.set_xlabel("backbone of tau")
        axes.set_ylabel("head of tau")
        axes.set_title(f"Accuracy (%), {split} split", loc="left", fontsize=10)


def story_figure(story: Mapping[str, Any], path: Path, *, note: str = "", title: str = "") -> None:
    """Draw Figure 3: training curves, features before and after, heads and backbones exchanged.

    Args:
        story: `taus` as text with a list of rows for each in `curves` (`epoch`, `loss`, `train`,
            `valid`); `scatter`, title to points (n, 2) and class labels (n,), all in one
            projection; `classes`, their names; `exchange` and `exchanged`, its taus, as
            `exchange_figure` has them.
        path: of the file.
        note: at the foot.
        title: above all.
    """
    figure = new_figure(12, 12.5)
    curves, points, matrices = np.asarray(figure.subfigures(3, 1, height_ratios=(3, 3.2, 5)))
    texts = {
        "loss": "Training loss (cross-entropy)",
        "train": "Training accuracy (%)",
        "valid": "Validation accuracy (%)",
    }
    for axes, (key, text) in zip(curves.subplots(1, 3), texts.items(), strict=True):
        scale = 1 if key == "loss" else 100
        for colour, tau, rows in zip(
            shades(len(story["taus"])), story["taus"], story["curves"], strict=True
        ):
            y = [scale * row[key] for row in rows]
            axes.plot([row["epoch"] for row in rows], y, color=colour, label=f"tau {tau}")
        axes.set_xlabel("epochs of finetuning")
        axes.grid(axis="y", alpha=0.25)
        open_frame(axes, text)
        if key == "loss":
            axes.set_yscale("log")
            axes.legend(frameon=False, fontsize=8, ncols=2)
    _scatter_panels(points, story["scatter"], story["classes"])
    panels = matrices.subplots(1, len(story["exchange"]), squeeze=False)[0]
    _exchange_panels(panels, story["exchange"], story["exchanged"])
    save(figure, path, note=note, title=title)


def _scatter_panels(
    figure: Any, scatter: Mapping[str, tuple[Any, Any]], classes: Sequence[str]
) -> None:
    """Points of several moments on the same axes, a colour for each class."""
    panels = figure.subplots(1, len(scatter), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (text, (points, labels)) in zip(panels, scatter.items(), strict=True):
        for k, (name, colour) in enumerate(zip(classes, (BLUE, ORANGE, GREEN), strict=False)):
            rows = np.asarray(points)[np.asarray(labels) == k]
            axes.scatter(*rows.T, s=5, color=colour, alpha=0.6, lw=0, label=name)
        axes.set_xlabel("principal component 1")
        open_frame(axes, text)
    panels[0].set_ylabel("principal component 2")
    panels[0].legend(frameon=False, fontsize=8, title="class", title_fontsize=8, markerscale=2)


@dataclass(frozen=True)
class Line:
    """A curve over tau: means, and what each of several seeds has.

    Attributes:
        name: for the legend; empty for none.
        means: one a tau.
        seeds: what each seed has, thin behind the means; empty for one seed.
        low: lower ends of the intervals of the means; empty for none. They are not drawn: of three
            seeds they are wider than what the seeds themselves say.
        high: upper ends, likewise.
        dotted: whether it is a level to read the others by.
    """

    name: str
    means: list[float]
    seeds: Sequence[Sequence[float]] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dotted: bool = False


@dataclass(frozen=True)
class TauPanel:
    """Curves over the same taus in one frame.

    Attributes:
        title: what the numbers are, with their unit; in lines, beside the vertical axis.
        taus: as text.
        lines: at most four.
        group: of the row of panels that it stands in, written above the first of them.
    """

    title: str
    taus: Sequence[str]
    lines: Sequence[Line]
    group: str = ""


def tau_panels_figure(
    panels: Sequence[TauPanel], path: Path, *, columns: int, note: str = "", title: str = ""
) -> None:
    """Draw curves over tau, as Figures 1, 4, 11 and 13-15 have them, a row of panels a group."""
    rows = -(-len(panels) // columns)
    width = max(3.6, 0.55 * max(len(panel.taus) for panel in panels))
    figure = new_figure(width * columns, 2.9 * rows + 0.6)
    figure.set_layout_engine("constrained", w_pad=0.12)  # axes' names stand off the panel before
    places = figure.subplots(rows, columns, squeeze=False)
    for axes in places.flat[len(panels) :]:
        axes.set_visible(False)
    for number, (axes, panel) in enumerate(zip(places.flat, panels, strict=False)):
        for line, colour in zip(panel.lines, (BLUE, ORANGE, GREEN, GREY), strict=False):
            _tau_line(axes, line, GREY if line.dotted else colour)
        axes.set_xticks(range(len(panel.taus)), panel.taus, fontsize=8)
        axes.set_ylabel(panel.title, fontsize=9)
        axes.grid(axis="y", alpha=0.25)
        open_frame(axes, panel.group if number % columns == 0 else "")
        if any(line.name for line in panel.lines):
            axes.legend(fontsize=8, facecolor="white", edgecolor="none", framealpha=0.8)
        if number // columns == rows - 1 or number + columns >= len(panels):
            axes.set_xlabel("tau (epochs of head probing)", fontsize=9)
    save(figure, path, note=note, title=title)


def _tau_line(axes: "Axes", line: Line, color: str) -> None:
    places, style = range(len(line.means)), ":" if line.dotted else "-o"
    axes.plot(places, line.means, style, color=color, ms=4, label=line.name or None)
    for values in line.seeds:
        axes.plot(places, values, "-", color=color, lw=0.8, alpha=0.45)


def kernel_figure(
    kernels: Mapping[str, Json], path: Path, *, note: str = "", title: str = ""
) -> None:
    """Draw Figure 6: how the tangent kernel changes along finetuning, for two backbones at most.

    `kernels` has the fields of a `KernelPath` by name of the backbone.
    """
    figure = new_figure(12, 3.6)
    accuracy, start, last = figure.subplots(1, 3)
    for (name, seen), color in zip(kernels.items(), (BLUE, ORANGE), strict=False):
        line = {"color": color, "marker": "o", "ms": 3}
        accuracy.plot(seen["epochs"], [100 * score for score in seen["train"]], label=name, **line)
        start.plot(seen["epochs"][1:], seen["from_start"][1:], **line)
        last.plot(seen["epochs"][1:], seen["from_last"], **line)
    accuracy.legend(frameon=False, fontsize=9)
    titles = (
        "Training accuracy (%)",
        "Change of the tangent kernel since the start,\n$||K_t - K_0|| / ||K_0||$",
        "Its change in two epochs,\n$||K_t - K_{t-2}|| / ||K_{t-2}||$",
    )
    for axes, text in zip((accuracy, start, last), titles, strict=True):
        axes.set_xlabel("epochs of finetuning")
        axes.grid(axis="y", alpha=0.25)
        open_frame(axes, text)
    for axes in (start, last):
        axes.set_yscale("log")
    save(figure, path, note=note, title=title)


def shift_figure(rows: Sequence[Json], taus: Sequence[str], path: Path, *, note: str = "") -> None:
    """Draw Figure 11: the four distances of features, after finetuning against before, by tau.

    `rows` are those of branches in a run's summary, `taus` their taus as text.
    """
    figure = new_figure(11, 6)
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, _SHIFTS.items(), strict=True):
        axes.plot([row["shift"][name] for row in rows], "-o", color=BLUE, ms=4)
        if name == "norm":
            axes.axhline(rows[0]["shift"]["start_norm"], color=GREY, lw=1, ls=":")
        axes.set_xticks(range(len(taus)), taus)
        axes.set_xlabel(_TAU)
        axes.grid(axis="y", alpha=0.25)
        open_frame(axes, f"Mean {title}")
    save(figure, path, note=note)
