"""Training many small heads on the same features at once: `fit` for a stack of heads.

The same batches, losses and optimizer steps as `fit`, head by head, up to rounding. One by one,
each step costs far more in calls than in arithmetic; stacked, heads share the calls, and those that
read the same rows share the product. A head here is linear maps with ReLUs between them, and every
objective has the gradient `p - y` in its logits up to the averaging constant, so gradients are
written down, not recorded: with `torch.func.vmap` the same steps take several times as long
(`benchmarks/vmap_speed.py`).

What is known in advance (labels, averaging constants) is prepared for many steps at once, as many
as `BLOCK` has room for: memory does not grow with the data, and no number depends on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import Bool, Float, Int, Shaped
from molhpft.core.data import Rows, Task
from molhpft.core.metrics import measured
from molhpft.core.network import Chain, Network, Plain
from molhpft.core.objectives import Multiclass, Multilabel, Objective, Squared
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.frozen_features import Views
from molhpft.tuning.phase import Phase


@dataclass(frozen=True)
class Labels:
    """The labels of the k heads that read the same rows.

    Attributes:
        y: labels by every smoothing that some head has, (s, t, n), 0 where unmeasured.
        which: the smoothing of each of the k heads, numbers of rows of `y`.
        measured: 1 where there is a label, else 0; (t, n), or (1, n) for classes.
        predictions: `p` of logits (..., t, n).
        losses: of logits and `y`, an entry for each of `measured`.
    """

    y: Float[Tensor, "s t n"]
    which: tuple[int, ...]
    measured: Float[Tensor, "u n"]
    predictions: Callable[[Tensor], Tensor]
    losses: Callable[[Tensor, Tensor], Tensor]


def has_closed_form(objective: Objective, targets: Shaped[Tensor, "n ..."]) -> bool:
    """Whether `labels` knows the objective, and targets are a row an example."""
    return type(objective) in _FORMS and targets.ndim == (1 if _by_class(objective) else 2)


def labels(
    objective: Objective,
    targets: Shaped[Tensor, "n ..."],
    *,
    outputs: int,
    smoothing: Sequence[float],
) -> Labels:
    """Labels of every row, for heads that differ in smoothing.

    Args:
        objective: one that `has_closed_form`.
        targets: (n, t), or class ids (n,).
        outputs: number of logits.
        smoothing: one number a head.

    Raises:
        ValueError: labels cannot be smoothed (regression).
    """
    predictions, losses = _FORMS[type(objective)]
    mask = _measured(objective, targets)
    labelled = mask.any(1)
    amounts = list(dict.fromkeys(smoothing))
    rows = [objective.smoothed(s).labels(targets, outputs=outputs) for s in amounts]
    y = torch.zeros(len(rows), len(targets), outputs, dtype=rows[0].dtype, device=targets.device)
    y[:, labelled] = torch.stack(rows).nan_to_num(0.0)
    which = tuple(amounts.index(s) for s in smoothing)
    return Labels(y.mT.contiguous(), which, mask.to(y).T.contiguous(), predictions, losses)


def _by_class(objective: Objective) -> bool:
    return isinstance(objective, Multiclass)


def _measured(objective: Objective, targets: Shaped[Tensor, "n ..."]) -> Bool[Tensor, "n u"]:
    if isinstance(objective, Multiclass):
        return measured(targets, ignore=objective.ignore)[:, None]
    return measured(targets)


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-2)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    # y sums to 1: smoothed or not, the cross-entropy is this
    return logits.logsumexp(-2, keepdim=True) - (y * logits).sum(-2, keepdim=True)


def _binary_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none")


def _itself(logits: Tensor) -> Tensor:
    return logits


def _half_square(logits: Tensor, y: Tensor) -> Tensor:
    return (logits - y).square() / 2


_Form = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
_FORMS: dict[type, _Form] = {
    Multilabel: (torch.sigmoid, _binary_cross_entropy),
    Multiclass: (_softmax, _cross_entropy),
    Squared: (_itself, _half_square),
}


_CONTAINERS = (Chain, Plain, nn.ModuleDict, nn.Sequential)


def is_stackable(head: Chain) -> bool:
    """Whether the head is linear maps with biases and ReLUs between them, and nothing else."""
    modules = [m for m in head.modules() if type(m) not in _CONTAINERS]
    kinds = [type(m) for m in modules]
    alternating = [nn.ReLU if i % 2 else nn.Linear for i in range(len(kinds))]
    biased = all(m.bias is not None for m in modules if isinstance(m, nn.Linear))
    return len(kinds) % 2 == 1 and kinds == alternating and biased


class Stack:
    """The weights of `groups` x k heads, flat, with the gradient beside them.

    The k heads of a group read the same rows. One flat tensor lets an optimizer step on everything
    by a handful of calls.

    Attributes:
        flat: all weights, (heads * weights of a head,), parameter by parameter.
        gradient: of the same shape, written by `backward`.
        outputs: number of logits of each head.
    """

    def __init__(self, head: Chain, weights: Sequence[Weights], *, groups: int) -> None:
        """Copy weights into a stack.

        Args:
            head: gives the architecture; see `is_stackable`.
            weights: of each head, group by group.
            groups: how many; divides the number of heads.

        Raises:
            ValueError: the weights do not all fit the architecture.
        """
        own = head.state_dict()
        for other in weights:
            if {k: v.shape for k, v in other.items()} != {k: v.shape for k, v in own.items()}:
                raise ValueError(
                    "heads are stacked when they have one architecture; expected weights "
                    f"{', '.join(f'{k} {tuple(v.shape)}' for k, v in own.items())}"
                )
        self._shapes = {key: value.shape for key, value in own.items()}
        self._shape = (groups, len(weights) // groups)
        self.flat = torch.cat([w[key].detach().flatten() for key in own for w in weights])
        self.gradient = torch.zeros_like(self.flat)
        values, gradients = self._parameters(self.flat), self._parameters(self.gradient)
        linears = [name for name, m in head.named_modules() if isinstance(m, nn.Linear)]
        self.outputs = values[f"{linears[-1]}.weight"].shape[1]
        self._layers = [
            _Layer(
                (values[f"{name}.weight"], values[f"{name}.bias"]),
                (gradients[f"{name}.weight"], gradients[f"{name}.bias"]),
                # groups share rows: what the first layer gives is each head's own
                groups=len(weights) if depth else groups,
            )
            for depth, name in enumerate(linears)
        ]

    def forward(self, z: Float[Tensor, "groups n d"]) -> Float[Tensor, "groups k t n"]:
        """Logits (groups, k, t, n) of features (groups, n, d), a block for each group."""
        h = z.mT
        for depth, layer in enumerate(self._layers):
            h = layer.forward(h.view(-1, *h.shape[2:]).relu() if depth else h)
        return h.view(*self._shape, *h.shape[2:])

    def backward(self, gradient: Float[Tensor, "groups k t n"]) -> None:
        """Write `gradient`, from the loss's gradient in the logits of the last `forward`.

        Args:
            gradient: (groups, k, t, n).
        """
        for depth, layer in reversed(list(enumerate(self._layers))):
            gradient = layer.backward(gradient, onward=depth > 0)

    def per_weight(self, values: Sequence[float]) -> Float[Tensor, " weights"]:
        """One number a head, repeated for each of its weights: the shape of `flat`."""
        each = torch.tensor(values, dtype=self.flat.dtype, device=self.flat.device)
        return torch.cat([each.repeat_interleave(s.numel()) for s in self._shapes.values()])

    def heads(self, flat: Float[Tensor, " weights"]) -> list[Weights]:
        """State dict of each head, group by group, from a copy of `flat`."""
        stacked = self._parameters(flat)
        count = self._shape[0] * self._shape[1]
        return [{key: value[i].clone() for key, value in stacked.items()} for i in range(count)]

    def _parameters(self, flat: Float[Tensor, " weights"]) -> Weights:
        """Views of each parameter of all heads, (heads, *shape)."""
        count = self._shape[0] * self._shape[1]
        sizes = [count * shape.numel() for shape in self._shapes.values()]
        shaped = zip(self._shapes.items(), torch.split(flat, sizes), strict=True)
        return {key: part.view(count, *shape) for (key, shape), part in shaped}


class _Layer:
    """One linear map of every head: (groups, i, n) to (groups, k, o, n).

    Examples come last: with few outputs, W h is twice as fast as its transpose.
    """

    def __init__(
        self, values: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor], *, groups: int
    ) -> None:
        self._outputs, inputs = values[0].shape[1:]
        self._groups = groups
        self._weight, self._weight_gradient = (
            pair[0].view(groups, -1, inputs) for pair in (values, gradients)
        )
        self._bias, self._bias_gradient = (
            pair[1].view(groups, -1, 1) for pair in (values, gradients)
        )
        self._input = torch.empty(0)

    def forward(self, h: Tensor) -> Tensor:
        self._input = h
        joint = torch.baddbmm(self._bias, self._weight, h)
        return joint.view(self._groups, -1, self._outputs, joint.shape[2])

    def backward(self, gradient: Tensor, *, onward: bool) -> Tensor:
        """Write the gradients; with `onward`, return that of what the ReLU before was given."""
        joint = gradient.view(self._groups, -1, gradient.shape[-1])
        torch.bmm(joint, self._input.mT, out=self._weight_gradient)
        torch.sum(joint, 2, keepdim=True, out=self._bias_gradient)
        return torch.bmm(self._weight.mT, joint) * (self._input > 0) if onward else joint


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

    inputs: Float[Tensor, "n d"]
    labels: Labels
    orders: Callable[[], Sequence[Order]]


def train(
    stack: Stack, step: Step, lesson: Lesson, *, epochs: int
) -> Iterator[Float[Tensor, "groups k"]]:
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
    rates = stack.per_weight([phase.lr for phase in phases])
    decays = stack.per_weight([phase.weight_decay for phase in phases])
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
    has_form = rows.inputs.ndim == 2 and has_closed_form(task.objective, rows.targets)
    return rows if has_form else None


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
            _, batches = numbered.epoch(size=size, rng=rng)
            orders.append(tuple(batch.inputs for batch in batches))
        return orders

    return epoch


@torch.no_grad()
def _epoch(
    stack: Stack, step: Step, lesson: Lesson, orders: Sequence[Order]
) -> Float[Tensor, "groups k"]:
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
    stack: Stack, step: Step, lesson: Lesson, order: Int[Tensor, "groups n"], sizes: Sequence[int]
) -> Iterator[Float[Tensor, "groups k"]]:
    """Step on the rows `order` (groups, n), batch by batch; the losses of each step (groups, k)."""
    labels, inputs = lesson.labels, lesson.inputs
    y = labels.y[..., order].permute(2, 0, 1, 3)
    if y.shape[1] > 1:
        y = y[:, list(labels.which)]
    weights = _label_weights(labels.measured[:, order].transpose(0, 1), sizes)[:, None]
    parts = (torch.split(x, list(sizes), -1) for x in (order, y, weights))
    for rows, y_step, weight in zip(*parts, strict=True):
        z = inputs.index_select(0, rows.flatten()).view(*rows.shape, -1)
        logits = stack.forward(z)
        gradient = labels.predictions(logits) - y_step
        loss = (labels.losses(logits, y_step.expand_as(logits)) * weight).sum((2, 3))
        stack.backward(gradient.mul_(weight))
        step()
        yield loss


def _label_weights(
    measured: Float[Tensor, "groups u n"], sizes: Sequence[int]
) -> Float[Tensor, "groups u n"]:
    """What each label weighs in the mean of its batch, 0 where unmeasured.

    Args:
        measured: 1 or 0, (groups, t, n).
        sizes: examples in each batch, n in all.
    """
    lengths = torch.tensor(sizes, device=measured.device)
    batch = torch.arange(len(sizes), device=measured.device).repeat_interleave(lengths)
    counts = measured.new_zeros(len(measured), len(sizes)).index_add_(1, batch, measured.sum(1))
    return measured / counts.clamp(min=1)[:, None, batch]


def _decay(
    stack: Stack, decays: Float[Tensor, " weights"], rates: Float[Tensor, " weights"] | None
) -> Step:
    """Weight decay: into the gradient, or with `rates` straight on the weights."""

    def into_gradient() -> None:
        stack.gradient.addcmul_(stack.flat, decays)

    if rates is None:
        return into_gradient
    factor = 1 - rates * decays

    def on_weights() -> None:
        stack.flat.mul_(factor)

    return on_weights


def _sgd(stack: Stack, rates: Float[Tensor, " weights"], momenta: Sequence[float]) -> Step:
    velocity, momentum = torch.zeros_like(stack.flat), stack.per_weight(momenta)

    def step() -> None:
        velocity.mul_(momentum).add_(stack.gradient)
        stack.flat.addcmul_(velocity, rates, value=-1)

    return step


def _adam(stack: Stack, rates: Float[Tensor, " weights"]) -> Step:
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
