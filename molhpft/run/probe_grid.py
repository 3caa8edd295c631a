"""`molhpft probe`: what learning rate, smoothing and tau do to a head before finetuning.

Probing on cached features is cheap where finetuning is not, so these are chosen here first. The
test split is not even read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import nan
from statistics import mean, stdev

import torch

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import Reader, RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus, seed_for
from molhpft.core.network import Network
from molhpft.domains.files import Json
from molhpft.run.device import settled
from molhpft.run.trajectory import head_rows, probing_ground, without_test
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe_many
from molhpft.tuning.recipes import Recipe

MEASURES = ("aie", "train", "valid")
READS = Reader(
    "molhpft probe",
    ("task", "encoder", "head", "method", "probe", "seed", "device", "cut", "standardise", "views"),
    probes=True,
)


@dataclass(frozen=True)
class Grid:
    """What to probe with; an empty list takes the value of the config.

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


@deterministic_on_gpus()
def probe_grid(config: RunConfig, grid: Grid) -> Json:
    """Probe with every learning rate, smoothing and seed, and measure the head of every tau.

    Args:
        config: task, encoder and head; its finetuning is not used. Each seed probes the head that a
            run with that seed probes.
        grid: what to try.

    Returns:
        task, encoder, method, metric, seeds and `rows`. A row has lr, smoothing and tau; energy
        (`aie`, on labels without smoothing), `train` and `valid` score of the head, as means over
        seeds; the number of seeds that had `diverged`, which makes them NaN; and their `std` over
        several seeds.

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
    by_phase: list[list[dict[int, Json]]] = [[] for _ in phases]
    for numbers, networks in _by_features(config, task, recipes[0], seeds):
        probed = _probed(config, networks, task, phases, taus, numbers)
        for per_seed, new in zip(by_phase, probed, strict=True):
            per_seed += new
    rows = [
        {"lr": phase.lr, "smoothing": phase.smoothing, "tau": tau}
        | _over_seeds([rows.get(tau) for rows in per_seed])
        for phase, per_seed in zip(phases, by_phase, strict=True)
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


def _by_features(
    config: RunConfig, task: Task, recipe: Recipe, seeds: Sequence[int]
) -> Iterator[tuple[list[int], list[Network]]]:
    """Seeds whose features are the same, with their networks.

    Weights from a file are the same for every seed; random weights and cached views are not.
    """
    waiting = list(seeds)
    device = settled(config).device
    networks = {
        s: build_network(replace(config, seed=s), task, recipe, device=device) for s in seeds
    }
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
    """[phase][seed] of tau to the row of its head; the networks have one backbone."""
    shared, task = probing_ground(networks[0], task, views=config.views, seed=seeds[0])
    heads = [Network(shared.backbone, network.head) for network in networks]
    rngs = [torch.Generator().manual_seed(seed_for(seed, "probe")) for seed in seeds]
    trajectories = probe_many(heads, phases, task, taus=taus, rngs=rngs)
    return [[head_rows(trajectory, heads[0], task) for trajectory in row] for row in trajectories]


def _over_seeds(rows: Sequence[Json | None]) -> Json:
    """Means over the rows of several seeds, and their standard deviations.

    A seed that has diverged has no row; then none of the numbers is of all seeds, and all are NaN.
    """
    scored = [row for row in rows if row is not None]
    columns = {name: [row[name] for row in scored] for name in MEASURES}
    nothing = dict.fromkeys(MEASURES, nan)
    diverged = len(rows) - len(scored)
    means = nothing if diverged else {name: mean(x) for name, x in columns.items()}
    result: Json = {**means, "diverged": diverged}
    if len(rows) > 1:
        result["std"] = nothing if diverged else {name: stdev(x) for name, x in columns.items()}
    return result
