"""Heads of one architecture side by side: one product serves them all.

Probing trains many small heads on the same features. One by one, each step costs far more in calls
than in arithmetic; stacked, the heads share the calls, and those that read the same rows share the
product. A head here is linear maps with ReLUs between them, so gradients are written down, not
recorded.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from molhpft.core.network import Chain, Plain
from molhpft.tuning.checkpoints import Weights

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
        values, slopes = self._parameters(self.flat), self._parameters(self.gradient)
        linears = [name for name, m in head.named_modules() if isinstance(m, nn.Linear)]
        self.outputs = values[f"{linears[-1]}.weight"].shape[1]
        self._layers = [
            _Layer(
                (values[f"{name}.weight"], values[f"{name}.bias"]),
                (slopes[f"{name}.weight"], slopes[f"{name}.bias"]),
                # groups share rows: what the first layer gives is each head's own
                groups=len(weights) if depth else groups,
            )
            for depth, name in enumerate(linears)
        ]

    def forward(self, z: Tensor) -> Tensor:
        """Logits (groups, k, t, n) of features (groups, n, d), a block for each group."""
        h = z.mT
        for depth, layer in enumerate(self._layers):
            h = layer.forward(h.view(-1, *h.shape[2:]).relu() if depth else h)
        return h.view(*self._shape, *h.shape[2:])

    def backward(self, slope: Tensor) -> None:
        """Write `gradient`, from the loss's slope in the logits of the last `forward`.

        Args:
            slope: (groups, k, t, n).
        """
        for depth, layer in reversed(list(enumerate(self._layers))):
            slope = layer.backward(slope, onward=depth > 0)

    def spread(self, values: Sequence[float]) -> Tensor:
        """One number a head, repeated for each of its weights: the shape of `flat`."""
        each = torch.tensor(values, dtype=self.flat.dtype, device=self.flat.device)
        return torch.cat([each.repeat_interleave(s.numel()) for s in self._shapes.values()])

    def heads(self, flat: Tensor) -> list[Weights]:
        """State dict of each head, group by group, from a copy of `flat`."""
        stacked = self._parameters(flat)
        count = self._shape[0] * self._shape[1]
        return [{key: value[i].clone() for key, value in stacked.items()} for i in range(count)]

    def _parameters(self, flat: Tensor) -> Weights:
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
        self, values: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor], *, groups: int
    ) -> None:
        self._outputs, inputs = values[0].shape[1:]
        self._groups = groups
        self._weight, self._weight_slope = (
            pair[0].view(groups, -1, inputs) for pair in (values, slopes)
        )
        self._bias, self._bias_slope = (pair[1].view(groups, -1, 1) for pair in (values, slopes))
        self._input = torch.empty(0)

    def forward(self, h: Tensor) -> Tensor:
        self._input = h
        joint = torch.baddbmm(self._bias, self._weight, h)
        return joint.view(self._groups, -1, self._outputs, joint.shape[2])

    def backward(self, slope: Tensor, *, onward: bool) -> Tensor:
        """Write the slopes; with `onward`, return that of what the ReLU before was given."""
        joint = slope.view(self._groups, -1, slope.shape[-1])
        torch.bmm(joint, self._input.mT, out=self._weight_slope)
        torch.sum(joint, 2, keepdim=True, out=self._bias_slope)
        return torch.bmm(self._weight.mT, joint) * (self._input > 0) if onward else joint
