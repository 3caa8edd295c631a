"""Empirical tangent kernel (eNTK) of a backbone: how far a step on one example moves another.

`K(x, x') = J(x) J(x')^T` with `J` the Jacobian of the features in the backbone's weights is a
(d, d) block for each pair of examples. Contracting it with vectors of feature space leaves a number
for each pair: `K(x, x') ~ 1/r sum_a u_a^T K(x, x') u_a`, for random unit vectors an unbiased
estimate of `trace K(x, x') / d`, for the unit basis `torch.eye(d)` that number (the trace kernel).

Jacobians appear only through their products with vectors: one of the features of 50 molecules in
half a million weights fills 32 GB, its products do not. Weights are stood in for by leaves that
share their memory, so that a network comes out with its weights, gradients, modes and
`requires_grad` as they were.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import nan

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional as F

from molhpft.core.annotations import Float
from molhpft.core.evaluate import inference
from molhpft.core.network import Batch, Network
from molhpft.measure.features import check_one_shape

_MOST_NUMBERS = 2**29  # of gradients in memory together


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


def features(
    network: Network, weights: Mapping[str, Tensor], batch: Batch
) -> Float[Tensor, "rows d ..."]:
    """Features `z` of the network with other backbone weights; its own are not read."""
    z: Tensor = functional_call(network.backbone, dict(weights), (batch.inputs, batch))
    return z


def pull_back(
    z: Float[Tensor, "*z"], weights: Mapping[str, Tensor], v: Float[Tensor, "*z"]
) -> dict[str, Tensor]:
    """`J^T v`, a tensor for every weight; 0 for one that `z` does not depend on.

    Args:
        z: computed from `weights`; its graph stays, so that more vectors can follow.
        weights: leaves.
        v: the shape of `z`.
    """
    leaves = list(weights.values())
    # one by one: on a CPU `is_grads_batched` takes twice as long, and fused kernels cannot do it
    rows = torch.autograd.grad(z, leaves, v, retain_graph=True, materialize_grads=True)
    return dict(zip(weights, rows, strict=True))


def row_gradient(
    z: Float[Tensor, "n ..."], weights: Mapping[str, Tensor], row: int, u: Float[Tensor, "..."]
) -> Float[Tensor, " weights"]:
    """Gradient of `u . z[row]` in all weights, end to end.

    Args:
        z: computed from `weights`.
        weights: leaves.
        row: number of the example.
        u: the shape of `z[row]`.
    """
    v = torch.zeros_like(z)
    v[row] = u
    return torch.cat([gradient.flatten() for gradient in pull_back(z, weights, v).values()])


def push_forward(
    network: Network, batch: Batch, change: Mapping[str, Tensor]
) -> Float[Tensor, "rows d ..."]:
    """`J t`: change of the features, to first order, when the backbone's weights change by `t`.

    In eval mode. One forward pass; where an operation of the backbone has no forward derivative,
    two backward passes, with the same numbers.

    Args:
        network: any network.
        batch: of n examples.
        change: `t`, a tensor for every weight.
    """
    try:
        return _by_dual_numbers(network, batch, change)
    except NotImplementedError:  # what PyTorch raises for an operation without forward derivative
        return _by_two_backward_passes(network, batch, change)


def _by_dual_numbers(network: Network, batch: Batch, change: Mapping[str, Tensor]) -> Tensor:
    with inference(network), forward_ad.dual_level():
        weights = network.backbone.named_parameters()
        duals = {
            name: forward_ad.make_dual(p.detach(), change[name])  # type: ignore[no-untyped-call]
            for name, p in weights
        }
        z, tangent = forward_ad.unpack_dual(features(network, duals, batch))  # type: ignore[no-untyped-call]
        return torch.zeros_like(z) if tangent is None else tangent.detach()


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


def unit_vectors(count: int, width: int, *, rng: torch.Generator) -> Float[Tensor, "r d"]:
    """Independent random directions, rows of length 1.

    Draw them once and use them for every kernel that is to be compared.
    """
    return F.normalize(torch.randn(count, width, generator=rng), dim=1)


def tangent_kernel(
    network: Network, batches: Iterable[Batch], vectors: Float[Tensor, "..."]
) -> Float[Tensor, "k k"]:
    """Contracted eNTK of the backbone between all pairs of examples, in eval mode.

    Takes k r backward passes, each over the whole batch of its example: batches of one example are
    the fastest. All gradients of one contraction, k times the backbone's weights, are in memory
    together, up to 2 GB; beyond, further passes serve the other weights. 50 examples and 16 to 32
    vectors are usual (Ren et al., 2023, Figure 6).

    Args:
        network: any network; its head is not used.
        batches: k examples altogether; a row of `z` is an example (an atom, where the cut leaves
            atoms).
        vectors: of feature space, (r, d); `unit_vectors`, or `torch.eye(d)` for the trace kernel.
            Feature maps are flattened.

    Returns:
        Symmetric, in float64, on the CPU.

    Raises:
        ValueError: `batches` or `vectors` is empty, the backbone has no weights, or the vectors
            are not as long as features.
    """
    weights = backbone_weights(network)
    with differentiable(network):
        zs = [features(network, weights, batch).flatten(1) for batch in batches]
        if not zs:
            raise ValueError("a tangent kernel needs at least one batch, got none")
        check_vectors(vectors, zs[0].shape[1], "feature")
        return _gram(zs, weights, vectors.to(zs[0])) / len(vectors)


def ntk_change(before: Float[Tensor, "..."], after: Float[Tensor, "..."]) -> float:
    """Relative change `||K_t - K_0||_F / ||K_0||_F`; 0 for the same kernel, NaN where `K_0` is 0.

    Args:
        before: `K_0`, (k, k).
        after: `K_t` of the same examples, contracted with the same vectors.

    Raises:
        ValueError: the shapes differ.
    """
    check_one_shape("kernels of the same examples", before, after)
    before, after = before.double(), after.double()
    change: float = ((after - before).norm() / before.norm()).item()
    return change if before.any() else nan


def ntk_distance(before: Float[Tensor, "..."], after: Float[Tensor, "..."]) -> float:
    """Kernel distance `1 - <K_0, K_t> / (||K_0||_F ||K_t||_F)`, blind to the kernel's scale.

    Args:
        before: `K_0`, (k, k).
        after: `K_t` of the same examples, contracted with the same vectors.

    Returns:
        The distance, in [0, 1] for kernels, which have no negative eigenvalue; NaN where one is 0.

    Raises:
        ValueError: the shapes differ.
    """
    check_one_shape("kernels of the same examples", before, after)
    before, after = before.double(), after.double()
    if not before.any() or not after.any():
        return nan
    return 1 - F.cosine_similarity(before.flatten(), after.flatten(), dim=0).item()


def _gram(zs: Sequence[Tensor], weights: Mapping[str, Tensor], us: Tensor) -> Tensor:
    """Inner products of the gradients of every row, summed over the vectors, (k, k)."""
    places = [(z, row) for z in zs for row in range(len(z))]
    total = torch.zeros(len(places), len(places), dtype=torch.float64)
    for part in _parts(weights, rows=len(places)):
        # one for all vectors: to get a gigabyte from the system takes as long as to fill it
        gradients = us.new_empty(len(places), sum(weight.numel() for weight in part.values()))
        for u in us:
            for i, (z, row) in enumerate(places):
                gradients[i] = row_gradient(z, part, row, u)
            total += (gradients @ gradients.T).double().cpu()
    return total


def _parts(weights: Mapping[str, Tensor], *, rows: int) -> list[dict[str, Tensor]]:
    """The weights in as few parts as leave `rows` gradients of each in memory."""
    parts: list[dict[str, Tensor]] = [{}]
    for name, weight in weights.items():
        size = sum(other.numel() for other in parts[-1].values())
        if parts[-1] and (size + weight.numel()) * rows > _MOST_NUMBERS:
            parts.append({})
        parts[-1][name] = weight
    return parts


def check_vectors(vectors: Float[Tensor, "..."], length: int, of: str) -> None:
    """Refuse vectors that are not one or more rows of a length.

    Raises:
        ValueError: they are not, with what they are `of`.
    """
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != length:
        raise ValueError(
            f"vectors should be one or more rows of {length} numbers, one for each {of} of an "
            f"example, got shape {tuple(vectors.shape)}"
        )
