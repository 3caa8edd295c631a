"""From a task on molecules to a model: a run with all its members, then how far to trust them.

What a model's answers are worth on molecules whose labels are known, in numbers and words.

Which molecules a model is chosen and calibrated by, and what they are too few for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, nan
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

from molhpft.config.build import build_recipes
from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.evaluate import predict
from molhpft.core.metrics import mean_absolute_error, rank_correlation
from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, ScoredByLoss, Squared
from molhpft.domains.files import NAMED, Json, listed
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import Neighbours, packed_fingerprints, unpack_bits
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import (
    CALIBRATION,
    calibration_share,
    random_split,
    scaffold_split,
)
from molhpft.domains.weights import read_weights
from molhpft.estimator.confidence import CalibrationName, HeldOut, Trust, fit_trust
from molhpft.estimator.model import Model, Shape
from molhpft.measure.uncertainty import expected_calibration_error, interval_coverage, set_coverage
from molhpft.run.folder import RunFolder
from molhpft.run.run import run
from molhpft.tuning.halving import highest, ranked

_CHANCE = 0.01  # below which chance does not explain that sets hold less than they promise


def evaluated(held: HeldOut, objective: Multilabel | Squared, trust: Trust) -> Json:
    """Scores, calibration and coverage on a split.

    Args:
        held: what the members together say of it.
        objective: of the model.
        trust: of the model.

    Returns:
        for classes the score by its metric's name, `ece_before` and `ece` (after calibration) and
        `set_size`; for numbers `rmse`, `mae` and `spearman` in the unit of the target, and `width`;
        `in_domain`, the share of molecules within the applicability domain, and `coverage`, the
        share of their labels that are in their set. Sizes and widths are theirs too. None where a
        number cannot be had: a score of one class, coverage without a label, an unbounded width.
    """
    near = held.similarity >= trust.near
    inside = HeldOut(held.logits[near], held.targets[near], held.similarity[near])
    if isinstance(objective, Squared):
        found = _of_numbers(held, objective) | _intervals(inside, objective, trust)
    else:
        found = _of_classes(held, objective, trust) | _sets(inside, objective, trust)
    found["in_domain"] = near.double().mean().item()
    return {name: value if isfinite(value) else None for name, value in found.items()}


def _of_numbers(held: HeldOut, objective: Squared) -> dict[str, float]:
    if held.targets.isnan().all():
        return dict.fromkeys(("rmse", "mae", "spearman"), nan)
    y, q = objective.values(held.targets), objective.values(held.logits)
    return {
        "rmse": -objective.score(held.logits, held.targets),
        "mae": mean_absolute_error(y, q),
        "spearman": rank_correlation(y, q),
    }


def _intervals(held: HeldOut, objective: Squared, trust: Trust) -> dict[str, float]:
    measured = ~held.targets.isnan()
    if not measured.any():
        return {"coverage": nan, "width": nan}
    half = trust.thresholds(held.similarity)
    lengths = 2 * half * torch.tensor(objective.std)
    covered = interval_coverage(held.logits, held.targets, half)
    return {"coverage": covered, "width": lengths[measured].mean().item()}


def _of_classes(held: HeldOut, objective: Multilabel, trust: Trust) -> dict[str, float]:
    y = held.targets
    both = (y == 0).any(0) & (y == 1).any(0)
    score = objective.score(held.logits, y) if both.any() else nan
    if held.targets.isnan().all():
        return {objective.metric: score, "ece_before": nan, "ece": nan}
    p = trust.values(held.logits, objective)
    return {
        objective.metric: score,
        "ece_before": expected_calibration_error(held.logits.double().sigmoid(), held.targets),
        "ece": expected_calibration_error(p, held.targets),
    }


def _sets(held: HeldOut, objective: Multilabel, trust: Trust) -> dict[str, float]:
    if held.targets.isnan().all():
        return {"coverage": nan, "set_size": nan}
    found = set_coverage(trust.sets(held.logits, objective, held.similarity), held.targets)
    return {"coverage": found.coverage, "set_size": found.mean_size}


def promise(
    trust: Trust,
    names: Sequence[str],
    scores: Mapping[str, Json],
    held: Mapping[str, HeldOut],
    *,
    classes: Sequence[tuple[str, str]] = (),
) -> list[str]:
    """What prediction sets promise, where they promise nothing, and what was measured.

    Args:
        trust: of the model.
        names: of the targets, (t,).
        scores: of `evaluated`, by split.
        held: what they are of.
        classes: what 0 and 1 of each target are called, (t,); empty where that is what they are.
    """
    # several targets may call their labels differently
    pair = classes[0] if len(set(classes)) == 1 else ("0", "1")
    level = f"{100 * trust.level:g} %"
    kind = "intervals" if trust.calibration is None else "sets"
    bound = "are unbounded" if trust.calibration is None else "hold every label"
    if CALIBRATION not in held:
        return [f"Prediction {kind} {bound}: there are no calibration molecules to bound them by."]
    return [
        f"Prediction {kind} were calibrated by {len(held[CALIBRATION].logits):,} molecules that "
        "took no part in training or in any choice. They promise to hold the truth for "
        f"{level} of molecules like these within the applicability domain, and nothing outside it, "
        f"where they {bound}.",
        *_unbounded(trust, names, level, pair),
        *_measured(trust, scores, held, level),
    ]


def _unbounded(trust: Trust, names: Sequence[str], level: str, pair: Sequence[str]) -> list[str]:
    """Where calibration molecules are too few for a set that rules anything out."""
    needed = ceil(round(trust.level / (1 - trust.level), 6))
    numbers = trust.calibration is None
    found = []
    for label, name in enumerate(("",) if numbers else pair):
        few, counts = (x if numbers else x[:, label] for x in (trust.unbounded, trust.counts))
        if not few.any():
            continue
        which = listed(
            [target for target, is_few in zip(names, few.tolist(), strict=True) if is_few],
            most=NAMED,
        )
        ends = sorted({int(counts[few].min()), int(counts[few].max())})
        if numbers:
            what, fact = "a label", f"Intervals of {which} are unbounded"
        else:
            what, fact = f"label {name}", f"Label {name} of {which} is in every set"
        found.append(
            f"{fact}: {level} takes {needed:,} calibration molecules with {what}, "
            f"there are {' to '.join(map(str, ends))}."
        )
    return found


def _measured(
    trust: Trust, scores: Mapping[str, Json], held: Mapping[str, HeldOut], level: str
) -> list[str]:
    found = []
    for split, row in scores.items():
        if split in ("valid", CALIBRATION) or row["coverage"] is None:
            continue
        near = held[split].similarity >= trust.near
        labels = int((~held[split].targets[near].isnan()).sum())
        covered = round(row["coverage"] * labels)
        less = binomtest(covered, labels, trust.level, alternative="less").pvalue < _CHANCE
        warn = f"; chance alone hardly explains so many fewer than {level}" if less else ""
        found.append(
            f"Measured on the {split} split: they hold {100 * row['coverage']:.1f} % of "
            f"{labels:,} labels within the domain{warn}."
        )
    return found


Holdout = Literal["scaffold", "random"]


def held_out(
    smiles: Sequence[str],
    how: Holdout,
    *,
    share: float,
    seed: int,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """Rows of "train", "valid" and "calibration"; molecules that cannot be read are in none.

    Nothing is chosen by calibration molecules: prediction sets are fitted to them. Where molecules
    (`calibration_share`) or their scaffolds (`scaffold_split`) are too few for that, none is set
    aside, and there is no such split.

    Args:
        smiles: (n,).
        how: by scaffold, the rare ones dealt to validation and calibration; or at random.
        share: of molecules for validation, between 0 and 1.
        seed: draws the random one.
        labels: (n, t) of 0, 1 or NaN, to deal in proportion at random; None for numbers.

    Raises:
        ValueError: the share is none, or leaves a split empty.
    """
    if not 0 < share < 1:
        raise ValueError(f"validation should be a share between 0 and 1, got {share}")
    fractions = (1 - share, 0.0, share)
    readable = load_or_pack(smiles).readable.nonzero().flatten()
    apart = calibration_share(max(len(readable), 1))
    apart = apart if apart < 1 - share else 0.0
    if how == "scaffold":
        found = scaffold_split(smiles, fractions=fractions, calibration=apart)
    else:
        dealt = random_split(
            len(readable),
            rng=torch.Generator().manual_seed(seed),
            fractions=fractions,
            calibration=apart,
            labels=None if labels is None else labels[readable],
        )
        found = {split: readable[rows] for split, rows in dealt.items()}
    splits = {"train": found["train"], "valid": found["test"]}
    for split, rows in splits.items():
        if not len(rows):
            raise ValueError(
                f"{len(smiles):,} molecules leave none to {split}; give more, or an eval_set"
            )
    aside = found.get(CALIBRATION)
    return splits if aside is None or not len(aside) else {**splits, CALIBRATION: aside}


def labels_of(task: Task, split: str) -> Tensor:
    """Labels of a split's molecules, float32 (n, t)."""
    molecules = task.examples
    assert isinstance(molecules, Molecules)
    return molecules.targets[task.splits[split]].float()


def scored_targets(task: Task, split: str) -> Tensor:
    """Targets whose score a split has: with labels of both classes, or with any number; (t,)."""
    y = labels_of(task, split)
    if isinstance(task.objective, Multilabel):
        return (y == 0).any(0) & (y == 1).any(0)
    return (~y.isnan()).any(0)


def unscored_targets(task: Task) -> dict[str, list[str]]:
    """Names of the targets that each split lacks labels of, or labels of both classes."""
    found = {}
    for split in (s for s in task.splits if s != CALIBRATION):
        named = zip(task.target_names, scored_targets(task, split).tolist(), strict=True)
        found[split] = [name for name, is_scored in named if not is_scored]
    return found


def thin_notes(task: Task) -> list[str]:
    """Sentences on targets that a split has too few labels of to train on, choose by or score.

    Args:
        task: on molecules.
    """
    lack = "labels of both classes" if isinstance(task.objective, Multilabel) else "labels"
    found = []
    for split, missing in unscored_targets(task).items():
        n = len(task.splits[split])
        where = f"the {split} split ({n:,} molecule{'s' * (n != 1)})"
        if split == "valid" and len(missing) == len(task.target_names):
            found.append(
                f"Never validated: {where} has no target with {lack}; epochs, tau and members were "
                "chosen by the loss on it."
            )
        elif missing:
            start = _THIN.get(split, "Not scored")
            found.append(f"{start}, for {where} lacks {lack}: {listed(missing, most=NAMED)}.")
    return found


_THIN = {"train": "Not learned", "valid": "Never validated"}


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
        config.encoder, config.head, config.cut, task.target_names, objective, molecules.classes
    )
    members = _ensemble(_members(folder, shape, seen), seen)
    smiles = tuple(molecules.smiles[row] for row in task.rows("train").tolist())
    prints = packed_fingerprints(smiles)
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
    about["promise"] = promise(trust, task.target_names, scores, held, classes=molecules.classes)
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
    if recipe.side or recipe.auxiliary or recipe.contrast:
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
    neighbours = Neighbours(unpack_bits(prints))
    found = {}
    for split, rows in task.splits.items():
        if split == "train" or not len(rows):
            continue
        logits = [predict(member.network, task, split).logits for member in members]
        own = packed_fingerprints([molecules.smiles[row] for row in rows.tolist()])
        similarity, _ = neighbours.nearest(unpack_bits(own))
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
