"""How far finetuning moved the features: the four distances of Ren et al. (2023), Figures 11-15."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Shift:
    """Means over examples, from features `z_0` before finetuning to `z_T` after it.

    Attributes:
        distance: ||z_T - z_0||, falls as energy falls.
        cosine: angle's cosine between z_T and z_0, rises as energy falls.
        dot: z_T . z_0, first rises, then falls as energy falls.
        norm: ||z_T||, first rises, then falls as energy falls.
        start_norm: ||z_0||, the scale to read the others by.
    """

    distance: float
    cosine: float
    dot: float
    norm: float
    start_norm: float


def shift(before: Tensor, after: Tensor) -> Shift:
    """Distances between features of the same examples.

    Args:
        before: `z_0`, (n, ...); both are measured in eval mode.
        after: `z_T`, the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    moved = RunningShift()
    moved.add(before, after)
    return moved.mean()


class RunningShift:
    """`shift` of features that come some examples at a time, so that none need to be kept."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, before: Tensor, after: Tensor) -> None:
        """Take `z_0` and `z_T` of k more examples, (k, ...) each.

        Raises:
            ValueError: the shapes differ.
        """
        self._rows.append(_distances(before, after))

    def mean(self) -> Shift:
        """Means over all that were added, of which there is one at least."""
        return Shift(*torch.cat(self._rows).mean(0).tolist())


def _distances(before: Tensor, after: Tensor) -> Tensor:
    """Every distance of every example, (k, 5), in the order of `Shift`."""
    if before.shape != after.shape:
        raise ValueError(
            f"features before and after must have one shape, "
            f"got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    start, end = before.flatten(1).double(), after.flatten(1).double()
    columns = (
        (end - start).norm(dim=1),
        F.cosine_similarity(start, end, dim=1),
        (start * end).sum(1),
        end.norm(dim=1),
        start.norm(dim=1),
    )
    return torch.stack(columns, dim=1).cpu()
