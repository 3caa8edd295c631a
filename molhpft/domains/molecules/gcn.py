"""Graph-convolution encoders as chains with the stages `embed, conv0 ... conv4, pool`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.batch import Batch
from molhpft.core.network import Chain, Stage
from molhpft.core.ranges import BelowOne, Count
from molhpft.domains.molecules.convolutions import (
    ColumnEmbedding,
    OGBConvolution,
    PretrainGNNsConvolution,
)
from molhpft.domains.molecules.featurize import ATOM_SIZES
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.kernels.operations import normalise

PRETRAIN_GNNS_ATOM_SIZES = (120, 3)  # atomic number with mask, chirality
CHIRAL_TAGS = 3


def ogb_gcn(
    *, layers: Count = 5, width: Count = 300, dropout: BelowOne = 0.5, virtual_node: bool = False
) -> Chain:
    """OGB's example GCN.

    Args:
        layers: number of graph convolutions.
        width: length of atom and molecule features.
        dropout: probability of dropping an atom's feature after each convolution.
        virtual_node: add an atom to each molecule that every atom talks to (Gilmer et al., 2017).
    """
    embed: Stage = AtomEmbedding(ATOM_SIZES, width)
    stages: dict[str, Stage] = {}
    for layer in range(layers):
        last = layer == layers - 1
        stage: Stage = Convolution(OGBConvolution(width), width, dropout=dropout, last=last)
        stages[f"conv{layer}"] = (
            WithVirtualNode(stage, dropout, last=last) if virtual_node else stage
        )
    embed = AddVirtualNode(embed) if virtual_node else embed
    return Chain({"embed": embed, **stages, "pool": MeanPool(width)})


def pretrain_gnns_gcn(*, layers: Count = 5, width: Count = 300, dropout: BelowOne = 0.5) -> Chain:
    """The GCN of the public checkpoints of Hu et al. (2020); arguments as for `ogb_gcn`."""
    stages: dict[str, Stage] = {"embed": AtomEmbedding(PRETRAIN_GNNS_ATOM_SIZES, width)}
    for layer in range(layers):
        convolution = PretrainGNNsConvolution(width)
        last = layer == layers - 1
        stages[f"conv{layer}"] = Convolution(convolution, width, dropout=dropout, last=last)
    return Chain({**stages, "pool": MeanPool(width)})


class AtomEmbedding(Stage):
    """Sum of one learned vector for each of the first columns of an atom, (atoms, width).

    Args:
        sizes: values of each column that the vocabulary has; chirality beyond a vocabulary of
            three is unspecified (0).
        width: length of the vectors.
    """

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.columns = ColumnEmbedding(sizes, width)
        self.width = width
        # a buffer: a tensor made from numbers in every batch would be one more wait for the device
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)
        self.sizes: Tensor
        self.has_unspecified = sizes[1] == CHIRAL_TAGS

    def forward(self, h: GraphBatch, batch: Batch) -> Tensor:
        """Atom features (atoms, width)."""
        columns = h.atoms[:, : len(self.sizes)]
        if self.has_unspecified:
            columns = torch.where(columns < self.sizes, columns, 0)
        vectors: Tensor = self.columns(columns)
        return vectors


class Convolution(Stage):
    """Graph convolution, batch norm, ReLU (not after the last layer) and dropout."""

    def __init__(self, convolution: nn.Module, width: int, *, dropout: float, last: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm1d(width)
        self.dropout = dropout
        self.last = last
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Atom features (atoms, width)."""
        return normalise(
            self.convolution(h, batch.inputs),
            self.norm,
            relu=not self.last,
            dropout=self.dropout,
            training=self.training,
        )


class MeanPool(Stage):
    """Mean of each molecule's atoms, (n, width); 0 for a molecule without atoms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, width); rows of virtual nodes are left out."""
        graphs: GraphBatch = batch.inputs
        return _sum_pool(h[: len(graphs.graph)], graphs) / graphs.counts.clamp(min=1)[:, None]


class AddVirtualNode(Stage):
    """Appends one row a molecule below the atoms: its virtual node, (atoms + n, width)."""

    def __init__(self, embed: Stage) -> None:
        super().__init__()
        self.embed = embed
        self.node = nn.Parameter(torch.zeros(embed.width))
        self.width = embed.width

    def forward(self, h: GraphBatch, batch: Batch) -> Tensor:
        """Atoms, then virtual nodes, (atoms + n, width)."""
        return torch.cat([self.embed(h, batch), self.node.expand(len(h), -1)])


class WithVirtualNode(Stage):
    """A convolution whose atoms hear their virtual node first, and which then updates it.

    `h_i += v`, convolve; `v <- dropout(mlp(v + sum_i h_i))`, not after the last convolution.
    """

    def __init__(self, convolution: Stage, dropout: float, *, last: bool) -> None:
        super().__init__()
        width = convolution.width
        self.convolution = convolution
        self.update = None if last else _virtual_node_mlp(width)
        self.dropout = dropout
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Atoms, then virtual nodes, (atoms + n, width)."""
        graphs: GraphBatch = batch.inputs
        atoms, nodes = h[: len(graphs.graph)], h[len(graphs.graph) :]
        atoms = atoms + nodes.index_select(0, graphs.graph)
        if self.update is not None:
            nodes = self.update(_sum_pool(atoms, graphs) + nodes)
            nodes = F.dropout(nodes, self.dropout, self.training)
        return torch.cat([self.convolution(atoms, batch), nodes])


def _virtual_node_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU()),
        *(nn.Linear(2 * width, width), nn.BatchNorm1d(width), nn.ReLU()),
    )


def _sum_pool(h: Tensor, graphs: GraphBatch) -> Tensor:
    # rows that autocast has made half as precise are summed in float32
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    return h.new_zeros(len(graphs), h.shape[1]).index_add(0, graphs.graph, h)
