"""What finetuning adds to the loss of a batch: penalties on weights and on features.

    anchor                `1/2 ||w - w_0||^2` of the backbone, L2-SP (Li et al., ICML 2018)
    head_penalty          `1/2 ||w||^2` of the head, L2-SP's penalty of what has no start to keep to
    stage_anchor          `1/2 ||h - h_0||^2` of what every stage of the encoder gives: the
                          behavioural penalty of DELTA (Li et al., ICLR 2019), all channels alike
    feature_anchor        `1/2 ||z - z_0||^2` of the features that the head reads: distillation from
                          the encoder as it was, by hints (Romero et al., ICLR 2015)
    node_transport        masked optimal transport between the nodes of each graph as they were and
                          as they are, where the last stage gives nodes: GTOT (Zhang et al., IJCAI
                          2022), see `tuning/transport.py`
    spectral_shrinkage    `s^2` of the smallest singular value of a batch of features: batch
                          spectral shrinkage (Chen et al., NeurIPS 2019) with their k of 1

`w_0`, `h_0` and `z_0` are those of the network as the phase began. Squared distances of features
are summed over channels and averaged over rows and positions, so that a strength means the same for
any batch; a transport is averaged over graphs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from molhpft.core.annotations import Float
from molhpft.core.beside import Beside
from molhpft.core.determinism import seed_dropout
from molhpft.core.network import Batch, Chain, Network
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.distributed import Machine
from molhpft.tuning.phase import Phase
from molhpft.tuning.trained_stages import own_stages
from molhpft.tuning.transport import masked_transport, routes_of, transported_stage


def smallest_singular_value(z: Float[Tensor, "rows d ..."]) -> Float[Tensor, ""]:
    """Of the matrix of features, a row for each example (or atom, or pixel) of a batch.

    NaN where a feature is not finite, as where training diverges.
    """
    if not z.isfinite().all():
        return z.sum() * torch.nan
    values: Tensor = torch.linalg.svdvals(z.movedim(1, -1).flatten(0, -2).float())
    return values[-1]


def mean_squared_distance(
    h: Float[Tensor, "rows d ..."], start: Float[Tensor, "rows d ..."]
) -> Float[Tensor, ""]:
    """`||h - h_0||^2`, summed over channels (axis 1), mean over rows and positions."""
    return (h.float() - start.float()).square().sum(1).mean()


class Penalties:
    """The penalties of a phase under way.

    Args:
        network: that is trained, as the phase begins.
        phase: gives the strength of each penalty; one of strength 0 costs nothing.
        machine: that trains.

    Raises:
        ValueError: features are penalised where there is no backbone, or no stage that gives
            nodes, or where several processes share a batch.
    """

    def __init__(self, network: Network, phase: Phase, machine: Machine) -> None:
        self._backbone, self._phase, self._machine = network.backbone, phase, machine
        self._head = network.head
        self._compares = bool(phase.stage_anchor or phase.feature_anchor or phase.node_transport)
        self._watches = self._compares or bool(phase.spectral_shrinkage)
        self._outputs: dict[str, Tensor] = {}
        self._own = own_stages(network.backbone)
        # columns beside the features are no features, and would be the smallest direction
        kinds = network.backbone.named_stages().items()
        self._shrunk = next((n for n, s in reversed(kinds) if not isinstance(s, Beside)), "")
        if self._watches and not network.backbone.names:
            raise ValueError("a penalty on features needs a backbone, and the cut leaves none")
        if self._watches and machine.processes > 1:
            raise ValueError(
                "penalties on features are those of a whole batch, which several processes share; "
                f"set devices: 1, got {machine.processes} processes"
            )
        self._transported = transported_stage(network.backbone) if phase.node_transport else None
        start = dict(network.backbone.named_parameters()) if phase.anchor else {}
        start = network.backbone.state_dict() if self._compares else start
        self._reference: Chain | None = None
        self.start = {name: value.detach().clone() for name, value in start.items()}

    @property
    def start(self) -> Weights:
        """Weights of the backbone as the phase began; empty where nothing is compared with it."""
        return self._start

    @start.setter
    def start(self, weights: Weights) -> None:
        self._start = weights
        if self._compares:
            self._reference = deepcopy(self._backbone).requires_grad_(False)
            self._reference.load_state_dict(weights)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A block in which the outputs of the stages are seen, as penalties on features need it."""
        stages = self._backbone.named_stages() if self._watches else {}
        if self._reference is not None:
            _same_modes(self._backbone, self._reference)
        hooks = [
            stage.register_forward_hook(lambda *call, name=name: self._see(name, call[-1]))
            for name, stage in stages.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def added_to(self, loss: Float[Tensor, ""], batch: Batch, *, dropout: int) -> Float[Tensor, ""]:
        """The loss of a batch that the network has just read, with what is added to it.

        Args:
            loss: of the labels.
            batch: for the network as it was, which reads it too.
            dropout: seed of the batch's dropout: both networks drop the same entries.
        """
        phase = self._phase
        if phase.anchor:
            loss = loss + phase.anchor / 2 * self._squared_weight_distance()
        if phase.head_penalty:
            squares = [weight.square().sum() for weight in self._head.parameters()]
            loss = loss + phase.head_penalty / 2 * torch.stack(squares).sum()
        if self._reference is not None:
            loss = loss + self._feature_distance(self._reference, batch, dropout)
        if phase.spectral_shrinkage:
            z = self._outputs[self._shrunk]
            loss = loss + phase.spectral_shrinkage * smallest_singular_value(z).square()
        self._outputs.clear()
        return loss

    def _see(self, name: str, output: Tensor) -> None:
        self._outputs[name] = output

    def _squared_weight_distance(self) -> Float[Tensor, ""]:
        named = self._backbone.named_parameters()
        return torch.stack([(p - self._start[name]).square().sum() for name, p in named]).sum()

    def _feature_distance(self, reference: Chain, batch: Batch, dropout: int) -> Float[Tensor, ""]:
        seed_dropout(dropout, batch.targets.device)
        h, distances = batch.inputs, []
        with torch.no_grad(), self._machine.autocast():
            stages = list(reference.named_stages().items())
            starts = []
            for _, stage in stages:
                h = stage(h, batch)
                starts.append(h)
        for (name, _), start in zip(stages, starts, strict=True):
            is_last = name == stages[-1][0]
            strength = self._phase.stage_anchor * (name in self._own)
            strength += self._phase.feature_anchor * is_last
            if strength:
                distances.append(strength / 2 * mean_squared_distance(self._outputs[name], start))
            if name == self._transported:
                routes = routes_of(batch.inputs)
                n = len(routes.mass)
                moved = masked_transport(self._outputs[name][:n], start[:n], routes)
                distances.append(self._phase.node_transport * moved)
        return torch.stack(distances).sum()


def _same_modes(network: Chain, reference: Chain) -> None:
    """The modes of a network for the one it began as, whose batch statistics stay what they were.

    Both then drop entries in the same stages; the reference normalises as in evaluation.
    """
    for ours, theirs in zip(network.modules(), reference.modules(), strict=True):
        theirs.training = ours.training and not isinstance(theirs, _BatchNorm)
