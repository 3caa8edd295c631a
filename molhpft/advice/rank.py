"""Which encoder to start from: transferability scores of several on one task, without training.

Labels of training examples are read, and those of validation by the scores of two probes. The test
split is not.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import mean
from time import perf_counter

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from molhpft.advice.rules import encoder_change
from molhpft.advice.source_heads import source_head
from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.registry import ENCODERS
from molhpft.config.schema import Reader, RunConfig, checked_choice
from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus, seed_for
from molhpft.core.evaluate import EVALUATION_SIZE, Snapshot, take
from molhpft.core.metrics import comparable, score_name, show
from molhpft.core.network import Network
from molhpft.core.objectives import Multiclass
from molhpft.core.standardise import STAGE, Standardised
from molhpft.domains.files import Json, listed
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.weights import encoder_name, read_weights, weight_file
from molhpft.measure.transferability import (
    NEIGHBOURS,
    LabelColumn,
    h_score,
    label_columns,
    leep,
    leep_of_outputs,
    linear_predictions,
    logme,
    neighbour_predictions,
    principal_axes,
    transrate,
)
from molhpft.run.device import settled
from molhpft.run.trajectory import without_test

READS = Reader("molhpft rank", ("task", "standardise", "seed", "device"))
_NAMED = 5  # targets in a sentence
MOST_EXAMPLES = 5_000  # of each split that are read
ORDERED_BY = "probe"
"""The score that says which encoder is best: see `benchmarks/transferability.py`."""

SCORES = {
    "probe": "linear probe",
    "neighbours": f"{NEIGHBOURS}-NN",
    "logme": "LogME",
    "h_score": "H-score",
    "transrate": "TransRate",
    "leep": "LEEP",
}
_ON_VALIDATION = ("probe", "neighbours")
_OF_COLUMNS = ("logme", "h_score", "transrate")  # means over targets
_LEGEND = (
    "Higher is better in every column. linear probe, {k}-NN: {metric} on validation of ridge "
    "regression on frozen features, and of the {k} nearest training examples. LogME: log evidence "
    "of a linear model. H-score: distance of classes' means, shrunk. TransRate: information on "
    "classes; grows with the width. LEEP: log likelihood of labels given a source head. The first "
    "column orders. Nothing was trained, and the test split was not read."
)


@deterministic_on_gpus()
def rank(config: RunConfig, encoders: Sequence[str], *, task: Task | None = None) -> Json:
    """Score encoders on a config's task, best first.

    Scores are of the features that a head would read: standardised where the config says so. They
    are of the whole encoder, and a mean over the targets that have two different labels in the
    training split.

    Args:
        config: its encoder, head, cut and method do not count.
        encoders: names of shipped ones, weight files, folders of models or `hub:owner/name`.
        task: the config's without its test split, where the caller has built it.

    Returns:
        `encoders`, rows of name, weights, width, a score of each kind, None where it is not
        defined, and seconds; `undefined`, the reasons; and what they are of.

    Raises:
        FileNotFoundError: data or weights are absent.
        ValueError: no encoder is given, or one twice; task and encoders do not go together; or the
            task has no scores.
    """
    _check_given(encoders)
    plain = replace(
        config,
        method=checked_choice("method", "lp"),
        head=checked_choice("head", "linear"),
        cut=None,
    )
    # every file is found and recognised before any of them costs time
    configs = {given: _with_encoder(plain, given) for given in encoders}
    task = _sampled(task or without_test(build_task(plain, build_recipes(plain)[0])), config.seed)
    labels = _labels(task)
    rows, undefined = [], {}
    if labels.are_numbers:
        undefined["H-score, TransRate, LEEP"] = "they are of classes, and targets are numbers"
    undefined |= _without_neighbours(task, labels)
    for given, own in configs.items():
        begin = perf_counter()
        row, why = _scored(given, own, task, labels)
        rows.append(row | {"seconds": perf_counter() - begin})
        if why:
            undefined[f"LEEP of {row['name']}"] = why
    rows.sort(key=lambda row: comparable(row[ORDERED_BY]), reverse=True)
    return {
        "task": task.name,
        "metric": task.objective.metric,
        "sizes": {split: len(task.rows(split)) for split in task.splits},
        "encoders": rows,
        "undefined": undefined,
    }


def _check_given(encoders: Sequence[str]) -> None:
    if not encoders:
        raise ValueError(
            "encoders to rank are missing; name shipped encoders or weight files: "
            "molhpft rank CONFIG --encoders gcn_structure FILE"
        )
    twice = [given for k, given in enumerate(encoders) if given in encoders[:k]]
    if twice:
        raise ValueError(f"encoder {twice[0]} is given twice; leave one out")


def _with_encoder(config: RunConfig, given: str) -> RunConfig:
    """The config with the encoder that the weights are of."""
    read_weights(Path(given))
    own = {"weights": given}
    if ENCODERS[config.encoder.name].takes is not Molecules:
        own = {"name": config.encoder.name, **config.encoder.options, "weights": given}
    return replace(config, encoder=checked_choice("encoder", own))


def _sampled(task: Task, seed: int) -> Task:
    """At most `MOST_EXAMPLES` of each split, drawn at random."""
    rng = torch.Generator().manual_seed(seed_for(seed, "rank"))
    splits = {s: drawn_rows(task.rows(s), most=MOST_EXAMPLES, rng=rng) for s in task.splits}
    return replace(task, splits=splits)


def drawn_rows(rows: Tensor, *, most: int, rng: torch.Generator) -> Tensor:
    """All rows, or where they are more so many drawn at random, in their order."""
    if len(rows) <= most:
        return rows
    return rows[torch.randperm(len(rows), generator=rng)[:most].sort().values]


@dataclass(frozen=True, eq=False)
class _Labels:
    """Labels of the training split.

    Attributes:
        columns: of every target.
        classes: of class ids; 0 where a column is a target.
        are_numbers: whether they are real numbers.
    """

    columns: list[LabelColumn]
    classes: int
    are_numbers: bool


def _labels(task: Task) -> _Labels:
    targets = torch.cat([b.targets.cpu() for b in task.batches("train", size=EVALUATION_SIZE)])
    columns = label_columns(task.objective, targets)
    if not any(column.is_varied for column in columns):
        raise ValueError(
            "encoders are ranked by targets with two different labels; none of the "
            f"{len(columns)} of task {task.name} has them in its training split"
        )
    classes = task.outputs if isinstance(task.objective, Multiclass) else 0
    return _Labels(columns, classes, are_numbers=not task.objective.has_classes)


def _scored(given: str, config: RunConfig, task: Task, labels: _Labels) -> tuple[Json, str | None]:
    """The row of an encoder, and why it has no LEEP where others may have one."""
    network = build_network(config, task, build_recipes(config)[0], device=settled(config).device)
    on_device = task.to(next(network.parameters()).device)
    train, valid = (
        take(network, on_device.batches(split, size=EVALUATION_SIZE))
        for split in ("train", "valid")
    )
    path, width = weight_file(Path(given)), train.features.shape[1]
    row = {
        "name": encoder_name(path),
        "weights": given,
        "width": width,
        **_feature_scores(train.features, valid, labels, task),
        "leep": None,
    }
    if labels.are_numbers:
        return row, None
    head = source_head(read_weights(path), width=width)
    if isinstance(head, str):
        return row, head
    p = head.probabilities(_as_encoded(network, train.features))
    score = leep if head.outputs == "classes" else leep_of_outputs
    varied = [column for column in labels.columns if column.is_varied]
    return row | {"leep": mean(score(p[c.rows], c.labels) for c in varied)}, None


def _feature_scores(
    features: Tensor, valid: Snapshot, labels: _Labels, task: Task
) -> dict[str, float | None]:
    """Every score but LEEP, of features of the training split, (n, d)."""
    z, scores, predicted = features.double(), defaultdict(list), []
    for column in labels.columns:
        own = z[column.rows]
        axes = principal_axes(own) if len(own) else None
        if axes is None:
            predicted.append(torch.zeros(len(valid.features), 1, dtype=torch.float64))
            continue
        predicted.append(
            linear_predictions(axes, column.labels, valid.features, classes=labels.classes)
        )
        if column.is_varied:
            scores["logme"].append(logme(own, column.labels))
            if not labels.are_numbers:
                scores["h_score"].append(h_score(axes, column.labels))
                scores["transrate"].append(transrate(axes, column.labels))
    return {
        "probe": task.objective.score(torch.cat(predicted, 1), valid.targets),
        "neighbours": _neighbour_score(z, valid, labels, task),
        **{name: mean(scores[name]) if scores[name] else None for name in _OF_COLUMNS},
    }


def _has_neighbours(labels: _Labels) -> list[bool]:
    """Whether each target has more than `NEIGHBOURS` training labels.

    With fewer, every molecule has the same neighbours, and their labels tell nothing.
    """
    return [len(column.rows) > NEIGHBOURS for column in labels.columns]


def _without_neighbours(task: Task, labels: _Labels) -> dict[str, str]:
    """Why targets are left out of the score by neighbours."""
    scored, most = _has_neighbours(labels), max(len(column.rows) for column in labels.columns)
    if all(scored):
        return {}
    reason = f"neighbours tell examples apart from {NEIGHBOURS + 1} labels on, and training has"
    if any(scored):
        names = task.target_names or map(str, range(len(scored)))
        few = [name for name, is_scored in zip(names, scored, strict=True) if not is_scored]
        return {f"{SCORES['neighbours']} of {listed(few, most=_NAMED)}": f"{reason} fewer of these"}
    return {SCORES["neighbours"]: f"{reason} {most}"}


def _neighbour_score(z: Tensor, valid: Snapshot, labels: _Labels, task: Task) -> float | None:
    """Of the targets that have more labels than neighbours; None where none of them is scored."""
    scored = _has_neighbours(labels)
    if not any(scored):
        return None
    near = neighbour_predictions(z, labels.columns, valid.features, classes=labels.classes)
    if all(scored):
        return task.objective.score(near, valid.targets)
    targets = valid.targets.masked_fill(~torch.tensor(scored), torch.nan)
    try:
        return task.objective.score(near, targets)
    except ValueError:  # none of the targets that are left has both classes in validation
        return None


def _as_encoded(network: Network, z: Tensor) -> Tensor:
    """Features as the encoder gives them, where a stage of the network has standardised them."""
    stage = network.backbone.named_stages().get(STAGE)
    if not isinstance(stage, Standardised):
        return z
    return z * stage.std.cpu() + stage.mean.cpu()


def rank_table(result: Json) -> Table:
    """A line for each encoder, best first."""
    metric = result["metric"]
    legend = _LEGEND.format(k=NEIGHBOURS, metric=score_name(metric))
    table = Table(
        title=Text(f"{result['task']}, encoders, best first", style="table.title"),
        caption=legend,
        title_justify="left",
        caption_justify="left",
        min_width=64,
    )
    for name in ("encoder", "width", *SCORES.values(), "s"):
        table.add_column(Text(name), justify="left" if name == "encoder" else "right")
    for place, row in enumerate(result["encoders"]):
        scores = [
            show(row[name], metric) if name in _ON_VALIDATION else _number(row[name])
            for name in SCORES
        ]
        cells = (row["name"], str(row["width"]), *scores, f"{row['seconds']:.1f}")
        table.add_row(*map(Text, cells), style="" if place else "bold green")
    return table


def rank_reading(result: Json) -> str:
    """Which encoder to start from and how, and what has no score for which reason."""
    first, *others = result["encoders"]
    size = f"{result['sizes']['train']:,} training and {result['sizes']['valid']:,} validation"
    lines = [
        f"Start from {first['name']}: --set {encoder_change(first['weights'])!r}. Scores are of "
        f"{size} examples."
    ]
    if others and isfinite(comparable(first[ORDERED_BY])):
        metric = result["metric"]
        lines[0] += (
            f" It validates at {show(first[ORDERED_BY], metric)}, the next, "
            f"{others[0]['name']}, at {show(others[0][ORDERED_BY], metric)}."
        )
    lines += [f"No {what}: {why}." for what, why in result["undefined"].items()]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
