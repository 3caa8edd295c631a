"""Drift: how far features move in finetuning without a single weight being changed.

Batch norm keeps running statistics in training mode. On data unlike those of pretraining they move,
and with them the features in eval mode: a part of every measured shift that no energy caused.
"""

from copy import deepcopy

import torch

from molhpft.core.dropout import seed_dropout
from molhpft.core.network import Network
from molhpft.core.snapshot import take
from molhpft.core.task import Task
from molhpft.measure.shift import Shift, shift


def batch_norm_drift(
    network: Network, task: Task, *, epochs: int, rng: torch.Generator, size: int = 128
) -> Shift:
    """Shift of the training split's features by batch-norm statistics alone.

    It is what finetuning with learning rate 0 does: forward passes in training mode, dropout
    included, on a copy. Without batch norm, or with it frozen while finetuning, there is no drift.

    Args:
        network: as finetuning would find it.
        task: its "train" split is passed through.
        epochs: passes over the split.
        rng: draws the order of examples, augmentations and dropout, as finetuning does.
        size: most examples in a batch.

    Raises:
        ValueError: `epochs` is negative.
    """
    if epochs < 0:
        raise ValueError(f"epochs is at least 0, got {epochs}")
    drifted = deepcopy(network).train()
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        for _ in range(epochs):
            seed = int(torch.randint(2**62, (), generator=rng))
            for step, batch in enumerate(task.batches("train", size=size, rng=rng)):
                seed_dropout(seed + step, batch.targets.device)
                drifted(batch)
    before, after = (take(n, task.batches("train", size=size)) for n in (network, drifted))
    return shift(before.features, after.features)
