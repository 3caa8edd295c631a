"""Which molecules of a table calibrate prediction sets, how many, and what is said of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from molhpft.domains.molecules.splits import CALIBRATION, dealt_rows

# of a table's molecules: enough for a quantile worth having, few enough to leave most to train on
_LEAST, _MOST, _BEARABLE, _TOO_FEW = 30, 5_000, 1 / 6, 10
_ENOUGH = round(_TOO_FEW / _BEARABLE)  # molecules, of which a bearable share is not too few
_ENOUGH_VALID = 2 * _TOO_FEW  # validation molecules, half of which are not too few


def calibration_share(n: int, share: float = 0.1) -> float:
    """The share of n molecules to set aside for prediction sets.

    A `share`, raised to 30 molecules where that is at most a sixth of them and lowered to 5,000.
    0 where it would be fewer than 10 molecules, which bound nothing at 90 %.

    Args:
        n: molecules that can be read.
        share: to begin with, in [0, 1); 0 sets none aside.

    Raises:
        ValueError: the share is none.
    """
    if not 0 <= share < 1:
        raise ValueError(f"calibration should be a share from 0 to below 1, got {share}")
    if not share:
        return 0.0
    size = max(min(share * n, _MOST), min(_LEAST, _BEARABLE * n))
    return size / n if size >= _TOO_FEW else 0.0


def with_calibration(
    splits: Mapping[str, Tensor],
    *,
    rng: torch.Generator,
    together: Sequence[Sequence[int]],
    labels: Tensor | None = None,
    size: int | None = None,
) -> dict[str, Tensor]:
    """Splits that somebody else drew, some of whose validation molecules calibrate instead.

    They are held out as test is, which training molecules are not. The splits stay as they are
    where calibration is among them, or where half of validation is fewer than 10 molecules.

    Args:
        splits: "valid" among them.
        rng: draws them.
        together: groups of rows that are dealt whole, such as those of one molecule, which would
            choose and calibrate; rows in none of them, which cannot be read, do neither.
        labels: of all rows, (n, t), to deal every label in proportion; None for numbers.
        size: how many, between 10 and half of validation, to which it is raised or lowered; None
            for half.
    """
    rows = splits["valid"]
    if CALIBRATION in splits or len(rows) < _ENOUGH_VALID:
        return dict(splits)
    half = len(rows) // 2
    share = (half if size is None else min(max(size, _TOO_FEW), half)) / len(rows)
    fractions = (1 - share, 0.0, share)
    dealt = dealt_rows(rows, together, rng=rng, labels=labels, fractions=fractions)
    return {**splits, "valid": dealt["train"], CALIBRATION: dealt["test"]}


def calibration_notes(
    splits: Mapping[str, Tensor], given: Mapping[str, Tensor] | None = None
) -> tuple[str, ...]:
    """Where calibration molecules were taken from validation, or why there are none.

    Args:
        splits: that were to have calibration molecules, where possible.
        given: as somebody else drew them, before `with_calibration`; None where nobody did.

    Returns:
        a sentence, or none where a calibration split was given, or drawn as it should be.
    """
    valid = len(splits["valid"])
    if CALIBRATION in splits:
        if given is None or CALIBRATION in given:
            return ()
        return (
            f"Of {len(given['valid']):,} given validation molecules, {valid:,} validate and "
            f"{len(splits[CALIBRATION]):,} calibrate prediction sets.",
        )
    n = sum(len(rows) for rows in splits.values())
    if given is not None:
        reason = (
            f"they are taken from validation molecules where those are {_ENOUGH_VALID} or more, "
            f"and here they are {valid:,}"
        )
    elif n < _ENOUGH:
        reason = (
            f"that takes {_ENOUGH} molecules that can be read, and here they are {n:,}; folds "
            "calibrate on all of them (--folds 5 in finetune)"
        )
    else:
        reason = (
            "that would leave another split empty; a random split or fewer validation molecules "
            "may leave enough"
        )
    return (f"No molecules were set aside to calibrate prediction sets: {reason}.",)
