"""Advice before anything is finetuned: one probe, read by the rules of the user advice.

The test split is not read.

Advice for the terminal: what the probe showed, then what to do and why.
"""

from dataclasses import asdict, dataclass, replace

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.advice import rules
from molhpft.advice.baselines import validation_score
from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import Reader, RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import EVALUATION_SIZE
from molhpft.core.metrics import score_name, show
from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.examples import Molecules
from molhpft.measure.features import batch_norm_drift
from molhpft.run.auto_tau import Expectation, ProbeCurve, check_expectation
from molhpft.run.device import settled
from molhpft.run.trajectory import at_taus, head_energies, head_rows, probing_ground, without_test
from molhpft.tuning.halving import CANDIDATES, spaced, watched
from molhpft.tuning.probe import probe
from molhpft.tuning.recipes import Recipe

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
    curve, candidates, labels = _trail(config, recipe, network, task.to(device))
    fitted, morgan = _morgan(config, task)
    linear = config.head.name == "linear"
    smoothed = recipe.probe.smoothing > 0
    lines = [
        rules.tau_advice(
            curve,
            candidates,
            labels.base_rate,
            names_tau="tau" in config.method.options,
            expects=expects,
        ),
        rules.smoothing_advice(curve, smoothed=smoothed, expects=expects),
        rules.head_advice(curve, linear=linear, expects=expects),
        rules.batch_norm_advice(
            _drift(config, network, task.to(device)),
            batch_size=config.finetune.batch_size,
            frozen=config.finetune.batch_norm == "frozen",
        ),
        rules.backbone_advice(
            curve,
            morgan,
            _last_stage(network),
            is_cut=config.cut is not None,
            linear=linear,
            expects=expects,
        ),
        rules.balance_advice(labels.rarest, classes=labels.classes),
    ]
    return {
        "task": task.name,
        "encoder": config.encoder.name,
        "weights": str(config.encoder.options["weights"] or "none (random)"),
        "metric": curve.metric,
        "expects": expects,
        "probe": [{"tau": tau, **seen} for tau, seen in curve.rows.items()],
        "morgan": morgan,
        "molecules": fitted,
        "advice": [asdict(line) for line in lines],
    }


def _probing_recipe(config: RunConfig) -> Recipe:
    recipe = build_recipes(config)[0]
    if recipe.inverse_penalties or not recipe.pretrained or not config.probe.epochs:
        raise ValueError(
            f"advice is read off a probe of pretrained features, and method {config.method.name} "
            f"with probe.epochs {config.probe.epochs} has none; give another, such as --set "
            "'method={name: hp_ft, tau: auto}' --set probe.epochs=200"
        )
    return replace(recipe, probe=replace(recipe.probe, epochs=config.probe.epochs))


def _trail(
    config: RunConfig, recipe: Recipe, network: Network, task: Task
) -> tuple[ProbeCurve, tuple[int, ...], Labels]:
    """What the probe shows, taus evenly in energy, and the labels."""
    probed, features = probing_ground(network, task, views=config.views, seed=config.seed)
    longest = recipe.probe.epochs
    rng = torch.Generator().manual_seed(seed_for(config.seed, "probe"))
    found = probe(probed, recipe.probe, features, taus=watched(longest), rng=rng)
    energy = head_energies(found, probed, features)
    candidates = spaced(energy, CANDIDATES)
    # powers of two beside the candidates: when the training score saturates, within a factor of two
    powers = {2**k for k in range(longest.bit_length())} & set(found.heads)
    seen = head_rows(at_taus(found, {*candidates, *powers, longest}), probed, features)
    curve = ProbeCurve(task.objective.metric, energy, seen)
    targets = torch.cat([b.targets.cpu() for b in features.batches("train", size=EVALUATION_SIZE)])
    return curve, candidates, _labels(task, targets)


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
        rng = torch.Generator().manual_seed(seed_for(config.seed, "baseline"))
        rows = rows[torch.randperm(len(rows), generator=rng)[:MOST_MOLECULES].sort().values]
    some = replace(task, splits={**task.splits, "train": rows})
    return len(rows), validation_score("morgan_lr", some, value=STRENGTH, seed=config.seed)


def _drift(config: RunConfig, network: Network, task: Task) -> float | None:
    """How far a pass in training mode moves features, as a share of their length."""
    if not any(isinstance(module, _BatchNorm) for module in network.backbone.modules()):
        return None
    rng = torch.Generator().manual_seed(seed_for(config.seed, "finetune"))
    size = config.finetune.batch_size
    moved = batch_norm_drift(network, task, epochs=1, rng=rng, size=size)
    return moved.distance / moved.start_norm if moved.start_norm else 0.0


def _last_stage(network: Network) -> str | None:
    """The last stage with weights, if another with weights stands below it."""
    named = network.backbone.named_stages().items()
    weighted = [name for name, stage in named if any(True for _ in stage.parameters())]
    return weighted[-1] if len(weighted) > 1 else None


LEGEND = (
    "The head alone, probed for tau epochs. AIE: mean length of p - y over training examples. "
    "Nothing was finetuned, and the test split was not read."
)
_RANDOM = "none (random)"


def curve_table(found: Json) -> Table:
    """Energy and scores along the probe.

    Args:
        found: what `advise` gives.
    """
    metric = found["metric"]
    table = Table(
        title=Text(
            f"{found['task']}, {found['encoder']}, score: {score_name(metric)}",
            style="table.title",
        ),
        caption=LEGEND,
        title_justify="left",
        caption_justify="left",
        min_width=64,
    )
    for name in ("tau", "AIE", "HP train", "HP valid"):
        table.add_column(name, justify="right")
    for row in found["probe"]:
        cells = [f"{row['aie']:.3f}", show(row["train"], metric), show(row["valid"], metric)]
        table.add_row(str(row["tau"]), *cells)
    return table


def advice_table(found: Json) -> Table:
    """A line for each piece of advice; those that change the config stand out.

    Args:
        found: what `advise` gives.
    """
    table = Table(title="Advice", title_justify="left", show_lines=True)
    table.add_column("about", no_wrap=True)
    table.add_column("advice", ratio=2)
    table.add_column("because", ratio=3)
    for line in found["advice"]:
        style = "bold green" if line["changes"] else ""
        cells = (line["topic"], _sentence(line["advice"]), _sentence(line["reason"]))
        table.add_row(*(Text(cell, style=style) for cell in cells[:2]), Text(cells[2]))
    return table


def advice_reading(found: Json) -> str:
    """What to add to `molhpft run`, and what the advice cannot know.

    Args:
        found: what `advise` gives.
    """
    lines = [
        f"  --set {change!r}  ({line['topic']})"
        for line in found["advice"]
        for change in line["changes"]
    ]
    said = "\n".join(["Changes to compare on validation, one at a time:", *lines])
    if not found["expects"]:
        said += (
            "\nDo you expect finetuning to change the features strongly (pretraining has little to "
            "do with the task), mildly (they fit, but not exactly) or hardly at all (they fit as "
            "they are, or labels are few)? --expect strong, mild or tiny sharpens this."
        )
    if not lines:
        said = "Nothing in this config calls for a change."
    if found["weights"] == _RANDOM:
        said += "\nThe encoder has random weights: there are no pretrained features to protect."
    if found["molecules"]:
        said += (
            f"\nMorgan fingerprints with logistic regression, fitted on {found['molecules']:,} "
            f"molecules: {score_name(found['metric'])} {show(found['morgan'], found['metric'])} "
            "on validation."
        )
    return said


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
