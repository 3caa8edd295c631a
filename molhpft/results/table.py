"""Run folders as one tidy table: a row for each run and tau."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path

import pandas as pd

from molhpft.domains.files import Json
from molhpft.results.naming import named, settings_of
from molhpft.results.read import Problem, Run, read_runs

SHIFTS = ("distance", "cosine", "dot", "norm", "start_norm")
ENERGIES = {"aie": "energy", "per_entry": "energy_per_entry", "balanced": "energy_balanced"}


@dataclass(frozen=True)
class Results:
    """What a tree of run folders holds.

    Attributes:
        table: a row for each run and tau. Columns: folder, task, data (fingerprint), encoder,
            weights, method, head, cut, seed, metric, tau (missing where there is no head probing),
            chosen, energy, energy_per_entry, energy_balanced, probe_<split>, final_<split>,
            distance, cosine, dot, norm, start_norm, epochs (of finetuning), parameters, the
            settings in which runs differ under their config keys, and label, family and variant,
            see `labels`.
        settings: names of the columns that are settings.
        runs: the runs behind it.
        problems: folders that were left out, and why.
        notes: sentences on what is in the table and may mislead: data of one name that differ, runs
            that contradict each other.
    """

    table: pd.DataFrame
    settings: tuple[str, ...]
    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

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
    every = pd.DataFrame(named(rows, settings)).astype({"tau": "Int64", "epochs": "Int64"})
    # a run that was copied, or differs in what it measured only, is no further evidence
    table = every.drop_duplicates(_ONE_RESULT, ignore_index=True)
    notes = (*_namesakes(table, runs), *_contradictions(every), *_unscored(runs))
    return Results(table, settings.names, tuple(runs), tuple(problems), notes)


_ONE_RESULT = ["task", "variant", "seed", "tau"]
_EQUAL = 1e-6  # scores of one result, computed twice


def _namesakes(table: pd.DataFrame, runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each name that several data sets have."""
    names = {run.summary["fingerprint"]: run.summary["task"] for run in runs}
    sizes = {run.summary["fingerprint"]: run.summary.get("sizes") or {} for run in runs}
    shown = dict(zip(table["data"], table["task"], strict=True))
    for name in dict.fromkeys(names.values()):
        same = [data for data, own in names.items() if own == name]
        if len(same) > 1:
            said = [f"{shown[d]}{_sized(sizes[d])}" for d in sorted(same, key=lambda d: shown[d])]
            yield (
                f"{name} names {len(same)} tasks, whose rows, labels or splits differ, so that "
                f"their scores do not compare: {'; '.join(said)}."
            )


def _sized(sizes: Mapping[str, int]) -> str:
    counts = ", ".join(f"{split} {count:,}" for split, count in sizes.items())
    return f" with {counts}" if counts else ""


def _contradictions(every: pd.DataFrame) -> Iterator[str]:
    """A sentence for each folder whose scores differ from those of the folder that is shown."""
    finals = [str(name) for name in every.columns if str(name).startswith("final_")]
    said: set[tuple[str, str]] = set()
    twice = every[every.duplicated(_ONE_RESULT, keep=False)]
    for _, group in twice.groupby(_ONE_RESULT, sort=False, dropna=False):
        shown = group.iloc[0]
        for _, other in group.iloc[1:].iterrows():
            apart = [name for name in finals if _differ(shown[name], other[name])]
            pair = (str(shown["folder"]), str(other["folder"]))
            if apart and pair not in said:
                said.add(pair)
                split = apart[0].removeprefix("final_")
                yield (
                    f"{pair[1]} and {pair[0]} are the same run by their data, settings and seed, "
                    f"and contradict each other ({split}: {other[apart[0]]:.6g} and "
                    f"{shown[apart[0]]:.6g}); the second is shown. Another version or machine may "
                    "have made one of them: move one away."
                )


def _unscored(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each branch whose predictions were not finite: means are better without it."""
    for run in runs:
        for branch in run.summary["branches"]:
            lost = [split for split, score in branch["final"].items() if score is None]
            if lost:
                yield (
                    f"{run.path} predicts what is not finite at tau {branch['tau']} and has no "
                    f"score of {', '.join(lost)}: means over seeds leave it out."
                )


def _differ(first: float, second: float) -> bool:
    both = not (pd.isna(first) or pd.isna(second))
    return not isclose(first, second, rel_tol=_EQUAL) if both else pd.isna(first) != pd.isna(second)


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
