"""Probe only: what learning rate, smoothing and tau do to a head, before anything is finetuned.

Probing on cached features is cheap where finetuning is not, so these are chosen here first. The
test split is not even read.

What the heads along a probe say of training and validation examples.

One run of head probing for all runs that differ only in what follows it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import nan
from statistics import mean, stdev
from typing import Literal

import torch
from torch import Tensor

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import Reader, RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import Snapshot
from molhpft.core.network import Network
from molhpft.domains.files import Json, cached_tensors, digest
from molhpft.domains.weights import strip_prefix
from molhpft.measure.features import initial_energy
from molhpft.run.device import settled
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import Trajectory, probe_many
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.stacked import feature_rows

_LOGITS = 2**26  # taken at a time: those of every tau together may fill the memory


def without_test(task: Task) -> Task:
    """The task as those see it who still choose: its training and validation split alone."""
    return replace(task, splits={split: task.rows(split) for split in ("train", "valid")})


def probing_ground(
    network: Network, task: Task, *, views: int | Literal["live"], seed: int
) -> tuple[Network, Task]:
    """What a network's head is probed on; a head loaded into one of the two networks is in both.

    Args:
        network: whose head is to be probed.
        task: on which.
        views: as in a config: "live" leaves both as they are.
        seed: of the run, which draws the views.
    """
    if views == "live":
        return network, task
    rng = torch.Generator().manual_seed(seed_for(seed, "views"))
    return on_features(network, task, views=views, rng=rng)


def head_energies(trajectory: Trajectory, network: Network, task: Task) -> dict[int, float]:
    """Tau to the energy (AIE) of its head on the training split.

    Args:
        trajectory: of the network's head.
        network: that was probed; left as it is.
        task: that it was probed on.
    """
    taken = _taken(trajectory, network, task, "train")
    return {tau: initial_energy(snapshot, task.objective) for tau, snapshot in taken}


def head_rows(trajectory: Trajectory, network: Network, task: Task) -> dict[int, Json]:
    """Tau to energy (`aie`), `train` and `valid` score of its head.

    Args:
        trajectory: of the network's head.
        network: that was probed; left as it is.
        task: that it was probed on.
    """
    found: dict[int, Json] = {tau: {} for tau in trajectory.heads}
    for tau, snapshot in _taken(trajectory, network, task, "train"):
        found[tau]["aie"] = initial_energy(snapshot, task.objective)
        found[tau]["train"] = task.objective.score(snapshot.logits, snapshot.targets)
    for tau, snapshot in _taken(trajectory, network, task, "valid"):
        found[tau]["valid"] = task.objective.score(snapshot.logits, snapshot.targets)
    return found


def at_taus(trajectory: Trajectory, taus: set[int]) -> Trajectory:
    """The same trajectory with the heads of `taus` alone."""
    return replace(trajectory, heads={t: h for t, h in trajectory.heads.items() if t in taus})


def _taken(
    trajectory: Trajectory, network: Network, task: Task, split: str
) -> Iterator[tuple[int, Snapshot]]:
    """Tau and what its head says, in the order of the trajectory."""
    taus = list(trajectory.heads)
    together = feature_rows(network, task) is not None
    size = max(1, _LOGITS // (len(task.rows(split)) * task.outputs)) if together else 1
    for start in range(0, len(taus), size):
        some = at_taus(trajectory, set(taus[start : start + size]))
        yield from some.snapshots(network, task, split).items()


MEASURES = ("aie", "train", "valid")
LOST: Json = dict.fromkeys(MEASURES, nan)  # of a head whose training diverged
READS = Reader(
    "molhpft probe",
    ("task", "encoder", "head", "method", "probe", "seed", "device", "cut", "views"),
    probes=True,
)


@dataclass(frozen=True)
class Grid:
    """What to probe with; empty takes what the config says.

    Attributes:
        lrs: learning rates.
        smoothings: amounts of label smoothing.
        taus: epochs.
        seeds: how many, counted from the config's.
    """

    lrs: Sequence[float] = ()
    smoothings: Sequence[float] = ()
    taus: Sequence[int] = ()
    seeds: int = 1


def probing(config: RunConfig, grid: Grid) -> Json:
    """Probe with every learning rate, smoothing and seed, and look at the head of every tau.

    Args:
        config: task, encoder and head; its finetuning is not used. A seed probes the head that a
            run with that seed probes.
        grid: what to try.

    Returns:
        task, encoder, metric, seeds and `rows`: lr, smoothing, tau; energy (`aie`, of the labels
        without smoothing), `train` and `valid` score of the probed head, means over seeds;
        `diverged`, the seeds whose training had diverged by then, which makes the numbers NaN; and
        `std`, the standard deviation of each, for several seeds.

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: data, weights and settings do not go together, or the method does not probe.
    """
    recipes = build_recipes(config)
    taus, phases = _taus(config, recipes, grid), _phases(recipes[0].probe, grid)
    task = build_task(config, recipes[0]).to(settled(config).device)
    metric = task.objective.metric
    task = without_test(task)
    seeds = [config.seed + i for i in range(grid.seeds)]
    found: list[list[dict[int, Json]]] = [[] for _ in phases]
    for numbers, networks in _sharing(config, task, recipes[0], seeds):
        for per_seed, new in zip(
            found, _probed(config, networks, task, phases, taus, numbers), strict=True
        ):
            per_seed += new
    rows = [
        {"lr": phase.lr, "smoothing": phase.smoothing, "tau": tau}
        | _over_seeds([look.get(tau, LOST) for look in per_seed])
        for phase, per_seed in zip(phases, found, strict=True)
        for tau in taus
    ]
    about = {"task": task.name, "encoder": config.encoder.name, "method": config.method.name}
    return {**about, "metric": metric, "seeds": seeds, "rows": rows}


def _taus(config: RunConfig, recipes: Sequence[Recipe], grid: Grid) -> list[int]:
    taus = sorted(set(grid.taus or [recipe.tau for recipe in recipes]))
    if taus[0] < 0:
        raise ValueError(f"tau is a number of epochs, at least 0, got {taus[0]}")
    if recipes[0].inverse_penalties or not taus[-1]:
        raise ValueError(
            f"method {config.method.name} does not train a head by itself; give epochs (--tau 4 "
            "--tau 50) with a method that does, such as --set method=hp_ft"
        )
    return taus


def _phases(template: Phase, grid: Grid) -> list[Phase]:
    lrs = dict.fromkeys(grid.lrs or [template.lr])
    smoothings = dict.fromkeys(grid.smoothings or [template.smoothing])
    return [replace(template, lr=lr, smoothing=s) for lr, s in product(lrs, smoothings)]


def _sharing(
    config: RunConfig, task: Task, recipe: Recipe, seeds: Sequence[int]
) -> Iterator[tuple[list[int], list[Network]]]:
    """Seeds whose features are the same, with their networks.

    Weights from a file are every seed's; random weights and cached views are each seed's own.
    """
    waiting = list(seeds)
    device = settled(config).device
    networks = {s: build_network(replace(config, seed=s), task, recipe).to(device) for s in seeds}
    while waiting:
        first = networks[waiting[0]]
        same = [s for s in waiting if s == waiting[0] or _same_features(config, first, networks[s])]
        yield same, [networks[s] for s in same]
        waiting = [s for s in waiting if s not in same]


def _same_features(config: RunConfig, one: Network, other: Network) -> bool:
    mine, theirs = one.backbone.state_dict(), other.backbone.state_dict()
    # cached views are drawn by the seed; live ones are drawn by each head's own generator
    return config.views in (0, "live") and all(torch.equal(mine[k], theirs[k]) for k in mine)


def _probed(
    config: RunConfig,
    networks: Sequence[Network],
    task: Task,
    phases: Sequence[Phase],
    taus: Sequence[int],
    seeds: Sequence[int],
) -> list[list[dict[int, Json]]]:
    """[phase][seed] of tau to what its head says; the networks have one backbone."""
    shared, task = probing_ground(networks[0], task, views=config.views, seed=seeds[0])
    heads = [Network(shared.backbone, network.head) for network in networks]
    rngs = [torch.Generator().manual_seed(seed_for(seed, "probe")) for seed in seeds]
    trajectories = probe_many(heads, phases, task, taus=taus, rngs=rngs)
    return [[head_rows(trajectory, heads[0], task) for trajectory in row] for row in trajectories]


def _over_seeds(seen: Sequence[Json]) -> Json:
    lost = sum(look is LOST for look in seen)
    if lost:
        return {**LOST, "diverged": lost} | ({"std": dict(LOST)} if len(seen) > 1 else {})
    columns = {name: [look[name] for look in seen] for name in MEASURES}
    means: Json = {name: mean(values) for name, values in columns.items()} | {"diverged": 0}
    if len(seen) > 1:
        means["std"] = {name: stdev(values) for name, values in columns.items()}
    return means


def shared_trajectory(
    name: str,
    taus: Sequence[int],
    build: Callable[[Sequence[int]], Trajectory],
    *,
    shared: Sequence[int] = (),
) -> Trajectory:
    """The trajectory that `build(taus)` gives, out of one that serves other runs too.

    Args:
        name: of everything that decides the probe, save tau.
        taus: of this run, numbers of epochs.
        build: probes; gives the head of each tau it is called with.
        shared: taus of all runs together. Without any, or where this run does not probe, nothing
            is kept.

    Raises:
        ValueError: probing fails within this run's own taus.
    """
    every = sorted({*taus, *shared})
    if not shared or not max(taus):
        return build(taus)
    key = digest(f"{name} {every}")[:32]
    try:
        kept = cached_tensors(f"probes/{key}", lambda: _packed(build(every)))
    except ValueError:
        # it may have diverged at epochs that only others asked for
        return build(taus)
    return _unpacked(kept, taus)


def _packed(trajectory: Trajectory) -> dict[str, Tensor]:
    heads = {
        f"head/{tau}/{name}": value.clone()
        for tau, head in trajectory.heads.items()
        for name, value in head.items()
    }
    # numbered, because a file does not keep the order of its tensors
    columns = {
        f"rows/{i}/{name}": torch.tensor(
            [row[name] for row in trajectory.rows],
            dtype=torch.float64 if isinstance(trajectory.rows[0][name], float) else torch.int64,
        )
        for i, name in enumerate(trajectory.rows[0])
    }
    return heads | columns


def _unpacked(kept: dict[str, Tensor], taus: Sequence[int]) -> Trajectory:
    names = sorted(key for key in kept if key.startswith("rows/"))
    columns = [kept[name][: max(taus)].tolist() for name in names]
    rows = [
        {name.split("/", 2)[2]: value for name, value in zip(names, values, strict=True)}
        for values in zip(*columns, strict=True)
    ]
    return Trajectory({tau: strip_prefix(kept, f"head/{tau}/") for tau in taus}, rows)
