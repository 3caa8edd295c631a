"""torch_geometric's own networks (GCN, GraphSAGE, GIN, GAT, PNA, EdgeCNN) with a stage a layer."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch as Graphs
from torch_geometric.nn.models.basic_gnn import BasicGNN

from molhpft.core.batch import Batch
from molhpft.core.network import Chain, Plain, Stage
from molhpft.domains.graphs.backbones import Pool, Pooling, attribute, check_sizes, with_nodes


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
    check_sizes(gnn)
    if isinstance(gnn.act, nn.Module) and list(gnn.act.parameters()):
        raise ValueError(
            f"layers of {type(gnn).__name__} should share no weights, they share those of "
            f"{type(gnn.act).__name__}; take another act, or pyg_backbone, which has one stage"
        )
    layers: list[Stage] = [GNNLayer(gnn, k) for k in range(gnn.num_layers)]
    jump: dict[str, Stage] = {}
    if hasattr(gnn, "jk"):
        layers = [layers[0], *(Remembering(layer, k) for k, layer in enumerate(layers[1:], 1))]
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
        graphs = with_nodes(batch.inputs, h)
        x, ends = (attribute(graphs, name, self.conv) for name in ("x", "edge_index"))
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


class Remembering(Stage):
    """A layer that adds its result at the right of what all layers before it have given.

    Args:
        layer: reads the last `layer.width` columns, the result of the layer before it.
        before: number of layers before it.
    """

    def __init__(self, layer: Stage, before: int) -> None:
        super().__init__()
        self.layer = layer
        self.width = layer.width * (before + 1)

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Node features of all layers so far side by side, (nodes, width)."""
        return torch.cat([h, self.layer(h[:, -self.layer.width :], batch)], 1)


class Jump(Stage):
    """Jumping knowledge: the results of all layers joined, then a linear map."""

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
    """Attributes of the edges that a convolution is to be given."""
    # a convolution made without edge_dim reads no edge features, and some then refuse to get any
    reads_features = getattr(gnn.convs[layer], "edge_dim", 0) is not None
    return (
        *(("edge_weight",) if gnn.supports_edge_weight else ()),
        *(("edge_attr",) if gnn.supports_edge_attr and reads_features else ()),
    )
