"""The two graph convolutions behind one call: `convolution(h, graphs)` to new atom features.

They are not interchangeable: OGB's has a nonlinearity inside every message and its own bond
vocabulary, that of the public checkpoints of Hu et al. (2020) is linear with self-loops.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.domains.molecules.featurize import BOND_SIZES
from molhpft.domains.molecules.graphs import GraphBatch

SINGLE_BOND, OTHER_BOND = 0, 4  # bond types in OGB's vocabulary
SELF_LOOP = 4  # bond type of the self-loops in that of Hu et al. (2020)


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
        rows = columns.long() + self.starts
        return F.embedding_bag(rows, torch.cat(list(self.tables)), mode="sum")


class OGBConvolution(nn.Module):
    """Graph convolution of OGB's example GCN.

    `x = W h + b`, then `relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond_ij)` with
    `deg` = neighbours + 1 and `norm_ij = deg_i^-1/2 deg_j^-1/2`.
    """

    sizes = BOND_SIZES[:3]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.root = nn.Parameter(torch.randn(width))
        self.bond = ColumnEmbedding(self.sizes, width)
        kinds = torch.cartesian_prod(*(torch.arange(size) for size in self.sizes))
        self.register_buffer("kinds", kinds, persistent=False)
        self.kinds: Tensor

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        x = self.linear(h)
        # one sum for each of the 60 kinds of bond instead of one for each bond
        bond = self.bond(self.kinds).index_select(0, _kind(graphs.bonds, self.sizes))
        messages = F.relu(x.index_select(0, graphs.source) + bond) * graphs.norm[:, None]
        return torch.index_add(
            F.relu(x + self.root) / graphs.degree[:, None], 0, graphs.target, messages
        )


class PretrainGNNsConvolution(nn.Module):
    """Graph convolution of the public GCN checkpoints (Hu et al., 2020).

    `x = W h + b`, then `sum_j norm_ij (x_j + bond_ij)` over neighbours and the atom itself, whose
    self-loop is a bond type of its own; no nonlinearity inside.
    """

    sizes = (6, 3)  # bond type with self-loop and mask, bond direction

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.bond = ColumnEmbedding(self.sizes, width)

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        x = self.linear(h)
        columns = graphs.bonds[:, [0, 3]].long()
        # this vocabulary has no dative and other rare bonds: they are single bonds, as drawn
        columns[:, 0] = torch.where(columns[:, 0] == OTHER_BOND, SINGLE_BOND, columns[:, 0])
        messages = x.index_select(0, graphs.source) + self.bond(columns)
        loop = self.bond(columns.new_tensor([[SELF_LOOP, 0]]))
        own = (x + loop) / graphs.degree[:, None]
        return torch.index_add(own, 0, graphs.target, messages * graphs.norm[:, None])


def _kind(bonds: Tensor, sizes: Sequence[int]) -> Tensor:
    """Row of each bond in the table of all combinations of its first columns."""
    kind = torch.zeros(len(bonds), dtype=torch.long, device=bonds.device)
    for column, size in enumerate(sizes):
        kind = kind * size + bonds[:, column]
    return kind
