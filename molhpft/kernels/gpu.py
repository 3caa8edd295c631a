"""The fused kernels on a GPU, by triton; float32 or bfloat16, contiguous results.

Nothing here waits for the GPU. Results have the dtype of the rows they belong to, sums are float32;
a NaN in a gradient reaches all rows of a table whose rows are summed up.
"""

from typing import Any

import torch
from torch import Tensor

from molhpft.kernels import gpu_programs
from molhpft.kernels.gpu_programs import COLUMNS, KINDS, PART, ROWS
from molhpft.kernels.reference import CSRGraph, Epilogue


def convolve(x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph) -> Tensor:
    """See `reference.convolve`."""
    out = _empty_like(x)
    tensors = *_contiguous(x, bond, root), *graph.for_kernels, out
    _launch(gpu_programs.convolve, _tiles(x, ROWS), *tensors, *x.shape)
    return out


def convolve_backward(
    g: Tensor, x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `convolve` in `x`, `bond` and `root` for the gradient `g` of its result."""
    g, x, bond, root = _contiguous(g, x, bond, root)
    (n, d), (kinds, _), count = x.shape, bond.shape, len(graph.source)
    gx, groot = torch.empty_like(x), _sums(x, _parts(n, ROWS), d)
    tensors = g, x, bond, root, *graph.for_kernels, gx, groot
    _launch(gpu_programs.convolve_backward, _tiles(x, ROWS), *tensors, n, d)
    gbond = _sums(x, _parts(count, PART), kinds, d)
    tensors = g, x, bond, *_contiguous(graph.source, graph.target, graph.kind, graph.norm), gbond
    grid = *_grid(count, d, PART), _parts(kinds, KINDS)
    _launch(gpu_programs.bond_sums, grid, *tensors, count, kinds, d)
    return gx, gbond.sum(0).to(bond.dtype), groot.sum(0).to(root.dtype)


def propagate(x: Tensor, graph: CSRGraph) -> Tensor:
    """See `reference.propagate`."""
    out = _empty_like(x)
    pointer, source, _, norm, degree = graph.for_kernels
    tensors = *_contiguous(x), pointer, source, norm, degree, out
    _launch(gpu_programs.propagate, _tiles(x, ROWS), *tensors, *x.shape)
    return out


def embed_backward(g: Tensor, rows: Tensor, length: int) -> Tensor:
    """Gradient of the table of `reference.embed`, float32 (length, d), for that of its result."""
    (n, d), columns = g.shape, rows.shape[1]
    gtable = _sums(g, _parts(n, PART), length, d)
    grid = *_grid(n, d, PART), _parts(length, KINDS)
    _launch(gpu_programs.table_sums, grid, *_contiguous(g, rows), gtable, n, columns, length, d)
    return gtable.sum(0)


def moments(a: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the columns of `a` (n, d), float32 (d,) each."""
    n, d = a.shape
    means, squares = _sums(a, _parts(n, PART), d), _sums(a, _parts(n, PART), d)
    _launch(gpu_programs.moments, _tiles(a, PART), *_contiguous(a), means, squares, n, d)
    first = torch.arange(len(means), device=a.device) * PART.value
    fractions = ((n - first).clamp(max=PART.value) / n)[:, None]
    mean = (fractions * means).sum(0)
    return mean, squares.sum(0) / n + (fractions * (means - mean).square()).sum(0)


def activate(a: Tensor, factor: Tensor, shift: Tensor, epilogue: Epilogue) -> Tensor:
    """See `cpu.activate`."""
    out = _empty_like(a)
    rule = _rule(a, epilogue)
    _launch(gpu_programs.activate, _tiles(a, ROWS), *_contiguous(a, factor, shift), out, *rule)
    return out


def activate_sums(
    g: Tensor, a: Tensor, factor: Tensor, shift: Tensor, epilogue: Epilogue, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """See `cpu.activate_sums`; float32."""
    n, d = a.shape
    plain, centred = _sums(a, _parts(n, PART), d), _sums(a, _parts(n, PART), d)
    tensors = *_contiguous(g, a, factor, shift, mean), plain, centred
    _launch(gpu_programs.activate_sums, _tiles(a, PART), *tensors, *_rule(a, epilogue))
    return plain.sum(0), centred.sum(0)


def activate_backward(
    g: Tensor,
    a: Tensor,
    factor: Tensor,
    shift: Tensor,
    epilogue: Epilogue,
    slope: Tensor,
    offset: Tensor,
) -> Tensor:
    """See `cpu.activate_backward`."""
    ga = _empty_like(a)
    tensors = *_contiguous(g, a, factor, shift, slope, offset), ga
    _launch(gpu_programs.activate_backward, _tiles(a, ROWS), *tensors, *_rule(a, epilogue))
    return ga


def _empty_like(rows: Tensor) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().contiguous() for tensor in tensors)


def _sums(like: Tensor, *shape: int) -> Tensor:
    """Room for partial sums; programs fill all of it."""
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _rule(a: Tensor, epilogue: Epilogue) -> tuple[int, ...]:
    """Arguments from `n` on that the programs with an epilogue fractions."""
    low, high = epilogue.seed_halves
    # as a signed number: one that needs 64 bits would be another type, and another compilation
    low = low - 2**32 if low >= 2**31 else low
    changing = len(a), low, high, epilogue.threshold
    return *changing, a.shape[1], epilogue.relu, epilogue.threshold > 0


def _parts(n: int, size: Any) -> int:
    count: int = -(-n // size.value)
    return count


def _grid(n: int, d: int, rows: Any) -> tuple[int, int]:
    return _parts(n, rows), _parts(d, COLUMNS)


def _tiles(result: Tensor, rows: Any) -> tuple[int, int]:
    return _grid(len(result), result.shape[1], rows)


def _launch(program: Any, grid: tuple[int, ...], *arguments: Any) -> None:
    """Start a program for each place of the grid, on the device of its first argument."""
    if 0 in grid:
        return  # there is nothing to compute, and a GPU refuses an empty grid
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        # products and sums are fused nowhere, so that the sign of `factor a + shift`, which a ReLU
        # asks for, is the same in every program
        program[grid](*arguments, enable_fp_fusion=False)
