"""Run a config: prepare the head, finetune from every tau, measure, choose on validation.

One branch of a run: a probed network finetuned, and what that did to it.

What a run ends with: the branch that validates best, and everything that was found.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isnan
from pathlib import Path

import torch
from torch import Tensor

from molhpft.config.build import build_network, build_recipes, build_task, weights_digest
from molhpft.config.measures import (
    WITHOUT_FINETUNING,
    Branch,
    Observer,
    check_measures,
    epochs_behind,
    measure_branch,
    measure_run,
    observers,
)
from molhpft.config.schema import RunConfig, resolved
from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import EVALUATION_SIZE, Predictions, Snapshot, inference, predict, take
from molhpft.core.metrics import comparable
from molhpft.core.network import Network
from molhpft.domains.console import pace
from molhpft.domains.files import Json
from molhpft.measure.features import RunningShift, energy
from molhpft.run.auto_tau import FILE, candidate_recipe, choose
from molhpft.run.device import launch, settled
from molhpft.run.folder import (
    Observed,
    RunFolder,
    load_branch,
    load_phase,
    probe_name,
    run_name,
    save_branch,
    save_phase,
)
from molhpft.run.lock import locked
from molhpft.run.standouts import STANDOUTS, standouts
from molhpft.run.trajectory import probing_ground, shared_trajectory, without_test
from molhpft.tuning.distributed import Machine
from molhpft.tuning.fit import Checkpoints, Weights, fit, score
from molhpft.tuning.probe import Trajectory, probe
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.solve_head import mix, solve_head

_log = logging.getLogger(__name__)


def finetune(
    network: Network,
    recipe: Recipe,
    task: Task,
    folder: RunFolder,
    machine: Machine,
    *,
    seed: int,
    observe: Observer | None = None,
    every: int | None = None,
    until: int | None = None,
) -> list[Json]:
    """Run the phases of a recipe that follow its probe, in place; one row an epoch.

    Args:
        network: with the head of `recipe.tau`.
        recipe: the method.
        task: what to train on.
        folder: keeps the state of each phase, and gives back that of an interrupted run.
        machine: precision, and the processes that share the work.
        seed: of the order of examples and of dropout.
        observe: numbers to add to each epoch's row.
        every: steps between two savings within an epoch; None for none.
        until: epochs after which each phase pauses, to go on in a later call; None for its end.
    """
    history: list[Json] = []
    for number, phase in enumerate(recipe.after):
        key = f"{recipe.key}-{number}"
        checkpoints = Checkpoints(
            load=partial(load_phase, folder, key),
            save=partial(save_phase, folder, key),
            steps=every,
        )
        total = phase.epochs * len(task.rows("train"))
        with pace(f"finetuning, tau {recipe.tau}", total, shown=machine.rank == 0) as tick:
            rows = fit(
                network,
                phase,
                task,
                rng=torch.Generator().manual_seed(seed + number),
                observe=observe,
                checkpoints=checkpoints,
                machine=machine,
                tick=tick,
                until=until,
            )
        history += [{"phase": phase_name(number), "tau": recipe.tau, **row} for row in rows]
    return history


def phase_name(number: int) -> str:
    """What `history.jsonl` calls a phase after the probe, counted from 0."""
    return f"finetune{number or ''}"


def snapshots(network: Network, task: Task) -> dict[str, Snapshot]:
    """A snapshot of every split, features included."""
    return {
        split: take(network, task.batches(split, size=EVALUATION_SIZE)) for split in task.splits
    }


def predictions(
    network: Network, task: Task, *, watch_train: Callable[[Tensor], None] | None = None
) -> Iterator[tuple[str, Predictions]]:
    """Predictions for one split after another: together, those of a large set fill the memory.

    `watch_train` is given the features of each batch of the training split, in order.
    """
    for split in task.splits:
        yield split, predict(network, task, split, watch=watch_train if split == "train" else None)


def scores(predicted: Iterable[tuple[str, Predictions]], task: Task) -> dict[str, float]:
    """Score of every split."""
    return {split: task.objective.score(found.logits, found.targets) for split, found in predicted}


def describe_start(tau: int, predicted: Iterable[tuple[str, Predictions]], task: Task) -> Json:
    """What a branch is when finetuning starts: tau, energy on training examples, scores.

    Args:
        tau: epochs of head probing.
        predicted: split and predictions, "train" among them.
        task: gives objective and score.
    """
    energies: Json = {}
    probe: dict[str, float] = {}
    for split, found in predicted:
        probe |= scores([(split, found)], task)
        if split == "train":
            energies = asdict(energy(found, task.objective))
    return {"tau": tau, "energy": energies, "probe": probe}


def describe_end(start: Network, start_task: Task, end: Network, task: Task) -> Json:
    """What a branch is when finetuning has ended: its scores, the shift of training features.

    Warns of predictions that are not finite, whose score is NaN.

    Args:
        start: the probed network, or its head alone.
        start_task: what `start` reads: the task itself, or its cached features.
        end: the finetuned network, through which every split goes once.
        task: what it reads, in the same order.
    """
    moved = RunningShift()
    with inference(start):
        batches = start_task.batches("train", size=EVALUATION_SIZE)
        begun = (start.features(batch).cpu() for batch in batches)
        compared = predictions(end, task, watch_train=lambda z: moved.add(next(begun), z))
        final = scores(compared, task)
    broken = [split for split, score in final.items() if isnan(score)]
    if broken:
        _log.warning(
            "predictions on %s of %s are not all finite after finetuning, and have no score; try a "
            "lower learning rate",
            ", ".join(broken),
            task.name,
        )
    return {"final": final, "shift": asdict(moved.mean())}


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


def run(
    config: RunConfig, out: Path, *, task: Task | None = None, shared: tuple[int, ...] = ()
) -> RunFolder:
    """Run a config, or go on with it, or find it done.

    Where another process has the same run under way, this one waits and finds what that one made.

    With several devices, all processes come through here alike and share the finetuning; the first
    one writes.

    Args:
        config: everything that decides the result.
        out: folder of run folders; the run's own is named by its content.
        task: the config's, where the caller has built it; None builds it from the config.
        shared: every tau at which other runs want the head of the same probe; the one that comes
            first keeps them all in the cache folder. It changes no result.

    Returns:
        the complete run folder: config.yaml, history.jsonl, summary.json, model.safetensors and,
        where the config asks for them, features.npz, members/*.safetensors and choice.json
        (`tau: auto`).

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: data, weights, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    given, config = config, settled(config)
    machine = launch(config)
    recipes = build_recipes(config)
    with machine.first_alone():
        task = task or build_task(config, recipes[0])
    check_measures(config.measures, task)
    folder = RunFolder(out / run_name(config, task), writes=machine.rank == 0)
    if machine.agreed(folder.is_complete):
        return folder
    with locked(folder.path, machine=machine):
        if not machine.agreed(folder.is_complete):
            network = build_network(config, task, recipes[0]).to(machine.device)
            task = task.to(machine.device)
            parts = _Parts(config, task, network, folder, machine, shared)
            _finish(parts, recipes, given)
    return folder


@dataclass(frozen=True)
class _Parts:
    """What a run is made of; the network's head is the only thing that changes."""

    config: RunConfig
    task: Task
    network: Network
    folder: RunFolder
    machine: Machine
    shared: tuple[int, ...]


def _finish(parts: _Parts, recipes: tuple[Recipe, ...], given: RunConfig) -> None:
    """From a folder that is new or was left half done to a complete one."""
    folder, machine = parts.folder, parts.machine
    folder.open()
    folder.write_yaml("config.yaml", resolved(given))
    choice: Json | None = None
    if recipes[0].chooses:
        choice = _choice(parts, recipes[0])
        recipes = (candidate_recipe(recipes[0], choice["chosen"]),)
    probe_rows = _finish_branches(parts, recipes)
    machine.wait()
    loaded = {recipe.tau: load_branch(folder, recipe.tau) for recipe in recipes}
    branches = {tau: branch for tau, branch in loaded.items() if branch is not None}
    machine.wait()
    conclude(
        parts.config,
        parts.task,
        parts.network,
        branches,
        folder,
        probe_rows=probe_rows,
        choice=choice,
    )
    folder.close()
    machine.wait()


def _choice(parts: _Parts, recipe: Recipe) -> Json:
    """Which head to finetune from, chosen without the test split; finished, begun or new."""
    kept = parts.machine.agreed(parts.folder.read_unfinished(FILE))
    if kept and kept["chosen"]:
        return kept
    blind = replace(parts, task=without_test(parts.task))
    probed, features = _probing(blind, (recipe,))

    def tried(candidate: Recipe, until: int) -> tuple[int, float]:
        tuned = deepcopy(blind.network)
        rows = _finetune(blind, tuned, candidate, until=until)
        _keep_member(blind, candidate, tuned)
        blind.machine.wait()  # the first process has kept what all go on from
        return len(rows), blind.machine.agreed(score(tuned, blind.task, "valid"))

    seed = seed_for(parts.config.seed, "probe")
    return choose(recipe, probed, features, parts.folder, tried, seed=seed, kept=kept)


def _finish_branches(parts: _Parts, recipes: tuple[Recipe, ...]) -> list[Json]:
    """Finish every branch that is not finished yet; returns the rows of the probe they share."""
    probed, features = _probing(parts, recipes)

    def build(taus: Sequence[int]) -> Trajectory:
        rng = torch.Generator().manual_seed(seed_for(parts.config.seed, "probe"))
        return probe(probed, recipes[0].probe, features, taus=taus, rng=rng)

    name = probe_name(parts.config, recipes[0], parts.task)
    taus = [recipe.tau for recipe in recipes]
    trajectory = shared_trajectory(name, taus, build, shared=parts.shared)
    for recipe in recipes:
        if parts.machine.agreed(load_branch(parts.folder, recipe.tau) is None):
            probed.head.load_state_dict(trajectory.heads[recipe.tau])
            _finish_branch(parts, recipe, probed, features)
    return [{"phase": "probe", **row} for row in trajectory.rows]


def _probing(parts: _Parts, recipes: tuple[Recipe, ...]) -> tuple[Network, Task]:
    """What the head is probed on; features are not worth taking for a head that is not trained."""
    trains = any(recipe.tau or recipe.inverse_penalties for recipe in recipes)
    views = parts.config.views if trains else "live"
    return probing_ground(parts.network, parts.task, views=views, seed=parts.config.seed)


def _finish_branch(parts: _Parts, recipe: Recipe, probed: Network, features: Task) -> None:
    """Finetune from a prepared head, measure before and after, and keep what was found."""
    config, task, start = parts.config, parts.task, parts.network
    extra: Json = {}
    if recipe.inverse_penalties:
        extra["inverse_penalty"] = solve_head(
            probed, features, inverse_penalties=recipe.inverse_penalties
        )
    row = describe_start(recipe.tau, predictions(probed, features), task)
    tuned = deepcopy(start)
    history = _finetune(parts, tuned, recipe)
    if recipe.alphas:
        extra["alpha"] = mix(tuned, start.state_dict(), task, alphas=recipe.alphas)
    # without an epoch of finetuning nothing has moved, and the features may be known
    row |= describe_end(probed, features, *((tuned, task) if history else (probed, features)))
    names = [n for n in config.measures if history or n in WITHOUT_FINETUNING]
    if names:
        extra["measures"] = measure_branch(names, _branch(parts, recipe, tuned, history))
    about = {"row": row | extra, "history": history}
    _keep_member(parts, recipe, tuned)
    save_branch(parts.folder, recipe.tau, tuned.state_dict(), about)


def _branch(parts: _Parts, recipe: Recipe, tuned: Network, history: Sequence[Json]) -> Branch:
    """What measures are given of a branch that has ended."""
    task, start = parts.task, parts.network
    before, after = (take(n, task.batches("train", size=EVALUATION_SIZE)) for n in (start, tuned))
    epochs = tuple(
        epochs_behind(phase, [row for row in history if row["phase"] == phase_name(number)])
        for number, phase in enumerate(recipe.after)
    )
    return Branch(start, tuned, before, after, task, recipe, epochs, parts.config.seed)


def _keep_member(parts: _Parts, recipe: Recipe, tuned: Network) -> None:
    if parts.config.members:
        name = f"members/{recipe.key}.safetensors"
        parts.folder.write_tensors(name, tuned.state_dict(), {"tau": recipe.tau})


def _finetune(
    parts: _Parts, tuned: Network, recipe: Recipe, *, until: int | None = None
) -> list[Json]:
    """Finetune a copy of the prepared network, in place."""
    config = parts.config
    return finetune(
        tuned,
        recipe,
        parts.task,
        parts.folder,
        parts.machine,
        seed=seed_for(config.seed, "finetune"),
        every=config.checkpoint,
        observe=observers(
            config.measures,
            parts.network,
            parts.task,
            seed=config.seed,
            memory=Observed(parts.folder, recipe.key),
        ),
        until=until,
    )
