"""Encoders of pretrain-gnns (Hu et al., 2020) and MolCLR (Wang et al., 2022) as chains.

Their stages are `embed, conv0 ... conv4, pool`, and MolCLR's end in `project`. Both families read
element and chirality of an atom, type and direction of a bond, and bind every atom to itself by a
self-loop, which is a bond type of its own. Along every edge goes what an atom sends plus a vector
for the edge. The convolutions differ in what is sent and how it is summed, over the neighbours j of
an atom i and the atom itself, of which there are deg_i:

    GCN          sum_j (x_j + bond_ij) / sqrt(deg_i deg_j)        with x = W h + b
    GraphSAGE    sum_j (x_j + bond_ij) / deg_i, scaled to length 1     with x = W h + b
    GAT          c + mean over heads of sum_j a_ij (x_j + bond_ij)     with x = W h + b
    GIN          mlp(sum_j (h_j + bond_ij))
    MolCLR's GCN sum_j (h_j W + bond_ij) + b          with one number for a bond, and no norm

But for GAT's, whose weights a_ij are learned, each is a product with a sparse matrix, plus a small
dense one: how much of each kind of edge an atom has.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import BelowOne, Count
from molhpft.core.network import Chain, Plain
from molhpft.domains.molecules.gcn import (
    AtomEmbedding,
    ColumnEmbedding,
    StageOptions,
    csr_graph,
    encoder_chain,
    once_a_batch,
)
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.kernels.ops import linear, propagate
from molhpft.kernels.reference import CSRGraph

# 118 elements, one that has no use and a mask; chirality
ATOM_SIZES = (120, 3)
# four types, self-loop and mask; direction
BOND_SIZES = (6, 3)
# 118 elements and a mask, which stands for what is no element; chirality
MOLCLR_ATOM_SIZES = (119, 3)
# four types and self-loop; direction
MOLCLR_BOND_SIZES = (5, 3)

SINGLE_BOND, OTHER_BOND = 0, 4  # bond types of packed molecules
SELF_LOOP = 4  # bond type of these vocabularies
HEADS = 2
NEGATIVE_SLOPE = 0.2
SMALLEST_SUM = 1e-16


def pretrain_gnns_gcn(*, layers: Count = 5, width: Count = 300, dropout: BelowOne = 0.5) -> Chain:
    """The GCN of pretrain-gnns; arguments as for `gcn`."""
    return _pretrain_gnns(GCNConvolution, layers, width, dropout)


def pretrain_gnns_sage(*, layers: Count = 5, width: Count = 300, dropout: BelowOne = 0.5) -> Chain:
    """The GraphSAGE of pretrain-gnns; arguments as for `gcn`."""
    return _pretrain_gnns(SAGEConvolution, layers, width, dropout)


def pretrain_gnns_gat(*, layers: Count = 5, width: Count = 300, dropout: BelowOne = 0.5) -> Chain:
    """The GAT of pretrain-gnns, with two heads; arguments as for `gcn`."""
    return _pretrain_gnns(GATConvolution, layers, width, dropout)


def pretrain_gnns_gin(*, layers: Count = 5, width: Count = 300, dropout: BelowOne = 0.5) -> Chain:
    """The GIN of pretrain-gnns; arguments as for `gcn`."""
    return _pretrain_gnns(lambda width: GINConvolution(width, BOND_SIZES), layers, width, dropout)


def molclr_gcn(
    *,
    layers: Count = 5,
    width: Count = 300,
    dropout: BelowOne = 0.0,
    projection: Count = 512,
) -> Chain:
    """The GCN of MolCLR, which sums over neighbours without a norm; arguments as for `gin_molclr`.

    Its batch norms remember molecules of which a quarter of the atoms and bonds were masked, as
    contrastive pretraining did; batch statistics of whole molecules differ from those.
    """
    return _molclr(MolCLRConvolution, layers, width, dropout, projection)


def molclr_gin(
    *,
    layers: Count = 5,
    width: Count = 300,
    dropout: BelowOne = 0.0,
    projection: Count = 512,
) -> Chain:
    """The GIN of MolCLR.

    Args:
        layers: number of graph convolutions.
        width: length of atom features.
        dropout: probability of dropping an atom's feature after each convolution.
        projection: length of molecule features, after the linear map that follows the pool.
    """
    return _molclr(
        lambda width: GINConvolution(width, MOLCLR_BOND_SIZES), layers, width, dropout, projection
    )


def _pretrain_gnns(
    convolution: Callable[[int], nn.Module], layers: int, width: int, dropout: float
) -> Chain:
    return encoder_chain(
        AtomEmbedding(ATOM_SIZES, width), convolution, layers, StageOptions(dropout)
    )


def _molclr(
    convolution: Callable[[int], nn.Module],
    layers: int,
    width: int,
    dropout: float,
    projection: int,
) -> Chain:
    embed = AtomEmbedding(MOLCLR_ATOM_SIZES, width)
    chain = encoder_chain(embed, convolution, layers, StageOptions(dropout))
    project = Plain(nn.Linear(width, projection), width=projection)
    return chain.followed_by(Chain({"project": project}))


class GCNConvolution(nn.Module):
    """Sum of messages over `sqrt(deg_i deg_j)`, of `x = W h + b`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.bond = ColumnEmbedding(BOND_SIZES, width)

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        # training needs no gradient with respect to the features of atoms
        x = linear(h, self.linear.weight, self.linear.bias, for_weights=self.training)
        return sum_messages(x, self.bond.combinations(), normalised_edges(graphs))


class SAGEConvolution(nn.Module):
    """Mean of messages, of `x = W h + b`, scaled to length 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # not called as the GCN's, whose shape it has: neither's weights load into the other
        self.message = nn.Linear(width, width)
        self.bond = ColumnEmbedding(BOND_SIZES, width)

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) of length 1 from `h` (atoms, d)."""
        x = linear(h, self.message.weight, self.message.bias, for_weights=self.training)
        # the sum has the direction of the mean
        return F.normalize(sum_messages(x, self.bond.combinations(), unit_edges(graphs)), dim=1)


class GINConvolution(nn.Module):
    """A perceptron of one hidden layer, twice as wide, of the sum of messages of `h` itself.

    Args:
        width: `d` of the atom features.
        bond_sizes: values of each column of the bond vocabulary.
    """

    def __init__(self, width: int, bond_sizes: tuple[int, int]) -> None:
        super().__init__()
        self.bond = ColumnEmbedding(bond_sizes, width)
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, width)

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        x = sum_messages(h, self.bond.combinations(), unit_edges(graphs))
        x = F.relu(linear(x, self.hidden.weight, self.hidden.bias))
        return linear(x, self.out.weight, self.out.bias)


class MolCLRConvolution(nn.Module):
    """Sum of messages of `x = h W` plus a bias, where an edge adds one number to all of `x_j`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # the transpose of what a linear layer has, as in MolCLR's files: a square tells nothing
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.bond = ColumnEmbedding(MOLCLR_BOND_SIZES, 1)
        self.register_buffer("no_bias", torch.zeros(width), persistent=False)
        self.no_bias: Tensor

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        x = linear(h, self.weight.T, self.no_bias, for_weights=self.training)
        bonds = self.bond.combinations().expand(-1, x.shape[1])
        return sum_messages(x, bonds, unit_edges(graphs)) + self.bias


class GATConvolution(nn.Module):
    """Mean over heads of sums of messages, of `x = W h + b`, with learned weights, plus a bias.

    The weights of a head are `exp(s_ij) / (1e-16 + sum_j exp(s_ij))` for scores
    `s_ij = leaky_relu(att . [x_i, x_j + bond_ij])` (Velickovic et al., 2018, with bonds). An atom
    whose scores are all far below zero hears next to nothing, itself included. It is no detail: in
    the first layer of the public checkpoint, four of five scores lie below -1,000.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, HEADS * width)
        self.attention = nn.Parameter(nn.init.xavier_uniform_(torch.empty(HEADS, 2 * width)))
        self.bond = ColumnEmbedding(BOND_SIZES, HEADS * width)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        edges, width = looped_edges(graphs), len(self.bias)
        x = linear(h, self.linear.weight, self.linear.bias, for_weights=self.training)
        bonds = self.bond.combinations().view(-1, HEADS, width)
        # quotients of exponentials, for which bfloat16 is too coarse
        x = x.to(bonds).view(-1, HEADS, width)
        sent = x.index_select(0, edges.source) + bonds.index_select(0, edges.kind)
        to, from_ = self.attention.chunk(2, 1)
        scores = (x * to).sum(-1).index_select(0, edges.target) + (sent * from_).sum(-1)
        weights = attention(F.leaky_relu(scores, NEGATIVE_SLOPE), edges.target, len(x))
        heads = torch.zeros_like(x).index_add(0, edges.target, sent * weights[..., None])
        return heads.mean(1) + self.bias


def attention(scores: Tensor, target: Tensor, atoms: int) -> Tensor:
    """`exp(s_e) / (1e-16 + sum exp(s))`, sums over the edges into one atom, (E, heads).

    The softmax of PyTorch Geometric 1.0.3, with which pretrain-gnns trained: it takes the highest
    score away only where that is above zero, so that scores far below zero vanish beside 1e-16.
    """
    into = target[:, None].expand_as(scores)
    zero = scores.new_zeros(atoms, scores.shape[1])
    highest = zero.scatter_reduce(0, into, scores.detach(), "amax")
    weights = (scores - highest.index_select(0, target)).exp()
    total = zero.index_add(0, target, weights) + SMALLEST_SUM
    return weights / total.index_select(0, target)


@dataclass(frozen=True, eq=False)
class WeightedEdges:
    """The edges over which messages are summed, self-loops included.

    Attributes:
        graph: weights `w_ij` of edges between atoms, its norm, and of self-loops.
        kinds: sum of the weights of an atom's edges of each kind, (atoms, kinds).
    """

    graph: CSRGraph
    kinds: Tensor


@dataclass(frozen=True, eq=False)
class LoopedEdges:
    """All edges, those between atoms first and then the self-loops.

    Attributes:
        source: int64 (E + N,), the atom an edge comes from.
        target: int64 (E + N,), the atom it goes to.
        kind: int64 (E + N,), its kind.
    """

    source: Tensor
    target: Tensor
    kind: Tensor


def sum_messages(x: Tensor, bonds: Tensor, edges: WeightedEdges) -> Tensor:
    """`sum_j w_ij (x_j + bond_ij)` over neighbours and the atom itself, (atoms, d).

    Args:
        x: what atoms send, (atoms, d).
        bonds: a vector for each kind of edge, (kinds, d).
        edges: of the same atoms; the vocabulary may lack their last kinds, which no edge has.
    """
    x = propagate(x, edges.graph)
    # a sum of few terms, which reduced precision would not make faster
    with torch.autocast(x.device.type, enabled=False):
        return torch.addmm(x.to(bonds), edges.kinds[:, : len(bonds)].to(bonds), bonds)


@once_a_batch
def bond_edges(graphs: GraphBatch) -> CSRGraph:
    """Graph whose edges have a kind for each bond type and direction; without self-loops."""
    columns = torch.stack([graphs.bonds[:, 0], graphs.bonds[:, 3]], 1)
    # these vocabularies have no dative and other rare bonds: they are single bonds, as drawn
    columns[:, 0] = torch.where(columns[:, 0] == OTHER_BOND, SINGLE_BOND, columns[:, 0])
    return csr_graph(graphs, columns, BOND_SIZES)


@once_a_batch
def normalised_edges(graphs: GraphBatch) -> WeightedEdges:
    """Edges of weight `1 / sqrt(deg_i deg_j)`."""
    return _weighted(bond_edges(graphs))


@once_a_batch
def unit_edges(graphs: GraphBatch) -> WeightedEdges:
    """Edges of weight 1."""
    edges = bond_edges(graphs)
    norm, degree = torch.ones_like(edges.norm), torch.ones_like(edges.degree)
    return _weighted(replace(edges, norm=norm, degree=degree))


@once_a_batch
def looped_edges(graphs: GraphBatch) -> LoopedEdges:
    """Edges between atoms and self-loops side by side."""
    edges = bond_edges(graphs)
    atoms = torch.arange(len(edges.degree), device=edges.source.device)
    return LoopedEdges(
        torch.cat([edges.source, atoms]),
        torch.cat([edges.target, atoms]),
        torch.cat([edges.kind, torch.full_like(atoms, _LOOP_KIND)]),
    )


_LOOP_KIND = SELF_LOOP * BOND_SIZES[1]


def _weighted(edges: CSRGraph) -> WeightedEdges:
    kinds = edges.norm.new_zeros(len(edges.degree), prod(BOND_SIZES))
    kinds[:, _LOOP_KIND] = 1 / edges.degree
    kinds = kinds.index_put_((edges.target, edges.kind), edges.norm, accumulate=True)
    return WeightedEdges(edges, kinds)
