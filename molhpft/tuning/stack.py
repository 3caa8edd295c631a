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
from molhpft.tuning.fit import Weights

_CONTAINERS = (Chain, Plain, nn.ModuleDict, nn.Sequential)


def is_stackable(head: Chain) -> bool:
    """Whether the head is linear maps with biases and ReLUs between them, and nothing else."""
    modules = [m for m in head.modules() if not isinstance(m, _CONTAINERS)]
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
                groups=len(weights) if depth else groups,
            )
            for depth, name in enumerate(linears)
        ]

    def forward(self, z: Tensor) -> Tensor:
        """Logits (groups, k, n, t) of features (groups, n, d), a block for each group."""
        h = z
        for depth, layer in enumerate(self._layers):
            # groups that share rows end with the first layer: from there each head has its own
            h = layer.forward(h.flatten(0, 1).relu() if depth else h)
        return h.reshape(*self._shape, *h.shape[2:])

    def backward(self, slope: Tensor) -> None:
        """Write `gradient`, from the loss's slope in the logits of the last `forward`.

        Args:
            slope: (groups, k, n, t).
        """
        for depth, layer in reversed(list(enumerate(self._layers))):
            if depth:
                slope = layer.backward(slope.reshape(-1, 1, *slope.shape[2:]), onward=True)
                slope = slope.view(*self._shape, *slope.shape[1:])
            else:
                layer.backward(slope, onward=False)

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
    """One linear map of every head: (groups, n, i) to (groups, k, n, o)."""

    def __init__(
        self, values: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor], *, groups: int
    ) -> None:
        outputs, inputs = values[0].shape[1:]
        self._outputs = outputs
        self._weight, self._weight_slope = (
            pair[0].view(groups, -1, inputs) for pair in (values, slopes)
        )
        self._transposed = self._weight.mT
        self._bias = values[1].view(groups, 1, -1)
        self._bias_slope = slopes[1].view(groups, -1)
        self._input = torch.empty(0)

    def forward(self, h: Tensor) -> Tensor:
        self._input = h
        joint = torch.baddbmm(self._bias, h, self._transposed)
        return joint.view(*h.shape[:2], -1, self._outputs).transpose(1, 2)

    def backward(self, slope: Tensor, *, onward: bool) -> Tensor:
        """Write the slopes; with `onward`, return that of what the ReLU before was given."""
        joint = slope.transpose(1, 2).flatten(2)
        torch.bmm(joint.mT, self._input, out=self._weight_slope)
        torch.sum(joint, 1, out=self._bias_slope)
        return torch.bmm(joint, self._weight) * (self._input > 0) if onward else joint
