"""OGB's graph-convolution encoder as a chain with the stages `embed, conv0 ... conv4, pool`.

Other encoders (`gine`, `pretrain_gnns`) are the same chain around another convolution, a function
of `h` and graphs that gives new atom features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import BelowOne, Count
from molhpft.core.network import Batch, Chain, Plain, Stage
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.domains.molecules.pooling import (
    CollectMolecules,
    JoinLayers,
    Pooling,
    atom_pool,
    sum_pool,
)
from molhpft.domains.molecules.smiles import ATOM_SIZES, BOND_SIZES
from molhpft.kernels.ops import convolve, embed, linear, normalise
from molhpft.kernels.reference import CSRGraph

OGB_SIZES = BOND_SIZES[:3]
CHIRAL_TAGS = 3  # of vocabularies other than OGB's

Norm = Literal["batch", "layer", "none"]
Derived = TypeVar("Derived")


def ogb_gcn(
    *,
    layers: Count = 5,
    width: Count = 300,
    dropout: BelowOne = 0.5,
    virtual_node: bool = False,
    norm: Norm = "batch",
    residual: bool = False,
    jumping_knowledge: bool = False,
    pool: Pooling = "mean",
    projection: Count | None = None,
) -> Chain:
    """OGB's example GCN; norm, residual, jumping knowledge, pool and projection at their defaults.

    Args:
        layers: number of graph convolutions.
        width: length of atom features, and of molecule features but for the last three options.
        dropout: probability of dropping an atom's feature after each convolution.
        virtual_node: add an atom to each molecule that every atom talks to (Gilmer et al., 2017).
        norm: `batch`, `layer` or `none` after each convolution; a table too small for statistics
            of batches wants one of the latter two.
        residual: add to what each convolution gives what it was given.
        jumping_knowledge: pool the atoms after every convolution, not only after the last, and
            concatenate (Xu et al., 2018); features are `layers` times as long.
        pool: `mean` of a molecule's atoms, their `sum` over 25, `mean+sum`, both and so twice as
            long, or `attention`, a mean with learned weights.
        projection: length of molecule features after a linear map that follows the pool; None for
            no such map.
    """
    options = StageOptions(
        dropout, virtual_node, norm, residual, jumping_knowledge, pool, projection
    )
    return encoder_chain(AtomEmbedding(ATOM_SIZES, width), OGBConvolution, layers, options)


@dataclass(frozen=True)
class StageOptions:
    """What the stages of an encoder do beside its convolutions; see `ogb_gcn`."""

    dropout: float
    virtual_node: bool = False
    norm: Norm = "batch"
    residual: bool = False
    jumping_knowledge: bool = False
    pool: Pooling = "mean"
    projection: int | None = None


def encoder_chain(
    embed: Stage, convolution: Callable[[int], nn.Module], layers: int, options: StageOptions
) -> Chain:
    """The stages `embed, conv0, ..., pool` and, where it is asked for, `project`.

    Args:
        embed: graphs to atom features.
        convolution: width to a new function of `h` and graphs that gives new atom features.
        layers: number of convolutions.
        options: what is built around them.
    """
    width = embed.width
    stages: dict[str, Stage] = {}
    for layer in range(layers):
        last = layer == layers - 1
        stage: Stage = Convolution(convolution(width), width, options, last=last)
        if options.virtual_node:
            stage = WithVirtualNode(stage, options, last=last)
        if options.jumping_knowledge:
            stage = CollectMolecules(stage, atom_pool(options.pool, width), before=layer)
        stages[f"conv{layer}"] = stage
    pool = atom_pool(options.pool, width)
    pool = JoinLayers(layers, pool.width) if options.jumping_knowledge else pool
    embed = AddVirtualNode(embed) if options.virtual_node else embed
    stages = {"embed": embed, **stages, "pool": pool}
    if options.projection:
        linear = nn.Linear(pool.width, options.projection, bias=False)
        stages["project"] = Plain(linear, width=options.projection)
    return Chain(stages)


class AtomEmbedding(Stage):
    """Sum of one learned vector for each of the first columns of an atom, (atoms, width).

    Args:
        sizes: values of each column that the vocabulary has; chirality beyond a vocabulary of
            three is unspecified (0).
        width: length of the vectors.
    """

    gives_nodes = True

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
    """Graph convolution, norm, ReLU (not after the last layer), dropout; added to `h` if residual.

    Args:
        convolution: function of `h` and graphs.
        width: of the atom features it reads and emits.
        options: dropout, norm and residual are read.
        last: whether it is the last layer.
    """

    gives_nodes = True

    def __init__(
        self, convolution: nn.Module, width: int, options: StageOptions, *, last: bool
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = norm_layer(options.norm, width)
        self.dropout = options.dropout
        self.residual = options.residual
        self.last = last
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Atom features (atoms, width)."""
        change = normalise(
            self.convolution(h, batch.inputs),
            self.norm,
            relu=not self.last,
            dropout=self.dropout,
            training=self.training,
        )
        return h + change if self.residual else change


def norm_layer(norm: Norm, width: int) -> nn.Module:
    """A norm of rows of a width, by name; `none` is the identity."""
    norms: dict[Norm, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm1d,
        "layer": nn.LayerNorm,
        "none": nn.Identity,
    }
    return norms[norm](width)


class AddVirtualNode(Stage):
    """Appends one row a molecule below the atoms: its virtual node, (atoms + n, width)."""

    gives_nodes = True

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

    gives_nodes = True

    def __init__(self, convolution: Stage, options: StageOptions, *, last: bool) -> None:
        super().__init__()
        width = convolution.width
        self.convolution = convolution
        self.update = None if last else _virtual_node_mlp(width, options.norm)
        self.dropout = options.dropout
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Atoms, then virtual nodes, (atoms + n, width)."""
        graphs: GraphBatch = batch.inputs
        atoms, nodes = torch.split(h, [len(graphs.graph), len(graphs)])
        atoms = atoms + nodes.index_select(0, graphs.graph)
        if self.update is not None:
            nodes = self.update(sum_pool(atoms, graphs) + nodes)
            nodes = F.dropout(nodes, self.dropout, self.training)
        return torch.cat([self.convolution(atoms, batch), nodes])


def _virtual_node_mlp(width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(width, 2 * width), norm_layer(norm, 2 * width), nn.ReLU()),
        *(nn.Linear(2 * width, width), norm_layer(norm, width), nn.ReLU()),
    )


class ColumnEmbedding(nn.Module):
    """Sum of one learned vector for each integer column.

    Args:
        sizes: number of values of each column.
        width: length `d` of the vectors.
    """

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.tables = nn.ParameterList(
            nn.init.xavier_uniform_(torch.empty(s, width)) for s in sizes
        )
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)
        self.starts: Tensor

    def forward(self, columns: Tensor) -> Tensor:
        """Vectors (rows, d) of integer `columns` (rows, len(sizes))."""
        return embed(columns.long() + self.starts, torch.cat(list(self.tables)))

    def combinations(self) -> Tensor:
        """Vectors of all combinations of values, the last column's changing fastest."""
        tables: list[Tensor] = list(self.tables)
        return reduce(lambda left, right: (left[:, None] + right).flatten(0, 1), tables)


class OGBConvolution(nn.Module):
    """Graph convolution of OGB's example GCN.

    `x = W h + b`, then `relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond_ij)` with
    `deg` = neighbours + 1 and `norm_ij = deg_i^-1/2 deg_j^-1/2`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.root = nn.Parameter(torch.randn(width))
        self.bond = ColumnEmbedding(OGB_SIZES, width)

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        # training needs no gradient with respect to the features of atoms
        x = linear(h, self.linear.weight, self.linear.bias, for_weights=self.training)
        return convolve(x, self.bond.combinations(), self.root, ogb_edges(graphs))


def once_a_batch(derive: Callable[[GraphBatch], Derived]) -> Callable[[GraphBatch], Derived]:
    """`derive`, computed once for each batch however many layers ask, and forgotten with it."""
    cache: WeakKeyDictionary[GraphBatch, Derived] = WeakKeyDictionary()

    def derived(graphs: GraphBatch) -> Derived:
        if graphs not in cache:
            cache[graphs] = derive(graphs)
        return cache[graphs]

    return derived


@once_a_batch
def ogb_edges(graphs: GraphBatch) -> CSRGraph:
    """Graph whose edges have a kind for each combination of their first three columns."""
    return csr_graph(graphs, graphs.bonds[:, :3], OGB_SIZES)


def csr_graph(graphs: GraphBatch, columns: Tensor, sizes: Sequence[int]) -> CSRGraph:
    """Graph whose edges have a kind for each combination of their `columns` (E, len(sizes))."""
    kind = columns.new_zeros(len(columns), dtype=torch.long)
    for column, size in zip(columns.unbind(1), sizes, strict=True):
        kind = kind * size + column
    return CSRGraph(graphs.pointer, graphs.source, graphs.target, kind, graphs.norm, graphs.degree)
