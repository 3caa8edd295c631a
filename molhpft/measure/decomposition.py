"""One step of gradient descent on the features, as kernel x direction x energy.

`z_1 - z_0 = -lr K W^T (p - y) / N + O(lr^2)`, equation of the one-step dynamics of Ren et al.
(2023): `K` is the full eNTK of the backbone over the batch, `W` the head's Jacobian of every
example, N the number of labels that the loss averages over. Nothing is contracted or estimated:
`K v = J (J^T v)` is one product with the backbone's Jacobian after another.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.core.objectives import Objective
from molhpft.measure.jacobian import (
    backbone_weights,
    differentiable,
    features,
    pull_back,
    push_forward,
)


@dataclass(frozen=True)
class Decomposition:
    """The step that theory predicts, and the three factors of its length.

    `||change||_F = lr * kernel * direction * energy`, exactly: each factor is by how much the next
    map stretches what it is given. A factor whose input is 0 is NaN, and the change 0.

    Attributes:
        change: predicted `z_1 - z_0`, the shape of the features, on the CPU.
        kernel: `||K g|| / ||g||` for g = W^T (p - y) / N.
        direction: `||W^T (p - y)|| / ||p - y||`.
        energy: `||p - y||_F / N`, the residual as the averaging loss passes it on.
    """

    change: Tensor
    kernel: float
    direction: float
    energy: float


def decompose(network: Network, batch: Batch, objective: Objective, *, lr: float) -> Decomposition:
    """What a step of plain gradient descent will do to the features, to first order in `lr`.

    In eval mode, so that dropout and batch statistics are left out. `push_forward` says what it
    costs.

    Args:
        network: any network; nothing of it changes.
        batch: the examples of the step, whose features are also the ones that move.
        objective: the finetuning objective.
        lr: learning rate of the step.

    Raises:
        ValueError: the backbone has no weights.
    """
    weights = backbone_weights(network)
    with differentiable(network):
        z = features(network, weights, batch)
        q = network.head(z, batch)
        (slope,) = torch.autograd.grad(objective.loss(q, batch.targets), q, retain_graph=True)
        (pull,) = torch.autograd.grad(q, z, slope, retain_graph=True)
        spread = pull_back(z, weights, pull)
    change = push_forward(network, batch, spread)
    return Decomposition(
        change=(-lr * change).cpu(),
        kernel=_gain(pull, change),
        direction=_gain(slope, pull),
        energy=slope.norm().item(),
    )


def one_step_change(network: Network, batch: Batch, objective: Objective, *, lr: float) -> Tensor:
    """The same step really taken, on a copy: `z_1 - z_0`, in eval mode, on the CPU."""
    copy = deepcopy(network).requires_grad_(True)
    with differentiable(copy):
        z = copy.features(batch)
        loss = objective.loss(copy.head(z, batch), batch.targets)
        optimizer = torch.optim.SGD(copy.parameters(), lr=lr)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return (copy.features(batch) - z).detach().cpu()


def first_order_error(predicted: Tensor, actual: Tensor) -> float:
    """Relative error `||predicted - actual|| / ||actual||`, which falls in proportion to `lr`.

    Small steps want `deepcopy(network).double()`: on the pretrained GCN and two molecules the error
    at lr = 1e-3 is 9e-6, of which float32 makes 1e-2. Where a rectifier is fed exactly 0, as by
    batch norm with statistics still at 0, there is no first order and the error stays.

    Args:
        predicted: `Decomposition.change`.
        actual: `one_step_change` of the same batch and learning rate.

    Returns:
        the error; NaN where the features stay where they are.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != actual.shape:
        raise ValueError(
            f"changes to compare must have one shape, "
            f"got {tuple(predicted.shape)} and {tuple(actual.shape)}"
        )
    error: float = ((predicted - actual).norm() / actual.norm()).item()
    return error


def _gain(given: Tensor, result: Tensor) -> float:
    gain: float = (result.norm() / given.norm()).item()
    return gain
