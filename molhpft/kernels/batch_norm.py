"""Batch norm, ReLU and dropout in one pass over the rows, and in two passes backward.

Sums over the rows of a batch that several processes share.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd import Function

from molhpft.kernels import reference
from molhpft.kernels.autograd import Gradients, Wanted
from molhpft.kernels.dispatch import Kernels
from molhpft.kernels.reference import Finish

_is_shared = False


@contextmanager
def shared_rows() -> Iterator[None]:
    """In this block batch norms take their statistics from the rows of all processes.

    Every process has to go through the same ones in the same order.
    """
    global _is_shared
    before, _is_shared = _is_shared, True
    try:
        yield
    finally:
        _is_shared = before


def is_shared() -> bool:
    """Whether rows are those of several processes."""
    return _is_shared


def total(*sums: Tensor) -> list[Tensor]:
    """Some tensors of one dtype, each added up over all processes; differentiable."""
    flat = torch.cat([part.reshape(-1) for part in sums])
    added: Tensor = _Total.apply(flat)  # type: ignore[no-untyped-call]
    parts = torch.split(added, [part.numel() for part in sums])
    return [part.view_as(own) for part, own in zip(parts, sums, strict=True)]


def merged(mean: Tensor, variance: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of the rows of all processes, and their number, from our own's."""
    weighted, count = total(mean * rows, mean.new_full((), rows))
    whole = weighted / count
    (spread,) = total((variance + (mean - whole).square()) * rows)
    return whole, spread / count, count


class _Total(Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        added = own.clone()
        torch.distributed.all_reduce(added)
        return added

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # what one process adds, the results of all hold
        return _Total.apply(*gradients)  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Statistics:
    """What batch norm subtracts and divides by.

    Attributes:
        mean: (d,).
        variance: (d,), biased, without epsilon.
        eps: what is added to the variance.
        of_batch: whether they are those of the very rows to be normalised, and thus vary with them.
        rows: number of those rows, of all processes that share them.
        shared: whether other processes have some of them.
    """

    mean: Tensor
    variance: Tensor
    eps: float
    of_batch: bool
    rows: Tensor | int = 0
    shared: bool = False

    @cached_property
    def inverse(self) -> Tensor:
        """Inverse standard deviation, (d,)."""
        return (self.variance + self.eps).rsqrt()

    def line(self, weight: Tensor, bias: Tensor, finish: Finish) -> tuple[Tensor, Tensor]:
        """`factor` and `shift` of `kernels.activate`, (d,) each; the finish's scale is in them."""
        factor = weight * self.inverse * finish.scale
        return factor, torch.addcmul(bias * finish.scale, self.mean, factor, value=-1)


def has_statistics(norm: nn.Module, *, rows: int) -> TypeGuard[nn.BatchNorm1d]:
    """Whether `statistics` knows what a batch norm does with that many rows.

    It does for PyTorch's plain `BatchNorm1d` with weights and running statistics, and two rows.
    """
    return type(norm) is nn.BatchNorm1d and norm.affine and norm.track_running_stats and rows > 1


def statistics(a: Tensor, norm: nn.BatchNorm1d, kernels: Kernels) -> Statistics:
    """Statistics a batch norm takes for rows `a` (n, d); moves its running ones if it trains."""
    running = torch.as_tensor(norm.running_mean), torch.as_tensor(norm.running_var)
    if not norm.training:
        return Statistics(*running, norm.eps, of_batch=False)
    shared = is_shared()
    with torch.no_grad():
        mean, variance = kernels.moments(a)
        rows: Tensor | int = len(a)
        if shared:
            mean, variance, rows = merged(mean, variance, len(a))
        _move(norm, running, (mean, variance * (rows / (rows - 1))))
    return Statistics(mean, variance, norm.eps, of_batch=True, rows=rows, shared=shared)


def batch_norm(a: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """`norm(a)` in training mode in plain PyTorch, with the statistics of all processes' rows."""
    running = torch.as_tensor(norm.running_mean), torch.as_tensor(norm.running_var)
    a = a.to(norm.weight.dtype)
    mean, variance, rows = merged(*_moments(a), len(a))
    with torch.no_grad():
        _move(norm, running, (mean, variance * (rows / (rows - 1))))
    return _line(a, mean, variance + norm.eps, norm.weight, norm.bias)


def _moments(a: Tensor) -> tuple[Tensor, Tensor]:
    mean = a.mean(0)
    return mean, (a - mean).square().mean(0)


def _line(a: Tensor, mean: Tensor, spread: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (a - mean) * spread.rsqrt() * weight + bias


def _move(
    norm: nn.BatchNorm1d, running: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]
) -> None:
    count = torch.as_tensor(norm.num_batches_tracked).add_(1)
    momentum = 1 / count.item() if norm.momentum is None else norm.momentum
    for old, new in zip(running, found, strict=True):
        old.lerp_(new, momentum)


@dataclass(frozen=True)
class Normalise:
    """Batch norm with given statistics and its finish, differentiable in rows, weight and bias.

    Attributes:
        kernels: for the passes over the rows.
        finish: ReLU and dropout.
        statistics: what is subtracted and divided by.
        line: that of the statistics for the weight and bias, without a gradient.
    """

    kernels: Kernels
    finish: Finish
    statistics: Statistics
    line: tuple[Tensor, Tensor]

    def reference(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        a, weight, bias = tensors
        found = self.statistics
        a, mean, variance = a.to(weight.dtype), found.mean, found.variance
        if found.of_batch:
            mean, variance = _moments(a)
        if found.shared:
            mean, variance, _ = merged(mean, variance, len(a))
        return reference.finished(_line(a, mean, variance + found.eps, weight, bias), self.finish)

    def forward(self, *tensors: Tensor) -> Tensor:
        """See `fused.Operation`."""
        return self.kernels.activate(tensors[0], *self.line, self.finish)

    def backward(self, g: Tensor, wanted: Wanted, *tensors: Tensor) -> Gradients:
        """See `fused.Operation`.

        With `x = (a - mean) / std` and `g'` the gradient behind ReLU and dropout, `gbias = sum g'`,
        `gweight = sum g' x` and `ga = weight / std (g' - gbias / n - x gweight / n)`, without the
        last two terms where the statistics are constants.
        """
        a, (factor, shift) = tensors[0], self.line
        mean, inverse = self.statistics.mean, self.statistics.inverse
        plain, centred = self.kernels.activate_sums(g, a, factor, shift, self.finish, mean)
        if self.statistics.of_batch:
            sums = total(plain, centred) if self.statistics.shared else (plain, centred)
            share = factor / -self.statistics.rows
            slope = share * sums[1] * inverse.square()
            offset = torch.addcmul(share * sums[0], slope, mean, value=-1)
        else:
            slope, offset = torch.zeros_like(mean), torch.zeros_like(mean)
        ga = self.kernels.activate_backward(g, a, factor, shift, self.finish, slope, offset)
        scale = self.finish.scale
        return ga, centred * inverse * scale, plain * scale
