"""The one-step dynamics of Ren et al. (2023), `K_z W G`, and of Ren and Sutherland (2025), `A K G`.

A step of gradient descent moves features and log-probabilities, to first order in `lr`, by

    z_1 - z_0           = -lr K_z W^T G      kernel x direction x energy (2023)
    log p_1 - log p_0   = -lr A K G          of every answer (2025, Proposition 1)

with `G = grad_q L = (p - y) / N`, N the number of labels that the loss averages over; `K_z` the
full eNTK of the backbone's features over the batch; `W = grad_z q` the head's Jacobian of every
example, the weight of a linear head; `K` the full eNTK of the logits, `W K_z W^T` and what the
head's own weights add; and `A = grad_q log p`, for classes `I - 1 p^T`.

- The direction term `-W^T (p - y)` is what the head asks of the features. Its length hardly changes
  while finetuning; what differs with tau is how fast the head, and with it the direction, turns.
  `head_gradient` says how fast that begins, `head_change` how far it has gone.
- `decompose` gives the factors of one step. Nothing is contracted or estimated: `K_z v = J (J^T v)`
  is one product with the backbone's Jacobian after another.
- `proposition_1` (of the former paper) bounds how far features can move at most.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp
from torch.nn import functional as F

from molhpft.core.annotations import Float
from molhpft.core.network import Batch, Chain, Network
from molhpft.core.objectives import Objective
from molhpft.measure.features import check_one_shape
from molhpft.measure.tangent import (
    backbone_weights,
    check_vectors,
    differentiable,
    features,
    pull_back,
    push_forward,
    row_gradient,
)


def direction_norms(
    network: Network, batches: Iterable[Batch], *, vectors: Float[Tensor, "..."] | None = None
) -> Float[Tensor, " n"]:
    """`||grad_z q(x)||_F` of every example, in eval mode, on the CPU.

    Takes a backward pass through the head for each logit that an example has.

    Args:
        network: any network.
        batches: n examples altogether.
        vectors: random unit vectors (r, t) to estimate the square of each norm with in r passes,
            where an example has very many logits t, as an image has. Logit maps are flattened.

    Returns:
        A norm for each row of `z`, which is an atom where the head begins with graph layers.

    Raises:
        ValueError: `batches` is empty, or the vectors are not as long as logits.
    """
    return _over_batches(network, batches, lambda z, q, batch: _norms(z, q, vectors))


def descent_directions(
    network: Network, batches: Iterable[Batch], objective: Objective
) -> Float[Tensor, "n d ..."]:
    """`-(grad_z q)^T (p - y)`: where less energy lies for the features of every example.

    In eval mode, on the CPU, in the order of the batches; 0 for an example without labels. What an
    objective asks for besides, for an auxiliary task or by comparing examples, has no part in it.

    Args:
        network: any network, its head usually as probing leaves it.
        batches: n examples altogether.
        objective: the finetuning objective.

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
        The length; 0 for a head without weights that train.

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
            for accumulated, part in zip(total, parts, strict=True):
                accumulated += part
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
        The change; NaN where the head has no weights, or begins with all of them 0.

    Raises:
        ValueError: the heads differ in shape.
    """
    old, new = ([p.detach().double().cpu() for p in head.parameters()] for head in (before, after))
    if [p.shape for p in old] != [p.shape for p in new]:
        raise ValueError("the change of a head is between two of one shape, got different shapes")
    if not any(p.any() for p in old):
        return float("nan")
    return _length([b - a for a, b in zip(old, new, strict=True)]) / _length(old)


def alignment(
    directions: Float[Tensor, "..."], before: Float[Tensor, "..."], after: Float[Tensor, "..."]
) -> float:
    """Mean cosine between descent directions and the way that the features went.

    1 where finetuning moves features as their own head asks; less where other examples, through the
    kernel, or a head that changes on the way, pull elsewhere.

    Args:
        directions: `descent_directions` before finetuning, (n, ...).
        before: `z_0`, the same shape; both are measured in eval mode.
        after: `z_T`, the same shape.

    Returns:
        The mean over examples that have a direction and moved; NaN where none has.

    Raises:
        ValueError: the shapes differ.
    """
    check_one_shape("directions and features", directions, before, after)
    asked, moved = directions.flatten(1).double(), (after.double() - before.double()).flatten(1)
    both = asked.any(1) & moved.any(1)
    return F.cosine_similarity(asked[both], moved[both], dim=1, eps=0).mean().item()


def _length(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))


def _norms(z: Tensor, q: Tensor, vectors: Tensor | None) -> Tensor:
    outputs = q[0].numel()
    vectors = torch.eye(outputs) if vectors is None else vectors
    check_vectors(vectors, outputs, "logit")
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


@dataclass(frozen=True)
class Decomposition:
    """The step that theory predicts, and the factors of its lengths.

    `||change|| = lr K_z W G` and `||log_change|| = lr A K G`, exactly: each factor is by how much
    the next map stretches what it is given. A factor whose input is 0 is NaN, and the change 0.

    Attributes:
        change: predicted `z_1 - z_0`, the shape of the features, on the CPU.
        log_change: predicted change of `Objective.log_probabilities`, on the CPU.
        A: `||A v|| / ||v||` for v = K G.
        K: `||K G|| / ||G||`.
        G: `||p - y||_F / N`, the residual as the averaging loss passes it on.
        K_z: `||K_z v|| / ||v||` for v = W^T G.
        W: `||W^T G|| / ||G||`.
    """

    change: Float[Tensor, "rows d ..."]
    log_change: Float[Tensor, "n ..."]
    A: float
    K: float
    G: float
    K_z: float
    W: float


def decompose(network: Network, batch: Batch, objective: Objective, *, lr: float) -> Decomposition:
    """What a step of plain gradient descent will do to the features, to first order in `lr`.

    And to log-probabilities. In eval mode, so that dropout and batch statistics are left out.
    `push_forward` says what it costs.

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
        (residual,) = torch.autograd.grad(objective.loss(q, batch.targets), q, retain_graph=True)
        (pull,) = torch.autograd.grad(q, z, residual, retain_graph=True)
        step = pull_back(z, weights, pull)
    change = push_forward(network, batch, step)
    moved = _tangent_step(_giving_logits(network), batch, residual)
    log_change = jvp(objective.log_probabilities, (q.detach(),), (moved,))[1]
    return Decomposition(
        change=(-lr * change).cpu(),
        log_change=(-lr * log_change).cpu(),
        A=_gain(moved, log_change),
        K=_gain(residual, moved),
        G=residual.norm().item(),
        K_z=_gain(pull, change),
        W=_gain(residual, pull),
    )


def _giving_logits(network: Network) -> Network:
    """The same network with its logits as features, whose kernel is that of the logits."""
    backbone = {f"backbone {k}": stage for k, stage in network.backbone.named_stages().items()}
    head = {f"head {k}": stage for k, stage in network.head.named_stages().items()}
    return Network(Chain({**backbone, **head}), Chain({}))


def _tangent_step(network: Network, batch: Batch, v: Tensor) -> Tensor:
    """`J J^T v`: the kernel of the features times `v`, which has their shape."""
    weights = backbone_weights(network)
    with differentiable(network):
        step = pull_back(features(network, weights, batch), weights, v)
    return push_forward(network, batch, step)


def one_step_change(
    network: Network, batch: Batch, objective: Objective, *, lr: float
) -> Float[Tensor, "rows d ..."]:
    """`z_1 - z_0` of the same step, made on a copy, in eval mode, on the CPU."""
    copy = deepcopy(network).requires_grad_(True)
    with differentiable(copy):
        z = copy.features(batch)
        loss = objective.loss(copy.head(z, batch), batch.targets)
        optimizer = torch.optim.SGD(copy.parameters(), lr=lr)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        return (copy.features(batch) - z).detach().cpu()


def first_order_error(predicted: Float[Tensor, "..."], actual: Float[Tensor, "..."]) -> float:
    """Relative error `||predicted - actual|| / ||actual||`, which falls in proportion to `lr`.

    Small steps want `deepcopy(network).double()`: on the pretrained GCN and two molecules the error
    at lr = 1e-3 is 9e-6, of which float32 makes 1e-2. Where a rectifier is fed exactly 0, as by
    batch norm with statistics still at 0, there is no first order and the error stays.

    Args:
        predicted: `Decomposition.change`.
        actual: `one_step_change` of the same batch and learning rate.

    Returns:
        The error; NaN where the features stay where they are.

    Raises:
        ValueError: the shapes differ.
    """
    check_one_shape("changes to compare", predicted, actual)
    error: float = ((predicted - actual).norm() / actual.norm()).item()
    return error


def _gain(given: Tensor, result: Tensor) -> float:
    gain: float = (result.norm() / given.norm()).item()
    return gain


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
    distance: float,
    energy: float,
    *,
    lr: float,
    steps: int,
    beta: float,
    gamma: float,
) -> Bound:
    """Both sides of `E||z_T - z_0|| <= c E||y - p_0||` with `c = lr T beta gamma`.

    Every step is `z_{t+1} - z_t = -lr/N sum_i K_t(x, x_i) (grad_z q_t(x_i))^T (p_t - y)(x_i)`, and
    the bound is that of every factor of every step. Measured: both expectations, over the training
    split; beta and gamma, over the probe examples and networks that they were given.

    Assumed: that no example, and no network between those given, has a larger kernel or head; that
    the mean energy `E||y - p_t||` does not rise while finetuning; that the network is trained as it
    is measured, without dropout and with statistics of batch norm that stay; that nothing but the
    loss moves it, no decay and no anchor; that steps are plain gradient descent, small enough to be
    first order, at rates of the backbone up to `lr`. Momentum m moves up to 1 / (1 - m) times as
    far; Adam's steps are not bounded by it at all. Batches count like steps of everything, as each
    example comes once an epoch. The loss of independent labels averages over labels rather than
    examples, which only lowers the left side.

    Args:
        distance: that of `shift`, of the training split's features by finetuning.
        energy: `initial_energy` of the same examples, just before finetuning.
        lr: the highest learning rate of a stage of the backbone.
        steps: T, those of the finetuning that moved the features, not its epochs.
        beta: `kernel_bound` of the networks at both ends, and of any between.
        gamma: `head_bound` of the same networks.
    """
    constant = lr * steps * beta * gamma
    return Bound(
        distance=distance,
        energy=energy,
        beta=beta,
        gamma=gamma,
        constant=constant,
        most=constant * energy,
    )


def kernel_bound(
    networks: Sequence[Network],
    probe: Sequence[Batch],
    *,
    vectors: Float[Tensor, "..."] | None = None,
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
    networks: Sequence[Network],
    probe: Sequence[Batch],
    *,
    vectors: Float[Tensor, "..."] | None = None,
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
