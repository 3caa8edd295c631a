"""Training a stack of heads: `fit` for heads on features, many at a time.

The same batches, losses and optimizer steps as `fit`, head by head, up to rounding. What can be
known before (labels, averaging constants) is made ready for many steps at once, as many as `BLOCK`
has room for: memory does not grow with the data, and no number depends on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from molhpft.core.network import Network
from molhpft.core.task import Rows, Task
from molhpft.tuning.closed_form import Labels, has_closed_form
from molhpft.tuning.features import Views
from molhpft.tuning.phase import Phase
from molhpft.tuning.stack import Stack, is_stackable

Step = Callable[[], None]
Order = tuple[Tensor, ...]  # row numbers of each batch of an epoch

# torch.optim's own
BETAS = (0.9, 0.999)
EPSILON = 1e-8

BLOCK = 2**22  # labels of all heads that are made ready at once, 16 MB


@dataclass(frozen=True)
class Lesson:
    """What a stack is trained on.

    Attributes:
        inputs: features, (n, d).
        labels: of every row, for each of the heads of a group.
        orders: gives the batches of the next epoch, for each group.
    """

    inputs: Tensor
    labels: Labels
    orders: Callable[[], Sequence[Order]]


def train(stack: Stack, step: Step, lesson: Lesson, *, epochs: int) -> Iterator[Tensor]:
    """Train a stack in place; yields after every epoch.

    Args:
        stack: of as many groups as `lesson.orders` gives orders.
        step: moves `stack.flat` along `stack.gradient`.
        lesson: what to train on.
        epochs: passes over the rows.

    Yields:
        each head's loss, mean over steps, (groups, k).
    """
    for _ in range(epochs):
        yield _epoch(stack, step, lesson, lesson.orders())


def stepping(stack: Stack, phases: Sequence[Phase]) -> Step:
    """The optimizer of `phases`, one a head, as a function that makes one step.

    Args:
        stack: what it moves.
        phases: of each head; all of one optimizer, everything else may differ.
    """
    rates = stack.spread([phase.lr for phase in phases])
    decays = stack.spread([phase.weight_decay for phase in phases])
    decay: Step | None = None
    if any(phase.weight_decay for phase in phases):
        decay = _decay(stack, decays, rates if phases[0].optimizer == "adamw" else None)
    if phases[0].optimizer == "sgd":
        move = _sgd(stack, rates, [phase.momentum for phase in phases])
    else:
        move = _adam(stack, rates)

    def step() -> None:
        if decay:
            decay()
        move()

    return step


def feature_rows(network: Network, task: Task) -> Rows | None:
    """The features that a stack is trained on; None where only `fit` can train.

    Args:
        network: stackable when it is nothing but a head of linear maps and ReLUs.
        task: its examples must be rows of one matrix (or views), its objective one with a closed
            form.
    """
    rows = task.examples.rows if isinstance(task.examples, Views) else task.examples
    if network.backbone.names or not is_stackable(network.head) or not isinstance(rows, Rows):
        return None
    known = rows.inputs.ndim == 2 and has_closed_form(task.objective, rows.targets)
    return rows if known else None


def orders(task: Task, *, size: int, rngs: Sequence[torch.Generator]) -> Callable[[], list[Order]]:
    """Row numbers of each batch of the next epoch, one order a generator, drawn as `fit` draws."""
    examples = task.examples
    numbers = torch.arange(len(examples.rows) if isinstance(examples, Views) else len(examples))
    rows = Rows(numbers, numbers)
    # the task's own batches of row numbers in place of rows: there is one definition of their order
    numbered = replace(
        task, examples=Views(rows, examples.views) if isinstance(examples, Views) else rows
    )

    def epoch() -> list[Order]:
        orders = []
        for rng in rngs:
            torch.randint(2**62, (), generator=rng)  # `fit` draws dropout's seed first
            batches = numbered.batches("train", size=size, rng=rng)
            orders.append(tuple(batch.inputs for batch in batches))
        return orders

    return epoch


@torch.no_grad()
def _epoch(stack: Stack, step: Step, lesson: Lesson, orders: Sequence[Order]) -> Tensor:
    sizes = [len(rows) for rows in orders[0]]
    order = torch.stack([torch.cat(rows) for rows in orders]).to(lesson.inputs.device)
    heads = len(orders) * len(lesson.labels.which)
    at_once = max(1, BLOCK // (heads * lesson.labels.y.shape[1] * max(sizes)))
    losses: list[Tensor] = []
    for i in range(0, len(sizes), at_once):
        some, behind = sizes[i : i + at_once], sum(sizes[:i])
        rows = order[:, behind : behind + sum(some)]
        losses += _steps(stack, step, lesson, rows, some)
    return torch.stack(losses).mean(0)


def _steps(
    stack: Stack, step: Step, lesson: Lesson, order: Tensor, sizes: Sequence[int]
) -> Iterator[Tensor]:
    """Step on the rows `order` (groups, n), batch by batch; the losses of each step (groups, k)."""
    labels, inputs = lesson.labels, lesson.inputs
    y = labels.y[..., order].permute(2, 0, 1, 3)
    if y.shape[1] > 1:
        y = y[:, list(labels.which)]
    shares = _shares(labels.measured[:, order].transpose(0, 1), sizes)[:, None]
    parts = (torch.split(x, list(sizes), -1) for x in (order, y, shares))
    for rows, y_step, share in zip(*parts, strict=True):
        z = inputs.index_select(0, rows.flatten()).view(*rows.shape, -1)
        logits = stack.forward(z)
        slope = labels.predictions(logits) - y_step
        loss = (labels.losses(logits, y_step.expand_as(logits)) * share).sum((2, 3))
        stack.backward(slope.mul_(share))
        step()
        yield loss


def _shares(measured: Tensor, sizes: Sequence[int]) -> Tensor:
    """What each label weighs in the mean of its batch, 0 where unmeasured.

    Args:
        measured: 1 or 0, (groups, t, n).
        sizes: examples in each batch, n in all.
    """
    lengths = torch.tensor(sizes, device=measured.device)
    batch = torch.arange(len(sizes), device=measured.device).repeat_interleave(lengths)
    counts = measured.new_zeros(len(measured), len(sizes)).index_add_(1, batch, measured.sum(1))
    return measured / counts.clamp(min=1)[:, None, batch]


def _decay(stack: Stack, decays: Tensor, rates: Tensor | None) -> Step:
    """Weight decay: into the gradient, or with `rates` straight on the weights."""

    def into_gradient() -> None:
        stack.gradient.addcmul_(stack.flat, decays)

    if rates is None:
        return into_gradient
    kept = 1 - rates * decays

    def on_weights() -> None:
        stack.flat.mul_(kept)

    return on_weights


def _sgd(stack: Stack, rates: Tensor, momenta: Sequence[float]) -> Step:
    velocity, kept = torch.zeros_like(stack.flat), stack.spread(momenta)

    def step() -> None:
        velocity.mul_(kept).add_(stack.gradient)
        stack.flat.addcmul_(velocity, rates, value=-1)

    return step


def _adam(stack: Stack, rates: Tensor) -> Step:
    mean, square, work = (torch.zeros_like(stack.flat) for _ in range(3))
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        bias = sqrt(1 - BETAS[1] ** steps)
        mean.lerp_(stack.gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(stack.gradient, stack.gradient, value=1 - BETAS[1])
        # both bias corrections in one number: mean / (sqrt(square) / bias + eps), times bias / bias
        torch.sqrt(square, out=work).add_(EPSILON * bias)
        torch.div(mean, work, out=work)
        stack.flat.addcmul_(work, rates, value=-bias / (1 - BETAS[0] ** steps))

    return step
