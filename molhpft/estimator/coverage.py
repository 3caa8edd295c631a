"""Sentences on the coverage of prediction sets: guaranteed, impossible, and as measured."""

from collections.abc import Mapping, Sequence
from math import ceil

from molhpft.domains.files import Json, listed
from molhpft.domains.molecules.splits import CALIBRATION
from molhpft.estimator.calibrate import Uncertainty
from molhpft.estimator.held_out import HeldOut

NAMED = 5
"""Targets that a sentence names; of more the others are counted."""

_CHANCE = 0.01  # p-value below which chance does not explain too low a coverage


def coverage_guarantee(
    uncertainty: Uncertainty,
    names: Sequence[str],
    scores: Mapping[str, Json],
    held: Mapping[str, HeldOut],
    *,
    classes: Sequence[tuple[str, str]] = (),
    by_folds: bool = False,
) -> list[str]:
    """Sentences on the coverage of prediction sets: guaranteed, impossible, and as measured.

    Args:
        uncertainty: of the model.
        names: of the targets, (t,).
        scores: of `held_out_scores`, by split.
        held: the splits they are of.
        classes: of a classification, names of the labels 0 and 1 of each target, (t,).
        by_folds: whether every training molecule calibrated them, as predicted by members that had
            not seen it.
    """
    coverage = f"{100 * uncertainty.target_coverage:g} %"
    regression = uncertainty.calibration is None
    kind = "intervals" if regression else "sets"
    outside = "are unbounded" if regression else "hold every label"
    if CALIBRATION not in held and not by_folds:
        return [
            f"Prediction {kind} {outside}: there are no calibration molecules to bound them by."
        ]
    chose = ", though these molecules chose the members, too" if by_folds else ""
    return [
        f"Prediction {kind} were calibrated on {_calibrated_on(held, by_folds=by_folds)}. They "
        f"hold the true label of {coverage} of molecules like these within the applicability "
        f"domain{chose}; outside it they {outside} and guarantee nothing.",
        *_unbounded(uncertainty, names, coverage, [("",)] * len(names) if regression else classes),
        *(_unbounded_at_some(uncertainty, held) if regression else ()),
        *_measured(uncertainty, scores, held, coverage),
    ]


def _calibrated_on(held: Mapping[str, HeldOut], *, by_folds: bool) -> str:
    if by_folds:
        n = _labelled(held["valid"])
        return f"{n:,} molecules, each as members predict it that did not train on its fold"
    n = _labelled(held[CALIBRATION])
    return f"{n:,} molecules that took no part in training or in any choice"


def _labelled(held: HeldOut) -> int:
    """How many molecules have a label of any target."""
    return int((~held.targets.isnan()).any(1).sum())


def _unbounded(
    uncertainty: Uncertainty, names: Sequence[str], coverage: str, labels: Sequence[Sequence[str]]
) -> list[str]:
    """Where calibration molecules are too few for a set that rules anything out.

    Args:
        uncertainty: of the model.
        names: of the targets, (t,).
        coverage: which the sets should have.
        labels: of each target what its sets may hold: two classes, or numbers, which need no name.
    """
    needed = ceil(round(uncertainty.target_coverage / (1 - uncertainty.target_coverage), 6))
    columns = (
        x.reshape(len(names), -1).T for x in (uncertainty.unbounded, uncertainty.label_counts)
    )
    sentences = []
    for own, few, counts in zip(zip(*labels, strict=True), *columns, strict=True):
        for label in dict.fromkeys(own):
            # targets may name their labels differently
            which = [k for k, name in enumerate(own) if name == label and few[k]]
            if not which:
                continue
            targets = listed([names[k] for k in which], most=NAMED)
            if uncertainty.calibration is None:
                what, fact = "a label", f"Intervals of {targets} are unbounded"
            else:
                what, fact = f"label {label}", f"Label {label} of {targets} is in every set"
            ends = sorted({int(counts[which].min()), int(counts[which].max())})
            sentences.append(
                f"{fact}: {coverage} takes {needed:,} calibration molecules with {what}, "
                f"there are {' to '.join(map(str, ends))}."
            )
    return sentences


def _unbounded_at_some(uncertainty: Uncertainty, held: Mapping[str, HeldOut]) -> list[str]:
    """Why the intervals of a split have no mean width, where those of other molecules have one."""
    sentences = []
    for split, own in held.items():
        inside = own.where(own.similarity >= uncertainty.domain_threshold)
        half = uncertainty.thresholds(inside.logits, inside.similarity, inside.std)
        measured = ~inside.targets.isnan() & ~uncertainty.unbounded
        without = int((half.isinf() & measured).sum())
        if without:
            of = "folds" if own.fold is not None else f"{split} split"
            sentences.append(
                f"{without:,} of {int(measured.sum()):,} intervals of the {of} within the domain "
                "are unbounded, so that their mean width is not given: too few calibration "
                "molecules are as unlike the training molecules."
            )
    return sentences


def _measured(
    uncertainty: Uncertainty, scores: Mapping[str, Json], held: Mapping[str, HeldOut], coverage: str
) -> list[str]:
    from scipy.stats import binomtest  # half a second, which a prediction does without

    sentences = []
    for split, row in scores.items():
        if split in ("valid", CALIBRATION) or row["coverage"] is None:
            continue
        inside = held[split].where(held[split].similarity >= uncertainty.domain_threshold)
        labels = int((~inside.targets.isnan()).sum())
        covered = round(row["coverage"] * labels)
        p = binomtest(covered, labels, uncertainty.target_coverage, alternative="less").pvalue
        warn = (
            f"; chance alone hardly explains so many fewer than {coverage}" if p < _CHANCE else ""
        )
        sentences.append(
            f"Measured on the {split} split: they hold {100 * row['coverage']:.1f} % of "
            f"{labels:,} labels within the domain{warn}."
        )
    return sentences
