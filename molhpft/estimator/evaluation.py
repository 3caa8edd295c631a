"""What a model's answers are worth on molecules whose labels are known, in numbers and words."""

from collections.abc import Mapping, Sequence
from math import ceil, isfinite, nan

import torch
from scipy.stats import binomtest

from molhpft.core.metrics import mean_absolute_error, rank_correlation
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.domains.texts import listed
from molhpft.estimator.holdout import NAMED
from molhpft.estimator.trust import HeldOut, Trust
from molhpft.experiments.folder import Json
from molhpft.measure.calibration import expected_calibration_error
from molhpft.measure.conformal import interval_coverage, set_coverage

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
    return {"coverage": found.share, "set_size": found.size}


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
