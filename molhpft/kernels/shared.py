"""Sums over the rows of a batch that several processes share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

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
