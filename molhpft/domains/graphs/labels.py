"""Labels out of torch_geometric graphs, each held to what the objective takes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from molhpft.core.objectives import Multiclass, Multilabel, Objective


def labels(
    graphs: Sequence[Data], objective: Objective, *, name: str, classes: int | None
) -> Tensor:
    """Targets of all graphs: float (n, t), NaN where unmeasured, or class ids (n,) below `classes`.

    Args:
        graphs: their `y` holds t numbers each, or a class id.
        objective: `Multiclass` for class ids.
        name: of the task, for messages.
        classes: number of classes, for `Multiclass` only.

    Raises:
        ValueError: `classes` is missing or has no meaning, or a label is not what the objective
            takes; the message says which graph has it.
    """
    if not isinstance(objective, Multiclass):
        if classes is not None:
            raise ValueError(f"classes is for Multiclass only; got {classes} with {objective}")
        targets = _numbers(graphs, name)
        _check(targets, objective, name)
        return targets
    if classes is None:
        raise ValueError(f"Multiclass task {name} needs classes, the number of them; it is None")
    ids = _class_ids(graphs, name)
    wrong = ((ids < 0) | (ids >= classes)) & (ids != objective.ignore)
    _refuse(wrong, ids, f"class ids of {name}", f"0 to {classes - 1}, or {objective.ignore}")
    return ids


def _numbers(graphs: Sequence[Data], name: str) -> Tensor:
    rows = [torch.as_tensor(graph.y).float().flatten() for graph in graphs]
    for row, values in enumerate(rows):
        if len(values) != len(rows[0]):
            raise ValueError(
                f"y of every graph of {name} should have as many numbers as that of graph 0, "
                f"{len(rows[0])}; that of graph {row} has {len(values)}"
            )
    return torch.stack(rows)


def _class_ids(graphs: Sequence[Data], name: str) -> Tensor:
    found = [torch.as_tensor(graph.y).flatten() for graph in graphs]
    for row, y in enumerate(found):
        if len(y) != 1 or y.is_floating_point():
            raise ValueError(
                f"y of every graph of {name} should be one class id, an integer; "
                f"that of graph {row} has {len(y)} of {y.dtype}"
            )
    return torch.cat(found).long()


def _check(targets: Tensor, objective: Objective, name: str) -> None:
    if isinstance(objective, Multilabel):
        wrong = ~(targets.isnan() | (targets == 0) | (targets == 1))
        _refuse(wrong, targets, f"labels of {name}", "0, 1 or NaN")
    _refuse(targets.isinf(), targets, f"targets of {name}", "finite numbers, or NaN for none")


def _refuse(wrong: Tensor, targets: Tensor, what: str, right: str) -> None:
    for place in wrong.nonzero().tolist()[:1]:
        found = targets[tuple(place)].item()
        raise ValueError(f"{what} should be {right}; graph {place[0]} has {found:g}")
