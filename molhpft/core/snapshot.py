"""What a network says about a split, without training it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molhpft.core.batch import Batch
from molhpft.core.network import Network

# examples in a forward pass that keeps nothing for gradients: more are no faster, and fill memory
EVALUATION_SIZE = 256


@dataclass(frozen=True)
class Predictions:
    """Logits and labels of one split, row i for example i, on the CPU.

    Attributes:
        logits: (n, t) or (n, classes, height, width).
        targets: as in `Batch`.
    """

    logits: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Snapshot(Predictions):
    """Predictions together with the features they were made from.

    Attributes:
        features: `z`, (n, d) or (n, d, height, width).
    """

    features: Tensor


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
    """Features, logits and targets of every example, on the CPU, in loader order.

    Raises:
        ValueError: `batches` is empty.
    """
    return Snapshot(*_joined(_answers(network, batches)))


def predict(network: Network, batches: Iterable[Batch]) -> Predictions:
    """Logits and targets alone, where features of a whole split would fill the memory.

    Raises:
        ValueError: `batches` is empty.
    """
    return Predictions(*_joined(rows[:2] for rows in _answers(network, batches)))


def _answers(network: Network, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, ...]]:
    with inference(network):
        for batch in batches:
            z = network.features(batch)
            yield network.head(z, batch).cpu(), batch.targets.cpu(), z.cpu()


def _joined(rows: Iterable[tuple[Tensor, ...]]) -> list[Tensor]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    if not columns:
        raise ValueError("a snapshot needs at least one batch, got none")
    # one after another: its parts are free before the next column is joined
    return [torch.cat(columns.pop(0)) for _ in range(len(columns))]
