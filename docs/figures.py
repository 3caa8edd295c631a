"""The figures of the guide, drawn by the package from the settings below and of committed configs.

$ python docs/figures.py
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import matplotlib

from molhpft.config.schema import parse_config
from molhpft.core.determinism import one_thread
from molhpft.domains.files import Json
from molhpft.run.probe_grid import READS, Grid, probe_grid
from molhpft.run.run import run
from molhpft.studies.drawing import BLUE, GREEN, GREY, ORANGE
from molhpft.studies.linear_study import linear_study
from molhpft.studies.quickstart import COMPARE, ENCODER
from molhpft.studies.quickstart import TAUS as QUICKSTART_TAUS

matplotlib.use("agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
TAUS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)
# what the user guide offers, as changes of the quickstart's config, and how long it is probed for;
# a partial backbone has no cached features, so that its epochs cost a hundred times as much
REMEDIES: dict[str, tuple[Json, str, int]] = {
    "linear head": ({}, BLUE, 256),
    "label smoothing 0.1": ({"method": {"name": "ls_hp_ft", "smoothing": 0.1}}, GREEN, 256),
    "MLP head": ({"head": "mlp"}, ORANGE, 256),
    "partial backbone": ({"cut": "conv4"}, GREY, 32),
}
SEEDS = 5
# tau, AIE, HP valid, HP test, FT valid, FT test, distance, cosine
_ROW = re.compile(r"^# +(\d+) +\S+ +\S+ +\S+ +(\S+) +(\S+) +\S+ +\S+$", re.MULTILINE)
_SCORE = r" (0\.\d+) ± (\S+) \|"
_SEEDS_ROW = re.compile(rf"^\| (\d+) \|(?: \S+ ± \S+ \|){{3}}{_SCORE}{_SCORE}", re.MULTILINE)

# tau to split to mean and standard deviation over seeds
Scores = dict[str, dict[str, tuple[float, float]]]


def remedies(path: Path) -> None:
    """Energy and validation score along a probe, for every answer of the user guide."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    energy, score = figure.subplots(1, 2)
    for name, (changes, colour, longest) in REMEDIES.items():
        taus = [tau for tau in TAUS if tau <= longest]
        method = {"name": "hp_ft", "tau": taus} | changes.get("method", {})
        config = {**COMPARE, "encoder": ENCODER, **changes, "method": method}
        read = parse_config(config, unused_are="dropped", reader=READS)
        rows = probe_grid(read, Grid(taus=taus))["rows"]
        places = range(len(taus))
        energy.plot(places, [row["aie"] for row in rows], "-o", color=colour, ms=4, label=name)
        score.plot(places, [100 * row["valid"] for row in rows], "-o", color=colour, ms=4)
    energy.set_title("Energy that is left for finetuning (AIE)", loc="left", fontsize=10)
    score.set_title("ROC-AUC (%) of the probed head, validation", loc="left", fontsize=10)
    energy.legend(frameon=False, fontsize=9)
    for axes in (energy, score):
        _along(axes, [str(tau) for tau in TAUS])
    figure.savefig(path, dpi=150)


def three_tasks(path: Path, work: Path) -> None:
    """What probing is worth beyond plain finetuning, for tasks that want other taus."""
    tables = {f"Alerts from gcn_structure, {SEEDS} seeds": alerts(work), **measured()}
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    panels = figure.subplots(1, len(tables), sharey=True)
    for axes, (name, rows) in zip(panels, tables.items(), strict=True):
        # side by side, so that neither hides the other
        for split, colour, aside in (("validation", BLUE, -0.08), ("test", ORANGE, 0.08)):
            means, deviations = zip(*(row[split] for row in rows.values()), strict=True)
            places = [k + aside for k in range(len(means))]
            gains = [100 * (mean - means[0]) for mean in means]
            bars = [100 * deviation for deviation in deviations] if any(deviations) else None
            look = {"color": colour, "ms": 4, "elinewidth": 1, "capsize": 2}
            axes.errorbar(places, gains, bars, fmt="-o", label=split, **look)
        axes.axhline(0, color=GREY, lw=1, ls=":")
        axes.set_title(name, loc="left", fontsize=10)
        _along(axes, list(rows))
    panels[0].set_ylabel("points gained over tau 0")
    panels[0].legend(frameon=False, fontsize=9, loc="lower left")
    figure.savefig(path, dpi=150)


def alerts(work: Path) -> Scores:
    """The quickstart's HP-FT over several seeds."""
    method = {"name": "hp_ft", "tau": QUICKSTART_TAUS}
    found: dict[str, list[Json]] = {str(tau): [] for tau in QUICKSTART_TAUS}
    for seed in range(SEEDS):
        varied = {"encoder": ENCODER, "method": method, "seed": seed}
        config = parse_config({**COMPARE, **varied}, unused_are="dropped")
        for row in run(config, work).read_json("summary.json")["branches"]:
            found[str(row["tau"])].append(row["final"])
    splits = {"validation": "valid", "test": "test"}
    scores = {
        tau: {name: _spread([row[split] for row in rows]) for name, split in splits.items()}
        for tau, rows in found.items()
    }
    for tau, row in scores.items():
        said = (f"{name} {100 * m:.2f} ± {100 * s:.2f}" for name, (m, s) in row.items())
        print(f"alerts, {SEEDS} seeds, tau {tau}: {', '.join(said)}")
    return scores


def measured() -> dict[str, Scores]:
    """What configs and benchmarks have printed where they lie."""
    tox21 = _ROW.findall((ROOT / "configs" / "finetune" / "tox21_hpft.yaml").read_text("utf-8"))
    mnist = _SEEDS_ROW.findall((ROOT / "benchmarks" / "README.md").read_text("utf-8"))
    return {
        "Tox21 from a public GCN, 1 seed": {
            tau: {"validation": (float(valid), 0.0), "test": (float(test), 0.0)}
            for tau, valid, test in tox21
        },
        "MNIST from CIFAR-10, 3 seeds": {
            tau: {"validation": (float(a), float(b)), "test": (float(c), float(d))}
            for tau, a, b, c, d in mnist
        },
    }


def _spread(scores: Sequence[float]) -> tuple[float, float]:
    return mean(scores), stdev(scores)


def _along(axes: Axes, taus: Sequence[str]) -> None:
    axes.set_xticks(range(len(taus)), taus)
    axes.set_xlabel("tau: epochs of head probing")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


@one_thread()
def main(work: Path) -> None:
    """All figures; a second call with the same folder finds the finished runs."""
    FIGURES.mkdir(exist_ok=True)
    next(iter(linear_study(work).figures.values())).replace(FIGURES / "regimes.png")
    remedies(FIGURES / "remedies.png")
    three_tasks(FIGURES / "three_tasks.png", work)
    print(f"wrote regimes.png, remedies.png and three_tasks.png in {FIGURES.relative_to(ROOT)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The figures of the guide.")
    parser.add_argument("--work", type=Path, help="folder for run folders, to go on from")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        main(given.work or Path(folder))
