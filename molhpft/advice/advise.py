"""Advice before anything is finetuned: one probe, read by the rules of the user guide.

The test split is not read.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.advice import rules
from molhpft.advice.baselines import validation_score
from molhpft.advice.rank import drawn_rows, rank
from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import Reader, RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus, seed_for
from molhpft.core.evaluate import EVALUATION_SIZE
from molhpft.core.metrics import score_name, show
from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.examples import Molecules
from molhpft.measure.features import batch_norm_drift
from molhpft.run.device import settled
from molhpft.run.probe_curve import Expectation, ProbeCurve, check_expectation
from molhpft.run.trajectory import at_taus, head_energies, head_rows, probing_ground, without_test
from molhpft.tuning.halving import CANDIDATES, spaced, watched
from molhpft.tuning.probe import probe
from molhpft.tuning.recipes import Recipe

READS = Reader(
    "molhpft advise",
    (
        *("task", "encoder", "head", "method", "probe", "probe.epochs", "seed", "device"),
        *("cut", "standardise"),
        *("views", "finetune.batch_size", "finetune.batch_norm"),
    ),
    probes=True,
)
QUICK_BASELINE = "forest_counts"  # about as strong as any, and fitted in seconds
MOST_MOLECULES = 10_000  # that the quick baseline is fitted to
QUICK_TREES = 100  # of the quick baseline's forest; that of `molhpft baselines` has more

_RANDOM = "none (random)"
_LEGEND = (
    "The head alone, probed for tau epochs. AIE: mean length of p - y over training examples. "
    "Nothing was finetuned, and the test split was not read."
)


@dataclass(frozen=True)
class ClassBalance:
    """How common the labels of the training split are.

    Attributes:
        rarest: share of the rarer label, mean over targets; of the rarest class; None for numbers.
        classes: number of possible labels: 2 for each target, or of classes.
        base_rate: energy of a head that knows these shares and nothing else; None for numbers.
    """

    rarest: float | None
    classes: int
    base_rate: float | None


@deterministic_on_gpus()
def advise(
    config: RunConfig, *, expects: Expectation | None = None, encoders: Sequence[str] = ()
) -> Json:
    """Probe a config's head for all epochs of `probe`, and advise on what to finetune with.

    Args:
        config: as for a run.
        expects: how much the features should change: "strong" where pretraining has little to do
            with the task, "mild" where features fit but not exactly, "tiny" where they fit as they
            are or labels are few; None for no idea.
        encoders: to compare with the config's own, as `rank` takes them; none are by default.

    Returns:
        `probe`, rows of tau, `aie`, `train` and `valid`; `morgan`, the validation score of the
        quick baseline; `ranking`, what `rank` returns, or None; `advice`, rows of topic, advice,
        reason and changes; and what they are of.

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: data, weights and settings do not fit, or the head is not probed.
    """
    check_expectation(expects)
    recipe, task, network = _build(config)
    on_device = task.to(next(network.parameters()).device)
    curve, candidates, balance = _probe(config, recipe, network, on_device)
    molecules, morgan = _quick_baseline(config, task)
    ranking = _ranking(config, task, encoders) if encoders else None
    advice = [
        *([rules.encoder_advice(ranking, _own_weights(config))] if ranking else []),
        *_probing_advice(config, recipe, curve, candidates, balance, expects=expects),
        rules.batch_norm_advice(
            _batch_norm_drift(config, network, on_device),
            batch_size=config.finetune.batch_size,
            frozen=config.finetune.batch_norm == "frozen",
        ),
        rules.backbone_advice(
            curve,
            morgan,
            _last_stage(network),
            is_cut=config.cut is not None,
            linear=_is_linear(config),
            expects=expects,
        ),
        rules.balance_advice(balance.rarest, classes=balance.classes),
    ]
    return {
        "task": task.name,
        "encoder": config.encoder.name,
        "weights": _own_weights(config) or _RANDOM,
        "metric": curve.metric,
        "expects": expects,
        "probe": [{"tau": tau, **row} for tau, row in curve.rows.items()],
        "ranking": ranking,
        "morgan": morgan,
        "molecules": molecules,
        "advice": [asdict(line) for line in advice],
    }


def _build(config: RunConfig) -> tuple[Recipe, Task, Network]:
    """A recipe that probes to the end, the task without its test split, and the network."""
    recipe = build_recipes(config)[0]
    if recipe.inverse_penalties or not recipe.pretrained or not config.probe.epochs:
        raise ValueError(
            f"advice is read off a probe of pretrained features, and method {config.method.name} "
            f"with probe.epochs {config.probe.epochs} has none; give another, such as --set "
            "'method={name: hp_ft, tau: auto}' --set probe.epochs=200"
        )
    recipe = replace(recipe, probe=replace(recipe.probe, epochs=config.probe.epochs))
    task = without_test(build_task(config, recipe))
    return recipe, task, build_network(config, task, recipe, device=settled(config).device)


def _ranking(config: RunConfig, task: Task, encoders: Sequence[str]) -> Json:
    """The config's own encoder, if it has weights, and those to compare it with."""
    own = _own_weights(config)
    others = [given for given in encoders if given != own]
    return rank(config, others if own is None else [own, *others], task=task)


def _own_weights(config: RunConfig) -> str | None:
    weights = config.encoder.options["weights"]
    return None if weights is None else str(weights)


def _probe(
    config: RunConfig, recipe: Recipe, network: Network, task: Task
) -> tuple[ProbeCurve, tuple[int, ...], ClassBalance]:
    """What the probe shows, taus evenly spaced in energy, and the balance of the labels."""
    probed, features = probing_ground(network, task, views=config.views, seed=config.seed)
    longest = recipe.probe.epochs
    rng = torch.Generator().manual_seed(seed_for(config.seed, "probe"))
    trajectory = probe(probed, recipe.probe, features, taus=watched(longest), rng=rng)
    energies = head_energies(trajectory, probed, features)
    candidates = spaced(energies, CANDIDATES)
    # powers of two beside the candidates: when the training score saturates, within a factor of two
    powers = {2**k for k in range(longest.bit_length())} & set(trajectory.heads)
    rows = head_rows(at_taus(trajectory, {*candidates, *powers, longest}), probed, features)
    targets = torch.cat([b.targets.cpu() for b in features.batches("train", size=EVALUATION_SIZE)])
    curve = ProbeCurve(task.objective.metric, energies, rows)
    return curve, candidates, class_balance(task, targets)


def _probing_advice(
    config: RunConfig,
    recipe: Recipe,
    curve: ProbeCurve,
    candidates: tuple[int, ...],
    balance: ClassBalance,
    *,
    expects: Expectation | None,
) -> list[rules.Advice]:
    """How long to probe, on smoothed labels or not, and which head."""
    names_tau, smoothed = "tau" in config.method.options, recipe.probe.smoothing > 0
    return [
        rules.tau_advice(
            curve, candidates, balance.base_rate, names_tau=names_tau, expects=expects
        ),
        rules.smoothing_advice(curve, smoothed=smoothed, expects=expects),
        rules.head_advice(curve, linear=_is_linear(config), expects=expects),
    ]


def _is_linear(config: RunConfig) -> bool:
    return config.head.name == "linear"


def class_balance(task: Task, targets: Tensor) -> ClassBalance:
    """The balance of some targets of a task."""
    if not isinstance(task.objective, Multilabel | Multiclass):
        return ClassBalance(None, 0, None)
    y = task.objective.labels(targets, outputs=task.outputs)
    shares = y.nanmean(0)
    # what `initial_energy` gives for a head whose predictions are the shares
    base_rate = torch.linalg.vector_norm((shares - y).nan_to_num(0.0), dim=1).mean().item()
    if isinstance(task.objective, Multiclass):
        return ClassBalance(shares.min().item(), task.outputs, base_rate)
    return ClassBalance(torch.minimum(shares, 1 - shares).nanmean().item(), 2, base_rate)


def _quick_baseline(config: RunConfig, task: Task) -> tuple[int, float | None]:
    """Number of molecules that the quick baseline is fitted to, and its validation score."""
    supervised = isinstance(task.objective, Multilabel | Squared)  # without a pretraining task
    if not supervised or not isinstance(task.examples, Molecules):
        return 0, None
    rng = torch.Generator().manual_seed(seed_for(config.seed, "baseline"))
    rows = drawn_rows(task.rows("train"), most=MOST_MOLECULES, rng=rng)
    some = replace(task, splits={**task.splits, "train": rows})
    return len(rows), validation_score(QUICK_BASELINE, some, value=QUICK_TREES, seed=config.seed)


def _batch_norm_drift(config: RunConfig, network: Network, task: Task) -> float | None:
    """How far a pass in training mode moves features, as a share of their length."""
    if not any(isinstance(module, _BatchNorm) for module in network.backbone.modules()):
        return None
    rng = torch.Generator().manual_seed(seed_for(config.seed, "finetune"))
    moved = batch_norm_drift(network, task, epochs=1, rng=rng, size=config.finetune.batch_size)
    return moved.distance / moved.start_norm if moved.start_norm else 0.0


def _last_stage(network: Network) -> str | None:
    """The last stage with weights, if another with weights stands below it."""
    stages = network.backbone.named_stages().items()
    weighted = [name for name, stage in stages if any(True for _ in stage.parameters())]
    return weighted[-1] if len(weighted) > 1 else None


def curve_table(result: Json) -> Table:
    """Energy and scores along the probe, of what `advise` returns."""
    metric = result["metric"]
    title = f"{result['task']}, {result['encoder']}, score: {score_name(metric)}"
    table = Table(
        title=Text(title, style="table.title"),
        caption=_LEGEND,
        title_justify="left",
        caption_justify="left",
        min_width=64,
    )
    for name in ("tau", "AIE", "HP train", "HP valid"):
        table.add_column(name, justify="right")
    for row in result["probe"]:
        scores = [show(row[split], metric) for split in ("train", "valid")]
        table.add_row(str(row["tau"]), f"{row['aie']:.3f}", *scores)
    return table


def advice_table(result: Json) -> Table:
    """A line for each piece of advice; those that change the config stand out."""
    table = Table(title="Advice", title_justify="left", show_lines=True)
    table.add_column("about", no_wrap=True)
    table.add_column("advice", ratio=2)
    table.add_column("because", ratio=3)
    for line in result["advice"]:
        style = "bold green" if line["changes"] else ""
        advice, reason = (f"{line[k][0].upper()}{line[k][1:]}." for k in ("advice", "reason"))
        table.add_row(Text(line["topic"], style=style), Text(advice, style=style), Text(reason))
    return table


def advice_reading(result: Json) -> str:
    """What to add to `molhpft run`, and what the advice cannot know."""
    changes = [
        f"  --set {change!r}  ({line['topic']})"
        for line in result["advice"]
        for change in line["changes"]
    ]
    if changes:
        lines = ["Changes to compare on validation, one at a time:", *changes]
    else:
        lines = ["Nothing in this config calls for a change."]
    if changes and not result["expects"]:
        lines.append(
            "Do you expect finetuning to change the features strongly (pretraining has little to "
            "do with the task), mildly (they fit, but not exactly) or hardly at all (they fit as "
            "they are, or labels are few)? --expect strong, mild or tiny sharpens this."
        )
    if result["weights"] == _RANDOM:
        lines.append("The encoder has random weights: there are no pretrained features to protect.")
    if result["molecules"]:
        score = show(result["morgan"], result["metric"])
        lines.append(
            f"A random forest on Morgan counts, fitted to {result['molecules']:,} molecules: "
            f"{score_name(result['metric'])} {score} on validation."
        )
    return "\n".join(lines)
