"""Every operation in plain PyTorch: what fused kernels equal, and what runs where none can."""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.kernels.operands import Edges, Finish

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
