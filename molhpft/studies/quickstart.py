"""The whole idea in a minute or two, offline: ways to prepare the shipped encoder's head."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from molhpft.config.changes import SWEEP
from molhpft.config.registry import TASKS
from molhpft.core.metrics import comparable, score_name, show
from molhpft.domains.extras import MissingExtraError
from molhpft.domains.files import Json
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.results.terminal import branch_table
from molhpft.studies.drawing import tau_figure
from molhpft.sweep.grids import run_all

ENCODER = {"weights": DEFAULT_ENCODER}
TAUS = [0, 1, 4, 32, 256]
COMPARE: Json = {
    "task": "nci_alerts",
    "probe": {"epochs": max(TAUS), "lr": 1e-3},
    "finetune": {"epochs": 2, "lr": 1e-3, "keep": "best"},
    "precision": 32,  # the same arithmetic on processors with and without bfloat16
}


@dataclass(frozen=True)
class Quickstart:
    """Results of the quickstart.

    Attributes:
        rows: method name and row of every branch.
        metric: name of the score.
        chosen: number of the row that validates best.
        figure: picture of energy, score and shift against tau; None without matplotlib.
    """

    rows: list[tuple[str, Json]]
    metric: str
    chosen: int
    figure: Path | None

    @property
    def table(self) -> Table:
        """All rows, the chosen one marked."""
        title = f"NCI molecules, structural alerts, score: {score_name(self.metric)}"
        return branch_table(self.rows, title=title, metric=self.metric, chosen=self.chosen)

    @property
    def reading(self) -> str:
        """The table in words."""
        method, best = self.rows[self.chosen]
        tests = {
            name: show(row["final"]["test"], self.metric)
            for name, row in self.rows
            if name in ("scratch", "FT", "LP-FT", "LP")
        }
        others = ", ".join(f"{name} {score}" for name, score in tests.items() if name != method)
        tau = f" with tau {best['tau']}" if method == "HP-FT" else ""
        branches = [row for name, row in self.rows if name in ("FT", "HP-FT", "LP-FT")]
        first, *probed = branches
        last, moved = probed[-1], [row["shift"]["distance"] for row in probed]
        return (
            f"Validation chooses {method}{tau}: test {score_name(self.metric)} "
            f"{show(best['final']['test'], self.metric)}, against {others}. The longer the head is "
            f"probed, the less energy is left ({first['energy']['aie']:.2f} to "
            f"{last['energy']['aie']:.2f}). Finetuning moves the features by "
            f"{first['shift']['distance']:.2f} behind a random head, by {min(moved):.2f} to "
            f"{max(moved):.2f} behind probed ones."
        )

    @property
    def summary(self) -> Json:
        """Everything as plain values."""
        return {
            "metric": self.metric,
            "chosen": self.chosen,
            "rows": [{"method": name, **row} for name, row in self.rows],
            "figure": None if self.figure is None else str(self.figure),
            "reading": self.reading,
        }


def quickstart(out: Path) -> Quickstart:
    """Compare methods on structural alerts, from the shipped encoder and from scratch.

    The molecules are those that RDKit ships, so nothing is downloaded. Methods run side by side,
    one a processor or one a GPU, each on one thread: more would add up in another order. A second
    call finds the finished runs.

    Args:
        out: folder for the run folders and the figure.

    Raises:
        ValueError: a run failed.
        OSError: `out` cannot be written to.
    """
    # up to two taus a run, which share its features and its probe
    hp_ft = [{"name": "hp_ft", "tau": TAUS[i : i + 2]} for i in range(0, len(TAUS), 2)]
    methods = ["scratch", *hp_ft, "lp"]
    raw = {**COMPARE, "encoder": ENCODER, SWEEP: {"method": methods}}
    # all processors look for alerts here, each worker alone would
    TASKS[COMPARE["task"]]()
    (settings,) = run_all(raw, out, threads=1)
    runs = [setting.seeds[0] for setting in settings]
    names = ["scratch", "FT", *["HP-FT"] * (len(TAUS) - 2), "LP-FT", "LP"]
    branches = [row for summary in runs for row in summary["branches"]]
    rows = list(zip(names, branches, strict=True))
    chosen = max(range(len(rows)), key=lambda i: comparable(rows[i][1]["final"]["valid"]))
    figure: Path | None = out / "quickstart.png"
    try:
        tau_figure(rows, out / "quickstart.png", score=score_name(runs[0]["metric"]))
    except MissingExtraError:
        figure = None  # the table says it all
    return Quickstart(rows, runs[0]["metric"], chosen, figure)
