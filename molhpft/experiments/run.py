"""Run a config: prepare the head, finetune from every tau, measure, choose on validation."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from molhpft.core.network import Network
from molhpft.core.task import Task
from molhpft.experiments.branch import describe_branch, finetune, snapshots
from molhpft.experiments.build import build_network, build_recipes, build_task
from molhpft.experiments.config import RunConfig, resolved
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.identity import run_name, stream
from molhpft.experiments.resume import load_branch, save_branch
from molhpft.tuning.exact import solve_head
from molhpft.tuning.interpolate import mix
from molhpft.tuning.probe import on_features, probe
from molhpft.tuning.recipes import Recipe


def run(config: RunConfig, out: Path) -> RunFolder:
    """Run a config, or go on with it, or find it done.

    Args:
        config: everything that decides the result.
        out: folder of run folders; the run's own is named by its content.

    Returns:
        the complete run folder: config.yaml, history.jsonl, summary.json, model.safetensors and,
        where the config asks for them, features.npz.

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: data, weights and settings do not go together.
        OSError: `out` cannot be written to.
    """
    recipes = build_recipes(config)
    task = build_task(config, recipes[0])
    folder = RunFolder(out / run_name(config, task))
    if not folder.is_complete:
        network = build_network(config, task, recipes[0])
        folder.open()
        folder.write_yaml("config.yaml", resolved(config))
        parts = _Parts(config, task, network, recipes, folder)
        _conclude(parts, probe_rows=_branches(parts))
        folder.close()
    return folder


@dataclass(frozen=True)
class _Parts:
    """What a run is made of; the network's head is the only thing that changes."""

    config: RunConfig
    task: Task
    network: Network
    recipes: tuple[Recipe, ...]
    folder: RunFolder


def _branches(parts: _Parts) -> list[Json]:
    """Finish every branch that is not finished yet; returns the rows of the probe they share."""
    # the two networks share one head: a head loaded into `probed` is loaded into `parts.network`
    probed, features = on_features(parts.network, parts.task)
    trajectory = probe(
        probed,
        parts.recipes[0].probe,
        features,
        taus=[recipe.tau for recipe in parts.recipes],
        rng=torch.Generator().manual_seed(stream(parts.config.seed, "probe")),
    )
    for recipe in parts.recipes:
        if load_branch(parts.folder, recipe.tau) is None:
            probed.head.load_state_dict(trajectory.heads[recipe.tau])
            _branch(parts, recipe, probed, features)
    return [{"phase": "probe", **row} for row in trajectory.rows]


def _branch(parts: _Parts, recipe: Recipe, probed: Network, features: Task) -> None:
    """Finetune from a prepared head, measure before and after, and keep what was found."""
    chosen: Json = {}
    if recipe.strengths:
        chosen["strength"] = solve_head(probed, features, strengths=recipe.strengths)
    before, tuned = snapshots(probed, features), deepcopy(parts.network)
    seed = stream(parts.config.seed, "finetune")
    history = finetune(tuned, recipe, parts.task, parts.folder, seed=seed)
    if recipe.shares:
        start = parts.network.state_dict()
        chosen["share"] = mix(tuned, start, parts.task, shares=recipe.shares)
    # without an epoch of finetuning nothing has moved, and a forward pass is saved
    after = snapshots(tuned, parts.task) if history else before
    row = describe_branch(recipe.tau, before, after, parts.task)
    about = {"row": row | chosen, "history": history}
    save_branch(parts.folder, recipe.tau, tuned.state_dict(), about)


def _conclude(parts: _Parts, *, probe_rows: list[Json]) -> None:
    """Choose the branch that validates best and write what the run has found."""
    config, task, folder = parts.config, parts.task, parts.folder
    branches = {recipe.tau: load_branch(folder, recipe.tau) for recipe in parts.recipes}
    found = {tau: branch for tau, branch in branches.items() if branch is not None}
    rows = [about["row"] for _, about in found.values()]
    chosen = max(rows, key=lambda row: row["final"]["valid"])
    weights, _ = found[chosen["tau"]]
    folder.write_lines(
        "history.jsonl",
        [*probe_rows, *(r for _, about in found.values() for r in about["history"])],
    )
    folder.write_tensors(
        "model.safetensors",
        weights,
        {"encoder": config.encoder.name, "task": task.name, "config": resolved(config)},
    )
    if config.features:
        before = snapshots(parts.network, task)
        parts.network.load_state_dict(weights)
        taken = {"before": before, "after": snapshots(parts.network, task)}
        folder.write_arrays(
            "features.npz",
            {f"{split}_{when}": s.features for when, t in taken.items() for split, s in t.items()},
        )
    folder.write_json("summary.json", _summary(parts, rows, chosen))


def _summary(parts: _Parts, rows: list[Json], chosen: Json) -> Json:
    config, task = parts.config, parts.task
    return {
        "task": task.name,
        "encoder": config.encoder.name,
        "weights": str(config.encoder.options["weights"] or "none (random)"),
        "method": config.method.name,
        "metric": task.objective.metric,
        "seed": config.seed,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        "outputs": task.outputs,
        "parameters": sum(p.numel() for p in parts.network.parameters()),
        "chosen_tau": chosen["tau"],
        "chosen_by": "validation score after finetuning",
        "branches": rows,
    }
