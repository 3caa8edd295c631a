"""HP-FT on one page: `run` takes a config to a complete run folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from molhpft.config.build import build_network, build_recipes, build_task, weights_digest
from molhpft.config.measures import (
    WITHOUT_FINETUNING,
    Branch,
    check_measures,
    measure_branch,
    measure_run,
)
from molhpft.config.schema import RunConfig, beside_of, resolved
from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus, seed_for
from molhpft.core.metrics import comparable
from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass, Multilabel, Objective
from molhpft.domains.files import Json
from molhpft.domains.molecules.further_columns import reading_beside
from molhpft.measure.features import head_norm
from molhpft.run.auto_tau import CHOICE_FILE, candidate_recipe, choose_tau
from molhpft.run.branch import (
    RunContext,
    after_finetuning,
    before_finetuning,
    evaluated,
    finetune,
    predictions,
    snapshots,
    write_member,
)
from molhpft.run.device import launch, settled
from molhpft.run.folder import RunFolder
from molhpft.run.identity import FORMAT, probe_name, run_name
from molhpft.run.lock import locked
from molhpft.run.resume import has_branch, load_branch, save_branch
from molhpft.run.side_by_side import Processes
from molhpft.run.soup_branch import soup_branch
from molhpft.run.standouts import STANDOUTS, standouts
from molhpft.run.trajectory import probing_ground, shared_trajectory
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.probe import Trajectory, probe, with_head
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.solve_head import mix, mix_by_stage, solve_head


@deterministic_on_gpus()
def run(
    config: RunConfig,
    out: Path,
    *,
    task: Task | None = None,
    shared: tuple[int, ...] = (),
    until: int | None = None,
) -> RunFolder:
    """Run a config, resume it where it was interrupted, or find it complete.

    Where another process is running the same config, this one waits and returns its result. With
    several devices, all processes call this alike and share the finetuning; the first one writes.

    Args:
        config: everything that decides the result.
        out: folder of run folders; the run's own is named by its content.
        task: the config's, where the caller has built it.
        shared: every tau at which other runs want the head of the same probe, for the cache.
        until: epochs of finetuning, at least 1, after which the run pauses, for a later call to go
            on from there, where it is not farther already; None runs to the end. Of methods with
            one phase after the probe.

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: data, weights, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    with _under_way(config, out, task) as (folder, beginning):
        if beginning is None:
            return folder
        network, task, recipes, context = beginning
        machine, measures = context.machine, config.measures
        choice = choose_tau(network, task, recipes[0], context) if recipes[0].chooses else None
        if choice:
            recipes = tuple(candidate_recipe(recipe, choice["chosen"]) for recipe in recipes)
        trajectory, probed, features = probe_heads(network, task, recipes, context, shared=shared)
        branch_of = partial(Branch, task=evaluated(task), seed=config.seed, trained=task)
        for recipe in recipes:  # one for each tau
            if not machine.agreed(has_branch(folder, recipe)):
                head, extra = prepare_head(trajectory, probed, features, recipe)
                start = with_head(network, head.head.state_dict())
                tuned, history = finetune(start, task, recipe, context, until=until)
                if until is not None:
                    continue
                tuned, mixing = mixture(start, tuned, task, recipe)
                branch = branch_of(start=start, end=tuned, recipe=recipe, history=history)
                row = measure(branch, head, evaluated(features), measures) | extra | mixing
                write_member(tuned, recipe, context)
                save_branch(folder, recipe, tuned.state_dict(), row, history)
        machine.wait()
        if until is not None:
            return folder
        branches = [load_branch(folder, recipe) for recipe in recipes]
        machine.wait()  # all have read what closing the folder removes
        if recipes[0].soup:
            branches = [soup_branch(network, task, recipes, branches, context)]
        write_results(network, task, branches, trajectory, choice, context)
        folder.close()
        machine.wait()
    return folder


@deterministic_on_gpus()
def choose(config: RunConfig, out: Path, *, task: Task, processes: Processes) -> Json:
    """The choice of the tau that a config leaves open, with which its run then goes on.

    Args:
        config: of the run.
        out: folder of run folders.
        task: the config's.
        processes: that finetune candidates.

    Returns:
        see `choose_tau`.

    Raises:
        FileNotFoundError: weights are absent.
        ValueError: data, weights, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    with _under_way(config, out, task) as (folder, beginning):
        if beginning is None:
            return folder.read_json(CHOICE_FILE)
        network, task, recipes, context = beginning
        return choose_tau(network, task, recipes[0], context, processes)


class _Beginning(NamedTuple):
    """What a run begins with, or is resumed with."""

    network: Network
    task: Task
    recipes: tuple[Recipe, ...]
    context: RunContext


@contextmanager
def _under_way(
    config: RunConfig, out: Path, task: Task | None
) -> Iterator[tuple[RunFolder, _Beginning | None]]:
    """The folder of a run, locked, and what the run begins with: None where it is complete."""
    given, config = config, settled(config)
    machine, recipes = launch(config), build_recipes(config)
    with machine.first_alone():
        task = reading_beside(task or build_task(config, recipes[0]), beside_of(config.head))
    check_measures(config.measures, task)
    folder = RunFolder(out / run_name(config, task), writes=machine.rank == 0)
    if machine.agreed(folder.is_complete):
        yield folder, None
        return
    with locked(folder.path, machine=machine), folder.nothing_left():
        if machine.agreed(folder.is_complete):  # made by another process in the meantime
            yield folder, None
            return
        network = build_network(config, task, recipes[0], device=machine.device)
        task = task.to(machine.device)
        folder.open()
        folder.write_yaml("config.yaml", resolved(given))
        yield folder, _Beginning(network, task, recipes, RunContext(config, folder, machine))


def probe_heads(
    network: Network,
    task: Task,
    recipes: Sequence[Recipe],
    context: RunContext,
    *,
    shared: Sequence[int] = (),
) -> tuple[Trajectory, Network, Task]:
    """Heads of every tau from one probe; with the network and the task that they were probed on."""
    config = context.config
    # features are not worth taking for a head that is not trained
    trains = any(recipe.tau or recipe.inverse_penalties for recipe in recipes)
    views = config.views if trains else "live"
    head, features = probing_ground(network, task, views=views, seed=config.seed)

    def build(taus: Sequence[int]) -> Trajectory:
        rng = torch.Generator().manual_seed(seed_for(config.seed, "probe"))
        return probe(head, recipes[0].probe, features, taus=taus, rng=rng)

    name = probe_name(config, recipes[0], task)
    taus = list(dict.fromkeys(recipe.tau for recipe in recipes))
    if recipes[0].probe.depends_on_its_end:  # each tau has a schedule, and so rows, of its own
        shared = ()
    return shared_trajectory(name, taus, build, shared=shared), head, features


def prepare_head(
    trajectory: Trajectory, probed: Network, features: Task, recipe: Recipe
) -> tuple[Network, Json]:
    """The probed network with the head of a recipe, and how that head was found.

    Args:
        trajectory: heads by tau.
        probed: what the heads read, see `probing_ground`.
        features: what `probed` reads.
        recipe: asks for the head of its tau, or for the solved one.
    """
    head = with_head(probed, trajectory.heads[recipe.tau])
    if not recipe.inverse_penalties:
        return head, {}
    penalties = recipe.inverse_penalties
    solved, penalty = solve_head(head, features, inverse_penalties=penalties)
    return with_head(head, solved), {"inverse_penalty": penalty}


def mixture(start: Network, tuned: Network, task: Task, recipe: Recipe) -> tuple[Network, Json]:
    """The network that a recipe ends with after finetuning, and its mixing weights if it has any.

    Args:
        start: the probed network that finetuning began with.
        tuned: as finetuning ended.
        task: whose validation split decides.
        recipe: asks for one mixing weight, one for each stage, or none.
    """
    if recipe.alphas:
        mixed, alpha = mix(start, tuned, task, alphas=recipe.alphas)
        return mixed, {"alpha": alpha}
    if mixing := recipe.stage_mixing:
        mixed, alphas = mix_by_stage(start, tuned, task, steps=mixing.steps, lr=mixing.lr)
        return mixed, {"alphas": alphas}
    return tuned, {}


def measure(branch: Branch, head: Network, features: Task, names: Sequence[str]) -> Json:
    """Energy, head norm, scores, shift and calibration of a branch, and the measures named.

    Args:
        branch: a finished one.
        head: what was probed, with the head that finetuning began with.
        features: what `head` reads: the branch's task, or its cached features.
        names: further measures.
    """
    task, finetuned = branch.task, bool(branch.history)
    row = {
        "tau": branch.recipe.reported_tau,
        **before_finetuning(predictions(head, features), task),
    }
    row["head"] = {"norm": head_norm(head.head)}
    # without an epoch of finetuning nothing has moved, and features may be cached
    row |= after_finetuning(
        head, features, *((branch.end, task) if finetuned else (head, features))
    )
    names = [name for name in names if finetuned or name in WITHOUT_FINETUNING]
    return row | ({"measures": measure_branch(names, branch)} if names else {})


def write_results(
    network: Network,
    task: Task,
    branches: Sequence[tuple[Weights, Json]],
    trajectory: Trajectory,
    choice: Json | None,
    context: RunContext,
) -> None:
    """Choose on validation; write history, model, summary and, when asked for, features.

    Args:
        network: before finetuning.
        task: what was trained on.
        branches: final weights of each, and its "row" and "history".
        trajectory: of the probe that the branches share.
        choice: how tau was chosen before finetuning, where the config left it open.
        context: of the run.
    """
    config, folder = context.config, context.folder
    rows = [about["row"] for _, about in branches]
    weights, best = max(branches, key=lambda one: comparable(one[1]["row"]["final"]["valid"]))
    chosen = best["row"]["tau"]
    probed = [{"phase": "probe", **row} for row in trajectory.rows]
    history = [row for _, about in branches for row in about["history"]]
    folder.write_lines("history.jsonl", [*probed, *history])
    about = {
        **{"encoder": config.encoder.name, "task": task.name, "config": resolved(config)},
        "outputs": _outputs(task.objective),
    }
    folder.write_tensors("model.safetensors", weights, about)
    if config.features:
        _write_features(network, _with_weights(network, weights), task, folder)
    summary = _summary(network, task, config) | {"chosen_tau": chosen, "branches": rows}
    if choice:
        shown = {key: value for key, value in choice.items() if key != "energies"}
        summary |= {"choice": shown, "chosen_by": "validation score of short finetunings"}
    if config.measures:
        networks = [_with_weights(network, own) for own, _ in branches]
        summary["measures"] = measure_run(config.measures, networks, task)
    folder.write_json("summary.json", summary)


def _outputs(objective: Objective) -> str:
    """What a head's outputs are, for those who read the file: labels, classes or other numbers."""
    if isinstance(objective, Multilabel):
        return "labels"
    return "classes" if isinstance(objective, Multiclass) else "other"


def _with_weights(network: Network, weights: Weights) -> Network:
    copy = deepcopy(network)
    copy.load_state_dict(weights)
    return copy


def _write_features(start: Network, end: Network, task: Task, folder: RunFolder) -> None:
    """Features before and after, and the molecules that stand out."""
    by_time = {"before": snapshots(start, task), "after": snapshots(end, task)}
    arrays = {
        f"{split}_{when}": s.features for when, t in by_time.items() for split, s in t.items()
    }
    folder.write_arrays("features.npz", arrays)
    molecules = standouts(by_time["before"]["train"], by_time["after"]["train"], task)
    if molecules is not None:
        folder.write_json(STANDOUTS, molecules)


def _summary(network: Network, task: Task, config: RunConfig) -> Json:
    return {
        "format": FORMAT,
        "task": task.name,
        "fingerprint": task.fingerprint,
        **({"auxiliary": task.auxiliary} if task.auxiliary else {}),
        "encoder": config.encoder.name,
        "weights": str(config.encoder.options["weights"] or "none (random)"),
        "weights_digest": weights_digest(config),
        "method": config.method.name,
        "metric": task.objective.metric,
        "seed": config.seed,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        "epoch_size": task.epoch_size,
        "outputs": task.outputs,
        "parameters": sum(p.numel() for p in network.parameters()),
        "chosen_by": "validation score after finetuning",
    }
