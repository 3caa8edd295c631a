"""Hardened probing: a head learns from features that are moved to where it is less certain.

Trivedi et al. (ICLR 2023) harden the probe before finetuning, so that the head does not rely on the
simplest features alone; one way is uncertainty-driven perturbations (UDP, Pagliardini et al., 2022)
of what the head reads. Here it is one step of a known size, along the gradient of the entropy of
what the head predicts:

    z' = z + size g / ||g||,    g = grad_z H(p(z))

for each feature vector `z` (axis 1), of a molecule, an image, an atom or a pixel. What a label says
plays no part; what was not measured has no entropy. The loss is that of the labels at `z'`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from molhpft.core.annotations import Float
from molhpft.core.evaluate import evaluating
from molhpft.core.network import Batch, Chain
from molhpft.core.objectives import Objective

Features = Float[torch.Tensor, "rows d ..."]


def less_certain(
    head: Chain, z: Features, batch: Batch, objective: Objective, *, size: float
) -> Features:
    """Features one step towards higher entropy of what a head predicts from them.

    The head evaluates: nothing is dropped, and batch statistics stay. Where the entropy has no
    gradient, as at its highest, features stay as they are.

    Args:
        head: reads `z`; left as it is.
        z: features of a batch.
        batch: that they are of.
        objective: says what the probabilities are, and which labels were measured.
        size: Euclidean length of the step.

    Raises:
        ValueError: the objective predicts no probabilities.
    """
    start = z.detach().requires_grad_()
    with evaluating(head), torch.enable_grad():
        # not by a call, whose hooks may be what asks
        entropy = objective.uncertainty(head.forward(start, batch), batch.targets)
        (gradient,) = torch.autograd.grad(entropy, start)
    return z + size * F.normalize(gradient, dim=1)


@contextmanager
def hardened(head: Chain, objective: Objective, *, size: float) -> Iterator[None]:
    """A block in which a head reads perturbed features; a size of 0 changes nothing.

    Args:
        head: of the network that is trained.
        objective: of the task.
        size: of the step, see `less_certain`.
    """
    if not size:
        yield
        return

    def move(_: nn.Module, inputs: tuple[Features, Batch]) -> tuple[Features, Batch]:
        z, batch = inputs
        return less_certain(head, z, batch, objective, size=size), batch

    hook = head.register_forward_pre_hook(move)
    try:
        yield
    finally:
        hook.remove()
