"""Every operation in plain PyTorch: what fused kernels must equal, and what runs where none can.

Also what operations read beside tensors: a graph in compressed sparse row (CSR) form, and the
epilogue (ReLU and dropout) that follows batch norm.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

DRAWS = 2**24  # equally likely outcomes of the draw that decides whether an entry is dropped
_32_BITS = 2**32 - 1


@dataclass(frozen=True, eq=False)
class CSRGraph:
    """Directed edges between `N` nodes, the edges into one node side by side.

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

    @property
    def for_kernels(self) -> tuple[Tensor, ...]:
        """Pointer, source, kind, norm and degree, contiguous: what kernels read."""
        read = (self.pointer, self.source, self.kind, self.norm, self.degree)
        return tuple(tensor.detach().contiguous() for tensor in read)

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """`for_kernels` as NumPy arrays, which loops on the CPU read."""
        return tuple(tensor.numpy() for tensor in self.for_kernels)


@dataclass(frozen=True, eq=False)
class BondGraph:
    """Directed edges between `N` nodes, those into one node side by side, each with its reverse.

    Attributes:
        pointer: int64 (N + 1,), first edge into each node, then E.
        source: int64 (E,), the node an edge comes from.
        target: int64 (E,), the node it goes to; ascending.
        kind: int64 (E,), row of an edge in the table of edge vectors.
        reverse: int64 (E,), number of the edge that goes the other way.
    """

    pointer: Tensor
    source: Tensor
    target: Tensor
    kind: Tensor
    reverse: Tensor


@dataclass(frozen=True)
class Epilogue:
    """What an entry goes through after batch norm: a ReLU or not, then dropout.

    Whether an entry is dropped is a function of seed, row and column alone: every implementation
    drops the same entries, on any device and with any number of threads.

    Attributes:
        relu: whether negative entries become 0.
        dropout: probability of dropping an entry; the others are divided by `1 - dropout`.
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
        """Factor of the entries that are not dropped."""
        return 1 / (1 - self.dropout) if self.dropout < 1 else 0.0

    @property
    def seed_halves(self) -> tuple[int, int]:
        """Lower and upper 32 bits of the seed."""
        return self.seed & _32_BITS, self.seed >> 32


def draw_epilogue(*, relu: bool, dropout: float) -> Epilogue:
    """An epilogue with a new seed, drawn from PyTorch's global generator if it drops at all.

    Raises:
        ValueError: `dropout` is no probability.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout should be a probability from 0 to 1, got {dropout}")
    if not dropout:
        return Epilogue(relu=relu)
    return Epilogue(relu=relu, dropout=dropout, seed=int(torch.randint(2**63 - 1, ())))


def convolve(x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph) -> Tensor:
    """`relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond[kind_ij])`, (N, d).

    Args:
        x: node features (N, d).
        bond: a vector for each kind of edge, (kinds, d).
        root: what a node adds to itself, (d,).
        graph: of N nodes.
    """
    sent = F.relu(x.index_select(0, graph.source) + bond.index_select(0, graph.kind))
    total = F.relu(x + root) / graph.degree[:, None]
    return total.index_add(0, graph.target, (sent * graph.norm[:, None]).to(total.dtype))


def propagate(x: Tensor, graph: CSRGraph) -> Tensor:
    """`x_i / deg_i + sum_j norm_ij x_j`, (N, d): the product with a symmetric sparse matrix."""
    sent = x.index_select(0, graph.source) * graph.norm[:, None]
    total = x / graph.degree[:, None]
    return total.index_add(0, graph.target, sent.to(total.dtype))


def bond_states(p: Tensor, q: Tensor, graph: BondGraph) -> Tensor:
    """`p[source_e] + q[kind_e]` of each edge, (E, d), for nodes `p` (N, d) and `q` (kinds, d)."""
    return p.index_select(0, graph.source) + q.index_select(0, graph.kind)


def messages(a: Tensor, graph: BondGraph) -> Tensor:
    """What each edge i -> j hears: the sum of `relu(a)` over the edges into i but j -> i, (E, d).

    Args:
        a: a row for each edge, (E, d).
        graph: of E edges.
    """
    h = F.relu(a)
    return arrivals(a, graph).index_select(0, graph.source) - h.index_select(0, graph.reverse)


def arrivals(a: Tensor, graph: BondGraph) -> Tensor:
    """Sum of `relu(a)` over the edges into each node, (N, d), for rows `a` (E, d) of edges."""
    return a.new_zeros(len(graph.pointer) - 1, a.shape[1]).index_add(0, graph.target, F.relu(a))


def reverse_edges(source: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Number of the edge that goes the other way, of each of E edges that all have one, (E,)."""
    there = (target * nodes + source).argsort(stable=True)
    back = (source * nodes + target).argsort(stable=True)
    return torch.empty_like(there).index_copy_(0, there, back)


def embed(rows: Tensor, table: Tensor) -> Tensor:
    """Sum of the table's rows `rows[i]`, (n, d), for row numbers (n, columns)."""
    return reduce(torch.add, (table.index_select(0, column) for column in rows.unbind(1)))


def normalise(a: Tensor, norm: nn.Module, epilogue: Epilogue) -> Tensor:
    """Batch norm of `a` (n, d), then the epilogue; running statistics move as the module says."""
    return apply_epilogue(norm(a), epilogue)


def apply_epilogue(h: Tensor, epilogue: Epilogue) -> Tensor:
    """`h` (n, d) after ReLU and dropout."""
    h = F.relu(h) if epilogue.relu else h
    if not epilogue.threshold:
        return h
    mask = dropout_mask(len(h), h.shape[1], epilogue, device=h.device)
    return torch.where(mask, h * epilogue.scale, 0.0)


def dropout_mask(n: int, d: int, epilogue: Epilogue, *, device: torch.device | str) -> Tensor:
    """True where dropout leaves an entry in, bool (n, d)."""
    low, high = epilogue.seed_halves
    row = _hashed(torch.arange(n, device=device) ^ low) ^ high
    column = torch.arange(d, device=device) * 0x9E3779B9
    draws = _hashed((row[:, None] + column) & _32_BITS) >> 8
    return draws >= epilogue.threshold


def _hashed(h: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 on 32-bit numbers (in int64): every bit depends on every bit."""
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _32_BITS
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _32_BITS
    return h ^ (h >> 16)


def collate(
    rows: Tensor,
    *,
    nodes: Tensor,
    edges: Tensor,
    ends: Tensor,
    node_offsets: Tensor,
    edge_offsets: Tensor,
) -> tuple[Tensor, ...]:
    """Some of many packed graphs as one graph of n nodes and 2 m directed edges.

    Args:
        rows: int64 (k,), numbers of graphs; repeats are allowed.
        nodes: uint8 (N, a), features; graph after graph.
        edges: uint8 (M, b), features; each undirected edge once.
        ends: int16 (M, 2), node numbers within the graph.
        node_offsets: int64, first node of each graph, then N; on the CPU, like `rows`.
        edge_offsets: int64, first edge of each graph, then M; on the CPU, like `rows`.

    Returns:
        nodes (n, a); source and target (2 m,), sorted by target, stably: edges to second ends, then
        edges to first ends; their features (2 m, b); first edge into each node, then 2 m; graph of
        each node (n,); first node of each graph, then n.
    """
    node, graph, offsets = runs_of(node_offsets, rows, device=nodes.device)
    edge, owner, _ = runs_of(edge_offsets, rows, device=nodes.device)
    begin, end = (ends[edge].long() + offsets[owner, None]).unbind(1)
    # a stable order: the neighbours of a node come as they do in its graph alone
    target, order = torch.cat([end, begin]).sort(stable=True)
    source, features = torch.cat([begin, end])[order], edges[edge.repeat(2)[order]]
    pointer = torch.searchsorted(target, torch.arange(len(node) + 1, device=target.device))
    return nodes[node], source, target, features, pointer, graph, offsets


def run_offsets(counts: Tensor) -> Tensor:
    """Where each of n runs of rows starts, and where the last one ends, (n + 1,)."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def runs_of(
    offsets: Tensor, runs: Tensor, *, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Some runs of a packed table end to end: rows of the table, run of each row, new offsets."""
    starts = offsets[runs]
    counts = offsets[runs + 1] - starts
    joined = run_offsets(counts)
    total = int(joined[-1])  # read on the CPU: nothing waits for the device
    sent = (starts - joined[:-1], counts, joined)
    shift, counts, joined = (tensor.to(device, non_blocking=True) for tensor in sent)
    run = torch.repeat_interleave(counts, output_size=total)
    return torch.arange(total, device=device) + shift[run], run, joined
