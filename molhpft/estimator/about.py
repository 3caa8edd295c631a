"""What is recorded of a model: how it was made, its members, and how good they are."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from torch import Tensor

from molhpft.config.build import build_recipes
from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.objectives import Objective
from molhpft.domains.files import Json
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.estimator.calibrate import Uncertainty, held_out_scores
from molhpft.estimator.candidates import Candidate
from molhpft.estimator.coverage import coverage_guarantee
from molhpft.estimator.fold_scores import by_fold, held_out_score
from molhpft.estimator.held_out import HeldOut
from molhpft.estimator.model import NetworkSpec
from molhpft.estimator.settings import Inference
from molhpft.estimator.validation import VALID, unscored_targets
from molhpft.run.folder import RunFolder


def origin(
    config: RunConfig,
    task: Task,
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    folders: Sequence[RunFolder],
) -> Json:
    """What is known before anything is judged; energies are averaged over the runs.

    The chosen tau is that of the networks that weigh most, None where none weigh anything.

    Args:
        config: of the runs.
        task: on molecules.
        candidates: all that were tried.
        weights: of each.
        folders: of the runs.
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


def member_scores(
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    scoring: Objective,
    y: Tensor,
    fold: Tensor | None,
) -> list[Json]:
    """Every candidate: its weight, its score on the molecules that choose, and on each fold.

    Args:
        candidates: all that were tried.
        weights: of each.
        scoring: by what they were chosen.
        y: targets of the molecules that choose, (n, t), NaN where unmeasured.
        fold: number of the fold of each, (n,); None where there are no folds.
    """
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


def quality(
    spec: NetworkSpec,
    held: Mapping[str, HeldOut],
    uncertainty: Uncertainty,
    values: Mapping[str, Tensor],
    inference: Inference,
    *,
    by_folds: bool,
) -> Json:
    """Scores of every held-out split, and sentences on the coverage of prediction sets.

    Args:
        spec: of the model.
        held: what its members say of each split that they did not train on.
        uncertainty: of the model.
        values: of each split, see `held_out_values`.
        inference: how the model predicts.
        by_folds: whether "valid" are the molecules of folds, which also calibrated.
    """
    scores = {
        split: held_out_scores(one, spec.objective, uncertainty, values=values[split])
        for split, one in held.items()
    }
    # sets hold the labels that they were fitted to by construction
    scores.get(VALID if by_folds else CALIBRATION, {})["coverage"] = None
    # the line of each member is fitted to the molecules that choose; a temperature cannot undo it
    keeps_line = inference.calibration in ("none", "temperature")
    own = ("ece_before", "ece") if keeps_line else ("ece_before",)
    scores[VALID] |= dict.fromkeys(scores[VALID].keys() & own)
    coverage = coverage_guarantee(
        uncertainty, spec.target_names, scores, held, classes=spec.class_names, by_folds=by_folds
    )
    return {"scores": scores, "coverage": coverage}


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return mean(numbers) if numbers else None
