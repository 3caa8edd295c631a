"""Methods side by side, drawn from the tables of `benchmarks/README.md`.

$ python docs/compared.py
"""

import re
from pathlib import Path

import matplotlib

from molhpft.studies.drawing import BLUE, GREY, ORANGE

matplotlib.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

ROOT = Path(__file__).parents[1]
FIGURE = ROOT / "docs" / "methods.png"
COLOURS = {"a public GCN": BLUE, "a GCN pretrained on MUV": ORANGE}
COMPARED = ("Tox21", "HIV")
# baselines have no encoder, so that the tables of all encoders repeat them; name to label
STRONGEST = "forest_counts"
FINGERPRINTS = {
    STRONGEST: "random forest, counts",
    "morgan-rf": "random forest, bits",
    "morgan-lr": "logistic regression, bits",
}
# method, its test score in percent and half of the interval; the best row is in bold
_ROW = re.compile(r"^\| \**([^|*]+?)\** \| \**(\d+\.\d+) ± (\d+\.\d+)\** \|", re.MULTILINE)

# method to score and half of its interval, 0 for a single seed
Scores = dict[str, tuple[float, float]]


def read_scores(printed: str, data: str, encoder: str) -> Scores:
    """The table under the heading of a data set and an encoder, best validating method first.

    Raises:
        ValueError: there is no such heading, or no table below it.
    """
    heading = f"\n## Methods on {data} from {encoder}\n"
    _, found, rest = printed.partition(heading)
    rows = _ROW.findall(rest.partition("\n## ")[0])
    if not found or not rows:
        raise ValueError(f"benchmarks/README.md has no table below {heading.strip()!r}")
    return {name: (float(score), float(half)) for name, score, half in rows}


def read_strongest(printed: str, data: str) -> tuple[float, float]:
    """Test score of the strongest fingerprint baseline on a data set; one seed has no interval.

    Raises:
        ValueError: the table of baselines on that data set has no such row.
    """
    _, _, rest = printed.partition("\n## Baselines\n")
    found = re.search(
        rf"^\| {STRONGEST} \| {data} \| (\d+\.\d+) \|", rest.partition("\n## ")[0], re.MULTILINE
    )
    if not found:
        raise ValueError(f"benchmarks/README.md has no row of {STRONGEST} on {data}")
    return float(found[1]), 0.0


def draw(tables: dict[str, dict[str, Scores]], fingerprints: dict[str, Scores]) -> Figure:
    """A panel a data set, a row a method, a dot with its interval an encoder.

    Args:
        tables: data set to encoder to scores; rows are in the order of the first one. Those of
            `FINGERPRINTS` are left out.
        fingerprints: data set to scores of baselines, which have no encoder: rows at the end, a
            dot each.
    """
    everything = [scores for panel in tables.values() for scores in panel.values()]
    own = list(dict.fromkeys(name for scores in everything for name in scores))
    methods = [name for name in own if name not in FINGERPRINTS]
    methods += dict.fromkeys(name for scores in fingerprints.values() for name in scores)
    figure = Figure(figsize=(10, 0.7 + 0.34 * len(methods)), layout="constrained")
    panels = figure.subplots(1, len(tables), sharey=True)
    for axes, (data, encoders) in zip(panels, tables.items(), strict=True):
        for aside, (encoder, scores) in zip((-0.13, 0.13), encoders.items(), strict=True):
            networks = {name: scores[name] for name in scores if name not in FINGERPRINTS}
            places = [methods.index(name) + aside for name in networks]
            _dots(axes, places, networks, encoder, COLOURS[encoder])
        places = [float(methods.index(name)) for name in fingerprints[data]]
        _dots(axes, places, fingerprints[data], "fingerprints, no encoder", GREY)
        axes.set_title(f"{data}, test ROC-AUC (%)", loc="left", fontsize=10)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for row in range(0, len(methods), 2):
        for axes in panels:
            axes.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.07, lw=0)
    panels[0].set_yticks(range(len(methods)), [FINGERPRINTS.get(name, name) for name in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False
    )
    return figure


def _dots(axes: Axes, places: list[float], scores: Scores, label: str, colour: str) -> None:
    means, halves = zip(*scores.values(), strict=True)
    axes.errorbar(means, places, xerr=halves, fmt="o", ms=5, capsize=2, color=colour, label=label)


def main() -> None:
    """Draw what is printed."""
    printed = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    tables = {
        data: {encoder: read_scores(printed, data, encoder) for encoder in COLOURS}
        for data in COMPARED
    }
    baselines = {
        data: {STRONGEST: read_strongest(printed, data)}
        | {name: score for name, score in encoders["a public GCN"].items() if name in FINGERPRINTS}
        for data, encoders in tables.items()
    }
    draw(tables, baselines).savefig(FIGURE, dpi=150)
    print(f"wrote {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
