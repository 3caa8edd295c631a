"""Hooks that run alongside training: they add numbers, show or save progress, or pause."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from molhpft.core.annotations import Float
from molhpft.core.network import Network

Row = dict[str, float]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Progress:
    """Everything a phase needs to go on, between two epochs or in the middle of one.

    Training never writes to its tensors: a progress kept in memory stays as it is.

    Attributes:
        rows: one per finished epoch.
        losses: of the steps since then, (steps,).
        weights: of the network.
        best: of the network at its best validation score; empty if the phase keeps the last.
        anchor: backbone weights when the phase began; empty without an anchor.
        adapters: those that are trained in place of weights, and the weights they began with.
        moments: of the optimizer.
        callbacks: `state` of each callback, "number of the callback.name" to tensor.
        epoch_rng: state of the generator given to `fit` when the current epoch began.
        rng: its state now.
    """

    rows: tuple[Row, ...]
    losses: Float[Tensor, " steps"]
    weights: Weights
    best: Weights
    anchor: Weights
    adapters: Weights
    moments: Weights
    callbacks: Weights
    epoch_rng: Tensor
    rng: Tensor


class Callback:
    """Hooks that run alongside training. Every method does nothing; override what you need.

    A callback may look at the network, not change it.

    >>> class HeadNorm(Callback):
    ...     def measure(self, network):
    ...         return {"head_norm": sum(p.norm().item() for p in network.head.parameters())}
    """

    def resume(self) -> Progress | None:
        """What training goes on from; None to begin anew. The first callback's answer counts."""
        return None

    def wants_epoch(self, rows: Sequence[Row]) -> bool:
        """Whether another epoch may begin, given the rows so far; training pauses at the first no.

        A paused network has the weights that the phase would end with there.
        """
        return True

    def after_step(self, step: int, examples: int, progress: Callable[[], Progress]) -> None:
        """Called after every optimizer step.

        Args:
            step: number of steps in the phase so far.
            examples: number of examples in the phase so far.
            progress: copies the state of training when called.
        """

    def measure(self, network: Network) -> Row:
        """Numbers to add to the row of the epoch that has just ended."""
        return {}

    def after_epoch(self, rows: Sequence[Row], progress: Callable[[], Progress]) -> None:
        """Called after every epoch, with the rows so far; `progress` copies the state."""

    def after_phase(self, rows: Sequence[Row], progress: Callable[[], Progress]) -> None:
        """Called like `after_epoch` when no other epoch follows: the phase has ended, or pauses."""

    def state(self) -> Weights:
        """What this callback has to remember for a resumed phase to go on exactly."""
        return {}

    def load_state(self, state: Weights) -> None:
        """Take back what `state` gave."""


@dataclass(frozen=True)
class Measure(Callback):
    """Adds the numbers that a function gives of the network to the row of each epoch."""

    function: Callable[[Network], Row]

    def measure(self, network: Network) -> Row:
        """The function's numbers."""
        return self.function(network)


@dataclass(frozen=True)
class PauseAfter(Callback):
    """Pauses a phase after a number of epochs, counted from its beginning."""

    epochs: int

    def wants_epoch(self, rows: Sequence[Row]) -> bool:
        """Whether fewer epochs have been trained."""
        return len(rows) < self.epochs
