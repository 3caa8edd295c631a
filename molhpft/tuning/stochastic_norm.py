"""Stochastic norm (Kou et al., NeurIPS 2020): batch norm that at times uses running statistics.

In training each channel is normalised by the batch or, by a coin tossed for each channel and step,
by the running statistics, which are those of pretraining at first:
`x_hat = (1 - s) x_hat_running + s x_hat_batch`. Evaluation is that of batch norm.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.core.annotations import Float
from molhpft.core.network import Chain
from molhpft.tuning.distributed import ALONE, Machine


class StochasticNorm(_BatchNorm):
    """A batch norm's own weights and statistics, normalising by either statistics.

    Args:
        norm: a batch norm with running statistics, whose tensors are shared.
        running: probability by which a channel is normalised by its running statistics.
    """

    def __init__(self, norm: _BatchNorm, *, running: float) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self.running = running
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.train(norm.training)

    def forward(self, input: Float[Tensor, "rows d ..."]) -> Float[Tensor, "rows d ..."]:
        """Normalised rows, and running statistics that move with the batch as ever."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        by_batch = super().forward(input)
        by_running = F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        shape = (1, -1, *[1] * (input.ndim - 2))
        coin = torch.rand(self.num_features, device=input.device).view(shape)
        return torch.where(coin < self.running, by_running, by_batch)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of positions behind the channels."""


@contextmanager
def stochastic_norm(backbone: Chain, running: float, *, machine: Machine = ALONE) -> Iterator[None]:
    """A block in which the batch norms of a backbone are stochastic norms; 0 changes nothing.

    Raises:
        ValueError: there is no batch norm with running statistics, or several processes share a
            batch.
    """
    if running:
        check_norms(backbone)
    if running and machine.processes > 1:
        raise ValueError(
            "stochastic norm takes the statistics of a whole batch, which several processes share; "
            f"set devices: 1, got {machine.processes} processes"
        )
    places = list(_norms(backbone)) if running else []
    try:
        for parent, name, norm in places:
            setattr(parent, name, StochasticNorm(norm, running=running))
        yield
    finally:
        for parent, name, norm in places:
            norm.train(getattr(parent, name).training)
            setattr(parent, name, norm)


def check_norms(backbone: Chain) -> None:
    """Refuse a backbone that has no batch norm to make stochastic.

    Raises:
        ValueError: it has none.
    """
    if not any(True for _ in _norms(backbone)):
        raise ValueError(
            "running_statistics are those of batch norm, and the backbone has no batch norm with "
            "running statistics; leave running_statistics out"
        )


def _norms(backbone: Chain) -> Iterator[tuple[nn.Module, str, _BatchNorm]]:
    """Parent, name and module of every batch norm with running statistics that can be trained.

    The frozen base of side tuning, whose weights are buffers, always evaluates.
    """
    for parent in backbone.modules():
        for name, child in parent.named_children():
            is_frozen = child._buffers.get("weight") is not None
            if isinstance(child, _BatchNorm) and child.track_running_stats and not is_frozen:
                yield parent, name, child
