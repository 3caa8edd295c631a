"""What a network says about a split, without training it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molhpft.core.batch import Batch
from molhpft.core.network import Network


@dataclass(frozen=True)
class Snapshot:
    """Features, logits and labels of one split, row i for example i, on the CPU.

    Attributes:
        features: `z`, (n, d).
        logits: (n, t) or (n, classes, height, width).
        targets: as in `Batch`.
    """

    features: Tensor
    logits: Tensor
    targets: Tensor


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
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    with inference(network):
        for batch in batches:
            z = network.features(batch)
            rows.append((z.cpu(), network.head(z, batch).cpu(), batch.targets.cpu()))
    if not rows:
        raise ValueError("a snapshot needs at least one batch, got none")
    features, logits, targets = (torch.cat(column) for column in zip(*rows, strict=True))
    return Snapshot(features, logits, targets)
