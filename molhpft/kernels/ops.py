"""The operations that graph encoders are made of, by the fastest means their tensors allow."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.kernels import reference
from molhpft.kernels.autograd import Gradients, Wanted, apply
from molhpft.kernels.batch_norm import Normalise, batch_norm, has_statistics, is_shared, statistics
from molhpft.kernels.dispatch import Kernels, kernels_for
from molhpft.kernels.products import (
    Linear,
    LinearOfSums,
    Summands,
    autocast_dtype,
    note_summands,
    summands_of,
)
from molhpft.kernels.reference import Edges, drawn

# so many times more sums than rows in the table, and products of the table are worth it
_WORTH = 4


def linear(h: Tensor, weight: Tensor, bias: Tensor, *, around: bool = False) -> Tensor:
    """`h weight^T + bias`, (n, m), for rows `h` (n, k), `weight` (m, k) and `bias` (m,).

    Under autocast the three products of training are taken in its dtype, from factors rounded to
    it. The result has that dtype too, as PyTorch's own has it; weights and their gradients do not.

    Args:
        h: (n, k).
        weight: (m, k).
        bias: (m,).
        around: whether the gradient may go around an `h` that `embed` gave, straight to the table:
            fewer and shorter products, but nothing can be differentiated in `h` then.
    """
    kernels = kernels_for(weight, bias, rows=h)
    if kernels is None:
        return F.linear(h, weight, bias)
    dtype = autocast_dtype(h.device.type)
    sums = summands_of(h) if around or not torch.is_grad_enabled() else None
    if sums and len(h) >= _WORTH * len(sums.table):
        return apply(LinearOfSums(kernels, dtype, sums.rows), sums.table, weight, bias)
    return apply(Linear(dtype), h, weight, bias)


def convolve(x: Tensor, bond: Tensor, root: Tensor, edges: Edges) -> Tensor:
    """One step of OGB's graph convolution; see `reference.convolve`."""
    kernels = kernels_for(bond, root, edges.norm, rows=x)
    if kernels is None:
        return reference.convolve(x, bond, root, edges)
    return apply(_Convolve(kernels, edges), x, bond, root)


def propagate(x: Tensor, edges: Edges) -> Tensor:
    """A linear graph convolution; see `reference.propagate`."""
    kernels = kernels_for(edges.norm, rows=x)
    if kernels is None:
        return reference.propagate(x, edges)
    return apply(_Propagate(kernels, edges), x)


def embed(rows: Tensor, table: Tensor) -> Tensor:
    """Sums of rows of a table; see `reference.embed`."""
    kernels = kernels_for(table)
    if kernels is None:
        return reference.embed(rows, table)
    h = apply(_Embed(kernels, rows), table)
    note_summands(h, Summands(rows, table))
    return h


def normalise(a: Tensor, norm: nn.Module, *, relu: bool, dropout: float, training: bool) -> Tensor:
    """Batch norm, ReLU and dropout of rows `a` (n, d).

    Args:
        a: (n, d).
        norm: a batch norm; its own mode says which statistics it takes, and in training mode its
            running statistics move. Forward hooks on it are run only where nothing is fused.
        relu: whether there is a ReLU.
        dropout: probability of dropping an entry.
        training: whether there is dropout.

    Raises:
        ValueError: `dropout` is no probability, or a single row has no statistics.
    """
    finish = drawn(relu=relu, dropout=dropout if training else 0.0)
    if not has_statistics(norm, rows=2 if is_shared() else len(a)):
        return reference.normalise(a, norm, finish)
    kernels = kernels_for(norm.weight, norm.bias, rows=a)
    if kernels is None:
        if is_shared() and norm.training:
            return reference.finished(batch_norm(a, norm), finish)
        return reference.normalise(a, norm, finish)
    found = statistics(a, norm, kernels)
    line = found.line(norm.weight.detach(), norm.bias.detach(), finish)
    return apply(Normalise(kernels, finish, found, line), a, norm.weight, norm.bias)


@dataclass(frozen=True)
class _Convolve:
    kernels: Kernels
    edges: Edges

    def reference(self, *tensors: Tensor) -> Tensor:
        x, bond, root = tensors
        return reference.convolve(x, bond, root, self.edges)

    def forward(self, *tensors: Tensor) -> Tensor:
        x, bond, root = tensors
        return self.kernels.convolve(x, bond, root, self.edges)

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        x, bond, root = tensors
        return self.kernels.convolve_backward(g, x, bond, root, self.edges)


@dataclass(frozen=True)
class _Propagate:
    kernels: Kernels
    edges: Edges

    def reference(self, *tensors: Tensor) -> Tensor:
        return reference.propagate(tensors[0], self.edges)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.kernels.propagate(tensors[0], self.edges)

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        # the matrix is symmetric
        return (self.kernels.propagate(g, self.edges),)


@dataclass(frozen=True)
class _Embed:
    kernels: Kernels
    rows: Tensor

    def reference(self, *tensors: Tensor) -> Tensor:
        return reference.embed(self.rows, tensors[0])

    def forward(self, *tensors: Tensor) -> Tensor:
        return F.embedding_bag(self.rows, tensors[0], mode="sum")

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        return (self.kernels.embed_backward(g, self.rows, len(tensors[0])),)
