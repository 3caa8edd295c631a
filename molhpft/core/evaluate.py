"""Predictions and features of a split, without training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molhpft.core.annotations import Float, Shaped
from molhpft.core.data import Task
from molhpft.core.metrics import ClassCounts
from molhpft.core.network import Batch, Network
from molhpft.core.objectives import Multiclass, Objective

# examples in a forward pass that stores nothing for gradients: more are no faster, and fill memory
EVALUATION_SIZE = 256
_NUMBERS = 2**21  # of the examples in such a pass: feature maps of large images fill memory sooner


@dataclass(frozen=True)
class Predictions:
    """Logits and labels of one split, row i for example i, on the CPU.

    Attributes:
        logits: for each example (t,) or (classes, height, width).
        targets: as in `Batch`.
    """

    logits: Float[Tensor, "n c ..."]
    targets: Shaped[Tensor, "n ..."]


@dataclass(frozen=True)
class Snapshot(Predictions):
    """Predictions together with the features they were made from.

    Attributes:
        features: `z`, for each example (d,) or (d, height, width). Where the head begins with graph
            layers a row is an atom.
    """

    features: Float[Tensor, "rows d ..."]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode; afterwards every module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module gets its own mode back."""
    with evaluating(network), torch.no_grad():
        yield


def take(network: Network, batches: Iterable[Batch]) -> Snapshot:
    """Features, logits and targets of every example, on the CPU, in the order of the batches.

    Raises:
        ValueError: `batches` is empty.
    """
    columns = [list(column) for column in zip(*_evaluated(network, batches), strict=True)]
    if not columns:
        raise ValueError("a snapshot needs at least one batch, got none")
    return Snapshot(*map(torch.cat, columns))


def evaluation_size(task: Task) -> int:
    """Most examples in a forward pass that stores nothing for gradients: fewer if they are large.

    Args:
        task: whose examples are read; those of 32 x 32 pixels come by 256, of 256 x 256 by 10.
    """
    rows = next(iter(task.splits.values()))
    inputs = task.examples.take(rows[:1]).inputs
    numbers = inputs.numel() if isinstance(inputs, Tensor) else 1
    return max(1, min(EVALUATION_SIZE, _NUMBERS // max(1, numbers)))


def evaluation_batches(task: Task, split: str, *, size: int | None = None) -> Iterator[Batch]:
    """A split in the order of its rows, for forward passes that store nothing for gradients.

    Args:
        task: whose rows it reads.
        split: name of the split.
        size: most rows in a batch; None for `evaluation_size`.

    Raises:
        ValueError: no split has that name, or it is empty.
    """
    return task.batches(split, size=size or evaluation_size(task))


def predict(
    network: Network,
    task: Task,
    split: str,
    *,
    size: int | None = None,
) -> Predictions:
    """Logits and targets of a split, in eval mode; arguments are those of `predictions_in_batches`.

    Logits are written where they will stay: those of a large split do not fit in memory in pieces
    and joined.
    """
    whole = _Whole(len(task.rows(split)))
    for some in predictions_in_batches(network, task, split, size=size):
        whole.add(some.targets, some.logits)
    return Predictions(whole.logits, whole.targets)


def predictions_in_batches(
    network: Network,
    task: Task,
    split: str,
    *,
    size: int | None = None,
    watch: Callable[[Tensor], None] | None = None,
) -> Iterator[Predictions]:
    """Logits and targets of a split, in eval mode, batch by batch, in the order of its rows.

    The features of a large split do not fit in memory, nor do the logits of all of its pixels.

    Args:
        network: any network.
        task: whose rows it reads.
        split: name of the split.
        size: most rows in a batch; None for `evaluation_size`.
        watch: is given the features of each batch, in order.

    Raises:
        ValueError: no split has that name, or it is empty.
    """
    for a, y, z in _evaluated(network, evaluation_batches(task, split, size=size)):
        if watch:
            watch(z)
        yield Predictions(a, y)


class RunningScore:
    """An objective's score of a split whose predictions come in pieces.

    Of class ids only counts are kept. Any other score needs all predictions at once.

    Args:
        objective: whose score it is.
        rows: of the split.
    """

    def __init__(self, objective: Objective, *, rows: int) -> None:
        if isinstance(objective, Multiclass):
            counts = ClassCounts(ignore=objective.ignore)
            self._add: Callable[[Tensor, Tensor], None] = counts.add
            self._value: Callable[[], float] = lambda: objective.score_counted(counts)
        else:
            whole = _Whole(rows)
            self._add = whole.add
            self._value = lambda: objective.score(whole.logits, whole.targets)

    def add(self, some: Predictions) -> None:
        """The predictions for the rows that follow those added before."""
        self._add(some.targets, some.logits)

    def value(self) -> float:
        """The objective's `score` of everything that was added."""
        return self._value()


class _Whole:
    """Predictions for a number of rows, which are added in pieces and lie where they will stay."""

    def __init__(self, rows: int) -> None:
        self._rows, self._done = rows, 0
        self.logits, self.targets = torch.empty(0), torch.empty(0)

    def add(self, targets: Tensor, logits: Tensor) -> None:
        if not self._done:
            both = (logits, targets)
            self.logits, self.targets = (t.new_empty(self._rows, *t.shape[1:]) for t in both)
        end = self._done + len(logits)
        self.logits[self._done : end], self.targets[self._done : end] = logits, targets
        self._done = end


def scattered(values: Tensor, rows: Tensor, n: int) -> Tensor:
    """Values (m, ...) in their `rows` (m,) of n; NaN, or False, in the others.

    >>> scattered(torch.tensor([0.5, 2.0]), torch.tensor([2, 0]), 3).tolist()
    [2.0, nan, 0.5]
    """
    missing = False if values.dtype == torch.bool else torch.nan
    whole = torch.full((n, *values.shape[1:]), missing, dtype=values.dtype)
    whole[rows] = values
    return whole


def _evaluated(network: Network, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, ...]]:
    """Logits, targets and features of each batch, on the CPU."""
    with inference(network):
        for batch in batches:
            z = network.features(batch)
            yield network.head(z, batch).cpu(), batch.targets.cpu(), z.cpu()
