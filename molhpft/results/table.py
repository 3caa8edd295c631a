"""Run folders as one tidy table: a row for each run and tau, named by what sets it apart.

A run has three names, each finer than the one before. The label says method, and encoder, head and
cut where these differ within a task; the family adds the settings that differ among runs of one
label, but for learning rates; the variant adds the learning rates. Data and weights are identified
by what they hold, wherever they lie: a task by its fingerprint, a weight file by its digest, and so
a pretraining task that a run goes on serving.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

import pandas as pd

from molhpft.config.schema import MACHINE, RECORDED
from molhpft.domains.files import Json
from molhpft.results.read import Problem, Run, read_runs

SHIFTS = ("distance", "cosine", "dot", "norm", "start_norm")
ENERGIES = {"aie": "energy", "per_entry": "energy_per_entry", "balanced": "energy_balanced"}
RATES = ("finetune.lr", "finetune.backbone_lr", "probe.lr")
PLACES = ("task.path", "task.of", "task.mnist")
"""Options of tasks that say where data lie."""

# these have columns of their own, or no part in the result of a run
_NO_SETTINGS = ("seed", "cut", *RECORDED, *MACHINE)
_NAMES = ("task.name", "encoder.name", "encoder.weights", "head.name", "method.name")
_DIGITS = 6  # of a digest, as many as people compare
_ONE_RESULT = ["task", "variant", "seed", "tau"]
_EQUAL = 1e-6  # scores of one result, computed twice


@dataclass(frozen=True)
class Results:
    """What a tree of run folders holds.

    Attributes:
        table: a row for each run and tau. Columns: folder, task, data (fingerprint), encoder,
            weights, method, pretraining (digest of the task that it goes on serving; empty for
            none), head, cut, seed, metric, tau (missing where no number of epochs of probing gave
            the head), chosen, energy, energy_per_entry, energy_balanced, head_norm (missing for
            baselines), probe_<split>, final_<split>, ece_<split> (of classes), distance, cosine,
            dot, norm, start_norm, epochs (of finetuning), parameters, the settings in which runs
            differ under their config keys, and label, family and variant.
        settings: names of the columns that are settings.
        runs: the runs behind it.
        problems: folders that were left out, and why.
        notes: sentences on what in the table may mislead: runs of other versions that it lacks,
            different data of one name, runs that contradict each other, scores that are missing.
    """

    table: pd.DataFrame
    settings: tuple[str, ...]
    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    def runs_of(self, rows: pd.DataFrame) -> list[Run]:
        """The runs that rows of the table come from, each once."""
        by_path = {str(run.path): run for run in self.runs}
        return [by_path[folder] for folder in dict.fromkeys(rows["folder"])]


def read_results(root: Path) -> Results:
    """Read every finished run below a folder.

    Raises:
        ValueError: there is no such folder, or no finished run in it.
    """
    runs, problems = read_runs(root)
    # of runs that differ only in what they measured, the one that measured most comes first
    runs.sort(key=_measure_count, reverse=True)
    settings = _differing_settings(runs)
    weights = _weight_names(runs)
    identities = [_identity(run, settings, weights) for run in runs]
    rows = [{**i, **row} for i, run in zip(identities, runs, strict=True) for row in _rows(run)]
    _name(rows, settings)
    every = pd.DataFrame(rows).astype({"tau": "Int64", "epochs": "Int64"})
    # a run that was copied, or differs only in what it measured, is no further evidence
    table = every.drop_duplicates(_ONE_RESULT, ignore_index=True)
    notes = (
        *_outdated(problems),
        *_namesakes(table, runs),
        *_contradictions(every),
        *_unscored(runs),
    )
    return Results(table, settings, tuple(runs), tuple(problems), notes)


def _rows(run: Run) -> list[Json]:
    return [
        {
            "folder": str(run.path),
            **{key: run.summary[key] for key in ("seed", "metric")},
            "tau": branch["tau"],
            "chosen": branch["tau"] == run.summary["chosen_tau"],
            **{ours: branch["energy"].get(key) for key, ours in ENERGIES.items()},
            "head_norm": (branch.get("head") or {}).get("norm"),
            **{f"probe_{split}": score for split, score in branch["probe"].items()},
            **{f"final_{split}": score for split, score in branch["final"].items()},
            **{f"ece_{split}": error for split, error in (branch.get("ece") or {}).items()},
            **{key: branch["shift"].get(key) for key in SHIFTS},
            "epochs": _epochs(run, branch["tau"]),
            "parameters": run.summary.get("parameters"),
        }
        for branch in run.summary["branches"]
    ]


def _epochs(run: Run, tau: int | None) -> int | None:
    """Epochs of finetuning from a tau; None when the history cannot say.

    The tau that `tau: auto` chose has those of the others too, and a soup those of its members.
    """
    if run.history is None:
        return None
    tuned = [row for row in run.history if str(row["phase"]).startswith("finetune")]
    if run.spent is not None:
        again = sum("repeat" in row for row in tuned)
        return run.spent + again if tau == run.summary["chosen_tau"] else 0
    return len(tuned) if tau is None else sum(row["tau"] == tau for row in tuned)


def _measure_count(run: Run) -> int:
    return len(run.config.get("measures") or ()) + bool(run.config.get("features"))


def _identity(run: Run, settings: Sequence[str], weights: Mapping[str | None, str]) -> Json:
    """Columns that say which run it is: task, network and method, then its settings."""
    flat, method = _settings(run), run.config["method"]["name"]
    return {
        "task": run.summary["task"],
        "data": run.summary["fingerprint"],
        "encoder": run.summary["encoder"],
        "weights": weights[run.summary["weights_digest"]],
        "method": method,
        "pretraining": run.summary.get("auxiliary", ""),
        "head": flat.get("head.name"),
        "cut": run.config.get("cut"),
        **{name: _plain(flat.get(name)) for name in settings},
    }


def _differing_settings(runs: Sequence[Run]) -> tuple[str, ...]:
    """Dotted keys in which runs differ, in the order of a config.

    A list of tau is no setting where its values are rows. Tau chosen in another way ("auto") is
    one, and so are the taus whose networks are averaged into one.
    """
    configs = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {k: {json.dumps(_plain(c.get(k)), default=str) for c in configs} for k in keys}
    return tuple(key for key in keys if len(values[key]) > 1 and key not in _NAMES)


def _settings(run: Run) -> Json:
    """Dotted keys of a config and what they are set to."""
    tau_is_row = run.summary["chosen_tau"] is not None
    return {
        key: value
        for key, value in _flat(run.config)
        if not (key == "method.tau" and isinstance(value, list) and tau_is_row)
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif name not in _NO_SETTINGS:
            yield name, value


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _weight_names(runs: Sequence[Run]) -> dict[str | None, str]:
    """Digest of a weight file to its name; files of one name and other weights add digits."""
    names_of: dict[str | None, set[str]] = defaultdict(set)
    for run in runs:
        path = (run.config.get("encoder") or {}).get("weights")
        names_of[run.summary["weights_digest"]].add(_file_name(path))
    names = {digest: min(names) for digest, names in names_of.items()}
    counts = Counter(names.values())
    return {
        digest: f"{name} {str(digest)[:_DIGITS]}" if counts[name] > 1 else name
        for digest, name in names.items()
    }


def _file_name(weights: Any) -> str:
    """A weight file by its name; one of a run by the run's, as all are called the same."""
    if weights is None:
        return "none"
    path = Path(str(weights))
    return path.parent.name if path.name == "model.safetensors" else path.name


def _name(rows: list[Json], settings: Sequence[str]) -> None:
    """Make task names unmistakable and add label, family and variant, in place."""
    _name_tasks(rows, [name for name in settings if name.startswith("task.")])
    for group in _grouped(rows, "task").values():
        _label(group)
    others = [name for name in settings if not name.startswith("task.")]
    for group in _grouped(rows, "task", "label").values():
        differing = [name for name in others if len({_text(row[name]) for row in group}) > 1]
        differing += ["pretraining"] if _serve_namesakes(group, differing) else []
        for row in group:
            slow = [_setting_text(n, row[n]) for n in differing if n not in RATES]
            fast = [_setting_text(n, row[n]) for n in differing if n in RATES]
            row["family"] = ", ".join([row["label"], *slow])
            row["variant"] = ", ".join([row["label"], *slow, *fast])


def _serve_namesakes(rows: Sequence[Json], settings: Sequence[str]) -> bool:
    """Whether rows of the same settings go on serving different pretraining tasks."""
    served: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        served[tuple(_text(row[name]) for name in settings)].add(row["pretraining"])
    return any(len(digests) > 1 for digests in served.values())


def _name_tasks(rows: Sequence[Json], options: Sequence[str]) -> None:
    """One name for each fingerprint, in place: the task's, and what tells it from its namesakes.

    Two splits of one data set are two tasks: their scores do not compare.
    """
    for task in _grouped(rows, "data").values():
        name = " = ".join(sorted({row["task"] for row in task}))
        for row in task:
            row["task"] = name
    for (name,), group in _grouped(rows, "task").items():
        same = list(_grouped(group, "data").values())
        if len(same) == 1:
            continue
        telling = [key for key in options if key not in PLACES and _tells_apart(key, same)]
        texts = [[f"{_last(key)}={_text(task[0][key])}" for key in telling] for task in same]
        for task, words in zip(same, texts, strict=True):
            digits = [f"data {task[0]['data'][:_DIGITS]}"] if texts.count(words) > 1 else []
            for row in task:
                row["task"] = f"{name} ({', '.join([*words, *digits])})"


def _tells_apart(key: str, tasks: Sequence[Sequence[Json]]) -> bool:
    """Whether an option differs between tasks, and not within one."""
    values = [{_text(row[key]) for row in task} for task in tasks]
    return all(len(texts) == 1 for texts in values) and len(set.union(*values)) > 1


def _label(rows: Sequence[Json]) -> None:
    """Label the rows of one task by what differs among them, in place."""
    networks = [row for row in rows if row["head"] is not None]
    several = {key: len({_text(row[key]) for row in networks}) > 1 for key in ("encoder", "head")}
    weights = {_text(row["weights"]) for row in networks if row["method"] != "scratch"}
    for row in rows:
        words = [row["method"].replace("_", "-")]
        if row["head"] is not None:
            words += [row["encoder"]] if several["encoder"] else []
            if len(weights) > 1 and row["method"] != "scratch":
                words.append("random" if row["weights"] == "none" else row["weights"])
            # linear unless another is named
            words += [f"{row['head']} head"] if several["head"] and row["head"] != "linear" else []
            words += [] if row["cut"] is None else [f"cut at {row['cut']}"]
        row["label"] = ", ".join(words)


def _grouped(rows: Sequence[Json], *keys: str) -> dict[tuple[str, ...], list[Json]]:
    groups: dict[tuple[str, ...], list[Json]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def _setting_text(name: str, value: Any) -> str:
    """A setting and its value; a list of tau, which is none, stands beside "auto" only."""
    if name == "method.tau":
        return "tau by grid" if value is None else f"tau {value}"
    if name == "pretraining":  # the digest of what a config names
        return f"pretraining {value[:_DIGITS] or 'not recorded'}"
    return f"{_last(name)}={_text(value)}"


def _text(value: Any) -> str:
    return "default" if value is None else str(value)


def _last(name: str) -> str:
    section, _, key = name.partition(".")
    return key if section in ("task", "method", "finetune") else name


def _namesakes(table: pd.DataFrame, runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each name that several data sets have."""
    summaries = {run.summary["fingerprint"]: run.summary for run in runs}
    shown = dict(zip(table["data"], table["task"], strict=True))
    for name in dict.fromkeys(summary["task"] for summary in summaries.values()):
        same = {data for data, summary in summaries.items() if summary["task"] == name}
        if len(same) > 1:
            tasks = []
            for data in sorted(same, key=lambda data: shown[data]):
                sizes = (summaries[data].get("sizes") or {}).items()
                counts = ", ".join(f"{split} {count:,}" for split, count in sizes)
                tasks.append(shown[data] + (f" with {counts}" if counts else ""))
            yield (
                f"{name} names {len(same)} tasks, whose rows, labels or splits differ, so that "
                f"their scores do not compare: {'; '.join(tasks)}."
            )


def _outdated(problems: Sequence[Problem]) -> Iterator[str]:
    """A sentence that counts the runs of other versions."""
    if count := sum(problem.of_other_format for problem in problems):
        yield (
            f"{'1 run is' if count == 1 else f'{count} runs are'} left out: another version made "
            f"{'it' if count == 1 else 'them'}, and numbers may mean something else. Run again "
            "what is to be compared."
        )


def _contradictions(every: pd.DataFrame) -> Iterator[str]:
    """A sentence for each folder whose scores differ from those of the folder that is shown."""
    finals = [str(name) for name in every.columns if str(name).startswith("final_")]
    reported: set[tuple[str, str]] = set()
    twice = every[every.duplicated(_ONE_RESULT, keep=False)]
    for _, group in twice.groupby(_ONE_RESULT, sort=False, dropna=False):
        shown = group.iloc[0]
        for _, other in group.iloc[1:].iterrows():
            apart = [name for name in finals if _differ(shown[name], other[name])]
            pair = (str(shown["folder"]), str(other["folder"]))
            if apart and pair not in reported:
                reported.add(pair)
                split = apart[0].removeprefix("final_")
                yield (
                    f"{pair[1]} and {pair[0]} are the same run by their data, settings and seed, "
                    f"and contradict each other ({split}: {other[apart[0]]:.6g} and "
                    f"{shown[apart[0]]:.6g}); the second is shown. Another version or machine may "
                    "have made one of them: move one away."
                )


def _differ(first: float, second: float) -> bool:
    both = not (pd.isna(first) or pd.isna(second))
    return not isclose(first, second, rel_tol=_EQUAL) if both else pd.isna(first) != pd.isna(second)


def _unscored(runs: Sequence[Run]) -> Iterator[str]:
    """A sentence for each branch whose predictions were not finite: means are better without it."""
    for run in runs:
        for branch in run.summary["branches"]:
            place = "" if branch["tau"] is None else f" at tau {branch['tau']}"
            lost = [split for split, score in branch["final"].items() if score is None]
            if lost:
                yield (
                    f"{run.path} predicts what is not finite{place} and has no "
                    f"score of {', '.join(lost)}: means over seeds leave it out."
                )
