"""Optimizers, learning rates and their schedules, from a phase."""

from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from molhpft.core.network import Network
from molhpft.tuning.phase import Phase


def optimizer(network: Network, phase: Phase) -> Optimizer:
    """A fresh optimizer over what the phase trains; `base_lr` of each group is its own rate.

    Raises:
        ValueError: no parameter of it requires gradients.
    """
    groups = _groups(network, phase)
    if not groups:
        trained = "the head" if phase.trains == "head" else "the network"
        raise ValueError(f"nothing to train: no parameter of {trained} requires gradients")
    # fused: one pass over the weights instead of one a formula, on CPU and GPU alike
    options: dict[str, Any] = {"weight_decay": phase.weight_decay, "fused": True}
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, **options)
    kind = torch.optim.AdamW if phase.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=phase.lr, **options)


def set_learning_rate(optimizer: Optimizer, phase: Phase, *, done: float) -> None:
    """Set every group's rate for the share `done` in [0, 1] of the phase that lies behind."""
    factor = (1 + cos(pi * done)) / 2 if phase.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def backbone_rate(network: Network, phase: Phase) -> float:
    """The learning rate of the fastest stage of the backbone; 0 where none of it is trained."""
    own = {id(parameter) for parameter in network.backbone.parameters()}
    groups = _groups(network, phase)
    return max(
        (g["base_lr"] for g in groups if any(id(p) in own for p in g["params"])), default=0.0
    )


def tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of moments and step counts, flat: "parameter number.name" to tensor."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": value.clone()
        for i, moments in state.items()
        for name, value in moments.items()
    }


def load_tensors(optimizer: Optimizer, saved: dict[str, Tensor]) -> None:
    """Put back what `tensors` gave, into an optimizer of the same network and phase.

    `saved` is copied: the optimizer steps on tensors of its own.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _groups(network: Network, phase: Phase) -> list[dict[str, Any]]:
    """Parameters by learning rate: few groups, as each is a call of its own in every step."""
    stages: list[tuple[nn.Module, float]] = [(network.head, phase.lr)]
    if phase.trains == "all":
        for depth, stage in enumerate(reversed(list(network.backbone)), start=1):
            rate = (phase.backbone_lr or phase.lr) * phase.layer_decay**depth
            stages.append((stage, rate))
    groups: dict[float, list[Tensor]] = {}
    for module, rate in stages:
        trainable = [p for p in module.parameters() if p.requires_grad]
        groups.setdefault(rate, []).extend(trainable)
    return [{"params": params, "base_lr": rate} for rate, params in groups.items() if params]
