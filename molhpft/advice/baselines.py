"""What every method has to beat: Morgan fingerprints with a random forest or logistic regression.

Same task, splits and score as any run, and a run folder of the same shape, so that tables and the
report show them beside networks. They have no tau, no energy and no features that could move.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from molhpft import __version__
from molhpft.advice.inventory import chosen_task
from molhpft.config.measures import target_scores
from molhpft.config.registry import TASKS
from molhpft.config.schema import Choice, Reader, load_config, plain
from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.metrics import comparable
from molhpft.core.objectives import Multilabel
from molhpft.domains.console import track
from molhpft.domains.files import Json, short_digest
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import BITS, RADIUS, morgan_fingerprints
from molhpft.domains.parallel import worker_count
from molhpft.run.folder import RunFolder, check_output
from molhpft.run.identity import FORMAT
from molhpft.run.lock import locked

READS = Reader("molhpft baselines", ("task", "seed"))
TREES = 300
INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
CLIP = 1e-6  # a forest may be certain; a logit may not be infinite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """A model of fingerprints.

    Attributes:
        options: of the method in the config that is written.
        setting: name of what validation chooses.
        values: to choose from.
        model: an estimator, of whether targets are classes, the setting's value, and a seed.
    """

    options: Json
    setting: str
    values: tuple[Any, ...]
    model: Callable[[bool, Any, int], Any]


def run_baselines(
    name: str, changes: Sequence[str], out: Path, *, seed: int | None = None
) -> list[RunFolder]:
    """Every baseline of a task.

    Args:
        name: a config (.yaml), whose task and seed are taken; a task in the catalog; or a table.
        changes: "key=value"; keys of the config, or options of the task where there is none.
        out: folder of run folders.
        seed: instead of the config's, or of 0.

    Raises:
        FileNotFoundError: config or data are absent.
        ValueError: they do not fit, or the task has no molecules.
        OSError: `out` cannot be written to.
    """
    check_output(out, Path(name))
    if name.endswith((".yaml", ".yml")):
        given = [] if seed is None else [f"seed={seed}"]
        config = load_config(Path(name), [*changes, *given], reader=READS)
        choice, seed = config.task, config.seed
    else:
        choice = Choice(*chosen_task(name, changes))
    return [run_baseline(baseline, choice, out, seed=seed or 0) for baseline in BASELINES]


def run_baseline(name: str, choice: Choice, out: Path, *, seed: int = 0) -> RunFolder:
    """Fit a baseline to a task, or find it done.

    Args:
        name: of `BASELINES`.
        choice: a task on molecules, as a config has it.
        out: folder of run folders.
        seed: of the forest; logistic regression does not use it.

    Raises:
        FileNotFoundError: the task's data are absent.
        ValueError: the task has no molecules.
        OSError: `out` cannot be written to.
    """
    baseline, task = BASELINES[name], TASKS[choice.name](**choice.options)
    molecules = _molecules(task)
    config = {
        "task": {"name": choice.name, **plain(choice.options)},
        "encoder": {"name": "morgan", "radius": RADIUS, "bits": BITS},
        "method": {"name": name, **baseline.options},
        "seed": seed,
    }
    folder = RunFolder(out / _folder_name(config, choice, task))
    if folder.is_complete:
        return folder
    with locked(folder.path):
        if not folder.is_complete:
            folder.open()
            folder.write_yaml("config.yaml", config)
            branch = _best(baseline, task, molecules, seed=seed)
            # nothing here is trained in epochs
            folder.write_lines("history.jsonl", [])
            folder.write_json("summary.json", _summary(name, task, seed) | {"branches": [branch]})
            folder.close()
    return folder


def validation_score(name: str, task: Task, *, value: Any, seed: int = 0) -> float:
    """Validation score of a baseline with one value of its setting; nothing is written.

    Args:
        name: of `BASELINES`.
        task: on molecules; only splits that it has are read.
        value: of the setting that `run_baseline` would choose.
        seed: as for `run_baseline`.

    Raises:
        ValueError: the task has no molecules.
    """
    molecules = _molecules(task)
    bits = morgan_fingerprints(molecules.smiles)
    logits = _logits(BASELINES[name], task, molecules, bits, value=value, seed=seed)
    return task.objective.score(logits["valid"], molecules.targets[task.rows("valid")])


def _molecules(task: Task) -> Molecules:
    if not isinstance(task.examples, Molecules):
        raise ValueError(
            f"baselines read molecules, and task {task.name} has "
            f"{type(task.examples).__name__.lower()}"
        )
    return task.examples


def _best(baseline: Baseline, task: Task, molecules: Molecules, *, seed: int) -> Json:
    """The row of the value that validates best, the first of equals."""
    bits = morgan_fingerprints(molecules.smiles)
    labels = {split: molecules.targets[rows] for split, rows in task.splits.items()}
    rows = []
    for value in baseline.values:
        logits = _logits(baseline, task, molecules, bits, value=value, seed=seed)
        rows.append(
            {
                **{"tau": None, "energy": {}, "probe": {}, "shift": {}},
                "final": {s: task.objective.score(logits[s], labels[s]) for s in logits},
                "measures": {
                    "targets": {s: target_scores(task, logits[s], labels[s]) for s in logits}
                },
                baseline.setting: value,
            }
        )
    return max(rows, key=lambda row: comparable(row["final"]["valid"]))


def _logits(
    baseline: Baseline, task: Task, molecules: Molecules, bits: Tensor, *, value: Any, seed: int
) -> Mapping[str, Tensor]:
    """Logits for every split, (n, t); each target is fitted to the molecules that have it."""
    classes = isinstance(task.objective, Multilabel)
    train = task.rows("train")
    inputs = {s: csr_matrix(bits[rows].numpy(), dtype=float) for s, rows in task.splits.items()}
    columns = []
    for k in track(range(task.outputs), "fitting targets"):
        y = molecules.targets[train][:, k].double().numpy()
        measured = ~np.isnan(y)
        model = baseline.model(classes, value, seed_for(seed, f"target {k}") % 2**32)
        x = inputs["train"][measured]
        columns.append(_predictions(model, x, y[measured], inputs, classes=classes))
    return {
        split: torch.from_numpy(np.stack([column[split] for column in columns], axis=1))
        for split in inputs
    }


def _predictions(
    model: Any, x: Any, y: Array, inputs: Mapping[str, Any], *, classes: bool
) -> dict[str, Array]:
    """Logits or numbers of one target, (n,) by split."""
    if len(y) == 0 or (classes and len(np.unique(y)) < 2):
        # nothing to learn from: every molecule gets the same prediction
        constant = float(y.mean()) if len(y) else 0.0
        return {split: np.full(rows.shape[0], constant) for split, rows in inputs.items()}
    model.fit(x, y)
    if isinstance(model, RandomForestClassifier | RandomForestRegressor):
        # threads add up the votes of trees in any order, and roundings differ
        model.set_params(n_jobs=1)
    if not classes:
        return {split: model.predict(rows) for split, rows in inputs.items()}
    p = {s: np.clip(model.predict_proba(rows)[:, 1], CLIP, 1 - CLIP) for s, rows in inputs.items()}
    return {split: np.log(p_s) - np.log1p(-p_s) for split, p_s in p.items()}


def _forest(classes: bool, trees: int, seed: int) -> Any:
    kind = RandomForestClassifier if classes else RandomForestRegressor
    # for numbers scikit-learn would try all bits at every node, 45 times the work
    return kind(trees, max_features="sqrt", random_state=seed, n_jobs=worker_count())


def _linear(classes: bool, inverse_penalty: float, seed: int) -> Any:
    if classes:
        return LogisticRegression(C=inverse_penalty, max_iter=5000)
    return Ridge(alpha=1 / inverse_penalty)


def _summary(name: str, task: Task, seed: int) -> Json:
    return {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "encoder": "morgan",
        "weights": "none",
        "weights_digest": None,
        "method": name,
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


BASELINES: dict[str, Baseline] = {
    "morgan_rf": Baseline({"trees": TREES}, "trees", (TREES,), _forest),
    "morgan_lr": Baseline(
        {"inverse_penalties": list(INVERSE_PENALTIES)},
        "inverse_penalty",
        INVERSE_PENALTIES,
        _linear,
    ),
}
