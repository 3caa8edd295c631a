"""A task: examples with labels, named splits, and the objective they are for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from molhpft.core.annotations import Int, Shaped
from molhpft.core.network import Batch
from molhpft.core.objectives import Objective


@runtime_checkable
class TargetTable(Protocol):
    """Targets of n examples that are made when rows are asked for."""

    @property
    def device(self) -> torch.device:
        """Where they come to be."""
        ...

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Targets by row number, float32 (k, t)."""
        ...

    def to(self, device: torch.device | str) -> "TargetTable":
        """The same targets, made on `device`."""
        ...


@runtime_checkable
class Examples(Protocol):
    """A data set that gives batches by row number."""

    @property
    def targets(self) -> Tensor | TargetTable:
        """Labels of every row, (n, ...), as in `Batch` but of any width of number."""

    def __len__(self) -> int:
        """Number of rows."""

    def take(self, index: Tensor, *, rng: torch.Generator | None = None) -> Batch:
        """The rows `index` (k,), in that order, as one batch on the examples' own device.

        Args:
            index: row numbers.
            rng: draws augmentations, where the examples have any; without it there are none.
        """

    def to(self, device: torch.device | str) -> "Examples":
        """The same examples on `device`."""


@dataclass(frozen=True)
class Rows:
    """Examples whose inputs are the rows of one tensor: features, images, toy data.

    Attributes:
        inputs: a row for each example.
        targets: as in `Batch`.

    >>> rows = Rows(torch.eye(3), torch.tensor([0, 1, 2]))
    >>> rows.take(torch.tensor([2, 0])).targets
    tensor([2, 0])
    """

    inputs: Shaped[Tensor, "n ..."]
    targets: Shaped[Tensor, "n ..."]

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: Int[Tensor, " k"], *, rng: torch.Generator | None = None) -> Batch:
        """The rows `index` as one batch; nothing is drawn."""
        index = index.to(self.inputs.device, non_blocking=True)
        return Batch(self.inputs[index], self.targets[index])

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on `device`."""
        return Rows(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Portion:
    """What an epoch of training takes of some of the training rows, drawn anew for each epoch.

    Attributes:
        rows: places in the training split (k,), counted from 0.
        count: how many are taken; all of them once before any is taken again.
    """

    rows: Int[Tensor, " k"]
    count: int

    def drawn(self, rng: torch.Generator) -> Int[Tensor, " m"]:
        """Places in random order, (count,)."""
        times = ceil(self.count / len(self.rows))
        orders = [torch.randperm(len(self.rows), generator=rng) for _ in range(times)]
        return self.rows[torch.cat(orders)[: self.count]]


@dataclass(frozen=True)
class Task:
    """What a network is trained for.

    Attributes:
        name: for people and file names.
        examples: all rows, those of every split.
        splits: split name to row numbers (k,); "train", "valid", "test" and any further ones.
        objective: loss and score.
        outputs: number of logits a head must give.
        fingerprint: digest of everything above but the name: results are compared on it.
        target_names: one for each logit, for tables; empty where outputs have no names.
        auxiliary: digest of a further task whose targets are trained on too; empty for none.
        portions: what an epoch takes of the training split; empty for every row once.

    >>> from molhpft.core.objectives import Multiclass
    >>> rows = Rows(torch.eye(5), torch.tensor([0, 1, 0, 1, 0]))
    >>> task = Task("five", rows, {"train": torch.arange(5)}, Multiclass(), outputs=2)
    >>> [len(batch.targets) for batch in task.batches("train", size=2)]
    [2, 2, 1]
    """

    name: str
    examples: Examples
    splits: Mapping[str, Tensor]
    objective: Objective
    outputs: int
    fingerprint: str = ""
    target_names: tuple[str, ...] = ()
    auxiliary: str = ""
    portions: tuple[Portion, ...] = ()

    @property
    def epoch_size(self) -> int:
        """Training examples in an epoch."""
        return sum(p.count for p in self.portions) if self.portions else len(self.rows("train"))

    def batches(
        self,
        split: str,
        *,
        size: int,
        rng: torch.Generator | None = None,
        skip: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Every row of a split once, or what portions draw of it, in batches of at most `size`.

        Batches differ by at most one row in length: a single last row would have no batch
        statistics.

        Args:
            split: name of the split.
            size: most rows in a batch.
            rng: draws a new order at once, and augmentations batch by batch; without it rows come
                in the order of the split, as they are.
            skip: batches at the beginning to leave out, without reading them.
            part: `(k, m)` gives only part k, counted from 0, of m parts of each batch.

        Raises:
            ValueError: no split has that name, or it is empty.
        """
        rows = self.rows(split)
        if rng is not None and split == "train" and self.portions:
            rows = rows[torch.cat([portion.drawn(rng) for portion in self.portions])]
        if rng is not None:
            rows = rows[torch.randperm(len(rows), generator=rng)]
        k, parts = part
        batches = rows.tensor_split(ceil(len(rows) / size))[skip:]
        return (self.examples.take(b.tensor_split(parts)[k], rng=rng) for b in batches)

    def epoch(
        self, *, size: int, rng: torch.Generator, skip: int = 0, part: tuple[int, int] = (0, 1)
    ) -> tuple[int, Iterator[Batch]]:
        """Dropout's seed in the next epoch of training, and the epoch's batches.

        Everything that trains, or does as if, draws an epoch here: at one state of `rng` all of it
        sees the same examples in the same order. Arguments and errors are those of `batches`.
        """
        seed = int(torch.randint(2**62, (), generator=rng))
        return seed, self.batches("train", size=size, rng=rng, skip=skip, part=part)

    def rows(self, split: str) -> Int[Tensor, " k"]:
        """Row numbers of a split.

        Raises:
            ValueError: no split has that name, or it is empty.
        """
        if split not in self.splits:
            raise ValueError(
                f"task {self.name} has no split {split!r}; it has: {', '.join(self.splits)}"
            )
        if not len(self.splits[split]):
            raise ValueError(
                f"split {split!r} of task {self.name} is empty; give more examples or another split"
            )
        return self.splits[split]

    def to(self, device: torch.device | str) -> "Task":
        """The same task with its examples on `device`; row numbers stay where they are."""
        return replace(self, examples=self.examples.to(device))


def probe_sample(task: Task, count: int, *, rng: torch.Generator) -> Int[Tensor, " k"]:
    """Rows of the training split, drawn at random without repetition, balanced over classes.

    Data sets come ordered: the first examples of many are all of one class. Classes take turns: of
    yes-or-no labels both values of every target, of class ids every class, of masks every class
    that a pixel has, in random order. Real numbers have no classes and are drawn alike, as are
    examples without labels where there are too few with labels.

    Args:
        task: whose training examples are drawn from.
        count: how many, or all where there are fewer.
        rng: the same state and task give the same rows.
    """
    rows = task.rows("train")
    rows = rows[torch.randperm(len(rows), generator=rng)]
    if not task.objective.has_classes:
        return rows[:count]
    members = list(class_members(task, task.examples.targets[rows]))
    turns = [members[k] for k in torch.randperm(len(members), generator=rng).tolist()]
    queues = [iter(m.nonzero().flatten()[: 2 * count].tolist()) for m in turns]
    drawn: dict[int, None] = {}  # in order
    while queues and len(drawn) < count:
        for queue in list(queues):
            place = next((place for place in queue if place not in drawn), None)
            if place is None:
                queues.remove(queue)
            else:
                drawn[place] = None
    places = dict.fromkeys([*drawn, *range(min(len(rows), 2 * count))])
    return rows[list(places)[:count]]


def class_members(task: Task, targets: Tensor) -> Iterator[Tensor]:
    """For each class, which examples are of it, bool (n,): class ids, or no and yes of each label.

    Args:
        task: says how many classes, or labels, there are.
        targets: of some of its examples.
    """
    if not targets.is_floating_point():
        for label in range(task.outputs):
            yield (targets == label).flatten(1).any(1) if targets.ndim > 1 else targets == label
        return
    # fewer than the columns where an auxiliary task is trained beside the new one
    columns = task.objective.labels(targets[:1], outputs=task.outputs).shape[1]
    for column in targets.T[:columns]:
        for label in (0, 1):
            yield column == label
