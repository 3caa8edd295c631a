"""Graphs of torch_geometric, from one of its data sets or a list, as a task."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch as Graphs
from torch_geometric.data import Data

from molhpft.core.data import Task
from molhpft.core.network import Batch
from molhpft.core.objectives import Multiclass, Multilabel, Objective
from molhpft.domains.files import digest


@dataclass(frozen=True, eq=False)
class GraphData:
    """Graphs with labels; a batch of them is a `torch_geometric.data.Batch` without the labels.

    Attributes:
        graphs: (n,), all with the same attributes.
        targets: (n, t) or class ids (n,), as in `core.network.Batch`.
        device: where batches go once they are collated.
    """

    graphs: tuple[Data, ...]
    targets: Tensor
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return len(self.graphs)

    def take(self, index: Tensor, *, rng: torch.Generator | None = None) -> Batch:
        """The graphs `index` (k,), in that order, as one batch; nothing is drawn."""
        chosen = [self.graphs[row] for row in index.tolist()]
        graphs = Graphs.from_data_list(chosen, exclude_keys=["y"])
        rows = index.to(self.targets.device, non_blocking=True)
        return Batch(graphs.to(self.device, non_blocking=True), self.targets[rows])

    def to(self, device: torch.device | str) -> "GraphData":
        """The same graphs, with batches on `device`."""
        return replace(self, targets=self.targets.to(device), device=device)


def pyg_task(
    data: Iterable[Data],
    *,
    splits: Mapping[str, Tensor | Sequence[int]],
    objective: Objective,
    name: str,
    classes: int | None = None,
) -> Task:
    """A list of PyG graphs, or a PyG data set, as a task.

    Every graph is kept in memory, as the transform of the data set has made it this once.

    >>> graphs = [Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]), y=k % 2)
    ...           for k in range(6)]
    >>> splits = {"train": [0, 1, 2, 3], "valid": [4, 5]}
    >>> task = pyg_task(graphs, splits=splits, objective=Multiclass(), name="pairs", classes=2)
    >>> next(task.batches("train", size=4)).targets
    tensor([0, 1, 0, 1])

    Args:
        data: graphs with their labels as `y`: a class id, or t numbers, NaN where unmeasured.
        splits: split name to row numbers; any beside train, valid and test is another distribution.
        objective: `Multiclass` for class ids.
        name: for people and file names.
        classes: number of classes, for `Multiclass` and needed there: some may have no example.

    Raises:
        ValueError: there are no graphs, they differ in what they hold or hold something without a
            fingerprint, a label is none for the objective, or a split has rows that do not exist.
    """
    graphs = tuple(data)
    _check_graphs(graphs, name)
    targets = _targets(graphs, objective, name=name, classes=classes)
    rows = {split: _rows(given, split, len(graphs)) for split, given in splits.items()}
    return Task(
        name=name,
        examples=GraphData(graphs, targets),
        splits=rows,
        objective=objective,
        outputs=targets.shape[1] if classes is None else classes,
        fingerprint=digest(repr(objective), *_content(graphs, targets, rows)),
    )


def concatenated(parts: Mapping[str, Iterable[Data]]) -> tuple[list[Data], dict[str, Tensor]]:
    """Data sets that come split, such as PyG's ZINC, as one list and the splits of `pyg_task`."""
    lists = {split: list(graphs) for split, graphs in parts.items()}
    sizes = [len(graphs) for graphs in lists.values()]
    rows = torch.split(torch.arange(sum(sizes)), sizes)
    return list(chain(*lists.values())), dict(zip(lists, rows, strict=True))


def _check_graphs(graphs: Sequence[Data], name: str) -> None:
    if not graphs:
        raise ValueError(f"{name} should hold graphs, it holds none")
    for row, graph in enumerate(graphs):
        if not isinstance(graph, Data) or graph.y is None:
            what = "no y" if isinstance(graph, Data) else "another type"
            raise ValueError(
                f"{name} should hold torch_geometric.data.Data with labels as y; graph {row}, "
                f"a {type(graph).__name__}, has {what}"
            )
        ours, first = (", ".join(sorted(g.keys())) for g in (graph, graphs[0]))
        if ours != first:
            raise ValueError(
                f"graphs of {name} should all hold the same; graph 0 has {first}, "
                f"graph {row} has {ours}"
            )


def _targets(
    graphs: Sequence[Data], objective: Objective, *, name: str, classes: int | None
) -> Tensor:
    """Float (n, t) with NaN where unmeasured, or for `Multiclass` ids (n,) below `classes`."""
    if not isinstance(objective, Multiclass):
        if classes is not None:
            raise ValueError(f"classes is for Multiclass only; got {classes} with {objective}")
        numbers = _numbers(graphs, name)
        if isinstance(objective, Multilabel):
            wrong = ~(numbers.isnan() | (numbers == 0) | (numbers == 1))
            _refuse(wrong, numbers, f"labels of {name}", "0, 1 or NaN")
        _refuse(numbers.isinf(), numbers, f"targets of {name}", "finite numbers, or NaN for none")
        return numbers
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
    labels = [torch.as_tensor(graph.y).flatten() for graph in graphs]
    for row, y in enumerate(labels):
        if len(y) != 1 or y.is_floating_point():
            raise ValueError(
                f"y of every graph of {name} should be one class id, an integer; "
                f"that of graph {row} has {len(y)} of {y.dtype}"
            )
    return torch.cat(labels).long()


def _refuse(wrong: Tensor, targets: Tensor, what: str, right: str) -> None:
    for place in wrong.nonzero().tolist()[:1]:
        value = targets[tuple(place)].item()
        raise ValueError(f"{what} should be {right}; graph {place[0]} has {value:g}")


def _rows(given: Tensor | Sequence[int], split: str, n: int) -> Tensor:
    rows = torch.as_tensor(given)
    if rows.numel() and (rows.dtype == torch.bool or rows.is_floating_point()):
        raise ValueError(f"split {split!r} should hold row numbers, it holds {rows.dtype}")
    if rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < n:
        raise ValueError(
            f"row numbers of split {split!r} should lie in 0 to {n - 1}, "
            f"got {int(rows.min())} to {int(rows.max())}"
        )
    return rows.flatten().long()


def _content(
    graphs: Sequence[Data], targets: Tensor, splits: Mapping[str, Tensor]
) -> Iterator[bytes]:
    """Everything that results depend on, in one order."""
    # every NaN is made the same one: its bytes carry a payload
    yield _bytes("y", torch.where(targets != targets, torch.nan, targets))
    yield from (_bytes(split, splits[split]) for split in sorted(splits))
    for graph in graphs:
        yield from (_bytes(key, graph[key]) for key in sorted({*graph.keys()} - {"y"}))


def _bytes(key: str, value: Any) -> bytes:
    """A value as bytes: tensors by their numbers, text and lists as JSON."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        numbers = value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
        return f"{key} {value.dtype} {tuple(value.shape)} ".encode() + numbers.tobytes()
    try:
        return f"{key} {json.dumps(value)} ".encode()
    except TypeError as error:
        raise ValueError(
            f"graphs should hold dense tensors, numbers, text or lists of these; {key} is a "
            f"{type(value).__name__}: leave it out, or make it a tensor"
        ) from error
