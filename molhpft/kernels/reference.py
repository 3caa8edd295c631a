"""Every operation in plain PyTorch: what fused kernels equal, and what runs where none can.

What the operations read beside tensors: the edges of a graph, and what follows batch norm.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

DRAWS = 2**24  # equally likely outcomes of the draw that decides whether an entry is dropped


@dataclass(frozen=True, eq=False)
class Edges:
    """Directed edges between `N` nodes, those into one node side by side.

    The reverse of every edge is there too, with the same kind and norm. So what a node sent can be
    summed over the list of what it received, and no gradient needs a scatter.

    Attributes:
        pointer: int64 (N + 1,), first edge into each node, then E.
        source: int64 (E,), the node an edge comes from.
        target: int64 (E,), the node it goes to; ascending.
        kind: int64 (E,), row of an edge in the table of edge vectors.
        norm: float (E,), weight of an edge.
        degree: float (N,), at least 1; a node's weight for itself is its inverse.
    """

    pointer: Tensor
    source: Tensor
    target: Tensor
    kind: Tensor
    norm: Tensor
    degree: Tensor

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Pointer, source, kind, norm and degree as loops on the CPU read them."""
        read = (self.pointer, self.source, self.kind, self.norm, self.degree)
        return tuple(tensor.detach().contiguous().numpy() for tensor in read)


@dataclass(frozen=True)
class Finish:
    """What an entry goes through after batch norm: a ReLU or not, then dropout.

    Whether an entry is dropped is a function of seed, row and column alone: every implementation
    drops the same entries, on any device and with any number of threads.

    Attributes:
        relu: whether negative entries become 0.
        dropout: probability of dropping an entry; those kept are divided by `1 - dropout`.
        seed: of the entries to drop, 0 to 2**63 - 1; not read without dropout.
    """

    relu: bool
    dropout: float = 0.0
    seed: int = 0

    @property
    def threshold(self) -> int:
        """Draws below it, of 0 to `DRAWS` - 1, drop their entry."""
        return round(self.dropout * DRAWS)

    @property
    def scale(self) -> float:
        """Factor of the entries that are kept."""
        return 1 / (1 - self.dropout) if self.dropout < 1 else 0.0


def drawn(*, relu: bool, dropout: float) -> Finish:
    """A finish with a seed of its own, drawn from PyTorch's global generator if it drops at all.

    Raises:
        ValueError: `dropout` is no probability.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout should be a probability from 0 to 1, got {dropout}")
    if not dropout:
        return Finish(relu=relu)
    return Finish(relu=relu, dropout=dropout, seed=int(torch.randint(2**63 - 1, ())))


_BITS = 2**32 - 1


def convolve(x: Tensor, bond: Tensor, root: Tensor, edges: Edges) -> Tensor:
    """`relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond[kind_ij])`, (N, d).

    Args:
        x: node features (N, d).
        bond: a vector for each kind of edge, (kinds, d).
        root: what a node adds to itself, (d,).
        edges: of N nodes.
    """
    sent = F.relu(x.index_select(0, edges.source) + bond.index_select(0, edges.kind))
    own = F.relu(x + root) / edges.degree[:, None]
    return own.index_add(0, edges.target, (sent * edges.norm[:, None]).to(own.dtype))


def propagate(x: Tensor, edges: Edges) -> Tensor:
    """`x_i / deg_i + sum_j norm_ij x_j`, (N, d): the product with a symmetric sparse matrix."""
    sent = x.index_select(0, edges.source) * edges.norm[:, None]
    own = x / edges.degree[:, None]
    return own.index_add(0, edges.target, sent.to(own.dtype))


def embed(rows: Tensor, table: Tensor) -> Tensor:
    """Sum of the table's rows `rows[i]`, (n, d), for row numbers (n, columns)."""
    return reduce(torch.add, (table.index_select(0, column) for column in rows.unbind(1)))


def normalise(a: Tensor, norm: nn.Module, finish: Finish) -> Tensor:
    """Batch norm of `a` (n, d), then its finish; running statistics move as the module says."""
    return finished(norm(a), finish)


def finished(h: Tensor, finish: Finish) -> Tensor:
    """`h` after ReLU and dropout."""
    h = F.relu(h) if finish.relu else h
    if not finish.threshold:
        return h
    kept = keep_mask(len(h), h.shape[1], finish, device=h.device)
    return torch.where(kept, h * finish.scale, 0.0)


def keep_mask(n: int, d: int, finish: Finish, *, device: torch.device | str) -> Tensor:
    """Which entries dropout keeps, bool (n, d)."""
    low, high = finish.seed & _BITS, finish.seed >> 32
    row = _mixed(torch.arange(n, device=device) ^ low) ^ high
    column = torch.arange(d, device=device) * 0x9E3779B9
    draws = _mixed((row[:, None] + column) & _BITS) >> 8
    return draws >= finish.threshold


def _mixed(h: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 on 32-bit numbers (in int64): every bit depends on every bit."""
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _BITS
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _BITS
    return h ^ (h >> 16)
