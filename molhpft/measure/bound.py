"""Proposition 1 of Ren et al. (2023) with numbers in it: how far features can move at most.

Step by step `z_{t+1} - z_t = -lr/N sum_i K_t(x, x_i) (grad_z q_t(x_i))^T (p_t - y)(x_i)`. Bounding
every factor of every step gives `E||z_T - z_0|| <= c E||y - p_0||` with `c = lr T beta gamma`.

Measured: both expectations, over the given snapshots; beta, the largest `||K(x, x')||_F`, and
gamma, the largest `||grad_z q(x)||_F`, over the given probe examples and networks.

Assumed: that no example, and no network between those given, has a larger kernel or head; that the
mean energy `E||y - p_t||` does not rise while finetuning; that the network is trained as it is
measured, without dropout and with statistics of batch norm that stay; that nothing but the loss
moves it, no decay and no anchor; that steps are plain gradient descent, small enough to be first
order, at rates of the backbone up to `lr`. Momentum m moves up to 1 / (1 - m) times as far; Adam's
steps are not bounded by it at all. Batches count like steps of everything, as each example comes
once an epoch. The loss of independent labels averages over labels rather than examples, which only
lowers the left side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.core.objectives import Objective
from molhpft.core.snapshot import Snapshot
from molhpft.measure.direction import direction_norms
from molhpft.measure.energy import initial_energy
from molhpft.measure.jacobian import backbone_weights, differentiable, features, row_gradient
from molhpft.measure.shift import shift


@dataclass(frozen=True)
class Bound:
    """Both sides of Proposition 1 and what the right one is made of.

    Attributes:
        distance: left side, mean `||z_T - z_0||`.
        energy: mean `||p_0 - y||`, the average initial energy.
        beta: largest `||K(x, x')||_F`.
        gamma: largest `||grad_z q(x)||_F`.
        constant: `c = lr T beta gamma`.
        most: right side, `c` times `energy`.
    """

    distance: float
    energy: float
    beta: float
    gamma: float
    constant: float
    most: float

    @property
    def holds(self) -> bool:
        """Whether the features moved no farther than the bound allows."""
        return self.distance <= self.most


def proposition_1(
    before: Snapshot,
    after: Snapshot,
    objective: Objective,
    *,
    lr: float,
    steps: int,
    beta: float,
    gamma: float,
) -> Bound:
    """Both sides of `E||z_T - z_0|| <= c E||y - p_0||`; see the file for what is assumed.

    Args:
        before: of the training split, taken just before finetuning.
        after: of the same examples, taken after it.
        objective: the finetuning objective, without label smoothing.
        lr: the highest learning rate of a stage of the backbone.
        steps: T, those of the finetuning that `after` comes from, not its epochs.
        beta: `kernel_bound` of the networks at both ends, and of any between.
        gamma: `head_bound` of the same networks.

    Raises:
        ValueError: the snapshots are not of the same examples.
    """
    constant = lr * steps * beta * gamma
    energy = initial_energy(before, objective)
    return Bound(
        distance=shift(before.features, after.features).distance,
        energy=energy,
        beta=beta,
        gamma=gamma,
        constant=constant,
        most=constant * energy,
    )


def kernel_bound(
    networks: Sequence[Network], probe: Sequence[Batch], *, vectors: Tensor | None = None
) -> float:
    """beta: the largest `||K(x, x')||_F` over networks and pairs of probe examples.

    The largest of all pairs is that of an example with itself (Cauchy-Schwarz for
    `||J J'^T||_F`), so only those blocks are measured, each with r backward passes and r gradients
    in memory.

    Args:
        networks: for example those before and after finetuning.
        probe: examples, in small batches; a pass costs as much as the batch of its example.
        vectors: two or more independent `unit_vectors` (r, d), which estimate the square of each
            norm without bias; None takes all d directions and is exact.

    Raises:
        ValueError: there is no network or example, a backbone has no weights, or there are fewer
            than two vectors.
    """
    _check(networks, probe)
    if vectors is not None and len(vectors) < 2:
        raise ValueError(f"an estimate needs at least 2 vectors, got {len(vectors)}")
    norms = [_block_norms(network, batch, vectors) for network in networks for batch in probe]
    return torch.cat(norms).max().item()


def head_bound(
    networks: Sequence[Network], probe: Sequence[Batch], *, vectors: Tensor | None = None
) -> float:
    """gamma: the largest `||grad_z q(x)||_F` over networks and probe examples.

    Args:
        networks: for example those before and after finetuning.
        probe: examples.
        vectors: as for `direction_norms`; None is exact.

    Raises:
        ValueError: there is no network or no batch.
    """
    _check(networks, probe)
    norms = [direction_norms(network, probe, vectors=vectors) for network in networks]
    return torch.cat(norms).max().item()


def _block_norms(network: Network, batch: Batch, vectors: Tensor | None) -> Tensor:
    """Norm of the block of every example with itself, (n,)."""
    weights = backbone_weights(network)
    norms = []
    with differentiable(network):
        z = features(network, weights, batch).flatten(1)
        width = z.shape[1]
        us = torch.eye(width).to(z) if vectors is None else vectors.to(z)
        for row in range(len(z)):
            gradients = torch.stack([row_gradient(z, weights, row, u) for u in us])
            block = gradients @ gradients.T
            norms.append(block.norm() if vectors is None else _estimate(block, width))
    return torch.stack(norms).cpu()


def _estimate(block: Tensor, width: int) -> Tensor:
    """Norm of the (d, d) block from its entries `u_a^T K u_b` at independent unit vectors."""
    # a vector with itself sees the trace as well: only pairs of different ones are without bias
    different = ~torch.eye(len(block), dtype=torch.bool, device=block.device)
    return width * block[different].square().mean().sqrt()


def _check(networks: Sequence[Network], probe: Sequence[Batch]) -> None:
    if not networks or not probe:
        raise ValueError(
            "a bound needs at least one network and one batch of probe examples, "
            f"got {len(networks)} and {len(probe)}"
        )
