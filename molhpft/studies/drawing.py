"""Figures of what a run has found, as files."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from molhpft.domains.files import Json

# colours of Okabe and Ito (2008), told apart by colour-blind readers and in grey
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
ALONG_TAU = ("FT", "HP-FT", "LP-FT")


def tau_figure(rows: Sequence[tuple[str, Json]], path: Path, *, score: str) -> None:
    """Draw score, energy and shift of features against tau.

    Args:
        rows: method name and row of each branch; those of FT, HP-FT and LP-FT make the curves,
            scratch a level line in the first panel.
        path: file to write, its ending says the format.
        score: name of the score, for titles.
    """
    branches = [row for name, row in rows if name in ALONG_TAU]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    scores, energies, shifts = figure.subplots(1, 3)
    _curve(scores, branches, ("final", "valid"), BLUE, label="validation")
    _curve(scores, branches, ("final", "test"), ORANGE, label="test")
    for level in (row["final"]["test"] for name, row in rows if name == "scratch"):
        scores.axhline(100 * level, color=GREY, lw=1, ls=":", label="test, from scratch")
    scores.legend(fontsize=8, facecolor="white", edgecolor="none", framealpha=1)
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
        axes.set_xlabel("tau: epochs of head probing before finetuning")
        axes.spines["top"].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _two_scales(
    axes: Axes, rows: Sequence[Json], left: tuple[str, str], right: tuple[str, str]
) -> None:
    other = axes.twinx()
    for side, key, color in ((axes, left, BLUE), (other, right, GREEN)):
        _curve(side, rows, key, color)
        side.tick_params(axis="y", colors=color)
    other.spines["top"].set_visible(False)


def _curve(
    axes: Axes, rows: Sequence[Json], key: tuple[str, str], color: str, *, label: str = ""
) -> None:
    scale = 100 if key[0] in ("probe", "final") else 1
    axes.plot([scale * row[key[0]][key[1]] for row in rows], "-o", color=color, label=label, ms=4)
