"""Head probing on cached features: one trajectory gives the head of every tau.

A head phase cannot change the backbone, so features are taken once and the head trains on a matrix.
The result is that of live probing, which remains the way for heads that read more than features.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from molhpft.core.network import Chain, Network, Plain
from molhpft.core.snapshot import take
from molhpft.core.task import Rows, Task
from molhpft.tuning.fit import Row, Weights, fit
from molhpft.tuning.phase import Phase


@dataclass(frozen=True)
class Trajectory:
    """Heads along one run of head probing.

    Attributes:
        heads: tau to the head's weights after tau epochs.
        rows: training rows, one an epoch.
    """

    heads: dict[int, Weights]
    rows: list[Row]


def probe(
    network: Network, phase: Phase, task: Task, *, taus: Sequence[int], rng: torch.Generator
) -> Trajectory:
    """Train the head for the largest of `taus` epochs and keep it at each of them.

    Args:
        network: its head is trained in place, its backbone left as it is.
        phase: how to train the head; its epochs are not used.
        task: as for `fit`; `on_features` gives the fast form of both.
        taus: numbers of epochs, each at least 0.
        rng: as for `fit`.

    Raises:
        ValueError: a setting under which the head after tau epochs would depend on the largest
            tau: a schedule other than constant, early stopping, or keeping the best epoch.
    """
    if phase.schedule != "constant" or phase.watches_validation:
        raise ValueError(
            "a probe that serves several tau needs schedule: constant, keep: last and no patience, "
            f"got schedule: {phase.schedule}, keep: {phase.keep}, patience: {phase.patience}"
        )
    heads: dict[int, Weights] = {}
    epochs = count()

    def remember(network: Network) -> Row:
        epoch = next(epochs)
        if epoch in taus:
            heads[epoch] = deepcopy(network.head.state_dict())
        return {}

    remember(network)
    rows = fit(network, replace(phase, epochs=max(taus)), task, rng=rng, observe=remember)
    return Trajectory(heads, rows)


def reads_only_features(head: Chain) -> bool:
    """Whether every stage ignores the batch, so that features are all the head needs."""
    return all(isinstance(stage, Plain) for stage in head)


def on_features(network: Network, task: Task, *, size: int = 1024) -> tuple[Network, Task]:
    """The head alone, and the task whose inputs are the features it reads.

    The returned network shares the head: training one trains the other. Where the head reads more
    than features (a partial backbone of graph layers), network and task come back as they are.

    Args:
        network: any network.
        task: every split is taken, row i of a split staying row i.
        size: most examples in a forward pass.
    """
    if not reads_only_features(network.head):
        return network, task
    device = next(network.head.parameters()).device
    snapshots = {name: take(network, task.batches(name, size=size)) for name in task.splits}
    rows = Rows(
        torch.cat([s.features for s in snapshots.values()]),
        torch.cat([s.targets for s in snapshots.values()]),
    )
    sizes = [len(s.targets) for s in snapshots.values()]
    numbers = torch.split(torch.arange(sum(sizes)), sizes)
    splits: dict[str, Tensor] = dict(zip(snapshots, numbers, strict=True))
    return Network(Chain({}), network.head), replace(task, examples=rows.to(device), splits=splits)
