"""Run folders as one tidy table: a row for each run and tau."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from molhpft.experiments.archive import Problem, Run, read_runs
from molhpft.experiments.folder import Json
from molhpft.experiments.labels import named, settings_of

SHIFTS = ("distance", "cosine", "dot", "norm", "start_norm")
ENERGIES = {"aie": "energy", "per_entry": "energy_per_entry", "balanced": "energy_balanced"}


@dataclass(frozen=True)
class Results:
    """What a tree of run folders holds.

    Attributes:
        table: a row for each run and tau. Columns: folder, task, encoder, weights, method, head,
            cut, seed, metric, tau (missing where there is no head probing), chosen, energy,
            energy_per_entry, energy_balanced, probe_<split>, final_<split>, distance, cosine, dot,
            norm, start_norm, epochs (of finetuning), parameters, the settings in which runs differ
            under their config keys, and label, family and variant, see `labels`.
        settings: names of the columns that are settings.
        runs: the runs behind it.
        problems: folders that were left out, and why.
    """

    table: pd.DataFrame
    settings: tuple[str, ...]
    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]

    def runs_of(self, rows: pd.DataFrame) -> list[Run]:
        """The runs that rows of the table come from, each once."""
        wanted = dict.fromkeys(rows["folder"])
        by_path = {str(run.path): run for run in self.runs}
        return [by_path[folder] for folder in wanted]


def read_results(root: Path) -> Results:
    """Read every finished run below a folder.

    Raises:
        ValueError: there is no such folder, or no finished run in it.
    """
    runs, problems = read_runs(root)
    # of runs that differ in what they measured only, the one that measured most is kept below
    runs.sort(key=_measured, reverse=True)
    settings = settings_of(runs)
    rows = [{**settings.of(run), **row} for run in runs for row in _rows(run)]
    table = pd.DataFrame(named(rows, settings)).astype({"tau": "Int64", "epochs": "Int64"})
    # a run that was copied, or differs in what it measured only, is no further evidence
    table = table.drop_duplicates(["task", "variant", "seed", "tau"], ignore_index=True)
    return Results(table, settings.names, tuple(runs), tuple(problems))


def _rows(run: Run) -> list[Json]:
    return [
        {
            "folder": str(run.path),
            **{key: run.summary[key] for key in ("seed", "metric")},
            "tau": branch["tau"],
            "chosen": branch["tau"] == run.summary["chosen_tau"],
            **{ours: branch["energy"].get(key) for key, ours in ENERGIES.items()},
            **{f"probe_{split}": score for split, score in branch["probe"].items()},
            **{f"final_{split}": score for split, score in branch["final"].items()},
            **{key: branch["shift"].get(key) for key in SHIFTS},
            "epochs": _epochs(run, branch["tau"]),
            "parameters": run.summary.get("parameters"),
        }
        for branch in run.summary["branches"]
    ]


def _measured(run: Run) -> int:
    return len(run.config.get("measures") or ()) + bool(run.config.get("features"))


def _epochs(run: Run, tau: int | None) -> int | None:
    """Epochs of finetuning from a tau; None when the history cannot say.

    The tau that `tau: auto` chose has those of the others too.
    """
    if run.history is None:
        return None
    if run.spent is not None:
        return run.spent if tau == run.summary["chosen_tau"] else 0
    phases = [row["phase"] for row in run.history if row.get("tau") == tau]
    return sum(str(phase).startswith("finetune") for phase in phases)
