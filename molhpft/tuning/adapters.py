"""Adapters: low-rank changes of linear maps and convolutions, trained in place of their weights.

LoRA (Hu et al., ICLR 2022, equation 3): `W x = W_0 x + B A x` with `A` (r, k) and `B` (d, r), of
which `A` begins as Gaussian noise and `B` as 0. A convolution is a linear map of the entries below
its kernel, so its weight (d, channels, height, width) is one of d rows: `A` is a convolution to r
channels, `B` one of kernel 1 behind it.

AdapterGNN (Li et al., AAAI 2024) puts adapters beside a graph layer, `h + s BN(B relu(A h))` with a
learned scaling `s` that begins at 0.01. With a ReLU between its maps an adapter is part of no
weight. What can be: `W = W_0 + s B A`, beside each linear map instead of around message passing.

The network itself holds `W` at every step, so it is a plain one all along: what trained is what is
saved, bit for bit. Gradients reach the adapters by the chain rule, for a gradient `G` in `W`:
`dB = s G A^T`, `dA = s B^T G`, `ds = <G, B A>`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from molhpft.core.annotations import Float
from molhpft.core.network import Chain, Network
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.phase import Phase
from molhpft.tuning.trained_stages import trained_stages


class Adapter:
    """A low-rank change of one weight.

    Attributes:
        weight: the network's own, `W`, which `merge` changes.
        start: the weight as it was, of its own shape.
        down: `A`, (r, k), where k is the number of entries of a row of the weight.
        up: `B`, (d, r).
        scaling: `s`, (); None where it is 1.
    """

    def __init__(
        self, weight: nn.Parameter, *, rank: int, scaling: float | None, rng: torch.Generator
    ) -> None:
        """Begin with no change.

        Args:
            weight: (d, ...); changed by `merge`.
            rank: r.
            scaling: what `s` begins with; None for a scaling of 1 that is not learned.
            rng: draws `A`.
        """
        rows, columns = weight.flatten(1).shape
        self.weight = weight
        self.start = weight.detach().clone()
        noise = torch.randn(rank, columns, generator=rng) / columns**0.5
        self.down = nn.Parameter(noise.to(weight))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        self.scaling = None if scaling is None else nn.Parameter(weight.new_tensor(scaling))

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        named = {"down": self.down, "up": self.up, "scaling": self.scaling}
        return {name: value for name, value in named.items() if value is not None}

    def take_gradient(self) -> None:
        """Pass the weight's gradient on; a weight without one leaves none."""
        gradient, self.weight.grad = self.weight.grad, None
        for parameter in self.parameters.values():
            parameter.grad = None
        if gradient is None:
            return
        g, s = gradient.flatten(1), self._scale
        self.up.grad, self.down.grad = s * (g @ self.down.mT), s * (self.up.mT @ g)
        if self.scaling is not None:
            self.scaling.grad = (g * (self.up @ self.down)).sum()

    def merge(self) -> None:
        """Give the weight `W_0 + s B A`."""
        change = self._scale * (self.up @ self.down)
        self.weight.copy_(self.start + change.view_as(self.start))

    @property
    def _scale(self) -> Float[Tensor, ""] | float:
        return 1.0 if self.scaling is None else self.scaling


class Adapters:
    """The adapters of a phase, by the names of their weights; perhaps none."""

    def __init__(self, adapters: dict[str, Adapter]) -> None:
        self._adapters = adapters
        self._by_weight = {id(adapter.weight): adapter for adapter in adapters.values()}

    def in_place_of(self, parameter: nn.Parameter) -> Sequence[nn.Parameter]:
        """What is trained in place of a parameter: itself where it has no adapter."""
        adapter = self._by_weight.get(id(parameter))
        return [parameter] if adapter is None else list(adapter.parameters.values())

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Pass the gradients of the weights on to what is trained in their place."""
        for adapter in self._adapters.values():
            adapter.take_gradient()

    @torch.no_grad()
    def merge(self) -> None:
        """Give the network the weights that the adapters say."""
        for adapter in self._adapters.values():
            adapter.merge()

    def state(self) -> Weights:
        """Copies of everything that `load_state` needs."""
        return {
            f"{name}:{part}": value.detach().clone()
            for name, adapter in self._adapters.items()
            for part, value in (*adapter.parameters.items(), ("start", adapter.start))
        }

    @torch.no_grad()
    def load_state(self, state: Weights) -> None:
        """Take back what `state` gave."""
        for name, adapter in self._adapters.items():
            for part, value in (*adapter.parameters.items(), ("start", adapter.start)):
                value.copy_(state[f"{name}:{part}"])


NONE = Adapters({})


@contextmanager
def adapted(network: Network, phase: Phase, *, rng: torch.Generator) -> Iterator[Adapters]:
    """A block in which adapters are trained in place of the weights of the backbone, if any are.

    Linear maps and convolutions of the trained stages have one each; every other parameter of the
    backbone requires no gradient. Afterwards all require gradients as before.

    Args:
        network: merged at every step.
        phase: says which rank.
        rng: a copy of it draws the adapters, so that examples come in the order of any other phase.

    Raises:
        ValueError: no linear map or convolution of the backbone is trained.
    """
    if phase.adapter_rank is None:
        yield NONE
        return
    check_adapters(network.backbone, phase)
    before = [(p, p.requires_grad) for p in network.backbone.parameters()]
    weights = _matrices(network.backbone, phase)
    own_rng = torch.Generator(rng.device)
    own_rng.set_state(rng.get_state())
    adapters = {
        name: Adapter(weight, rank=phase.adapter_rank, scaling=phase.adapter_scaling, rng=own_rng)
        for name, weight in weights.items()
    }
    network.backbone.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
        weight.grad = None
    try:
        yield Adapters(adapters)
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)


def check_adapters(backbone: Chain, phase: Phase) -> None:
    """Refuse adapters where there is nothing to put them on.

    Raises:
        ValueError: the phase asks for some, and no linear map or convolution is trained.
    """
    if phase.adapter_rank and not _matrices(backbone, phase):
        raise ValueError(
            f"adapter_rank {phase.adapter_rank} puts adapters on linear maps and convolutions, and "
            f"the stages that are trained ({', '.join(trained_stages(backbone, phase)) or 'none'}) "
            "have none; name other stages, or leave adapter_rank out"
        )


def _matrices(backbone: Chain, phase: Phase) -> dict[str, nn.Parameter]:
    """Weights of linear maps and convolutions in trained stages that the caller has not frozen."""
    weights: dict[str, nn.Parameter] = {}
    stages = backbone.named_stages()
    for stage in trained_stages(backbone, phase):
        for name, module in stages[stage].named_modules():
            weight = getattr(module, "weight", None)
            # an embedding is a table; a side network's base has buffers
            if isinstance(module, _TABLES) or not isinstance(weight, nn.Parameter):
                continue
            # by its shape, as some graph layers hold the matrix of a linear map themselves
            if weight.ndim > 1 and weight.requires_grad and not _is_among(weight, weights):
                weights[f"{stage}.{name}"] = weight
    return weights


def _is_among(weight: nn.Parameter, weights: dict[str, nn.Parameter]) -> bool:
    return any(weight is other for other in weights.values())


_TABLES = (nn.Embedding, nn.EmbeddingBag)
