"""Predictions and features of a split, without training."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molhpft.core.annotations import Float, Shaped
from molhpft.core.data import Task
from molhpft.core.network import Batch, Network

# examples in a forward pass that stores nothing for gradients: more are no faster, and fill memory
EVALUATION_SIZE = 256


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
def inference(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def take(network: Network, batches: Iterable[Batch]) -> Snapshot:
    """Features, logits and targets of every example, on the CPU, in the order of the batches.

    Raises:
        ValueError: `batches` is empty.
    """
    columns = [list(column) for column in zip(*_evaluated(network, batches), strict=True)]
    if not columns:
        raise ValueError("a snapshot needs at least one batch, got none")
    return Snapshot(*map(torch.cat, columns))


def predict(
    network: Network,
    task: Task,
    split: str,
    *,
    size: int = EVALUATION_SIZE,
    watch: Callable[[Tensor], None] | None = None,
) -> Predictions:
    """Logits and targets of a split, in eval mode.

    Logits are written where they will stay: the features of a large split do not fit in memory, nor
    its logits in pieces and joined.

    Args:
        network: any network.
        task: whose rows it reads.
        split: name of the split.
        size: most rows in a batch.
        watch: is given the features of each batch, in order.

    Raises:
        ValueError: no split has that name, or it is empty.
    """
    n, begin = len(task.rows(split)), 0
    logits, targets = torch.empty(0), torch.empty(0)
    for a, y, z in _evaluated(network, task.batches(split, size=size)):
        if not begin:
            logits, targets = (t.new_empty(n, *t.shape[1:]) for t in (a, y))
        end = begin + len(a)
        logits[begin:end], targets[begin:end] = a, y
        begin = end
        if watch:
            watch(z)
    return Predictions(logits, targets)


def _evaluated(network: Network, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, ...]]:
    """Logits, targets and features of each batch, on the CPU."""
    with inference(network):
        for batch in batches:
            z = network.features(batch)
            yield network.head(z, batch).cpu(), batch.targets.cpu(), z.cpu()
