"""The two graph convolutions behind one call: `convolution(h, graphs)` to new atom features.

They are not interchangeable: OGB's has a nonlinearity inside every message and its own bond
vocabulary, that of the public checkpoints of Hu et al. (2020) is linear with self-loops.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from molhpft.domains.molecules.featurize import BOND_SIZES
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.kernels.operands import Edges
from molhpft.kernels.operations import convolve, embed, linear, propagate

OGB_SIZES = BOND_SIZES[:3]
SINGLE_BOND, OTHER_BOND = 0, 4  # bond types in OGB's vocabulary

PRETRAIN_GNNS_SIZES = (6, 3)  # bond type with self-loop and mask, bond direction
SELF_LOOP = 4  # bond type of the self-loops in that vocabulary

Derived = TypeVar("Derived")


def once_a_batch(derive: Callable[[GraphBatch], Derived]) -> Callable[[GraphBatch], Derived]:
    """`derive`, computed once for each batch however many layers ask, and forgotten with it."""
    known: WeakKeyDictionary[GraphBatch, Derived] = WeakKeyDictionary()

    def derived(graphs: GraphBatch) -> Derived:
        if graphs not in known:
            known[graphs] = derive(graphs)
        return known[graphs]

    return derived


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
        # in training, nobody asks for gradients in features of atoms
        x = linear(h, self.linear.weight, self.linear.bias, around=self.training)
        return convolve(x, self.bond.combinations(), self.root, ogb_edges(graphs))


class PretrainGNNsConvolution(nn.Module):
    """Graph convolution of the public GCN checkpoints (Hu et al., 2020).

    `x = W h + b`, then `sum_j norm_ij (x_j + bond_ij)` over neighbours and the atom itself, whose
    self-loop is a bond type of its own; no nonlinearity inside. So it is a product of `x` with a
    sparse matrix, plus a small dense one: how much of each kind of bond an atom has.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.bond = ColumnEmbedding(PRETRAIN_GNNS_SIZES, width)

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        x = linear(h, self.linear.weight, self.linear.bias, around=self.training)
        x = propagate(x, pretrain_gnns_edges(graphs))
        shares, bonds = pretrain_gnns_shares(graphs), self.bond.combinations()
        # a sum of few terms, which reduced precision would not make faster
        with torch.autocast(x.device.type, enabled=False):
            return torch.addmm(x.to(bonds), shares.to(bonds), bonds)


@once_a_batch
def ogb_edges(graphs: GraphBatch) -> Edges:
    """Edges whose kind is the combination of their first three columns."""
    return _edges(graphs, graphs.bonds[:, :3], OGB_SIZES)


@once_a_batch
def pretrain_gnns_edges(graphs: GraphBatch) -> Edges:
    """Edges whose kind is the combination of bond type and direction; without self-loops."""
    columns = torch.stack([graphs.bonds[:, 0], graphs.bonds[:, 3]], 1)
    # this vocabulary has no dative and other rare bonds: they are single bonds, as drawn
    columns[:, 0] = torch.where(columns[:, 0] == OTHER_BOND, SINGLE_BOND, columns[:, 0])
    return _edges(graphs, columns, PRETRAIN_GNNS_SIZES)


@once_a_batch
def pretrain_gnns_shares(graphs: GraphBatch) -> Tensor:
    """Sum of the norms of each atom's edges of each kind, self-loops included, (atoms, kinds)."""
    edges, kinds = pretrain_gnns_edges(graphs), prod(PRETRAIN_GNNS_SIZES)
    shares = edges.norm.new_zeros(len(edges.degree), kinds)
    shares[:, SELF_LOOP * PRETRAIN_GNNS_SIZES[1]] = 1 / edges.degree
    return shares.index_put_((edges.target, edges.kind), edges.norm, accumulate=True)


def _edges(graphs: GraphBatch, columns: Tensor, sizes: Sequence[int]) -> Edges:
    kind = columns.new_zeros(len(columns), dtype=torch.long)
    for column, size in zip(columns.unbind(1), sizes, strict=True):
        kind = kind * size + column
    return Edges(graphs.pointer, graphs.source, graphs.target, kind, graphs.norm, graphs.degree)
