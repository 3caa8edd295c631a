"""Features taken once: the head as a network of its own, and the task it sees.

A head phase cannot change the backbone, so its forward pass need not be repeated every epoch. Heads
that read more than features (graph layers of a partial backbone) go on seeing the examples.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from molhpft.core.annotations import Int, Shaped
from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import evaluation_size, take
from molhpft.core.network import Batch, Chain, Network, Plain


def reads_only_features(head: Chain) -> bool:
    """Whether every stage ignores the batch, so that features are all the head needs."""
    return all(isinstance(stage, Plain) for stage in head)


@dataclass(frozen=True, eq=False)
class Views:
    """Cached features of examples that were taken several times, augmented anew each time.

    Attributes:
        rows: features and targets, first those of the n examples as they are, then all views.
        views: numbers of the rows that are views of an example, (n, k); an example that is never
            augmented is its own view.
    """

    rows: Rows
    views: Int[Tensor, "n k"]

    @property
    def targets(self) -> Shaped[Tensor, "n ..."]:
        """Labels of the examples, (n, ...)."""
        return self.rows.targets[: len(self)]

    def __len__(self) -> int:
        return len(self.views)

    def take(self, index: Int[Tensor, " m"], *, rng: torch.Generator | None = None) -> Batch:
        """The examples `index` (m,): one view of each that `rng` draws, or without it as is."""
        if rng is not None:
            drawn = torch.randint(self.views.shape[1], (len(index),), generator=rng)
            index = self.views[index, drawn]
        return self.rows.take(index)

    def to(self, device: torch.device | str) -> "Views":
        """The same features on `device`; row numbers stay where they are."""
        return Views(self.rows.to(device), self.views)


def on_features(
    network: Network,
    task: Task,
    *,
    views: int = 0,
    rng: torch.Generator | None = None,
) -> tuple[Network, Task]:
    """The head alone, and the task whose inputs are the features it reads.

    Where the head reads more than features (a partial backbone of graph layers), network and task
    come back as they are.

    Args:
        network: any network.
        task: every split is taken, row i of a split staying row i.
        views: how often the training split is taken under augmentation; each epoch then reads one
            of these views of each example. 0 probes on the examples as they are.
        rng: draws the augmentations.

    Raises:
        ValueError: `views` is negative, asked for without a generator, or for a head that reads
            more than features.
    """
    if views < 0 or (views and rng is None):
        raise ValueError(f"views is at least 0, and above 0 needs rng to draw them; got {views}")
    if not reads_only_features(network.head):
        if views:
            raise ValueError(
                f"views of features can be cached for a head that reads nothing else; stages "
                f"{', '.join(network.head.names)} read the batch: probe live (views: live)"
            )
        return network, task
    device = next(network.head.parameters()).device
    size = evaluation_size(task)
    snapshots = {name: take(network, task.batches(name, size=size)) for name in task.splits}
    augmented = [take(network, _augmented(task, size=size, rng=rng)) for _ in range(views)]
    rows = Rows(
        torch.cat([s.features for s in (*snapshots.values(), *augmented)]),
        torch.cat([s.targets for s in (*snapshots.values(), *augmented)]),
    ).to(device)
    sizes = [len(s.targets) for s in snapshots.values()]
    numbers = torch.split(torch.arange(sum(sizes)), sizes)
    splits: dict[str, Tensor] = dict(zip(snapshots, numbers, strict=True))
    examples = Views(rows, _numbered(views, splits, sum(sizes))) if views else rows
    head = Network(Chain({}), deepcopy(network.head))
    return head, replace(task, examples=examples, splits=splits)


def _augmented(task: Task, *, size: int, rng: torch.Generator | None) -> Iterator[Batch]:
    """The training split in its own order, augmented."""
    for index in torch.split(task.rows("train"), size):
        yield task.examples.take(index, rng=rng)


def _numbered(views: int, splits: Mapping[str, Tensor], n: int) -> Int[Tensor, "{n} {views}"]:
    """Row numbers of each example's views, (n, views): view k of train follows the n rows."""
    train = splits["train"]
    numbers = torch.arange(n)[:, None].repeat(1, views)
    numbers[train] = n + torch.arange(views * len(train)).reshape(views, -1).T
    return numbers
