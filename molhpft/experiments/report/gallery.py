"""Molecules that stand out: those whose features moved most, those whose energy stayed highest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, inference, take
from molhpft.core.task import Task
from molhpft.domains.molecules.draw import molecule_svg
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.weights import read_weights
from molhpft.experiments.archive import NO_FEATURES, Run, read_features
from molhpft.experiments.build import build_network, build_recipes, build_task
from molhpft.experiments.config import Choice, parse_config
from molhpft.experiments.folder import Json
from molhpft.experiments.report.content import Gallery, Picture
from molhpft.experiments.report.measured import Variant
from molhpft.tuning.features import reads_only_features

SHOWN = 6
HERE: Json = {"device": "cpu", "devices": 1, "nodes": 1, "precision": 32}
TITLES = ("Features that moved most", "Energy that stayed highest")


@dataclass(frozen=True)
class _Found:
    """Numbers of the training molecules of one run.

    Attributes:
        smiles: (n,).
        moved: ||z_T - z_0||, (n,).
        residual: p - y after finetuning, (n, t); 0 where unmeasured.
        targets: (n, t), NaN where unmeasured.
        names: of the targets (t,).
    """

    smiles: tuple[str, ...]
    moved: Tensor
    residual: Tensor
    targets: Tensor
    names: tuple[str, ...]


def galleries(variants: Sequence[Variant]) -> list[Gallery]:
    """Both galleries, from the first run that kept its features, or why there are none.

    Args:
        variants: of one task, that which validates best first.
    """
    refusals: list[str] = []
    for name, runs in variants:
        for run in runs:
            try:
                found = _look(run)
            except (ValueError, OSError) as error:
                refusals.append(f"{run.path.name}: {error}")
                continue
            seed, tau = run.summary["seed"], run.summary["chosen_tau"]
            return _pictures(found, f"Training molecules of {name}, seed {seed}, tau {tau}.")
    # a run that has features and could not be shown says more than one that has none
    refusals.sort(key=lambda text: NO_FEATURES in text)
    return [Gallery(title, f"No molecules to show: {refusals[0]}.") for title in TITLES]


def _look(run: Run) -> _Found:
    """Read features and model of a run, and the task that it was run on.

    Raises:
        ValueError: a file is missing, damaged or of something else, or the task has no molecules.
        OSError: the data are not where the config says.
    """
    arrays = read_features(run)
    if not {"train_before", "train_after"} <= arrays.keys():
        raise ValueError("features.npz has no features of the training split")
    before, after = (torch.from_numpy(arrays[f"train_{when}"]) for when in ("before", "after"))
    # wherever it was trained, one head on kept features is quick here
    config = parse_config({**run.config, **HERE})
    # the trained network is on disk; what it was once loaded from may be gone
    options = {**config.encoder.options, "weights": None}
    config = replace(config, encoder=Choice(config.encoder.name, options))
    recipe = build_recipes(config)[0]
    task = build_task(config, recipe)
    if not isinstance(task.examples, Molecules):
        raise ValueError(f"task {task.name} has no molecules")
    rows = task.rows("train")
    if not len(before) == len(after) == len(rows):
        raise ValueError(
            f"features.npz has {len(before):,} training molecules, the task {len(rows):,}: the "
            "data have changed since"
        )
    network = build_network(config, task, recipe)
    _load(network, run)
    # a store keeps labels in half precision, which would round energies
    targets = task.examples.targets[rows].float()
    return _Found(
        smiles=tuple(task.examples.smiles[row] for row in rows.tolist()),
        moved=(after - before).flatten(1).norm(dim=1),
        residual=_residual(network, task, after, targets),
        targets=targets,
        names=task.describes,
    )


def _load(network: Network, run: Run) -> None:
    weights = read_weights(run.path / "model.safetensors").tensors
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError("model.safetensors does not fit the run's config") from error


def _residual(network: Network, task: Task, z: Tensor, targets: Tensor) -> Tensor:
    if reads_only_features(network.head):
        with inference(network):
            logits = network.head(z, Batch(z, targets))
    else:
        logits = take(network, task.batches("train", size=EVALUATION_SIZE)).logits
    labelled = ~targets.isnan().all(1)
    residual = torch.zeros_like(targets)
    residual[labelled] = task.objective.residual(logits, targets).to(residual)
    return residual


def _pictures(found: _Found, note: str) -> list[Gallery]:
    energy = found.residual.norm(dim=1)
    made = []
    for title, values in zip(TITLES, (found.moved, energy), strict=True):
        rows = np.argsort(-values.numpy(), kind="stable")[:SHOWN].tolist()
        pictures = tuple(_picture(found, row, float(energy[row])) for row in rows)
        made.append(Gallery(title, note, pictures))
    return made


def _picture(found: _Found, row: int, energy: float) -> Picture:
    worst = int(found.residual[row].abs().argmax())
    label = float(found.targets[row, worst])
    predicted = label + float(found.residual[row, worst])
    name = found.names[worst] if found.names else f"output {worst}"
    lines = [f"moved {float(found.moved[row]):.2f}, energy {energy:.2f}"]
    if label == label:
        lines.append(f"{name}: label {label:g}, predicted {predicted:.2f}")
    try:
        svg = molecule_svg(found.smiles[row])
    except ValueError:
        svg, lines = "", [*lines, "RDKit cannot draw it"]
    return Picture(svg, found.smiles[row], tuple(lines))
