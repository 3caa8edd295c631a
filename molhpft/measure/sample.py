"""Which examples a measure looks at, where all would cost too much."""

from collections.abc import Iterator

import torch
from torch import Tensor

from molhpft.core.data import Task


def probe_sample(task: Task, count: int, *, rng: torch.Generator) -> Tensor:
    """Rows of the training split, drawn at random without repetition, balanced over classes.

    Data sets come ordered: the first examples of many are all of one class. Classes take turns: of
    yes-or-no labels both values of every target, of class ids every class, of masks every class
    that a pixel has, in random order. Numbers have no classes and are drawn alike, as are examples
    without labels where the labelled ones do not suffice.

    Args:
        task: whose training examples are drawn from.
        count: how many, or all where there are fewer.
        rng: decides all; the same state and task give the same rows.

    Returns:
        row numbers, (k,).
    """
    rows = task.rows("train")
    rows = rows[torch.randperm(len(rows), generator=rng)]
    if not task.objective.has_classes:
        return rows[:count]
    members = list(_classes(task, task.examples.targets[rows]))
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


def _classes(task: Task, targets: Tensor) -> Iterator[Tensor]:
    """For each class of a target, which examples are of it, bool (n,)."""
    if not targets.is_floating_point():
        for label in range(task.outputs):
            yield (targets == label).flatten(1).any(1) if targets.ndim > 1 else targets == label
        return
    # fewer than the columns where a second task is served beside the new one
    columns = task.objective.labels(targets[:1], outputs=task.outputs).shape[1]
    for column in targets.T[:columns]:
        for label in (0, 1):
            yield column == label
