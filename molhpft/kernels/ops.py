"""The operations that graph encoders are made of, each by the fastest means its tensors allow.

Every function asks `dispatch` for fused kernels, falls back to `reference` where there are none,
and otherwise calls an `Operation`: the fused result, its fused gradient, and its plain equal, from
which derivatives of derivatives come.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.kernels import reference
from molhpft.kernels.batch_norm import (
    has_statistics,
    is_shared,
    normalise_operation,
    shared_batch_norm,
    statistics,
)
from molhpft.kernels.dispatch import Gradients, Kernels, Operation, collate_kernel, kernels_for
from molhpft.kernels.reference import CSRGraph, Epilogue, apply_epilogue, draw_epilogue
from molhpft.kernels.tied_rows import (
    TiedRows,
    remember_heard,
    remember_mapped,
    remember_row_sums,
    row_sums_of,
    tied_rows_of,
)

# with so many more sums than rows in the table, products of the table are the faster ones
_ROWS_PER_TABLE_ROW = 4
_MOST_DIFFERENT = 0.9  # of all rows; with more, copies take as long as shorter products save
_STEP = 32  # oneDNN sees only numbers of rows that are multiples of it, or below it


def convolve(x: Tensor, bond: Tensor, root: Tensor, graph: CSRGraph) -> Tensor:
    """One step of OGB's graph convolution; see `reference.convolve`."""
    kernels = kernels_for(bond, root, graph.norm, rows=x)
    if kernels is None:
        return reference.convolve(x, bond, root, graph)
    result = Operation(
        reference=partial(reference.convolve, graph=graph),
        forward=partial(kernels.convolve, graph=graph),
        backward=lambda g, wanted, x, bond, root: kernels.convolve_backward(
            g, x, bond, root, graph
        ),
    )(x, bond, root)
    remember_heard(result, x, graph)
    return result


def propagate(x: Tensor, graph: CSRGraph) -> Tensor:
    """A linear graph convolution; see `reference.propagate`."""
    kernels = kernels_for(graph.norm, rows=x)
    if kernels is None:
        return reference.propagate(x, graph)
    return Operation(
        reference=partial(reference.propagate, graph=graph),
        forward=partial(kernels.propagate, graph=graph),
        # the matrix is symmetric
        backward=lambda g, wanted, x: (kernels.propagate(g, graph),),
    )(x)


def embed(rows: Tensor, table: Tensor) -> Tensor:
    """Sums of rows of a table; see `reference.embed`."""
    kernels = kernels_for(table)
    if kernels is None:
        return reference.embed(rows, table)
    h = Operation(
        reference=partial(reference.embed, rows),
        forward=lambda table: F.embedding_bag(rows, table, mode="sum"),
        backward=lambda g, wanted, table: (kernels.embed_backward(g, rows, len(table)),),
    )(table)
    remember_row_sums(h, rows, table)
    return h


def linear(h: Tensor, weight: Tensor, bias: Tensor, *, for_weights: bool = False) -> Tensor:
    """`h weight^T + bias`, (n, m), for rows `h` (n, k), `weight` (m, k) and `bias` (m,).

    Under autocast the three products of training are computed in its dtype, from factors rounded to
    it. The result has that dtype too, as PyTorch's own has it; weights and their gradients do not.

    Args:
        h: (n, k).
        weight: (m, k).
        bias: (m,).
        for_weights: whether gradients are wanted in weights alone, those that `h` was computed with
            included. As where no gradients are recorded, rows that are known to be equal are then
            multiplied once, on the CPU. The gradient of all stands in the first of them, and that
            of an `h` that `embed` gave goes straight to its table.
    """
    kernels = kernels_for(weight, bias, rows=h)
    if kernels is None:
        return F.linear(h, weight, bias)
    dtype = _autocast_dtype(h.device.type)
    product_of = _linear(dtype)
    if not for_weights and torch.is_grad_enabled():
        return product_of(h, weight, bias)
    sums, tied = row_sums_of(h), tied_rows_of(h)
    if sums and len(h) >= _ROWS_PER_TABLE_ROW * len(sums.table):
        result = _linear_of_row_sums(sums.rows, kernels, dtype)(sums.table, weight, bias)
    elif tied is not None and _are_few(tied, h):
        different = product_of(h.index_select(0, tied.first), weight, bias)
        result = different.index_select(0, tied.group)
    else:
        result = product_of(h, weight, bias)
    remember_mapped(result, h)
    return result


def _are_few(tied: TiedRows, h: Tensor) -> bool:
    """Whether so many rows are equal that it is worth multiplying only different ones."""
    on_cpu = h.device.type == "cpu"
    return on_cpu and len(tied) == len(h) and len(tied.first) < _MOST_DIFFERENT * len(h)


def normalise(a: Tensor, norm: nn.Module, *, relu: bool, dropout: float, training: bool) -> Tensor:
    """A norm, ReLU and dropout of rows `a` (n, d).

    Args:
        a: (n, d).
        norm: a batch norm, whose own mode says which statistics it uses, and whose running
            statistics move in training mode; forward hooks on it run only where nothing is fused.
            Any other module of rows, such as a layer norm or the identity, is called as it is.
        relu: whether there is a ReLU.
        dropout: probability of dropping an entry.
        training: whether there is dropout.

    Raises:
        ValueError: `dropout` is no probability, or a single row has no statistics.
    """
    epilogue = draw_epilogue(relu=relu, dropout=dropout if training else 0.0)
    if not isinstance(norm, _BatchNorm):
        return _activate(norm(a), epilogue)
    if not has_statistics(norm, rows=2 if is_shared() else len(a)):
        return reference.normalise(a, norm, epilogue)
    kernels = kernels_for(norm.weight, norm.bias, rows=a)
    if kernels is None:
        if is_shared() and norm.training:
            return apply_epilogue(shared_batch_norm(a, norm), epilogue)
        return reference.normalise(a, norm, epilogue)
    operation = normalise_operation(norm, statistics(a, norm, kernels), epilogue, kernels)
    result = operation(a, norm.weight, norm.bias)
    if not epilogue.threshold:
        remember_mapped(result, a)
    return result


def collate(rows: Tensor, **packed: Tensor) -> tuple[Tensor, ...]:
    """Some of many packed graphs as one batch; see `reference.collate` for what `packed` has."""
    kernel = collate_kernel(packed["nodes"].device)
    return (kernel or reference.collate)(rows, **packed)


def _activate(h: Tensor, epilogue: Epilogue) -> Tensor:
    """ReLU and dropout of rows `h` (n, d), which are a line of factor 1 before them."""
    factor = torch.full(h.shape[1:], epilogue.scale, device=h.device)
    kernels = kernels_for(factor, rows=h) if epilogue.threshold else None
    if kernels is None:  # without dropout, PyTorch's own ReLU is as fast
        return apply_epilogue(h, epilogue)
    zero = torch.zeros_like(factor)
    return Operation(
        reference=partial(apply_epilogue, epilogue=epilogue),
        forward=lambda h: kernels.activate(h, factor, zero, epilogue),
        backward=lambda g, wanted, h: (
            kernels.activate_backward(g, h, factor, zero, epilogue, zero, zero),
        ),
    )(h)


# The linear layer


def _autocast_dtype(device: str) -> torch.dtype | None:
    """Precision of products on `device` ("cpu", "cuda"); None for that of their factors."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _linear(dtype: torch.dtype | None) -> Operation:
    """`h weight^T + bias` of h, weight and bias, which are rounded to `dtype` unless it is None."""

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.to(dtype or tensor.dtype)

    def plain(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(rounded(h), rounded(weight), rounded(bias))

    def forward(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return product(rounded(h), rounded(weight), rounded(bias))

    def backward(
        g: Tensor, wanted: tuple[bool, ...], h: Tensor, weight: Tensor, bias: Tensor
    ) -> Gradients:
        return (
            product(g, rounded(weight).T).to(h.dtype) if wanted[0] else None,
            inner_product(g, rounded(h)).to(weight.dtype) if wanted[1] else None,
            g.sum(0, dtype=weight.dtype) if wanted[2] else None,
        )

    return Operation(plain, forward, backward)


def _linear_of_row_sums(rows: Tensor, kernels: Kernels, dtype: torch.dtype | None) -> Operation:
    """`S table weight^T + bias` of table, weight and bias, where `S` sums `rows` of the table.

    All products are of the table's length: `S (table weight^T)`, and with `S^T g` for a gradient
    `g` of the result `(S^T g) weight` is that of the table and `(S^T g)^T table` of the weight. So
    is the first layer of an encoder, which reads embedded atoms. The result has `dtype`; the
    products are so short that there is no need to round their factors.
    """

    def plain(table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        result = F.linear(reference.embed(rows, table), weight, bias)
        return result.to(dtype or result.dtype)

    def forward(table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        sums = F.embedding_bag(rows, product(table, weight), mode="sum").add_(bias)
        return sums.to(dtype or sums.dtype)

    def backward(
        g: Tensor, wanted: tuple[bool, ...], table: Tensor, weight: Tensor, bias: Tensor
    ) -> Gradients:
        sums = kernels.embed_backward(g, rows, len(table))
        return product(sums, weight.T), inner_product(sums, table), g.sum(0, dtype=weight.dtype)

    return Operation(plain, forward, backward)


# Products. PyTorch's own float32 products on x86 go through MKL, which uses no more than AVX2 on
# processors other than Intel's: those with AVX-512 are twice as fast by oneDNN, which PyTorch
# brings too, others are not. But oneDNN compiles a program for each shape, which takes a good part
# of the time of the product itself, and stores a thousand of them at more than half a megabyte
# each. As every batch of graphs has another number of nodes, it sees only some of all numbers.


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """`a b^T + bias`, (n, m), for `a` (n, k), `b` (m, k) and `bias` (m,), in their own dtype."""
    missing = -len(a) % _STEP
    if len(a) < _STEP or not missing or not _compiles(a):
        return _product(a, b, bias)
    return _product(F.pad(a, (0, 0, 0, missing)), b, bias)[: len(a)]


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """`a^T b`, (k, m), for `a` (n, k) and `b` (n, m), in their own dtype or float32."""
    # oneDNN takes a thousand times as long for columns of a wider matrix
    a, b = a.contiguous(), b.contiguous()
    even = len(a) // _STEP * _STEP if _compiles(a) else len(a)
    whole = _product(a[:even].T, b[:even].T) if even else a.new_zeros(a.shape[1], b.shape[1])
    if even == len(a):
        return whole
    return torch.addmm(whole.float(), a[even:].float().T, b[even:].float())


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    onednn = _onednn()
    if onednn and a.dtype == torch.float32 and a.device.type == "cpu" and a.numel() and b.numel():
        result: Tensor = onednn(a, b, bias, "none", [], "")
        return result
    with torch.autocast(a.device.type, enabled=False):  # which would round the factors
        return F.linear(a, b, bias)


def _compiles(a: Tensor) -> bool:
    """Whether products of `a` go through oneDNN; those of bfloat16 do so in PyTorch itself."""
    few_bits = a.dtype in (torch.float32, torch.bfloat16)
    return a.device.type == "cpu" and few_bits and _onednn() is not None


@cache
def _onednn() -> Callable[..., Any] | None:
    # no function of PyTorch's that is documented multiplies float32 by oneDNN
    backends = torch.backends.mkl, torch.backends.mkldnn
    if all(backend.is_available() for backend in backends) and _has_avx512():
        return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None


def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
