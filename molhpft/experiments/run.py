"""Run a config: prepare the head, finetune from every tau, measure, choose on validation."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, take
from molhpft.core.task import Task
from molhpft.experiments.along import probing_ground, without_test
from molhpft.experiments.branch import (
    describe_end,
    describe_start,
    finetune,
    phase_name,
    predictions,
)
from molhpft.experiments.build import build_network, build_recipes, build_task
from molhpft.experiments.choose import FILE, candidate_recipe, choose
from molhpft.experiments.conclude import conclude
from molhpft.experiments.config import RunConfig, resolved
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.identity import probe_name, run_name
from molhpft.experiments.lock import locked
from molhpft.experiments.machine import launch, settled
from molhpft.experiments.measures import (
    WITHOUT_FINETUNING,
    Branch,
    check_measures,
    epochs_behind,
    measure_branch,
    observers,
)
from molhpft.experiments.resume import Observed, load_branch, save_branch
from molhpft.experiments.seeds import stream
from molhpft.experiments.shared_probe import shared_trajectory
from molhpft.tuning.exact import solve_head
from molhpft.tuning.fit import score
from molhpft.tuning.interpolate import mix
from molhpft.tuning.machine import Machine
from molhpft.tuning.probe import probe
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.trajectory import Trajectory


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

    seed = stream(parts.config.seed, "probe")
    return choose(recipe, probed, features, parts.folder, tried, seed=seed, kept=kept)


def _finish_branches(parts: _Parts, recipes: tuple[Recipe, ...]) -> list[Json]:
    """Finish every branch that is not finished yet; returns the rows of the probe they share."""
    probed, features = _probing(parts, recipes)

    def build(taus: Sequence[int]) -> Trajectory:
        rng = torch.Generator().manual_seed(stream(parts.config.seed, "probe"))
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
    trains = any(recipe.tau or recipe.strengths for recipe in recipes)
    views = parts.config.views if trains else "live"
    return probing_ground(parts.network, parts.task, views=views, seed=parts.config.seed)


def _finish_branch(parts: _Parts, recipe: Recipe, probed: Network, features: Task) -> None:
    """Finetune from a prepared head, measure before and after, and keep what was found."""
    config, task, start = parts.config, parts.task, parts.network
    extra: Json = {}
    if recipe.strengths:
        extra["strength"] = solve_head(probed, features, strengths=recipe.strengths)
    row = describe_start(recipe.tau, predictions(probed, features), task)
    tuned = deepcopy(start)
    history = _finetune(parts, tuned, recipe)
    if recipe.shares:
        extra["share"] = mix(tuned, start.state_dict(), task, shares=recipe.shares)
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
        seed=stream(config.seed, "finetune"),
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
