"""The fused kernels on CPU tensors, by numba.

Rows of nodes and their gradients are float32 or bfloat16, all of a call alike, and so are rows that
come out, contiguous. Everything else is float32, in which all sums are computed.
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
from molhpft.kernels.reference import BondGraph, CSRGraph, Epilogue

# rows that one thread sums up; their number is fixed, so that sums do not depend on how many
# threads there are
_ROWS_PER_SUM = 256


def convolve(x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph) -> Tensor:
    """See `reference.convolve`."""
    out = _empty_like(x)
    arrays = *_arrays(x, bond, root), *graph.arrays, *_arrays(out)
    _over_rows(cpu_loops.convolve, cpu_loops.convolve_in_parts, len(x), *arrays)
    return out


def convolve_backward(
    g: Tensor, x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `convolve` in `x`, `bond` and `root` for the gradient `g` of its result."""
    parts, gx = _sums(len(x)), _empty_like(x)
    gbond, groot = _zeros(parts, *bond.shape), _zeros(parts, *root.shape)
    arrays = *_arrays(g, x, bond, root), *graph.arrays, *_arrays(gx), gbond, groot
    loops = cpu_loops.convolve_backward, cpu_loops.convolve_backward_in_parts
    _over_parts(*loops, parts, len(x), *arrays)
    return gx, _added(gbond), _added(groot)


def propagate(x: Tensor, graph: CSRGraph) -> Tensor:
    """See `reference.propagate`."""
    out = _empty_like(x)
    pointer, source, _, norm, degree = graph.arrays
    arrays = *_arrays(x), pointer, source, norm, degree, *_arrays(out)
    _over_rows(cpu_loops.propagate, cpu_loops.propagate_in_parts, len(x), *arrays)
    return out


def embed_backward(g: Tensor, rows: Tensor, length: int) -> Tensor:
    """Gradient of the table of `reference.embed`, float32 (length, d), for that of its result."""
    parts = _sums(len(g))
    gtable = _zeros(parts, length, g.shape[1])
    loops = cpu_loops.embed_backward, cpu_loops.embed_backward_in_parts
    _over_parts(*loops, parts, len(g), *_arrays(rows, g), gtable)
    return _added(gtable)


def bond_states(p: Tensor, q: Tensor, graph: BondGraph) -> Tensor:
    """See `directed.bond_states`."""
    out = torch.empty(len(graph.source), p.shape[1])
    arrays = *_arrays(p, q), *_arrays(graph.source, graph.kind, out)
    _over_rows(cpu_loops.bond_states, cpu_loops.bond_states_in_parts, len(out), *arrays)
    return out


def bond_states_backward(g: Tensor, kinds: int, graph: BondGraph) -> tuple[Tensor, Tensor]:
    """Gradients of `bond_states` in `p` and `q` (kinds, d) for the gradient `g` of its result."""
    n = len(graph.pointer) - 1
    parts, gp = _sums(n), torch.zeros(n, g.shape[1])
    gq = _zeros(parts, kinds, g.shape[1])
    arrays = *_arrays(g, graph.pointer, graph.reverse, graph.kind, gp), gq
    loops = cpu_loops.bond_states_backward, cpu_loops.bond_states_backward_in_parts
    _over_parts(*loops, parts, n, *arrays)
    return gp, _added(gq)


def messages(a: Tensor, graph: BondGraph) -> Tensor:
    """See `directed.messages`."""
    out = _empty_like(a)
    arrays = _arrays(a, graph.pointer, graph.reverse, out)
    loops = cpu_loops.messages, cpu_loops.messages_in_parts
    _over_rows(*loops, len(graph.pointer) - 1, *arrays)
    return out


def messages_backward(g: Tensor, a: Tensor, graph: BondGraph) -> Tensor:
    """Gradient of `messages` in `a` for the gradient `g` of its result."""
    ga = _empty_like(a)
    arrays = _arrays(g, a, graph.pointer, graph.reverse, ga)
    loops = cpu_loops.messages_backward, cpu_loops.messages_backward_in_parts
    _over_rows(*loops, len(graph.pointer) - 1, *arrays)
    return ga


def arrivals(a: Tensor, graph: BondGraph) -> Tensor:
    """See `directed.arrivals`."""
    n = len(graph.pointer) - 1
    out = torch.zeros(n, a.shape[1])
    arrays = _arrays(a, graph.pointer, out)
    _over_rows(cpu_loops.arrivals, cpu_loops.arrivals_in_parts, n, *arrays)
    return out


def arrivals_backward(g: Tensor, a: Tensor, graph: BondGraph) -> Tensor:
    """Gradient of `arrivals` in `a` for the gradient `g` of its result."""
    ga = _empty_like(a)
    loops = cpu_loops.arrivals_backward, cpu_loops.arrivals_backward_in_parts
    _over_rows(*loops, len(graph.pointer) - 1, *_arrays(g, a, graph.pointer, ga))
    return ga


def moments(a: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the columns of `a` (n, d), (d,) each."""
    n, parts = len(a), _sums(len(a))
    means, squares = _zeros(parts, a.shape[1]), _zeros(parts, a.shape[1])
    loops = cpu_loops.moments, cpu_loops.moments_in_parts
    _over_parts(*loops, parts, n, *_arrays(a), means, squares)
    sizes = np.diff(np.arange(parts + 1) * n // parts)[:, None].astype(np.float32)
    fractions = sizes / np.float32(n)
    mean = (fractions * means).sum(0)
    variance = squares.sum(0) / np.float32(n) + (fractions * np.square(means - mean)).sum(0)
    return torch.from_numpy(mean), torch.from_numpy(variance)


def activate(a: Tensor, factor: Tensor, shift: Tensor, epilogue: Epilogue) -> Tensor:
    """`reference.apply_epilogue(factor a + shift)` but for the scale, (n, d).

    Args:
        a: (n, d).
        factor: (d,), the scale of the epilogue included.
        shift: (d,), likewise.
        epilogue: ReLU and dropout.
    """
    out = _empty_like(a)
    arrays = *_arrays(a, factor, shift), _rule(epilogue), *_arrays(out)
    _over_rows(cpu_loops.activate, cpu_loops.activate_in_parts, len(a), *arrays)
    return out


def activate_sums(
    g: Tensor, a: Tensor, factor: Tensor, shift: Tensor, epilogue: Epilogue, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums over rows of `g'` and of `g' (a - mean)`, (d,) each.

    `g'` is `g`, or 0 where `activate` gave 0.
    """
    parts = _sums(len(a))
    plain, centred = _zeros(parts, a.shape[1]), _zeros(parts, a.shape[1])
    arrays = *_arrays(g, a, factor, shift), _rule(epilogue), *_arrays(mean), plain, centred
    loops = cpu_loops.activate_sums, cpu_loops.activate_sums_in_parts
    _over_parts(*loops, parts, len(a), *arrays)
    return _added(plain), _added(centred)


def activate_backward(
    g: Tensor,
    a: Tensor,
    factor: Tensor,
    shift: Tensor,
    epilogue: Epilogue,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """`factor g' + slope a + offset`, (n, d), with `g'` as in `activate_sums`."""
    ga = _empty_like(a)
    arrays = *_arrays(g, a, factor, shift), _rule(epilogue), *_arrays(slope, offset, ga)
    loops = cpu_loops.activate_backward, cpu_loops.activate_backward_in_parts
    _over_rows(*loops, len(a), *arrays)
    return ga


def collate(
    rows: Tensor,
    *,
    nodes: Tensor,
    edges: Tensor,
    ends: Tensor,
    node_offsets: Tensor,
    edge_offsets: Tensor,
) -> tuple[Tensor, ...]:
    """`reference.collate` in one pass over the graphs instead of a dozen, and without sorting.

    Tensors are contiguous, and row numbers are not checked again.
    """
    packed = (nodes, edges, ends, node_offsets, edge_offsets)
    arrays = cpu_loops.collate(rows.numpy(), *(tensor.numpy() for tensor in packed))
    return tuple(map(torch.from_numpy, arrays))


def _empty_like(rows: Tensor) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    return tuple(_array(tensor.detach().contiguous()) for tensor in tensors)


def _array(tensor: Tensor) -> NDArray[Any]:
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


# numpy adds up a few rows in a fraction of the time that PyTorch needs to begin
def _zeros(*shape: int) -> Floats:
    return np.zeros(shape, dtype=np.float32)


def _added(parts: Floats) -> Tensor:
    return torch.from_numpy(parts.sum(0))


def _rule(epilogue: Epilogue) -> Ints:
    return np.array([epilogue.relu, *epilogue.seed_halves, epilogue.threshold], dtype=np.int64)


def _sums(n: int) -> int:
    return -(-n // _ROWS_PER_SUM)


def _over_rows(
    loop: Callable[..., None], in_parts: Callable[..., None], n: int, *arrays: Any
) -> None:
    """Run a loop whose rows do not depend on one another."""
    _over_parts(loop, in_parts, min(torch.get_num_threads(), n), n, *arrays)


def _over_parts(
    loop: Callable[..., None], in_parts: Callable[..., None], parts: int, n: int, *arrays: Any
) -> None:
    """Run a loop over `n` rows in `parts`, on as many threads as PyTorch uses."""
    threads = torch.get_num_threads()
    if threads == 1:
        # no team of threads at all: a process that has had one must not fork
        for part in range(parts):
            loop(part, part * n // parts, (part + 1) * n // parts, *arrays)
    else:
        numba.set_num_threads(min(threads, _most_threads()))
        in_parts(parts, n, *arrays)


@cache
def _most_threads() -> int:
    """Most threads numba has."""
    threads = torch.get_num_threads()
    most: int = numba.get_num_threads()
    # that started numba's threads, and as both use one OpenMP runtime, PyTorch's number with them
    torch.set_num_threads(threads)
    return most
