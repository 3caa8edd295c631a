"""Networks on torch_geometric graphs as backbones: any module as one stage, PyG's own in layers.

    backbone = pyg_backbone(MyMessagePassing(), width=64, pool="mean")
    network = Network(backbone, linear_head(backbone.width, task.outputs))

`pyg_backbone` takes any module whole; `gnn_backbone` gives the networks of
`torch_geometric.nn.models` (GCN, GraphSAGE, GIN, GAT, PNA, EdgeCNN) a stage for each layer. Every
stage reads the graph from `batch.inputs`, a `torch_geometric.data.Batch`, so a chain can be cut
anywhere.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch_geometric.data import Batch as Graphs
from torch_geometric.nn import Sequential, global_add_pool, global_max_pool, global_mean_pool
from torch_geometric.nn.models.basic_gnn import BasicGNN

from molhpft.core.network import Batch, Chain, Plain, Stage

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
        pool: how the nodes of a graph become its features; None where the module itself returns
            one row for each graph.
        reads: names of the arguments of forward, in its order; None to read them off its signature.

    Raises:
        ValueError: the module's signature names nothing, or it has weights without a size yet.
    """
    rows: Literal["nodes", "graphs"] = "graphs" if pool is None else "nodes"
    stages: dict[str, Stage] = {"encoder": GraphModule(module, width=width, rows=rows, reads=reads)}
    return Chain(stages if pool is None else {**stages, "pool": Pool(width, pool)})


class GraphModule(Stage):
    """A module that reads a graph, called with the arguments that its forward names.

    An argument is the attribute of the batch that has its name, `batch_size` the number of graphs
    and `data` the batch itself. Where the running tensor is no longer the batch, it is `x`. An
    argument with a default that is not in the batch keeps its default.

    Args:
        module: any.
        width: length of the features it returns.
        rows: whether it returns a row for each node or for each graph.
        reads: names of the arguments of forward, in its order; None to read them off its signature.
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
        _check_sizes(module)
        self.module = module
        self.width = width
        self.rows = rows
        self.gives_nodes = rows == "nodes"
        self.is_positional = reads is not None
        self.reads = _signature(module) if reads is None else dict.fromkeys(reads, True)

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """Features (nodes, width) or (n, width), as `rows` says.

        Raises:
            ValueError: the graphs lack an argument of the module, or its result has another shape.
        """
        graphs = _with_nodes(batch.inputs, h)
        # `in`, not hasattr: a parameter called size or norm is none of the methods of a batch
        given = {
            name: _attribute(graphs, name, self.module)
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
        # the number of graphs is given: the last ones may have no nodes
        pooled: Tensor = _POOLS[self.pool](h, graphs.batch, graphs.num_graphs)
        return pooled


def _with_nodes(graphs: Graphs, h: Any) -> Graphs:
    """The graphs with `h` as node features, (nodes, d); themselves in the first stage."""
    if h is graphs:
        return graphs
    changed = copy.copy(graphs)
    changed.x = h
    return changed


def _check_sizes(module: nn.Module) -> None:
    """Refuse lazy weights, which no optimizer, file or count could hold."""
    lazy = [name for name, weight in module.named_parameters() if is_lazy(weight)]
    if lazy:
        raise ValueError(
            f"{type(module).__name__} should have weights of known size, {lazy[0]} has none yet; "
            "give its number of input channels instead of -1"
        )


def _attribute(graphs: Graphs, name: str, reader: nn.Module) -> Any:
    if name in ("data", "batch_size"):
        return graphs if name == "data" else graphs.num_graphs
    if name not in graphs:
        raise ValueError(
            f"{type(reader).__name__} reads {name}, which these graphs lack; "
            f"they have: {', '.join(sorted(graphs.keys()))}"
        )
    return graphs[name]


def _signature(module: nn.Module) -> dict[str, bool]:
    """Names of the arguments of forward, and whether each is needed."""
    if isinstance(module, Sequential):  # its forward takes *args, and it keeps their names
        return dict.fromkeys(module.signature.param_dict, True)
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named:
        raise ValueError(
            f"forward of {type(module).__name__} should name its arguments, such as x and "
            "edge_index, it names none; list them as reads"
        )
    return {p.name: p.default is p.empty for p in named}


def gnn_backbone(gnn: BasicGNN, *, pool: Pooling = "mean") -> Chain:
    """A network of `torch_geometric.nn.models` as the stages `conv0, conv1, ..., pool`.

    Weights are shared with `gnn`, and the function is its own followed by pooling. With jumping
    knowledge (Xu et al., 2018) a stage `jump` comes before `pool`.

    Args:
        gnn: made with the number of input channels that the graphs have.
        pool: how the nodes of a graph become its features.

    Raises:
        ValueError: the network cannot be taken apart: its layers share trainable weights, or have
            weights without a size yet.
    """
    _check_sizes(gnn)
    if isinstance(gnn.act, nn.Module) and list(gnn.act.parameters()):
        raise ValueError(
            f"layers of {type(gnn).__name__} should share no weights, they share those of "
            f"{type(gnn.act).__name__}; take another act, or pyg_backbone, which has one stage"
        )
    layers: list[Stage] = [GNNLayer(gnn, k) for k in range(gnn.num_layers)]
    jump: dict[str, Stage] = {}
    if hasattr(gnn, "jk"):
        layers = [layers[0], *(Concatenating(layer, k) for k, layer in enumerate(layers[1:], 1))]
        jump = {"jump": Jump(gnn)}
    elif gnn.jk_mode == "last":
        jump = {"jump": Plain(gnn.lin, width=gnn.out_channels)}
    stages = {f"conv{k}": layer for k, layer in enumerate(layers)}
    return Chain({**stages, **jump, "pool": Pool(gnn.out_channels, pool)})


class GNNLayer(Stage):
    """One convolution with the norm, activation and dropout that its network has after it.

    Args:
        gnn: the network.
        layer: number of the convolution, from 0.
    """

    gives_nodes = True

    def __init__(self, gnn: BasicGNN, layer: int) -> None:
        super().__init__()
        self.conv = gnn.convs[layer]
        self.norm = gnn.norms[layer]
        self.act = gnn.act or nn.Identity()
        self.dropout = gnn.dropout
        self.is_bare = layer == gnn.num_layers - 1 and gnn.jk_mode is None
        self.acts_first = gnn.act_first
        self.norm_reads_graphs = gnn.supports_norm_batch
        self.reads = _edge_names(gnn, layer)
        self.width: int = gnn.out_channels if self.is_bare else gnn.hidden_channels

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """Node features (nodes, width).

        Raises:
            ValueError: the graphs have no node features or no edges' ends.
        """
        graphs = _with_nodes(batch.inputs, h)
        x, ends = (_attribute(graphs, name, self.conv) for name in ("x", "edge_index"))
        edges = {name: graphs[name] for name in self.reads if name in graphs}
        result: Tensor = self.conv(x, ends, **edges)
        return result if self.is_bare else self._finished(result, graphs)

    def _finished(self, h: Tensor, graphs: Graphs) -> Tensor:
        h = self.act(h) if self.acts_first else h
        scope = (graphs.batch, graphs.num_graphs) if self.norm_reads_graphs else ()
        h = self.norm(h, *scope)
        h = h if self.acts_first else self.act(h)
        dropped: Tensor = self.dropout(h)
        return dropped


class Concatenating(Stage):
    """A layer that appends its result to the results of all layers before it.

    Args:
        layer: reads the last `layer.width` columns, the result of the layer before it.
        before: number of layers before it.
    """

    gives_nodes = True

    def __init__(self, layer: Stage, before: int) -> None:
        super().__init__()
        self.layer = layer
        self.width = layer.width * (before + 1)

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Node features of all layers so far side by side, (nodes, width)."""
        return torch.cat([h, self.layer(h[:, -self.layer.width :], batch)], 1)


class Jump(Stage):
    """Jumping knowledge: the results of all layers joined, then a linear map."""

    gives_nodes = True

    def __init__(self, gnn: BasicGNN) -> None:
        super().__init__()
        self.join = gnn.jk
        self.linear = gnn.lin
        self.layers: int = gnn.num_layers
        self.width: int = gnn.out_channels

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Node features (nodes, width) from those of all layers side by side."""
        joined: Tensor = self.linear(self.join(list(h.chunk(self.layers, 1))))
        return joined


def _edge_names(gnn: BasicGNN, layer: int) -> tuple[str, ...]:
    """Attributes of the edges that a convolution reads."""
    # a convolution made without edge_dim reads no edge features, and some then refuse to get any
    reads_features = getattr(gnn.convs[layer], "edge_dim", 0) is not None
    return (
        *(("edge_weight",) if gnn.supports_edge_weight else ()),
        *(("edge_attr",) if gnn.supports_edge_attr and reads_features else ()),
    )
