"""Networks on torch_geometric graphs as backbones: any module as one stage, and pooling.

    backbone = pyg_backbone(MyMessagePassing(), width=64, pool="mean")
    network = Network(backbone, linear_head(backbone.width, task.outputs))

Every stage reads the graph from `batch.inputs`, a `torch_geometric.data.Batch`, so a chain can be
cut anywhere. `gnn.py` beside this file gives PyG's own networks a stage a layer.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.data import Batch as Graphs
from torch_geometric.nn import Sequential, global_add_pool, global_max_pool, global_mean_pool

from molhpft.core.batch import Batch
from molhpft.core.network import Chain, Stage

Pooling = Literal["mean", "sum", "max"]

_POOLS = {"mean": global_mean_pool, "sum": global_add_pool, "max": global_max_pool}


def pyg_backbone(
    module: nn.Module,
    *,
    width: int,
    pool: Pooling | None = "mean",
    reads: Sequence[str] | None = None,
) -> Chain:
    """Any module on graphs as a backbone with the stages `encoder, pool`.

    Args:
        module: its forward takes what a PyG batch holds, such as `x, edge_index, edge_attr, batch`,
            or the whole batch as `data`.
        width: length of the features it returns.
        pool: how the nodes of a graph become its features; None where the module returns a row a
            graph itself.
        reads: names of what forward takes, in its order; None to read them off its signature.

    Raises:
        ValueError: the module's signature names nothing, or it has weights without a size yet.
    """
    rows: Literal["nodes", "graphs"] = "graphs" if pool is None else "nodes"
    stages: dict[str, Stage] = {"encoder": GraphModule(module, width=width, rows=rows, reads=reads)}
    return Chain(stages if pool is None else {**stages, "pool": Pool(width, pool)})


class GraphModule(Stage):
    """A module that reads a graph: called with what its forward asks for by name.

    A parameter is filled from the attribute of the batch that has its name, `batch_size` with the
    number of graphs and `data` with the batch itself. Where the running tensor is no longer the
    batch, it stands for `x`. What has a default and is not in the batch keeps its default.

    Args:
        module: any.
        width: length of the features it returns.
        rows: what it returns a row for.
        reads: names of what forward takes, in its order; None to read them off its signature.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        width: int,
        rows: Literal["nodes", "graphs"] = "nodes",
        reads: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(module)
        self.module = module
        self.width = width
        self.rows = rows
        self.is_positional = reads is not None
        self.reads = _signature(module) if reads is None else dict.fromkeys(reads, True)

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """Features (nodes, width) or (n, width), as `rows` says.

        Raises:
            ValueError: the graphs lack what the module needs, or its result has another shape.
        """
        graphs = with_nodes(batch.inputs, h)
        # `in`, not hasattr: a parameter called size or norm is none of the methods of a batch
        given = {
            name: attribute(graphs, name, self.module)
            for name, is_needed in self.reads.items()
            if is_needed or name in (*graphs.keys(), "batch_size")
        }
        result: Tensor = (
            self.module(*given.values()) if self.is_positional else self.module(**given)
        )
        self._check(result, graphs)
        return result

    def _check(self, result: Tensor, graphs: Graphs) -> None:
        count = graphs.num_nodes if self.rows == "nodes" else graphs.num_graphs
        if result.shape != (count, self.width):
            raise ValueError(
                f"{type(self.module).__name__} should return {(count, self.width)}, a row for each "
                f"of the {self.rows}, got {tuple(result.shape)}; change width, or pool (None where "
                "the module pools by itself)"
            )


class Pool(Stage):
    """The nodes of each graph become one row, (n, width); 0 for a graph without nodes."""

    def __init__(self, width: int, pool: Pooling) -> None:
        super().__init__()
        if pool not in _POOLS:
            raise ValueError(f"pool should be {', '.join(_POOLS)}, got {pool!r}")
        self.width = width
        self.pool = pool

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Graph features (n, width) from node features (nodes, width)."""
        graphs = batch.inputs
        # the number of graphs is said: the last ones may have no nodes
        pooled: Tensor = _POOLS[self.pool](h, graphs.batch, graphs.num_graphs)
        return pooled


def with_nodes(graphs: Graphs, h: Any) -> Graphs:
    """The graphs with `h` as node features, (nodes, d); themselves in the first stage."""
    if h is graphs:
        return graphs
    changed = copy.copy(graphs)
    changed.x = h
    return changed


def check_sizes(module: nn.Module) -> None:
    """Refuse a module with lazy weights: no optimizer, file or count could hold them.

    Raises:
        ValueError: it has some.
    """
    lazy = [name for name, weight in module.named_parameters() if is_lazy(weight)]
    if lazy:
        raise ValueError(
            f"{type(module).__name__} should have weights of known size, {lazy[0]} has none yet; "
            "give its number of input channels instead of -1"
        )


def attribute(graphs: Graphs, name: str, reader: nn.Module) -> Any:
    """What the batch holds under a name; `data` is the batch, `batch_size` its number of graphs.

    Raises:
        ValueError: it holds nothing of that name; the message says who needs it.
    """
    if name in ("data", "batch_size"):
        return graphs if name == "data" else graphs.num_graphs
    if name not in graphs:
        raise ValueError(
            f"{type(reader).__name__} reads {name}, which these graphs lack; "
            f"they have: {', '.join(sorted(graphs.keys()))}"
        )
    return graphs[name]


def _signature(module: nn.Module) -> dict[str, bool]:
    """What forward takes by name, and whether it needs it."""
    if isinstance(module, Sequential):  # its forward takes *args, and it keeps their names
        return dict.fromkeys(module.signature.param_dict, True)
    found = inspect.signature(module.forward).parameters.values()
    named = [p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named:
        raise ValueError(
            f"forward of {type(module).__name__} should name what it takes, such as x and "
            "edge_index, it names nothing; say it with reads"
        )
    return {p.name: p.default is p.empty for p in named}
