"""From a task on molecules to a model: members of several kinds, blended, with their uncertainty.

Members are judged by molecules that they did not train on: one held-out part, or each fold in turn.
Networks of folds stay, and are averaged; kernel models are fitted again, to all molecules that
train or choose.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.config.build import build_recipes
from molhpft.config.schema import RunConfig, beside_of
from molhpft.core.data import Task
from molhpft.core.determinism import deterministic_on_gpus
from molhpft.core.objectives import Multilabel, Objective, ScoredByLoss, Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import Neighbours, packed_fingerprints, unpack_bits
from molhpft.domains.molecules.further_columns import reading_beside
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.domains.molecules.target_columns import number
from molhpft.estimator.about import member_scores, origin, quality
from molhpft.estimator.blend import blend_weights
from molhpft.estimator.calibrate import (
    Uncertainty,
    fit_uncertainty,
    held_out_values,
)
from molhpft.estimator.candidates import Candidate, all_candidates
from molhpft.estimator.fold_scores import held_out_score
from molhpft.estimator.held_out import HeldOut, HeldOutPredictions, candidate_std
from molhpft.estimator.kernel_models import KernelModels
from molhpft.estimator.model import Model, NetworkSpec
from molhpft.estimator.notes import Note
from molhpft.estimator.settings import Inference
from molhpft.estimator.validation import (
    VALID,
    Fold,
    choosing_task,
    fold_of,
    further_splits,
    labelled_rows,
    molecules_of,
    split_targets,
    without_calibration,
)
from molhpft.measure.uncertainty import weighted_mean
from molhpft.run.device import settled
from molhpft.run.folder import RunFolder, finite


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
    choosing = choosing_task(task, folds)
    spec = _spec(config, task, objective, molecules.classes)
    candidates, kernel_models, folders = all_candidates(config, task, folds, spec, out, inference)
    y, fold = split_targets(choosing, VALID), fold_of(choosing, folds)
    scoring = _scoring(choosing, y, fold)
    weights = _weights([one.logits[VALID] for one in candidates], y, fold, scoring)
    held = _held_out(candidates, weights, choosing, folds)
    smiles = _training_smiles(task)
    uncertainty, values = _uncertainty(
        held, objective, inference, packed_fingerprints(smiles), by_folds=bool(folds)
    )
    about: Json = {
        **origin(config, task, candidates, weights, folders),
        "members": member_scores(candidates, weights, scoring, y, fold),
        "chosen_by": scoring.metric,
        "folds": len(folds),
        **quality(spec, held, uncertainty, values, inference, by_folds=bool(folds)),
    }
    predictions = _held_out_predictions(held, choosing, folds, uncertainty, objective, values)
    model = _model(
        spec, candidates, weights, kernel_models, uncertainty, smiles, finite(about), predictions
    )
    model.about["notes"] = [n.text for n in notes if model.reads_encoder or not n.of_encoder]
    return model, folders


def _training_smiles(task: Task) -> tuple[str, ...]:
    """The molecules that train and have a label."""
    smiles = molecules_of(task).smiles
    return tuple(smiles[row] for row in labelled_rows(task, task.rows("train")).tolist())


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
    used_kernels = kernel_models.only([k for k, *_ in others]) if kernel_models and others else None
    return Model(
        spec,
        [network for network, *_ in networks],
        uncertainty,
        smiles,
        about,
        kernel_models=used_kernels,
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


def _held_out(
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    choosing: Task,
    folds: Sequence[Fold],
) -> dict[str, HeldOut]:
    """What the members say together of every split but training."""
    molecules = molecules_of(choosing)
    bits = unpack_bits(packed_fingerprints(molecules.smiles))
    whole = Neighbours(bits[labelled_rows(choosing, choosing.rows("train"))])
    held = {}
    for split in further_splits(choosing):
        rows = choosing.rows(split)
        if folds and split == VALID:
            similarity = torch.zeros(len(rows))
            for fold in folds:
                others = Neighbours(bits[labelled_rows(choosing, fold.train)])
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
            fold=fold_of(choosing, folds) if split == VALID else None,
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
    predicted = torch.cat([values[split] for split in held])
    return HeldOutPredictions(rows, tuple(parts), predicted, torch.cat(sets), held)


def _check_settings(config: RunConfig, task: Task, inference: Inference) -> None:
    if isinstance(task.objective, Squared) and inference.calibration not in (
        Inference.calibration,
        "none",
    ):
        raise ValueError(
            f"calibration {inference.calibration} is of probabilities, and {task.name} is a "
            "regression; leave it out"
        )
    here = settled(config)
    if here.devices * here.nodes > 1:
        raise ValueError(
            f"a model is made by one process, which starts others itself, and this config has "
            f"{here.devices * here.nodes}; leave devices and nodes out (`molhpft run` takes them)"
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
