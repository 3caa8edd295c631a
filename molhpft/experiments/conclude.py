"""What a run ends with: the branch that validates best, and everything that was found."""

from collections.abc import Mapping, Sequence
from copy import deepcopy

from molhpft.core.measured import comparable
from molhpft.core.network import Network
from molhpft.core.task import Task
from molhpft.experiments.branch import snapshots
from molhpft.experiments.config import RunConfig, resolved
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.identity import weights_digest
from molhpft.experiments.measures import measure_run
from molhpft.experiments.standouts import STANDOUTS, standouts
from molhpft.tuning.checkpoints import Weights


def conclude(
    config: RunConfig,
    task: Task,
    start: Network,
    branches: Mapping[int, tuple[Weights, Json]],
    folder: RunFolder,
    *,
    probe_rows: Sequence[Json],
    choice: Json | None = None,
) -> None:
    """Choose on validation and write history, model, summary and, when asked for, features.

    With features, the molecules that stand out are written too, see `standouts`.

    Args:
        config: of the run.
        task: what it was run on.
        start: the network before finetuning, with any of the probed heads.
        branches: tau to final weights and what was said of them: "row" and "history".
        folder: the run's.
        probe_rows: history of the probe that the branches share.
        choice: how tau was chosen before, where the config left it open.
    """
    rows = [about["row"] for _, about in branches.values()]
    chosen = max(rows, key=lambda row: comparable(row["final"]["valid"]))["tau"]
    history = [row for _, about in branches.values() for row in about["history"]]
    folder.write_lines("history.jsonl", [*probe_rows, *history])
    about = {"encoder": config.encoder.name, "task": task.name, "config": resolved(config)}
    folder.write_tensors("model.safetensors", branches[chosen][0], about)
    if config.features:
        _write_features(folder, start, _with_weights(start, branches[chosen][0]), task)
    summary = _summary(config, task, start) | {"chosen_tau": chosen, "branches": rows}
    if choice:
        shown = {key: value for key, value in choice.items() if key != "energies"}
        summary |= {"choice": shown, "chosen_by": "validation score of short finetunings"}
    if config.measures:
        networks = [_with_weights(start, weights) for weights, _ in branches.values()]
        summary["measures"] = measure_run(config.measures, networks, task)
    folder.write_json("summary.json", summary)


def _with_weights(network: Network, weights: Weights) -> Network:
    copy = deepcopy(network)
    copy.load_state_dict(weights)
    return copy


def _write_features(folder: RunFolder, start: Network, end: Network, task: Task) -> None:
    taken = {"before": snapshots(start, task), "after": snapshots(end, task)}
    arrays = {f"{split}_{when}": s.features for when, t in taken.items() for split, s in t.items()}
    folder.write_arrays("features.npz", arrays)
    found = standouts(taken["before"]["train"], taken["after"]["train"], task)
    if found is not None:
        folder.write_json(STANDOUTS, found)


def _summary(config: RunConfig, task: Task, network: Network) -> Json:
    return {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "encoder": config.encoder.name,
        "weights": str(config.encoder.options["weights"] or "none (random)"),
        "weights_digest": weights_digest(config),
        "method": config.method.name,
        "metric": task.objective.metric,
        "seed": config.seed,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        "outputs": task.outputs,
        "parameters": sum(p.numel() for p in network.parameters()),
        "chosen_by": "validation score after finetuning",
    }
