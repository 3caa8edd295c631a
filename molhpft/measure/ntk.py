"""Empirical tangent kernel (eNTK) of a backbone: how far a step on one example moves another.

`K(x, x') = J(x) J(x')^T` with `J` the Jacobian of the features in the backbone's weights is a
(d, d) block for each pair of examples. Contracting it with vectors of feature space leaves a number
a pair: `K(x, x') ~ 1/r sum_a u_a^T K(x, x') u_a`, for random unit vectors an unbiased estimate of
`trace K(x, x') / d`, for the unit basis `torch.eye(d)` that number itself (the trace kernel).
"""

from collections.abc import Iterable, Mapping, Sequence
from math import nan

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.batch import Batch
from molhpft.core.network import Network
from molhpft.measure.jacobian import backbone_weights, differentiable, features, row_gradient

_HELD = 2**29  # numbers of gradients in memory together


def unit_vectors(count: int, width: int, *, rng: torch.Generator) -> Tensor:
    """Independent random directions, rows of length 1, (count, width).

    Draw them once and use them for every kernel that is to be compared.
    """
    return F.normalize(torch.randn(count, width, generator=rng), dim=1)


def tangent_kernel(network: Network, batches: Iterable[Batch], vectors: Tensor) -> Tensor:
    """Contracted eNTK of the backbone between all pairs of examples, in eval mode.

    Takes k r backward passes, each over the whole batch of its example: batches of one example are
    the fastest. All gradients of one contraction, k times the backbone's weights, are in memory
    together, up to 2 GB; of more weights some are taken after others, with further passes. 50
    examples and 16 to 32 vectors are usual (Ren et al., 2023, Figure 6).

    Args:
        network: any network; its head is not used.
        batches: k examples altogether; a row of `z` is an example (an atom, where the cut leaves
            atoms).
        vectors: of feature space, (r, d); `unit_vectors`, or `torch.eye(d)` for the trace kernel.
            Feature maps are flattened.

    Returns:
        symmetric (k, k) in float64 on the CPU.

    Raises:
        ValueError: `batches` or `vectors` is empty, the backbone has no weights, or the vectors
            are not as long as features.
    """
    weights = backbone_weights(network)
    with differentiable(network):
        zs = [features(network, weights, batch).flatten(1) for batch in batches]
        _check(zs, vectors)
        return _gram(zs, weights, vectors.to(zs[0])) / len(vectors)


def ntk_change(before: Tensor, after: Tensor) -> float:
    """Relative change `||K_t - K_0||_F / ||K_0||_F`; 0 for the same kernel.

    Args:
        before: `K_0`, (k, k).
        after: `K_t` of the same examples, contracted with the same vectors.

    Returns:
        the change; NaN where `K_0` is 0.

    Raises:
        ValueError: the shapes differ.
    """
    before, after = _comparable(before, after)
    change: float = ((after - before).norm() / before.norm()).item()
    return change if before.any() else nan


def ntk_distance(before: Tensor, after: Tensor) -> float:
    """Kernel distance `1 - <K_0, K_t> / (||K_0||_F ||K_t||_F)`, blind to the kernel's scale.

    Args:
        before: `K_0`, (k, k).
        after: `K_t` of the same examples, contracted with the same vectors.

    Returns:
        the distance, in [0, 1] for kernels, which have no negative eigenvalue; NaN where one is 0.

    Raises:
        ValueError: the shapes differ.
    """
    before, after = _comparable(before, after)
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
        held = sum(other.numel() for other in parts[-1].values())
        if parts[-1] and (held + weight.numel()) * rows > _HELD:
            parts.append({})
        parts[-1][name] = weight
    return parts


def _check(zs: Sequence[Tensor], vectors: Tensor) -> None:
    if not zs:
        raise ValueError("a tangent kernel needs at least one batch, got none")
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != zs[0].shape[1]:
        raise ValueError(
            f"vectors should be one or more rows of feature length {zs[0].shape[1]}, "
            f"got shape {tuple(vectors.shape)}"
        )


def _comparable(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    if before.shape != after.shape:
        raise ValueError(
            f"kernels must be of the same examples, got {tuple(before.shape)} "
            f"and {tuple(after.shape)}"
        )
    return before.double(), after.double()
