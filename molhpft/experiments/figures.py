"""Figures of what a run has found, as files."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from molhpft.experiments.folder import Json

# colours of Okabe and Ito (2008), told apart by colour-blind readers and in grey
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#777777"
ALONG_TAU = ("FT", "HP-FT", "LP-FT")


def tau_figure(rows: Sequence[tuple[str, Json]], path: Path, *, score: str) -> None:
    """Draw score, energy and shift of features against tau.

    Args:
        rows: method name and row of each branch; those of FT, HP-FT and LP-FT make the curves,
            others a level line in the first panel.
        path: file to write, its ending says the format.
        score: name of the score, for the axis.
    """
    branches = [row for name, row in rows if name in ALONG_TAU]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    scores, energies, shifts = figure.subplots(1, 3)
    _curve(scores, branches, ("final", "valid"), "finetuned, validation", BLUE, scale=100)
    _curve(scores, branches, ("final", "test"), "finetuned, test", ORANGE, scale=100)
    _curve(scores, branches, ("probe", "test"), "head only, test", GREEN, scale=100, dashed=True)
    for name, row in rows:
        if name == "scratch":
            level = 100 * row["final"]["test"]
            scores.axhline(level, color=GREY, lw=1, ls=":", label="from scratch, test")
    _curve(energies, branches, ("energy", "aie"), "AIE", BLUE)
    _curve(shifts, branches, ("shift", "distance"), "distance", BLUE)
    angle = shifts.twinx()
    _curve(angle, branches, ("shift", "cosine"), "cosine (right)", ORANGE)
    shifts.legend(handles=[*shifts.lines, *angle.lines], frameon=False, fontsize=8)
    scores.legend(frameon=False, fontsize=8)
    for axes, title in ((scores, score), (energies, "energy left in the head"), (shifts, "shift")):
        _finish(axes, title, [row["tau"] for row in branches])
    angle.spines["top"].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _curve(
    axes: Axes,
    rows: Sequence[Json],
    key: tuple[str, str],
    label: str,
    color: str,
    *,
    scale: float = 1,
    dashed: bool = False,
) -> None:
    values = [scale * row[key[0]][key[1]] for row in rows]
    axes.plot(values, "--o" if dashed else "-o", color=color, label=label, ms=4)


def _finish(axes: Axes, title: str, taus: Sequence[int]) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xticks(range(len(taus)), [str(tau) for tau in taus])
    axes.set_xlabel("tau: epochs of head probing before finetuning")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
