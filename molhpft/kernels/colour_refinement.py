"""A step of colour refinement (Weisfeiler and Leman, 1968): which nodes have equal surroundings."""

import torch
from torch import Tensor

from molhpft.kernels.cpu_loops import Ints, loop

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as int64


def groups_of_nodes(nodes: Tensor, pointer: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Group of each node, (n,), and the first node of each group, (groups,), both int64.

    Two nodes are in one group if their rows of `nodes` are equal, and the rows of `edges` into them
    are, in any order. They are compared, so that equal hashes alone do not decide.

    Args:
        nodes: int64 (n, p), on the CPU as everything.
        pointer: int64 (n + 1,), first edge into each node, then E.
        edges: int64 (E, q).
    """
    group, first = torch.empty(2, len(nodes), dtype=torch.long).unbind()
    slots = torch.full((2 << len(nodes).bit_length(),), -1)
    # a copy of edges, which are sorted in place
    read = (nodes.contiguous(), pointer.contiguous(), edges.clone().contiguous())
    groups = _group(*(tensor.numpy() for tensor in (*read, group, first, slots)))
    return group, first[:groups]


@loop
def _group(nodes: Ints, pointer: Ints, edges: Ints, group: Ints, first: Ints, slots: Ints) -> int:
    # `slots` is a hash table of groups, all -1; its length is a power of 2 and more than n
    groups, last = 0, len(slots) - 1
    for i in range(len(nodes)):
        begin, end = pointer[i], pointer[i + 1]
        _sort_rows(edges, begin, end)
        slot = _hash_of_rows(nodes, i, i + 1, _hash_of_rows(edges, begin, end, 0)) & last
        while slots[slot] >= 0:
            other = first[slots[slot]]
            if _same_rows(nodes, i, i + 1, other, other + 1) and _same_rows(
                edges, begin, end, pointer[other], pointer[other + 1]
            ):
                break
            slot = (slot + 1) & last
        if slots[slot] < 0:
            slots[slot], first[groups] = groups, i
            groups += 1
        group[i] = slots[slot]
    return groups


@loop
def _sort_rows(rows: Ints, begin: int, end: int) -> None:
    # by insertion, as an atom has few bonds
    for i in range(begin + 1, end):
        for j in range(i, begin, -1):
            if not _is_before(rows, j, j - 1):
                break
            for c in range(rows.shape[1]):
                rows[j, c], rows[j - 1, c] = rows[j - 1, c], rows[j, c]


@loop
def _is_before(rows: Ints, i: int, j: int) -> bool:
    for c in range(rows.shape[1]):
        if rows[i, c] != rows[j, c]:
            return bool(rows[i, c] < rows[j, c])
    return False


@loop
def _same_rows(rows: Ints, begin: int, end: int, others: int, others_end: int) -> bool:
    if end - begin != others_end - others:
        return False
    for i in range(end - begin):
        for c in range(rows.shape[1]):
            if rows[begin + i, c] != rows[others + i, c]:
                return False
    return True


@loop
def _hash_of_rows(rows: Ints, begin: int, end: int, start: int) -> int:
    h = start
    for i in range(begin, end):
        for c in range(rows.shape[1]):
            h = (h ^ rows[i, c]) * _GOLDEN
            h ^= h >> 29
    return h
