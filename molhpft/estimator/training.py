"""From a task on molecules to a model: a run with all its members, then how far to trust them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.scored import ScoredByLoss
from molhpft.core.snapshot import predict
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import morgan_prints, unpacked
from molhpft.domains.molecules.similarity import Neighbours
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.domains.weights import read_weights
from molhpft.estimator.evaluation import evaluated, promise
from molhpft.estimator.holdout import labels_of, scored_targets, unscored_targets
from molhpft.estimator.model import Model
from molhpft.estimator.shape import Shape
from molhpft.estimator.trust import CalibrationName, HeldOut, fit_trust
from molhpft.experiments.build import build_recipes
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
        calibration: how probabilities are repaired, on validation and calibration molecules
            together.
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

    The run sees training and validation and scores test and any further split. The calibration
    split, from which prediction sets come, is looked at when all is chosen.

    Args:
        config: of the run; its `task` is not built, `members` is set.
        task: on molecules, with a training and a validation split; "calibration" where it has one,
            and others are scored.
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
    if isinstance(objective, Squared) and answers.calibration not in (Answers.calibration, "none"):
        raise ValueError(
            f"calibration {answers.calibration} is of probabilities, and {task.name} is a "
            "regression; leave it out"
        )
    _check_method(config)
    seen = seen_by_the_run(task)
    folder = run(replace(config, members=answers.ensemble), out, task=seen)
    shape = Shape(
        config.encoder, config.head, config.cut, task.describes, objective, molecules.classes
    )
    members = _ensemble(_members(folder, shape, seen), seen)
    smiles = tuple(molecules.smiles[row] for row in task.rows("train").tolist())
    prints = morgan_prints(smiles)
    held = _held_out(members, task, prints)
    trust = fit_trust(
        held["valid"],
        held.get(CALIBRATION),
        objective,
        calibration=answers.calibration,
        level=answers.level,
        prints=prints,
    )
    scores = {s: evaluated(one, objective, trust) for s, one in held.items()}
    # sets hold the calibration labels by construction: they were fitted to them
    scores.get(CALIBRATION, {})["coverage"] = None
    about = _about(folder, members, scores, notes)
    about["unscored"] = unscored_targets(task)
    about["promise"] = promise(trust, task.describes, scores, held, classes=molecules.classes)
    about["sizes"] = {split: len(rows) for split, rows in task.splits.items()}
    return Model(shape, [m.network for m in members], trust, smiles, about), folder


def seen_by_the_run(task: Task) -> Task:
    """The task without its calibration split and without splits that cannot be scored.

    Where no target has both classes in validation, it is scored by its loss, so that there is
    something to choose by.

    Raises:
        ValueError: there is nothing to train on, or to choose by.
    """
    by_class = isinstance(task.objective, Multilabel)
    scorable = {split: bool(scored_targets(task, split).any()) for split in task.splits}
    if by_class and not scorable.get("train"):
        raise ValueError(
            f"no target of {task.name} has labels of both classes among its "
            f"{len(task.splits['train']):,} training molecules; give more molecules, or another "
            "split: a random one deals each class to all of its parts"
        )
    objective = task.objective
    if by_class and not scorable.get("valid"):
        objective = ScoredByLoss(objective)
        scorable = {s: bool(labels_of(task, s).isfinite().any()) for s in task.splits}
    for split in ("train", "valid"):
        if not scorable.get(split):
            raise ValueError(
                f"split {split!r} of {task.name} has no molecule with a label; give more "
                "molecules or another split"
            )
    splits = {s: rows for s, rows in task.splits.items() if s != CALIBRATION and scorable[s]}
    return replace(task, objective=objective, splits=splits)


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


def _held_out(
    members: Sequence[_Member], task: Task, prints: NDArray[np.uint8]
) -> dict[str, HeldOut]:
    """What the members together say of every split but the training split."""
    molecules = task.examples
    assert isinstance(molecules, Molecules)
    neighbours = Neighbours(unpacked(prints))
    found = {}
    for split, rows in task.splits.items():
        if split == "train" or not len(rows):
            continue
        logits = [predict(member.network, task, split).logits for member in members]
        own = morgan_prints([molecules.smiles[row] for row in rows.tolist()])
        similarity, _ = neighbours.nearest(unpacked(own))
        together = torch.stack(logits).mean(0)
        found[split] = HeldOut(together, labels_of(task, split), similarity)
    return found


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
