"""Batch norm with the ReLU and dropout behind it: one pass over the rows, and two passes backward.

Several processes may share the rows of a batch; their statistics are then those of all rows.
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
from molhpft.kernels.dispatch import Gradients, Kernels, Operation
from molhpft.kernels.reference import Epilogue

_is_shared = False


@contextmanager
def shared_rows() -> Iterator[None]:
    """In this block batch norms take their statistics from the rows of all processes.

    Every process must run the same batch norms in the same order.
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


def sum_over_processes(*tensors: Tensor) -> list[Tensor]:
    """Each of some tensors of one dtype added up over all processes; differentiable."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    total: Tensor = _AllReduce.apply(flat)  # type: ignore[no-untyped-call]
    parts = torch.split(total, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


class _AllReduce(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        # the results of all processes hold what one process adds
        return _AllReduce.apply(*gradients)  # type: ignore[no-untyped-call]


def shared_moments(mean: Tensor, variance: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of the rows of all processes, and their number, from this one's."""
    weighted, count = sum_over_processes(mean * rows, mean.new_full((), rows))
    overall = weighted / count
    (squares,) = sum_over_processes((variance + (mean - overall).square()) * rows)
    return overall, squares / count, count


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

    def line(self, weight: Tensor, bias: Tensor, epilogue: Epilogue) -> tuple[Tensor, Tensor]:
        """`factor` and `shift` of `Kernels.activate`, (d,) each, the epilogue's scale included."""
        factor = weight * self.inverse * epilogue.scale
        return factor, torch.addcmul(bias * epilogue.scale, self.mean, factor, value=-1)


def has_statistics(norm: nn.Module, *, rows: int) -> TypeGuard[nn.BatchNorm1d]:
    """Whether `statistics` serves a batch norm of so many rows.

    It serves PyTorch's plain `BatchNorm1d` with weights and running statistics, from two rows on.
    """
    return type(norm) is nn.BatchNorm1d and norm.affine and norm.track_running_stats and rows > 1


def statistics(a: Tensor, norm: nn.BatchNorm1d, kernels: Kernels) -> Statistics:
    """Statistics of a batch norm for rows `a` (n, d); moves its running ones in training mode."""
    if not norm.training:
        return Statistics(*_running(norm), norm.eps, of_batch=False)
    shared = is_shared()
    with torch.no_grad():
        mean, variance = kernels.moments(a)
        rows: Tensor | int = len(a)
        if shared:
            mean, variance, rows = shared_moments(mean, variance, len(a))
        _move_running(norm, mean, variance * (rows / (rows - 1)))
    return Statistics(mean, variance, norm.eps, of_batch=True, rows=rows, shared=shared)


def shared_batch_norm(a: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """`norm(a)` in training mode in plain PyTorch, with the statistics of all processes' rows."""
    a = a.to(norm.weight.dtype)
    mean, variance, rows = shared_moments(*_moments(a), len(a))
    with torch.no_grad():
        _move_running(norm, mean, variance * (rows / (rows - 1)))
    return _normalised(a, mean, variance + norm.eps, norm.weight, norm.bias)


def _running(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(norm.running_mean), torch.as_tensor(norm.running_var)


def _move_running(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    count = torch.as_tensor(norm.num_batches_tracked).add_(1)
    momentum = 1 / count.item() if norm.momentum is None else norm.momentum
    for running, new in zip(_running(norm), (mean, variance), strict=True):
        running.lerp_(new, momentum)


def _moments(a: Tensor) -> tuple[Tensor, Tensor]:
    mean = a.mean(0)
    return mean, (a - mean).square().mean(0)


def _normalised(a: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (a - mean) * variance.rsqrt() * weight + bias


def normalise_operation(
    norm: nn.BatchNorm1d, stats: Statistics, epilogue: Epilogue, kernels: Kernels
) -> Operation:
    """Batch norm with given statistics, then its epilogue, of rows, weight and bias.

    With `x = (a - mean) / std` and `g'` the gradient behind ReLU and dropout, `gbias = sum g'`,
    `gweight = sum g' x` and `ga = weight / std (g' - gbias / n - x gweight / n)`, without the last
    two terms where the statistics are constants.
    """
    factor, shift = stats.line(norm.weight.detach(), norm.bias.detach(), epilogue)

    def plain(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        a, mean, variance = a.to(weight.dtype), stats.mean, stats.variance
        if stats.of_batch:
            mean, variance = _moments(a)
        if stats.shared:
            mean, variance, _ = shared_moments(mean, variance, len(a))
        h = _normalised(a, mean, variance + stats.eps, weight, bias)
        return reference.apply_epilogue(h, epilogue)

    def forward(a: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return kernels.activate(a, factor, shift, epilogue)

    def backward(g: Tensor, wanted: tuple[bool, ...], a: Tensor, *_: Tensor) -> Gradients:
        mean, inverse = stats.mean, stats.inverse
        plain, centred = kernels.activate_sums(g, a, factor, shift, epilogue, mean)
        slope, offset = torch.zeros_like(mean), torch.zeros_like(mean)
        if stats.of_batch:
            sums = sum_over_processes(plain, centred) if stats.shared else (plain, centred)
            per_row = factor / -stats.rows
            slope = per_row * sums[1] * inverse.square()
            offset = torch.addcmul(per_row * sums[0], slope, mean, value=-1)
        ga = kernels.activate_backward(g, a, factor, shift, epilogue, slope, offset)
        return ga, centred * inverse * epilogue.scale, plain * epilogue.scale

    return Operation(plain, forward, backward)
