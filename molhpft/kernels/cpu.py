"""The fused kernels on CPU tensors.

Rows of nodes and their gradients are float32 or bfloat16, all of a call alike, and so are rows that
come out, contiguous. Everything else is float32, in which all sums are kept.

A batch of graphs cut from packed graphs in one pass over their memory, on the CPU.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.kernels import cpu_loops
from molhpft.kernels.cpu_loops import Floats, Ints
from molhpft.kernels.reference import Edges, Finish

# rows that are summed up by one thread; with a fixed number of them, sums do not depend on how many
# threads there are
_ROWS_A_SUM = 256


def convolve(x: Tensor, bond: Tensor, root: Tensor, edges: Edges) -> Tensor:
    """See `reference.convolve`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    arrays = *_arrays(x, bond, root), *edges.arrays, *_arrays(out)
    _over_rows(cpu_loops.convolve, cpu_loops.convolve_in_parts, len(x), *arrays)
    return out


def convolve_backward(
    g: Tensor, x: Tensor, bond: Tensor, root: Tensor, edges: Edges
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `convolve` in `x`, `bond` and `root` for the gradient `g` of its result."""
    parts = _sums(len(x))
    gx = torch.empty_like(x, memory_format=torch.contiguous_format)
    gbond, groot = _zeros(parts, *bond.shape), _zeros(parts, *root.shape)
    arrays = *_arrays(g, x, bond, root), *edges.arrays, *_arrays(gx), gbond, groot
    loops = cpu_loops.convolve_backward, cpu_loops.convolve_backward_in_parts
    _over_parts(*loops, parts, len(x), *arrays)
    return gx, _added(gbond), _added(groot)


def propagate(x: Tensor, edges: Edges) -> Tensor:
    """See `reference.propagate`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    pointer, source, _, norm, degree = edges.arrays
    arrays = *_arrays(x), pointer, source, norm, degree, *_arrays(out)
    _over_rows(cpu_loops.propagate, cpu_loops.propagate_in_parts, len(x), *arrays)
    return out


def embed_backward(g: Tensor, rows: Tensor, length: int) -> Tensor:
    """Gradient of the table (length, d) of `reference.embed` for the gradient `g` of its result."""
    parts = _sums(len(g))
    gtable = _zeros(parts, length, g.shape[1])
    loops = cpu_loops.embed_backward, cpu_loops.embed_backward_in_parts
    _over_parts(*loops, parts, len(g), *_arrays(rows, g), gtable)
    return _added(gtable)


def moments(a: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the columns of `a` (n, d), (d,) each."""
    n, parts = len(a), _sums(len(a))
    means, squares = _zeros(parts, a.shape[1]), _zeros(parts, a.shape[1])
    loops = cpu_loops.moments, cpu_loops.moments_in_parts
    _over_parts(*loops, parts, n, *_arrays(a), means, squares)
    share = np.diff(np.arange(parts + 1) * n // parts)[:, None].astype(np.float32) / np.float32(n)
    mean = (share * means).sum(0)
    variance = squares.sum(0) / np.float32(n) + (share * np.square(means - mean)).sum(0)
    return torch.from_numpy(mean), torch.from_numpy(variance)


def activate(a: Tensor, factor: Tensor, shift: Tensor, finish: Finish) -> Tensor:
    """`reference.finished(factor a + shift)` but for the scale, (n, d).

    Args:
        a: (n, d).
        factor: (d,), the scale of the finish included.
        shift: (d,), likewise.
        finish: ReLU and dropout.
    """
    out = torch.empty_like(a, memory_format=torch.contiguous_format)
    arrays = *_arrays(a, factor, shift), _rule(finish), *_arrays(out)
    _over_rows(cpu_loops.activate, cpu_loops.activate_in_parts, len(a), *arrays)
    return out


def activate_sums(
    g: Tensor, a: Tensor, factor: Tensor, shift: Tensor, finish: Finish, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over rows of `g'` and of `g' (a - mean)`, (d,) each.

    `g'` is `g`, or 0 where `activate` gave 0.
    """
    parts = _sums(len(a))
    plain, centred = _zeros(parts, a.shape[1]), _zeros(parts, a.shape[1])
    arrays = *_arrays(g, a, factor, shift), _rule(finish), *_arrays(mean), plain, centred
    loops = cpu_loops.activate_sums, cpu_loops.activate_sums_in_parts
    _over_parts(*loops, parts, len(a), *arrays)
    return _added(plain), _added(centred)


def activate_backward(
    g: Tensor,
    a: Tensor,
    factor: Tensor,
    shift: Tensor,
    finish: Finish,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """`factor g' + slope a + offset`, (n, d), with `g'` as in `activate_sums`."""
    ga = torch.empty_like(a, memory_format=torch.contiguous_format)
    arrays = *_arrays(g, a, factor, shift), _rule(finish), *_arrays(slope, offset, ga)
    loops = cpu_loops.activate_backward, cpu_loops.activate_backward_in_parts
    _over_rows(*loops, len(a), *arrays)
    return ga


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    return tuple(_array(tensor.detach().contiguous()) for tensor in tensors)


def _array(tensor: Tensor) -> NDArray[Any]:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


# numpy adds up a few rows in a fraction of the time that PyTorch takes to begin
def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, dtype=np.float32)


def _added(parts: Floats) -> Tensor:
    return torch.from_numpy(parts.sum(0))


def _rule(finish: Finish) -> Ints:
    low, high = finish.seed & (2**32 - 1), finish.seed >> 32
    return np.array([finish.relu, low, high, finish.threshold], dtype=np.int64)


def _sums(n: int) -> int:
    return -(-n // _ROWS_A_SUM)


def _over_rows(
    loop: Callable[..., None], in_parts: Callable[..., None], n: int, *arrays: Any
) -> None:
    """Run a loop whose rows do not depend on one another."""
    _over_parts(loop, in_parts, min(torch.get_num_threads(), n), n, *arrays)


def _over_parts(
    loop: Callable[..., None], in_parts: Callable[..., None], parts: int, n: int, *arrays: Any
) -> None:
    """Run a loop over `n` rows cut into `parts`, on as many threads as PyTorch uses."""
    threads = torch.get_num_threads()
    if threads == 1:
        # no team of threads at all: a process that has had one must not fork
        for part in range(parts):
            loop(part, part * n // parts, (part + 1) * n // parts, *arrays)
    else:
        numba.set_num_threads(min(threads, _team()))
        in_parts(parts, n, *arrays)


@cache
def _team() -> int:
    """Most threads numba has."""
    threads = torch.get_num_threads()
    most: int = numba.get_num_threads()
    # that started numba's threads, and as both use one OpenMP runtime, PyTorch's number with them
    torch.set_num_threads(threads)
    return most


def cut(
    rows: Tensor,
    *,
    nodes: Tensor,
    edges: Tensor,
    ends: Tensor,
    node_offsets: Tensor,
    edge_offsets: Tensor,
) -> tuple[Tensor, ...]:
    """The graphs `rows` (k,) as one graph of n nodes and 2 m directed edges.

    All tensors are on the CPU, without gaps, and what they say is not checked again.

    Args:
        rows: int64, from 0 and below the number of packed graphs.
        nodes: uint8 (N, a), features; graph after graph.
        edges: uint8 (M, b), features; each undirected edge once.
        ends: int16 (M, 2), node numbers within the graph.
        node_offsets: int64, first node of each graph, then N.
        edge_offsets: int64, first edge of each graph, then M.

    Returns:
        nodes (n, a); source and target (2 m,), sorted by target, stably: edges to second ends, then
        edges to first ends; their features (2 m, b); first edge of each node, then 2 m; graph of
        each node (n,); first node of each graph, then n.
    """
    # where it is first used: numba takes a good part of a second to import
    from molhpft.kernels import cpu_loops

    packed = (nodes, edges, ends, node_offsets, edge_offsets)
    arrays = cpu_loops.cut(rows.numpy(), *(tensor.numpy() for tensor in packed))
    return tuple(map(torch.from_numpy, arrays))
