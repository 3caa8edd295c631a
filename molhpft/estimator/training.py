"""From a task on molecules to a model: a run with all its members, then what validation tells."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.snapshot import predict
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import morgan_prints
from molhpft.domains.weights import read_weights
from molhpft.estimator.evaluation import evaluated
from molhpft.estimator.model import Model
from molhpft.estimator.shape import Shape
from molhpft.estimator.trust import CalibrationName, fit_trust
from molhpft.experiments.build import build_recipes, check_splits
from molhpft.experiments.config import RunConfig
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.run import run
from molhpft.tuning.select import highest, ranked


@dataclass(frozen=True)
class Answers:
    """How a model answers.

    Attributes:
        ensemble: whether networks of several taus answer together, as many of the best as validate
            best together; else the one that the run has chosen does alone.
        calibration: how probabilities are repaired on the validation split.
        level: share of molecules whose label is to be in its set, between 0 and 1.

    Raises:
        ValueError: there is no such calibration or level; known before anything is trained.
    """

    ensemble: bool = True
    calibration: CalibrationName = "platt"
    level: float = 0.9

    def __post_init__(self) -> None:
        if self.calibration not in get_args(CalibrationName):
            choices = ", ".join(get_args(CalibrationName))
            raise ValueError(f"calibration should be one of {choices}, got {self.calibration!r}")
        if not 0 < self.level < 1:
            raise ValueError(f"the level should lie between 0 and 1, got {self.level:g}")


def train(
    config: RunConfig, task: Task, out: Path, answers: Answers, *, notes: tuple[str, ...] = ()
) -> tuple[Model, RunFolder]:
    """Run a config on a task of molecules and make a model of what it found.

    Args:
        config: of the run; its `task` is not built, `members` is set.
        task: on molecules, with a training and a validation split; others are scored.
        out: folder of run folders; an interrupted run goes on there.
        answers: how the model answers.
        notes: sentences about the data for the model's card.

    Raises:
        ValueError: task, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    molecules, objective = task.examples, task.objective
    if not isinstance(molecules, Molecules) or not isinstance(objective, Multilabel | Squared):
        raise ValueError(f"a model is made of molecules with labels; {task.name} has others")
    _check_method(config)
    check_splits(task, needed=("train", "valid"))
    folder = run(replace(config, members=answers.ensemble), out, task=task)
    shape = Shape(
        config.encoder, config.head, config.cut, task.describes, objective, molecules.classes
    )
    members = _ensemble(_members(folder, shape, task), task)
    splits = [split for split in task.splits if split != "train"]
    together = {s: torch.stack([m.logits[s] for m in members]).mean(0) for s in splits}
    targets = {split: molecules.targets[task.rows(split)].float() for split in splits}
    smiles = tuple(molecules.smiles[row] for row in task.rows("train").tolist())
    trust = fit_trust(
        together["valid"],
        targets["valid"],
        objective,
        calibration=answers.calibration,
        level=answers.level,
        prints=morgan_prints(smiles),
    )
    scores = {s: evaluated(together[s], targets[s], objective, trust) for s in splits}
    about = _about(folder, members, scores, notes)
    return Model(shape, [m.network for m in members], trust, smiles, about), folder


def _check_method(config: RunConfig) -> None:
    recipe = build_recipes(config)[0]
    if recipe.side or recipe.kept or recipe.contrast:
        raise ValueError(
            f"method {config.method.name} trains more than a network on the labels of the table, "
            "and a model holds just that; take hp_ft, ls_hp_ft, l2_sp or another"
        )


@dataclass(frozen=True)
class _Member:
    """A finetuned network, what it was finetuned from, and what it says of each split."""

    tau: int
    network: Network
    logits: dict[str, Tensor]
    valid: float


def _members(folder: RunFolder, shape: Shape, task: Task) -> list[_Member]:
    """Members of a run, the best validating one first; or the one that the run has chosen."""
    chosen = folder.read_json("summary.json")["chosen_tau"]
    paths = sorted((folder.path / "members").glob("*.safetensors"))
    found = []
    for path in paths or [folder.path / "model.safetensors"]:
        file, network = read_weights(path), shape.network()
        network.load_state_dict(file.tensors)
        predicted = {s: predict(network, task, s) for s in task.splits if s != "train"}
        valid = task.objective.score(predicted["valid"].logits, predicted["valid"].targets)
        logits = {split: one.logits for split, one in predicted.items()}
        tau: int = file.about["tau"] if paths else chosen
        found.append(_Member(tau, network, logits, valid))
    return [found[i] for i in ranked([member.valid for member in found])]


def _ensemble(members: list[_Member], task: Task) -> list[_Member]:
    """The first of the members, as many as validate best together (Caruana et al., 2004).

    Networks that were finetuned shortly, or from a poor head, would do harm.
    """
    targets = task.examples.take(task.rows("valid")).targets.cpu()
    scores = [
        task.objective.score(torch.stack([m.logits["valid"] for m in members[:k]]).mean(0), targets)
        for k in range(1, len(members) + 1)
    ]
    return members[: 1 + highest(scores)]


def _about(folder: RunFolder, members: list[_Member], scores: Json, notes: Sequence[str]) -> Json:
    summary = folder.read_json("summary.json")
    kept = ("task", "method", "metric", "seed", "sizes", "chosen_tau", "parameters")
    branches = [{key: row[key] for key in ("tau", "energy")} for row in summary["branches"]]
    return {
        **{key: summary[key] for key in kept},
        "encoder_weights": Path(summary["weights"]).name,
        "members": [{"tau": member.tau, "valid": member.valid} for member in members],
        "branches": branches,
        "scores": scores,
        "notes": list(notes),
    }
