"""Fewer training examples: a number of them, or of each class; other splits stay as they are."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from molhpft.core.annotations import Bool, Count, Int, Seed
from molhpft.core.data import Task, class_members
from molhpft.core.objectives import Squared

OPTIONS = ("train_size", "shots", "train_seed")
"""What every task of the catalog takes beside its own options."""


def fewer_to_train(
    task: Task,
    *,
    train_size: Count | None = None,
    shots: Count | None = None,
    train_seed: Seed | None = None,
) -> Task:
    """The task with some of its training examples; every other split is left alone.

    >>> from molhpft.core.data import Rows
    >>> from molhpft.core.objectives import Multiclass
    >>> rows = Rows(torch.eye(8), torch.arange(8) % 2)
    >>> task = Task("eight", rows, {"train": torch.arange(8)}, Multiclass(), outputs=2)
    >>> fewer_to_train(task, shots=3).examples.targets[:6].bincount().tolist()
    [3, 3]

    Args:
        task: of any kind.
        train_size: training examples, in the proportions of the classes. Of several yes-or-no
            labels, the rarest yes of an example is its class; numbers and masks are drawn alike.
        shots: training examples of each class. Of several labels an example counts for each of
            them, and every class has at least so many.
        train_seed: of the draw, 0 by default; it is the same for every seed of a run, so that runs
            of several seeds are on one task. With one seed, fewer shots are among more.

    Raises:
        ValueError: there are not so many, in all or of a class; both numbers are given, or a seed
            without them; or a pretraining takes a share of each of its sources.
    """
    _check(train_size, shots, train_seed)
    if train_size is None and shots is None:
        return task
    if task.portions:
        raise ValueError(
            f"task {task.name} takes a share of each of its sources in an epoch, which train_size "
            "and shots would upset; set most or share of its sources"
        )
    rows, rng = task.rows("train"), torch.Generator().manual_seed(train_seed or 0)
    order = torch.randperm(len(rows), generator=rng)
    if shots is not None:
        chosen = _of_each_class(task, shots, order)
    else:
        chosen = _in_proportion(task, train_size or 0, order)
    sample = rows[chosen.sort().values]
    about = f"{task.fingerprint} {sample.tolist()}"
    fingerprint = hashlib.sha256(about.encode()).hexdigest() if task.fingerprint else ""
    fewer = replace(task, splits={**task.splits, "train": sample}, fingerprint=fingerprint)
    return in_own_deviations(fewer)


def in_own_deviations(task: Task) -> Task:
    """The task with its numbers in standard deviations of what trains, which knows no others.

    A target that no longer varies stays as it is.
    """
    objective, targets = task.objective, task.examples.targets
    if not isinstance(objective, Squared) or not objective.std or not isinstance(targets, Tensor):
        return task
    values = objective.values(targets)
    means, stds = list(objective.mean), list(objective.std)
    for k, column in enumerate(values[task.rows("train").to(values.device)].T):
        means[k], stds[k] = Squared.mean_and_std(column) or (means[k], stds[k])
    own = Squared(tuple(means), tuple(stds))
    examples: Any = task.examples  # of any kind that holds its targets
    examples = replace(examples, targets=own.standard(values).to(targets.dtype))
    return replace(task, examples=examples, objective=own)


def taking_fewer(entry: Callable[..., Task]) -> Callable[..., Task]:
    """A function that makes a task, with the options of `fewer_to_train` beside its own."""
    own = inspect.signature(entry, eval_str=True)
    options = inspect.signature(fewer_to_train, eval_str=True).parameters

    @wraps(entry)
    def made(*given: object, **named: object) -> Task:
        fewer: dict[str, Any] = {name: named.pop(name, None) for name in OPTIONS}
        _check(**fewer)  # before anything is read
        return fewer_to_train(entry(*given, **named), **fewer)

    parameters = [*own.parameters.values(), *(options[name] for name in OPTIONS)]
    vars(made)["__signature__"] = own.replace(parameters=parameters)
    return made


def recorded(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a task as they are kept: without those of `fewer_to_train` that are not given.

    A task that is not made smaller is what it was before that was possible.
    """
    return {k: v for k, v in options.items() if k not in OPTIONS or v is not None}


def _check(train_size: int | None, shots: int | None, train_seed: int | None) -> None:
    if train_size is not None and shots is not None:
        raise ValueError(
            f"train_size ({train_size}) and shots ({shots}) both say how many examples train; "
            "give one of them"
        )
    if train_seed is not None and train_size is None and shots is None:
        raise ValueError("train_seed would do nothing without train_size or shots; leave it out")


def _of_each_class(task: Task, shots: int, order: Int[Tensor, " n"]) -> Int[Tensor, " k"]:
    """Places of at least `shots` examples of every class, each the first of its class in `order`.

    The rarest classes are served first, and the examples of one count for the others.
    """
    members = _members(task)
    if not members:
        raise ValueError(
            f"shots is a number of examples of each class, and task {task.name} has no classes; "
            "set train_size"
        )
    rarest = min(members, key=lambda name: int(members[name].sum()))
    if int(members[rarest].sum()) < shots:
        raise ValueError(
            f"shots is {shots}, and task {task.name} has {int(members[rarest].sum())} training "
            f"examples of class {rarest}; give no more"
        )
    chosen = torch.zeros(len(order), dtype=torch.bool)
    for member in sorted(members.values(), key=lambda one: int(one.sum())):
        missing = shots - int((chosen & member).sum())
        free = order[(member & ~chosen)[order]]
        chosen[free[: max(0, missing)]] = True
    return chosen.nonzero().flatten()


def _in_proportion(task: Task, size: int, order: Int[Tensor, " n"]) -> Int[Tensor, " k"]:
    """Places of `size` examples, of each class its share to less than one."""
    if size > len(order):
        raise ValueError(
            f"train_size is {size:,}, and task {task.name} has {len(order):,} training examples; "
            "give no more"
        )
    stratum = _strata(task)
    counts = torch.bincount(stratum)
    # largest remainders, in whole numbers: a quota of n c / N is exact
    share, rest = counts * size // len(order), counts * size % len(order)
    share[rest.argsort(descending=True, stable=True)[: size - int(share.sum())]] += 1
    by_stratum = (order[stratum[order] == k][:n] for k, n in enumerate(share.tolist()))
    return torch.cat(list(by_stratum))


def _strata(task: Task) -> Int[Tensor, " n"]:
    """A class for each training example: its own, or its rarest yes; all one without classes."""
    targets, n = task.examples.targets, len(task.rows("train"))
    members = list(_members(task).values())
    stratum = torch.zeros(n, dtype=torch.long)
    if not members or (isinstance(targets, Tensor) and targets.ndim > 2):
        return stratum
    several = isinstance(targets, Tensor) and targets.is_floating_point() and len(members) > 2
    members = members[1::2] if several else members  # every yes
    # the rarest comes last and has the last word
    for k, member in enumerate(sorted(members, key=lambda one: -int(one.sum())), start=1):
        stratum[member] = k
    return stratum


def _members(task: Task) -> dict[str, Bool[Tensor, " n"]]:
    """Name of each class to which training examples are of it; empty without classes."""
    targets = task.examples.targets
    if not task.objective.has_classes or not isinstance(targets, Tensor):
        return {}
    own = targets[task.rows("train").to(targets.device)].cpu()
    members = list(class_members(task, own))
    names = list(task.target_names) or [str(k) for k in range(task.outputs)]
    if own.is_floating_point():
        names = [f"{name} = {label}" for name in names for label in (0, 1)]
    return dict(zip(names, members, strict=False))
