"""What members say of molecules that they were not trained on, by split and as predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from molhpft.core.evaluate import scattered
from molhpft.measure.uncertainty import weighted_std

_PARTS = 5  # of molecules that have no folds, each judged by fits to the others


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions for a split that the networks were not trained on.

    Attributes:
        logits: averaged over members, (n, t).
        targets: (n, t), NaN where unmeasured; of a regression in standard deviations.
        similarity: to the nearest training molecule, (n,) in [0, 1].
        std: standard deviation of logits over what began differently (`candidate_std`),
            (n, t); None where one kind of member answers.
        fold: number of the fold of each molecule, (n,); None where there are no folds.
    """

    logits: Tensor
    targets: Tensor
    similarity: Tensor
    std: Tensor | None = None
    fold: Tensor | None = None

    def where(self, rows: Tensor) -> "HeldOut":
        """Only some molecules, chosen by a mask (n,)."""
        return HeldOut(
            logits=self.logits[rows],
            targets=self.targets[rows],
            similarity=self.similarity[rows],
            std=None if self.std is None else self.std[rows],
            fold=None if self.fold is None else self.fold[rows],
        )

    def none(self) -> "HeldOut":
        """None of the molecules, of the same targets."""
        return self.where(torch.zeros(len(self.logits), dtype=torch.bool))

    @property
    def parts(self) -> Tensor:
        """Number of the part in which each molecule is judged by fits to the others, (n,)."""
        if self.fold is not None:
            return self.fold
        rng = torch.Generator().manual_seed(0)
        return torch.randperm(len(self.logits), generator=rng) % _PARTS


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """What a model says of molecules of its table that the members did not train on.

    Attributes:
        rows: of the task, int64 (m,).
        parts: (m,), number of the fold, counted from 1, or name of the split, "split 1" of one that
            is called by a number.
        values: probabilities, or numbers in the unit of their target, float64 (m, t); see
            `held_out_values`.
        sets: prediction sets or intervals, (m, t, 2); see `Prediction.sets`. Those of molecules
            that calibrate were fitted to all of these molecules together.
        splits: what members say, as logits, by split; with folds "valid" are the molecules of all.
    """

    rows: Tensor
    parts: tuple[str, ...]
    values: Tensor
    sets: Tensor
    splits: Mapping[str, HeldOut] = field(default_factory=dict)

    def of_all(self, n: int) -> "HeldOutPredictions":
        """For each of the first n rows, in their order: NaN or False, and no part, without one."""
        own = self.rows < n
        rows, parts = self.rows[own], [""] * n
        for row, part in zip(self.rows.tolist(), self.parts, strict=True):
            if row < n:
                parts[row] = part
        values, sets = (scattered(x[own], rows, n) for x in (self.values, self.sets))
        return HeldOutPredictions(torch.arange(n), tuple(parts), values, sets)


def candidate_std(logits: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor | None:
    """Standard deviation over what began differently, (n, t); None where there is one beginning.

    Networks that began alike, one of each fold, count as their mean: of a molecule that calibrates
    only one of them is known.

    Args:
        logits: of k members, (k, n, t).
        weights: of the members, (k,), which sum to 1.
        sizes: numbers of members that began alike, in order; they sum to k.
    """
    if len(sizes) == 1:
        return None
    means = torch.stack([alike.mean(0) for alike in torch.split(logits, list(sizes))])
    of_means = torch.stack([own.sum() for own in torch.split(weights, list(sizes))])
    return weighted_std(means, of_means)
