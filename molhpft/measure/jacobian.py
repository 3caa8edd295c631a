"""Jacobians of a network, met only through their products with vectors.

A Jacobian of the features of 50 molecules in half a million weights fills 32 GB, its products do
not. Weights are stood in for by leaves that share their memory, so that a network comes out with
its weights, gradients, modes and `requires_grad` as they were.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.core.snapshot import inference


@contextmanager
def differentiable(network: Network) -> Iterator[None]:
    """Eval mode with gradients; afterwards every module gets its own mode back."""
    with inference(network), torch.enable_grad():
        yield


def backbone_weights(network: Network) -> dict[str, Tensor]:
    """The backbone's weights as leaves that share their memory, frozen weights included.

    Raises:
        ValueError: the backbone has none.
    """
    weights = {n: p.detach().requires_grad_() for n, p in network.backbone.named_parameters()}
    if not weights:
        raise ValueError(
            "a tangent kernel needs a backbone with weights, this one has none; "
            "give the whole network, not its head on cached features"
        )
    return weights


def features(network: Network, weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Features `z` of the network with other backbone weights; its own are not read."""
    z: Tensor = functional_call(network.backbone, dict(weights), (batch.inputs, batch))
    return z


def pull_back(z: Tensor, weights: Mapping[str, Tensor], v: Tensor) -> dict[str, Tensor]:
    """`J^T v`, a tensor for every weight; 0 for one that `z` does not depend on.

    Args:
        z: computed from `weights`; its graph is kept, so that more vectors can follow.
        weights: leaves.
        v: the shape of `z`.
    """
    leaves = list(weights.values())
    # one by one: on a CPU `is_grads_batched` takes twice as long, and fused kernels cannot do it
    rows = torch.autograd.grad(z, leaves, v, retain_graph=True, materialize_grads=True)
    return dict(zip(weights, rows, strict=True))


def row_gradient(z: Tensor, weights: Mapping[str, Tensor], row: int, u: Tensor) -> Tensor:
    """Gradient of `u . z[row]` in all weights, end to end, (weights,).

    Args:
        z: computed from `weights`, (n, ...).
        weights: leaves.
        row: number of the example.
        u: the shape of `z[row]`.
    """
    v = torch.zeros_like(z)
    v[row] = u
    return torch.cat([gradient.flatten() for gradient in pull_back(z, weights, v).values()])


def push_forward(network: Network, batch: Batch, change: Mapping[str, Tensor]) -> Tensor:
    """`J t`: change of the features, to first order, when the backbone's weights change by `t`.

    In eval mode. One forward pass; where an operation of the backbone has no forward derivative,
    two backward passes, with the same numbers.

    Args:
        network: any network.
        batch: of n examples.
        change: `t`, a tensor for every weight.

    Returns:
        the change, the shape of `z`.
    """
    try:
        return _by_dual_numbers(network, batch, change)
    except NotImplementedError:  # what PyTorch raises for an operation without forward derivative
        return _by_two_backward_passes(network, batch, change)


def _by_dual_numbers(network: Network, batch: Batch, change: Mapping[str, Tensor]) -> Tensor:
    with inference(network), forward_ad.dual_level():
        own = network.backbone.named_parameters()
        duals = {name: _dual(p.detach(), change[name]) for name, p in own}
        z, tangent = forward_ad.unpack_dual(features(network, duals, batch))  # type: ignore[no-untyped-call]
        return torch.zeros_like(z) if tangent is None else tangent.detach()


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    dual: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return dual


def _by_two_backward_passes(network: Network, batch: Batch, change: Mapping[str, Tensor]) -> Tensor:
    """`J^T v` is linear in `v`, wherever `v` stands: the gradient of `t . J^T v` in it is `J t`."""
    weights = backbone_weights(network)
    with differentiable(network):
        z = features(network, weights, batch)
        v = torch.zeros_like(z, requires_grad=True)
        leaves = list(weights.values())
        rows = torch.autograd.grad(z, leaves, v, create_graph=True, materialize_grads=True)
        inner = [(row * change[name]).sum() for name, row in zip(weights, rows, strict=True)]
        (moved,) = torch.autograd.grad(torch.stack(inner).sum(), v)
    return moved
