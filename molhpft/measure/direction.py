"""Direction term: what the head asks of the features, `-(grad_z q)^T (p - y)` of every example.

It is the middle factor of the one-step dynamics of Ren et al. (2023), between the backbone's kernel
and the energy. The Jacobian `grad_z q` of an example's logits in its own features is the head's
weight `W` for a linear head, and differs from example to example for any other.

Its length hardly changes while finetuning; what differs with tau is how fast the head, and with it
the direction, turns. `head_gradient` says how fast that begins, `head_change` how far it has gone.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.batch import Batch
from molhpft.core.network import Chain, Network
from molhpft.core.objectives import Objective
from molhpft.measure.jacobian import differentiable


def direction_norms(
    network: Network, batches: Iterable[Batch], *, vectors: Tensor | None = None
) -> Tensor:
    """`||grad_z q(x)||_F` of every example, in eval mode.

    Takes a backward pass through the head for each logit that an example has.

    Args:
        network: any network.
        batches: n examples altogether.
        vectors: random unit vectors (r, t) to estimate the square of each norm with in r passes,
            where an example has very many logits t, as an image has. Logit maps are flattened.

    Returns:
        norms of the rows of `z` (n,), on the CPU. Where the head begins with graph layers a row is
        an atom.

    Raises:
        ValueError: `batches` is empty, or the vectors are not as long as logits.
    """
    return _over_batches(network, batches, lambda z, q, batch: _norms(z, q, vectors))


def descent_directions(network: Network, batches: Iterable[Batch], objective: Objective) -> Tensor:
    """`-(grad_z q)^T (p - y)`: where less energy lies for the features of every example.

    In eval mode; 0 for an example without labels. What an objective asks for besides, for a second
    task or by comparing examples, has no part in it.

    Args:
        network: any network, its head usually as probing leaves it.
        batches: n examples altogether.
        objective: the finetuning objective.

    Returns:
        the shape of the features, (n, d), on the CPU, in the order of the batches.

    Raises:
        ValueError: `batches` is empty.
    """

    def descent(z: Tensor, q: Tensor, batch: Batch) -> Tensor:
        residual = objective.residual(q.detach(), batch.targets)
        asked = objective.labelled_logits(q, batch.targets)
        (up,) = torch.autograd.grad(asked, z, residual)
        return -up

    return _over_batches(network, batches, descent)


def head_gradient(network: Network, batches: Iterable[Batch], objective: Objective) -> float:
    """Length of the loss's gradient in the head's weights, in eval mode.

    Where finetuning starts it says how fast the direction term will change (Ren et al., 2023,
    Figure 2): much from a random head, next to nothing where probing has converged.

    Args:
        network: any network.
        batches: examples; the loss is the mean over batches, weighted by their sizes.
        objective: the finetuning objective.

    Returns:
        the length; 0 for a head without weights that train.

    Raises:
        ValueError: `batches` is empty.
    """
    weights = [weight for weight in network.head.parameters() if weight.requires_grad]
    total, examples = [torch.zeros_like(weight) for weight in weights], 0
    with differentiable(network):
        for batch in batches:
            with torch.no_grad():
                z = network.features(batch)
            loss = objective.loss(network.head(z, batch), batch.targets) * len(batch.targets)
            parts = torch.autograd.grad(loss, weights) if weights else ()
            for sum_, part in zip(total, parts, strict=True):
                sum_ += part
            examples += len(batch.targets)
    if not examples:
        raise ValueError("a direction needs at least one batch, got none")
    return _length(total) / examples


def head_change(before: Chain, after: Chain) -> float:
    """Relative change of a head's weights, `||w_t - w_0|| / ||w_0||`; 0 for the same head.

    The change of the direction term along finetuning, for a linear head exactly that of `W` and its
    bias (Ren et al., 2023, Figure 2).

    Args:
        before: the head when finetuning starts.
        after: the same head later on.

    Returns:
        the change; NaN where the head has no weights, or begins with all of them 0.

    Raises:
        ValueError: the heads differ in shape.
    """
    old, new = ([p.detach().double().cpu() for p in head.parameters()] for head in (before, after))
    if [p.shape for p in old] != [p.shape for p in new]:
        raise ValueError("the change of a head is between two of one shape, got different shapes")
    if not any(p.any() for p in old):
        return float("nan")
    return _length([b - a for a, b in zip(old, new, strict=True)]) / _length(old)


def alignment(directions: Tensor, before: Tensor, after: Tensor) -> float:
    """Mean cosine between descent directions and the way that the features went.

    1 where finetuning moves features as their own head asks; less where other examples, through the
    kernel, or a head that changes on the way, pull elsewhere.

    Args:
        directions: `descent_directions` before finetuning, (n, ...).
        before: `z_0`, the same shape; both are measured in eval mode.
        after: `z_T`, the same shape.

    Returns:
        the mean over examples that have a direction and moved; NaN where none has.

    Raises:
        ValueError: the shapes differ.
    """
    if not directions.shape == before.shape == after.shape:
        raise ValueError(
            f"directions and features must have one shape, got {tuple(directions.shape)}, "
            f"{tuple(before.shape)} and {tuple(after.shape)}"
        )
    asked, moved = directions.flatten(1).double(), (after.double() - before.double()).flatten(1)
    both = asked.any(1) & moved.any(1)
    return F.cosine_similarity(asked[both], moved[both], dim=1, eps=0).mean().item()


def _length(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))


def _norms(z: Tensor, q: Tensor, vectors: Tensor | None) -> Tensor:
    outputs = q[0].numel()
    vectors = torch.eye(outputs) if vectors is None else vectors
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] != outputs:
        raise ValueError(
            f"vectors should be one or more rows of {outputs} numbers, one for each logit of an "
            f"example, got shape {tuple(vectors.shape)}"
        )
    squares = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    for u in vectors.to(q):
        (row,) = torch.autograd.grad(q, z, u.view(q.shape[1:]).expand_as(q), retain_graph=True)
        squares += row.flatten(1).double().square().sum(1)
    # unit vectors see 1 / t of the square on average, and the unit basis is t of them
    return (squares * outputs / len(vectors)).sqrt()


def _over_batches(
    network: Network, batches: Iterable[Batch], term: Callable[[Tensor, Tensor, Batch], Tensor]
) -> Tensor:
    """`term(z, q, batch)` of every batch end to end, q being differentiable in z."""
    rows = []
    with differentiable(network):
        for batch in batches:
            with torch.no_grad():
                z = network.features(batch)
            z = z.detach().requires_grad_()
            rows.append(term(z, network.head(z, batch), batch).detach().cpu())
    if not rows:
        raise ValueError("a direction needs at least one batch, got none")
    return torch.cat(rows)
