"""What a phase keeps of its progress, so that it can go on as if it had never stopped."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Row = dict[str, float]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """Everything a phase needs to go on, between two epochs or in the middle of one.

    Its tensors are copies: a progress that is kept in memory does not change while training does.

    Attributes:
        rows: one per finished epoch.
        losses: those of the steps done since, (steps,).
        weights: the network's.
        best: the network's at its best validation score; empty if the phase keeps the last.
        anchor: the backbone's when the phase began; empty if nothing pulls it back there.
        moments: the optimizer's.
        epoch_rng: state of the generator given to `fit` when the epoch under way began.
        rng: its state now.
    """

    rows: tuple[Row, ...]
    losses: Tensor
    weights: Weights
    best: Weights
    anchor: Weights
    moments: Weights
    epoch_rng: Tensor
    rng: Tensor


def _nothing() -> None:
    return None


def _nowhere(progress: Progress) -> None:
    pass


@dataclass(frozen=True)
class Checkpoints:
    """Where a phase keeps its progress, and how often.

    Attributes:
        load: what `save` was last given, None where there is nothing to go on from.
        save: called after every epoch and, within one, after every `steps` steps.
        steps: None saves between epochs only.
    """

    load: Callable[[], Progress | None] = _nothing
    save: Callable[[Progress], None] = _nowhere
    steps: int | None = None


NO_CHECKPOINTS = Checkpoints()
