"""Advice before anything is finetuned: one probe, read by the rules of the user advice.

The test split is not read.
"""

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.core.snapshot import EVALUATION_SIZE
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import Molecules
from molhpft.experiments import advice
from molhpft.experiments.along import energies, looks, only, probing_ground, without_test
from molhpft.experiments.baselines import validation_score
from molhpft.experiments.build import build_network, build_recipes, build_task
from molhpft.experiments.config import Reader, RunConfig
from molhpft.experiments.folder import Json
from molhpft.experiments.guide import Expectation, Trail, check_expectation
from molhpft.experiments.machine import settled
from molhpft.experiments.seeds import stream
from molhpft.measure.drift import batch_norm_drift
from molhpft.tuning.probe import probe_many
from molhpft.tuning.recipes import Recipe
from molhpft.tuning.select import CANDIDATES, spaced, watched

READS = Reader(
    "molhpft advise",
    (
        *("task", "encoder", "head", "method", "probe", "probe.epochs", "seed", "device", "cut"),
        *("views", "finetune.batch_size", "finetune.batch_norm"),
    ),
    probes=True,
)
MOST_MOLECULES = 10_000  # that the quick baseline is fitted on
STRENGTH = 0.1  # of the quick baseline; `molhpft baselines` chooses it


@dataclass(frozen=True)
class Labels:
    """How common the answers of the training split are.

    Attributes:
        rarest: share of the rarer answer, mean over targets; the rarest class; None for numbers.
        classes: number of answers to one question: 2 for each target, or of classes.
        base_rate: energy of a head that knows these shares and nothing else; None for numbers.
    """

    rarest: float | None
    classes: int
    base_rate: float | None


def advise(config: RunConfig, *, expects: Expectation | None = None) -> Json:
    """Probe a config's head for all epochs of `probe`, and say what to do with what was seen.

    Args:
        config: as for a run; nothing is finetuned.
        expects: how much the features should change for this task: "strong" where pretraining has
            little to do with it, "mild" where features fit but not exactly, "tiny" where they fit
            as they are or labels are few; None for no idea.

    Returns:
        task, encoder, weights, metric, expects; `probe`, rows of tau, `aie`, `train` and `valid`;
        `morgan`, the validation score of the quick baseline, `molecules`, what it was fitted on;
        `advice`, rows of topic, advice, reason and changes.

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: data, weights and settings do not go together, the head is not probed, or
            `expects` is none of the three.
    """
    check_expectation(expects)
    recipe = _probing_recipe(config)
    task = without_test(build_task(config, recipe))
    device = settled(config).device
    network = build_network(config, task, recipe).to(device)
    trail, candidates, labels = _trail(config, recipe, network, task.to(device))
    fitted, morgan = _morgan(config, task)
    linear = config.head.name == "linear"
    smoothed = recipe.probe.smoothing > 0
    lines = [
        advice.tau_advice(
            trail,
            candidates,
            labels.base_rate,
            names_tau="tau" in config.method.options,
            expects=expects,
        ),
        advice.smoothing_advice(trail, smoothed=smoothed, expects=expects),
        advice.head_advice(trail, linear=linear, expects=expects),
        advice.batch_norm_advice(
            _drift(config, network, task.to(device)),
            batch_size=config.finetune.batch_size,
            frozen=config.finetune.batch_norm == "frozen",
        ),
        advice.backbone_advice(
            trail,
            morgan,
            _last_stage(network),
            is_cut=config.cut is not None,
            linear=linear,
            expects=expects,
        ),
        advice.balance_advice(labels.rarest, classes=labels.classes),
    ]
    return {
        "task": task.name,
        "encoder": config.encoder.name,
        "weights": str(config.encoder.options["weights"] or "none (random)"),
        "metric": trail.metric,
        "expects": expects,
        "probe": [{"tau": tau, **seen} for tau, seen in trail.looks.items()],
        "morgan": morgan,
        "molecules": fitted,
        "advice": [asdict(line) for line in lines],
    }


def _probing_recipe(config: RunConfig) -> Recipe:
    recipe = build_recipes(config)[0]
    if recipe.strengths or not recipe.pretrained or not config.probe.epochs:
        raise ValueError(
            f"advice is read off a probe of pretrained features, and method {config.method.name} "
            f"with probe.epochs {config.probe.epochs} has none; give another, such as --set "
            "'method={name: hp_ft, tau: auto}' --set probe.epochs=200"
        )
    return replace(recipe, probe=replace(recipe.probe, epochs=config.probe.epochs))


def _trail(
    config: RunConfig, recipe: Recipe, network: Network, task: Task
) -> tuple[Trail, tuple[int, ...], Labels]:
    """What the probe shows, taus evenly in energy, and the labels."""
    probed, features = probing_ground(network, task, views=config.views, seed=config.seed)
    longest = recipe.probe.epochs
    rng = torch.Generator().manual_seed(stream(config.seed, "probe"))
    ((found,),) = probe_many([probed], [recipe.probe], features, taus=watched(longest), rngs=[rng])
    energy = energies(found.whole(), probed, features)
    candidates = spaced(energy, CANDIDATES)
    # powers of two beside the candidates: when the training score saturates, within a factor of two
    powers = {2**k for k in range(longest.bit_length())} & set(found.heads)
    seen = looks(only(found, {*candidates, *powers, longest}), probed, features)
    trail = Trail(task.objective.metric, energy, seen)
    targets = torch.cat([b.targets.cpu() for b in features.batches("train", size=EVALUATION_SIZE)])
    return trail, candidates, _labels(task, targets)


def _labels(task: Task, targets: Tensor) -> Labels:
    if not isinstance(task.objective, Multilabel | Multiclass):
        return Labels(None, 0, None)
    y = task.objective.labels(targets, outputs=task.outputs)
    shares = y.nanmean(0)
    # what `initial_energy` gives for a head whose predictions are the shares
    base_rate = torch.linalg.vector_norm((shares - y).nan_to_num(0.0), dim=1).mean().item()
    if isinstance(task.objective, Multiclass):
        return Labels(shares.min().item(), task.outputs, base_rate)
    return Labels(torch.minimum(shares, 1 - shares).nanmean().item(), 2, base_rate)


def _morgan(config: RunConfig, task: Task) -> tuple[int, float | None]:
    """Molecules that the quick baseline is fitted on, and its validation score."""
    own = isinstance(task.objective, Multilabel | Squared)  # not beside a pretraining task's
    if not own or not isinstance(task.examples, Molecules):
        return 0, None
    rows = task.rows("train")
    if len(rows) > MOST_MOLECULES:
        rng = torch.Generator().manual_seed(stream(config.seed, "baseline"))
        rows = rows[torch.randperm(len(rows), generator=rng)[:MOST_MOLECULES].sort().values]
    some = replace(task, splits={**task.splits, "train": rows})
    return len(rows), validation_score("morgan_lr", some, value=STRENGTH, seed=config.seed)


def _drift(config: RunConfig, network: Network, task: Task) -> float | None:
    """How far a pass in training mode moves features, as a share of their length."""
    if not any(isinstance(module, _BatchNorm) for module in network.backbone.modules()):
        return None
    rng = torch.Generator().manual_seed(stream(config.seed, "finetune"))
    size = config.finetune.batch_size
    moved = batch_norm_drift(network, task, epochs=1, rng=rng, size=size)
    return moved.distance / moved.start_norm if moved.start_norm else 0.0


def _last_stage(network: Network) -> str | None:
    """The last stage with weights, if another with weights stands below it."""
    named = network.backbone.named_stages().items()
    weighted = [name for name, stage in named if any(True for _ in stage.parameters())]
    return weighted[-1] if len(weighted) > 1 else None
