"""From a task on molecules to a model: members of several kinds, blended, with their uncertainty.

Members are judged by molecules that they did not train on: one held-out part, or each fold in turn.
Networks of folds stay, and are averaged; kernel models are fitted again, to all molecules that
train or choose.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.config.build import build_recipes
from molhpft.config.schema import RunConfig, beside_of
from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus
from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, Objective, ScoredByLoss, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import Neighbours, packed_fingerprints, unpack_bits
from molhpft.domains.molecules.further_columns import reading_beside
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.domains.molecules.target_columns import number
from molhpft.estimator.blend import Line, blend_weights, fit_line
from molhpft.estimator.calibrate import (
    Uncertainty,
    fit_uncertainty,
    held_out_scores,
    held_out_values,
)
from molhpft.estimator.coverage import coverage_guarantee
from molhpft.estimator.fold_scores import by_fold, held_out_score
from molhpft.estimator.held_out import HeldOut, HeldOutPredictions, candidate_std
from molhpft.estimator.kernel_fitting import Fitted, fit_kernel_models
from molhpft.estimator.kernel_models import KernelModels
from molhpft.estimator.model import Model, NetworkSpec
from molhpft.estimator.networks import NetworksOfTau, finetuned
from molhpft.estimator.notes import Note
from molhpft.estimator.settings import Inference, Members
from molhpft.estimator.validation import (
    VALID,
    Fold,
    fold_numbers,
    fold_tasks,
    held_rows,
    molecules_of,
    split_targets,
    unscored_targets,
    without_calibration,
)
from molhpft.measure.uncertainty import weighted_mean
from molhpft.run.folder import RunFolder, finite
from molhpft.run.side_by_side import processes_for


@dataclass(frozen=True, eq=False)
class Candidate:
    """What may answer: networks that began alike, or a kernel model.

    Attributes:
        name: for people.
        logits: split to (n, t); "valid" is of the molecules that choose, by members that did not
            train on them.
        lines: from what each of its networks says, or the kernel model, to these logits.
        networks: that are averaged; none of a kernel model.
        kernel_model: its number; None of networks.
        tau: epochs of head probing of networks; None where their head was solved or kept.
    """

    name: str
    logits: Mapping[str, Tensor]
    lines: tuple[Line, ...]
    networks: tuple[Network, ...] = ()
    kernel_model: int | None = None
    tau: int | None = None


@deterministic_on_gpus()
def train(
    config: RunConfig,
    task: Task,
    out: Path,
    inference: Inference,
    *,
    folds: Sequence[Fold] = (),
    notes: Sequence[Note] = (),
) -> tuple[Model, list[RunFolder]]:
    """Make a model of a task of molecules.

    Its runs see training and validation; test and any further split are scored once, by the model.
    The calibration split, which prediction sets are fitted to, is read when everything is chosen.

    Args:
        config: of the runs.
        task: on molecules, with a training split and, without folds, a validation split;
            "calibration" is optional, and further splits are scored.
        out: folder of run folders; an interrupted run resumes there.
        inference: what may answer, and how.
        folds: parts of the training split that are held out in turn (`draw_folds`), which then
            choose and calibrate.
        notes: on the data, for the model's card.

    Returns:
        the model, and the folders of the runs that finetuned networks.

    Raises:
        ValueError: task, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    molecules, objective = task.examples, task.objective
    if not isinstance(molecules, Molecules) or not isinstance(objective, Multilabel | Squared):
        raise ValueError(f"a model is made of molecules with labels; {task.name} has others")
    _check_settings(config, task, inference)
    task = reading_beside(task, beside_of(config.head))
    choosing = _choosing(task, folds)
    spec = _spec(config, task, objective, molecules.classes)
    candidates, kernel_models, folders = _candidates(config, task, folds, spec, out, inference)
    y, fold = split_targets(choosing, VALID), _fold_of(choosing, folds)
    scoring = _scoring(choosing, y, fold)
    weights = _weights([one.logits[VALID] for one in candidates], y, fold, scoring)
    held = _held_out(candidates, weights, choosing, folds)
    smiles = tuple(molecules.smiles[row] for row in _labelled(task, task.rows("train")).tolist())
    uncertainty, values = _uncertainty(
        held, objective, inference, packed_fingerprints(smiles), by_folds=bool(folds)
    )
    about: Json = {
        **_about(config, task, candidates, weights, folders),
        "members": _members(candidates, weights, scoring, y, fold),
        "chosen_by": scoring.metric,
        "folds": len(folds),
        **_quality(spec, held, uncertainty, values, inference, by_folds=bool(folds)),
    }
    predictions = _held_out_predictions(held, choosing, folds, uncertainty, objective, values)
    model = _model(
        spec, candidates, weights, kernel_models, uncertainty, smiles, finite(about), predictions
    )
    model.about["notes"] = [n.text for n in notes if model.reads_encoder or not n.of_encoder]
    return model, folders


def _spec(
    config: RunConfig,
    task: Task,
    objective: Multilabel | Squared,
    classes: tuple[tuple[str, str], ...],
) -> NetworkSpec:
    return NetworkSpec(
        encoder=config.encoder,
        head=config.head,
        cut=config.cut,
        standardise=config.standardise,
        target_names=task.target_names,
        objective=objective,
        classes=classes,
    )


def _scoring(choosing: Task, y: Tensor, fold: Tensor | None) -> Objective:
    """What scores the molecules that choose: the loss, where none of the folds has both classes."""
    objective = without_calibration(choosing).objective
    try:
        held_out_score(objective, torch.zeros_like(y), y, fold)
    except ValueError:
        return ScoredByLoss(objective)
    return objective


def _weights(
    judged: Sequence[Tensor], y: Tensor, fold: Tensor | None, scoring: Objective
) -> list[float]:
    """What each candidate weighs, by what it says of the molecules that choose.

    Numbers are scored in standard deviations, so that no target counts for more by its unit.
    """
    blending = Squared() if isinstance(scoring, Squared) else scoring
    return blend_weights(judged, lambda logits: held_out_score(blending, logits, y, fold))


def _choosing(task: Task, folds: Sequence[Fold]) -> Task:
    """The task with the molecules that choose as "valid": with folds all that they hold out."""
    if not folds:
        return task
    return replace(task, splits={**task.splits, VALID: held_rows(folds)})


def _fold_of(choosing: Task, folds: Sequence[Fold]) -> Tensor | None:
    """Number of the fold of each molecule that chooses, (n,); None where there are no folds."""
    return fold_numbers(choosing.rows(VALID), folds) if folds else None


def _candidates(
    config: RunConfig,
    task: Task,
    folds: Sequence[Fold],
    spec: NetworkSpec,
    out: Path,
    inference: Inference,
) -> tuple[list[Candidate], KernelModels | None, list[RunFolder]]:
    """All that may answer, the simplest first: of equals the first one does.

    Returns:
        the candidates, the kernel models among them, and the folders of the runs.
    """
    choosing = _choosing(task, folds)
    parts = [without_calibration(one) for one in fold_tasks(task, folds) or [task]]

    def candidate(
        name: str, outputs: Mapping[str, Tensor], units: Sequence[Line], **what: Any
    ) -> Candidate:
        y, classes = split_targets(choosing, VALID), isinstance(spec.objective, Multilabel)
        rates = _rates(task) if classes and "kernel_model" in what else None
        line = fit_line(outputs[VALID], y, classes=classes, rates=rates)
        lines = tuple(line.after(unit) for unit in units)
        logits = {split: line(said) for split, said in outputs.items()}
        return Candidate(name, logits, lines, **what)

    candidates = list[Candidate]()
    kernels, networks, folders = _fitted(config, task, folds, parts, spec, out, inference.members)
    if kernels:
        units = [Line.unchanged(task.outputs)]
        for k, model in enumerate(kernels.models.models):
            outputs = {split: of_all[k] for split, of_all in kernels.outputs.items()}
            candidates.append(candidate(f"GP, {model.name}", outputs, units, kernel_model=k))
    for one in networks:
        outputs = {VALID: _judged(one, parts, folds)}
        outputs |= {s: one.logits(task, s) for s in _further(task) if s != VALID}
        name = f"networks, {config.method.name if one.tau is None else key_in_words(one.key)}"
        what = {"networks": one.networks, "tau": one.tau}
        candidates.append(candidate(name, outputs, one.units, **what))
    return candidates, kernels.models if kernels else None, folders


def _fitted(
    config: RunConfig,
    task: Task,
    folds: Sequence[Fold],
    parts: Sequence[Task],
    spec: NetworkSpec,
    out: Path,
    wanted: Members,
) -> tuple[Fitted | None, list[NetworksOfTau], list[RunFolder]]:
    """The kernel models and networks that are wanted; both at a time where processes allow it."""
    only = wanted if wanted in ("features", "fingerprints") else None
    kernels = partial(fit_kernel_models, config, task, folds, only=only)
    if wanted not in ("all", "networks"):
        return kernels(), [], []
    processes = processes_for(config, parts)
    if wanted == "networks":
        return None, *finetuned(config, parts, spec, out, processes)
    with processes.meanwhile(kernels) as fitted:
        networks, folders = finetuned(config, parts, spec, out, processes)
        return fitted(), networks, folders


def key_in_words(key: str) -> str:
    """Settings in the key of a recipe: "tau 20, smoothing 0.1" of "tau20-smoothing0.1"."""
    settings = re.split(r"-(?=[a-z])", key)
    return ", ".join(re.sub(r"\d", r" \g<0>", setting, count=1) for setting in settings)


def _judged(one: NetworksOfTau, parts: Sequence[Task], folds: Sequence[Fold]) -> Tensor:
    """What networks say of the molecules that choose, each by one that did not train on it."""
    judged = torch.cat(one.said(parts, VALID))
    return judged[torch.cat([fold.held for fold in folds]).argsort()] if folds else judged


def _further(task: Task) -> list[str]:
    """Splits that are predicted: all with molecules but training."""
    return [split for split, rows in task.splits.items() if split != "train" and len(rows)]


def _model(
    spec: NetworkSpec,
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    kernel_models: KernelModels | None,
    uncertainty: Uncertainty,
    smiles: tuple[str, ...],
    about: Json,
    held_out: HeldOutPredictions,
) -> Model:
    """The model of all candidates that weigh something, the heaviest network first."""
    used = sorted(
        ((one, weight) for one, weight in zip(candidates, weights, strict=True) if weight),
        key=lambda pair: -pair[1],
    )
    networks = [
        (network, weight / len(one.networks), line)
        for one, weight in used
        if one.networks
        for network, line in zip(one.networks, one.lines, strict=True)
    ]
    others = [
        (one.kernel_model, weight, line)
        for one, weight in used
        if one.kernel_model is not None
        for line in one.lines
    ]
    kept = kernel_models.only([k for k, *_ in others]) if kernel_models and others else None
    return Model(
        spec,
        [network for network, *_ in networks],
        uncertainty,
        smiles,
        about,
        kernel_models=kept,
        weights=[weight for _, weight, _ in (*networks, *others)],
        lines=[line for *_, line in (*networks, *others)],
        sizes=[len(one.networks) for one, _ in used if one.networks] + [1] * len(others),
        held_out=held_out,
    )


def _uncertainty(
    held: Mapping[str, HeldOut],
    objective: Multilabel | Squared,
    inference: Inference,
    fingerprints: NDArray[np.uint8],
    *,
    by_folds: bool,
) -> tuple[Uncertainty, dict[str, Tensor]]:
    """Fitted to the calibration split, or to all folds, and what it says of every split."""
    uncertainty = fit_uncertainty(
        held[VALID] if by_folds else held.get(CALIBRATION),
        objective,
        validating=None if by_folds else held[VALID],
        calibration=inference.calibration,
        target_coverage=inference.target_coverage,
        fingerprints=fingerprints,
    )
    values = held_out_values(
        held,
        objective,
        uncertainty,
        fitted_to=[VALID] if by_folds else [s for s in (VALID, CALIBRATION) if s in held],
        calibration=inference.calibration,
    )
    return uncertainty, values


def _quality(
    spec: NetworkSpec,
    held: Mapping[str, HeldOut],
    uncertainty: Uncertainty,
    values: Mapping[str, Tensor],
    inference: Inference,
    *,
    by_folds: bool,
) -> Json:
    """Scores of every held-out split, and sentences on the coverage of prediction sets."""
    scores = {
        split: held_out_scores(one, spec.objective, uncertainty, values=values[split])
        for split, one in held.items()
    }
    # sets hold the labels that they were fitted to by construction
    scores.get(VALID if by_folds else CALIBRATION, {})["coverage"] = None
    # the line of each member is fitted to the molecules that choose; a temperature cannot undo it
    kept = inference.calibration in ("none", "temperature")
    own = ("ece_before", "ece") if kept else ("ece_before",)
    scores[VALID] |= dict.fromkeys(scores[VALID].keys() & own)
    coverage = coverage_guarantee(
        uncertainty, spec.target_names, scores, held, classes=spec.class_names, by_folds=by_folds
    )
    return {"scores": scores, "coverage": coverage}


def _held_out(
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    choosing: Task,
    folds: Sequence[Fold],
) -> dict[str, HeldOut]:
    """What the members say together of every split but training."""
    molecules = molecules_of(choosing)
    bits = unpack_bits(packed_fingerprints(molecules.smiles))
    whole = Neighbours(bits[_labelled(choosing, choosing.rows("train"))])
    held = {}
    for split in _further(choosing):
        rows = choosing.rows(split)
        if folds and split == VALID:
            similarity = torch.zeros(len(rows))
            for fold in folds:
                others = Neighbours(bits[_labelled(choosing, fold.train)])
                similarity[torch.isin(rows, fold.held)] = others.nearest(bits[fold.held])[0]
        else:
            similarity = whole.nearest(bits[rows])[0]
        members = zip(candidates, weights, strict=True)
        used = [(one.logits[split], w) for one, w in members if w]
        every, of_used = torch.stack([a for a, _ in used]), torch.tensor([w for _, w in used])
        held[split] = HeldOut(
            weighted_mean(every, of_used),
            split_targets(choosing, split),
            similarity,
            std=candidate_std(every, of_used, [1] * len(used)),
            fold=_fold_of(choosing, folds) if split == VALID else None,
        )
    return held


def _held_out_predictions(
    held: Mapping[str, HeldOut],
    task: Task,
    folds: Sequence[Fold],
    uncertainty: Uncertainty,
    objective: Multilabel | Squared,
    values: Mapping[str, Tensor],
) -> HeldOutPredictions:
    """Predictions for the molecules of all splits that members did not train on.

    Args:
        held: what members say of each split, in the order of its rows.
        task: has these splits; with folds "valid" are the molecules of all of them.
        folds: that chose, if any.
        uncertainty: of the model.
        objective: of the model.
        values: of each split, see `held_out_values`.
    """
    fold_of = {row: str(k) for k, fold in enumerate(folds, start=1) for row in fold.held.tolist()}
    # a split of a column may be called 1
    names = {split: split if number(split) is None else f"split {split}" for split in held}
    parts = [fold_of.get(row, names[split]) for split in held for row in task.rows(split).tolist()]
    sets = [
        uncertainty.sets(one.logits, objective, one.similarity, one.std) for one in held.values()
    ]
    rows = torch.cat([task.rows(split) for split in held])
    said = torch.cat([values[split] for split in held])
    return HeldOutPredictions(rows, tuple(parts), said, torch.cat(sets), held)


def _labelled(task: Task, rows: Tensor) -> Tensor:
    """Those of some rows that have a label: what taught nothing is no neighbour to learn from."""
    return rows[~task.examples.targets[rows].isnan().all(1)]


def _members(
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    scoring: Objective,
    y: Tensor,
    fold: Tensor | None,
) -> list[Json]:
    """Every candidate: its weight, its score on the molecules that choose, and on each fold."""
    return [
        {
            "name": one.name,
            "tau": one.tau,
            "weight": weight,
            "valid": held_out_score(scoring, one.logits[VALID], y, fold),
            "folds": by_fold(scoring.score, one.logits[VALID], y, fold),
        }
        for one, weight in zip(candidates, weights, strict=True)
    ]


def _rates(task: Task) -> Tensor:
    """Share of label 1 of what kernel models learn from, as if each class had one more, (t,).

    NaN of a target without labels.
    """
    splits = [split for split in ("train", VALID) if split in task.splits]
    y = torch.cat([split_targets(task, split) for split in splits])
    count = (~y.isnan()).sum(0)
    return torch.where(count > 0, ((y == 1).sum(0) + 1) / (count + 2), torch.nan)


def _about(
    config: RunConfig,
    task: Task,
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    folders: Sequence[RunFolder],
) -> Json:
    """What is known before anything is judged; energies are averaged over the runs.

    The chosen tau is that of the networks that weigh most, None where none weigh anything.
    """
    file: Path | None = config.encoder.options["weights"]
    networks = [(w, one) for w, one in zip(weights, candidates, strict=True) if one.networks]
    heaviest, most = max(networks, key=lambda pair: pair[0], default=(0.0, None))
    summaries = [folder.read_json("summary.json") for folder in folders]
    energies: dict[int | None, list[Json]] = {}
    for summary in summaries:
        for row in summary["branches"]:
            energies.setdefault(row["tau"], []).append(row["energy"])
    return {
        "task": task.name,
        "method": config.method.name if networks else "none",
        "metric": task.objective.metric,
        "seed": config.seed,
        "chosen_tau": most.tau if most and heaviest else None,
        "tau_is_chosen": any(summary.get("choice") for summary in summaries),
        "weights_are_chosen": bool(networks)
        and any(recipe.chooses_weights for recipe in build_recipes(config)),
        "parameters": summaries[0]["parameters"] if summaries else 0,
        "encoder_weights": "none (random)" if file is None else file.name,
        "branches": [
            {"tau": tau, "energy": {k: _mean(one[k] for one in rows) for k in rows[0]}}
            for tau, rows in energies.items()
        ],
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        "unscored": unscored_targets(task),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return mean(numbers) if numbers else None


def _check_settings(config: RunConfig, task: Task, inference: Inference) -> None:
    if isinstance(task.objective, Squared) and inference.calibration not in (
        Inference.calibration,
        "none",
    ):
        raise ValueError(
            f"calibration {inference.calibration} is of probabilities, and {task.name} is a "
            "regression; leave it out"
        )
    recipe = build_recipes(config)[0]
    if recipe.soup:
        raise ValueError(
            f"method {config.method.name} averages the weights of networks, and a model averages "
            "what its members say; take method hp_ft, and `molhpft run` for a soup"
        )
    if recipe.side or recipe.auxiliary or recipe.contrast:
        raise ValueError(
            f"method {config.method.name} trains more than a network on the labels of the table, "
            "which is all that a model holds; take hp_ft, ls_hp_ft, l2_sp or another"
        )
