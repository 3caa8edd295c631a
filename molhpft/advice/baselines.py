"""What every network has to beat: models of fingerprints and descriptors, fitted in seconds.

Same task, splits and score as any run, and a run folder of the same shape, so that tables and the
report show them beside networks. They have no tau, no energy and no features that could move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molhpft import __version__
from molhpft.advice.baseline_models import BASELINES, Baseline, predictions
from molhpft.advice.inventory import chosen_task
from molhpft.config.build import check_splits
from molhpft.config.measures import target_scores
from molhpft.config.options import unknown
from molhpft.config.registry import TASKS
from molhpft.config.schema import Choice, Reader, load_config, plain
from molhpft.core.data import Task
from molhpft.core.metrics import comparable
from molhpft.core.objectives import Multilabel
from molhpft.domains.files import Json, check_folder, check_output, short_digest
from molhpft.domains.molecules.count_fingerprints import COLUMNS
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import RADIUS
from molhpft.run.folder import RunFolder
from molhpft.run.identity import FORMAT
from molhpft.run.lock import locked

READS = Reader("molhpft baselines", ("task", "seed"))


@dataclass(frozen=True)
class BaselineRuns:
    """Baselines of one task.

    Attributes:
        folders: one run folder for each that was fitted.
        left_out: names of those that do not fit the task, and why.
        split: how its molecules are divided, where that is an option of the task.
    """

    folders: tuple[RunFolder, ...]
    left_out: Mapping[str, str]
    split: str | None


def run_baselines(
    name: str,
    changes: Sequence[str],
    out: Path,
    *,
    only: Sequence[str] = (),
    seed: int | None = None,
) -> BaselineRuns:
    """Some baselines of a task, or all that fit it.

    Args:
        name: a config (.yaml), whose task and seed are taken; a task in the catalog; or a table.
        changes: "key=value"; keys of the config, or options of the task where there is none.
        out: folder of run folders.
        only: names of baselines; empty for all.
        seed: instead of the config's, or of 0.

    Raises:
        FileNotFoundError: config or data are absent.
        ValueError: they do not fit, the task has no molecules, or `only` names what is no baseline
            or does not fit the task.
        OSError: `out` cannot be written to.
    """
    check_output(out, Path(name))
    check_folder(out)
    for one in only:
        _known(one)
    if name.endswith((".yaml", ".yml")):
        given = [] if seed is None else [f"seed={seed}"]
        config = load_config(Path(name), [*changes, *given], reader=READS)
        choice, seed = config.task, config.seed
    else:
        choice = Choice(*chosen_task(name, changes))
    task = TASKS[choice.name](**choice.options)
    check_splits(task, needed=("train", "valid"))
    refused = _refused(dict.fromkeys(only or BASELINES), task)
    if only and refused:
        first, why = next(iter(refused.items()))
        raise ValueError(f"baseline {first} does not fit task {task.name}: {why}")
    fitting = [one for one in dict.fromkeys(only or BASELINES) if one not in refused]
    folders = tuple(_run(one, choice, task, out, seed=seed or 0) for one in fitting)
    return BaselineRuns(folders, refused, choice.options.get("split"))


def validation_score(name: str, task: Task, *, value: Any, seed: int = 0) -> float:
    """Validation score of a baseline with one value of its setting; nothing is written.

    Args:
        name: of `BASELINES`.
        task: on molecules; only splits that it has are read.
        value: of the setting that `run_baselines` would choose.
        seed: of forests and samples; what draws nothing does not use it.

    Raises:
        ValueError: the task has no molecules.
    """
    (logits,) = _logits(BASELINES[name], task, [value], seed=seed)
    return task.objective.score(logits["valid"], _molecules(task).targets[task.rows("valid")])


def _known(name: str) -> None:
    if name not in BASELINES:
        raise ValueError(unknown(name, list(BASELINES), "baseline"))


def _refused(names: Mapping[str, None], task: Task) -> dict[str, str]:
    """Which baselines do not fit a task, and why."""
    targets, classes = _training_targets(task), _has_classes(task)
    reasons = {name: BASELINES[name].refusal(targets, classes=classes) for name in names}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _run(name: str, choice: Choice, task: Task, out: Path, *, seed: int) -> RunFolder:
    baseline = BASELINES[name]
    reader: Json = {"name": baseline.reads}
    if baseline.reads != "descriptors":
        reader["columns"] = COLUMNS
    if baseline.reads.startswith("morgan"):
        reader["radius"] = RADIUS
    config = {
        "task": {"name": choice.name, **plain(choice.options)},
        "encoder": reader,
        "method": {"name": name, **baseline.options},
        "seed": seed,
    }
    folder = RunFolder(out / _folder_name(config, choice, task))
    if folder.is_complete:
        return folder
    with locked(folder.path), folder.nothing_left():
        if not folder.is_complete:
            folder.open()
            folder.write_yaml("config.yaml", config)
            branch = _best(baseline, task, seed=seed)
            # nothing here is trained in epochs
            folder.write_lines("history.jsonl", [])
            folder.write_json("summary.json", _summary(name, task, seed) | {"branches": [branch]})
            folder.close()
    return folder


def _molecules(task: Task) -> Molecules:
    if not isinstance(task.examples, Molecules):
        raise ValueError(
            f"baselines read molecules, and task {task.name} has "
            f"{type(task.examples).__name__.lower()}"
        )
    return task.examples


def _has_classes(task: Task) -> bool:
    return isinstance(task.objective, Multilabel)


def _training_targets(task: Task) -> Tensor:
    return _molecules(task).targets[task.rows("train")]


def _best(baseline: Baseline, task: Task, *, seed: int) -> Json:
    """The row of the value that validates best, the first of equals."""
    molecules = _molecules(task)
    labels = {split: molecules.targets[rows] for split, rows in task.splits.items()}
    every = _logits(baseline, task, baseline.values, seed=seed)
    rows = []
    for value, logits in zip(baseline.values, every, strict=True):
        chosen = {} if baseline.setting is None else {baseline.setting: value}
        rows.append(
            {
                **{"tau": None, "energy": {}, "probe": {}, "shift": {}},
                "final": {s: task.objective.score(logits[s], labels[s]) for s in logits},
                "measures": {
                    "targets": {s: target_scores(task, logits[s], labels[s]) for s in logits}
                },
                **chosen,
            }
        )
    return max(rows, key=lambda row: comparable(row["final"]["valid"]))


def _logits(
    baseline: Baseline, task: Task, values: Sequence[Any], *, seed: int
) -> list[dict[str, Tensor]]:
    """For each value of the setting, logits for every split, (n, t)."""
    rows = {split: task.rows(split).numpy() for split in task.splits}
    every = predictions(
        baseline,
        _molecules(task).smiles,
        _training_targets(task),
        train=rows["train"],
        asked=np.concatenate(list(rows.values())),
        classes=_has_classes(task),
        values=values,
        seed=seed,
    )
    sizes = [len(part) for part in rows.values()]
    return [dict(zip(rows, torch.split(logits, sizes), strict=True)) for logits in every]


def _summary(name: str, task: Task, seed: int) -> Json:
    baseline, targets = BASELINES[name], _training_targets(task)
    return {
        "format": FORMAT,
        "task": task.name,
        "fingerprint": task.fingerprint,
        "encoder": baseline.reads,
        "weights": "none",
        "weights_digest": None,
        "method": name,
        "about": baseline.title,
        "rows_per_target": baseline.most_rows if baseline.samples(targets) else None,
        "metric": task.objective.metric,
        "seed": seed,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        "outputs": task.outputs,
        "chosen_by": "validation score",
        "chosen_tau": None,
    }


def _folder_name(config: Json, choice: Choice, task: Task) -> str:
    """By content: the task's fingerprint stands for its files, wherever they lie."""
    options = {k: v for k, v in choice.options.items() if not isinstance(v, Path)}
    parts = [config["encoder"], config["method"], config["seed"], choice.name, plain(options)]
    content = short_digest([*parts, task.fingerprint, __version__, FORMAT])
    return f"{task.name}-{config['method']['name']}-{content}"
