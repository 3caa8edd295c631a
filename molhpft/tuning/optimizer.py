"""The optimizer of a phase: learning rates by stage, their schedule, and moments to resume from."""

from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from molhpft.core.network import Network
from molhpft.tuning.adapters import NONE, Adapters
from molhpft.tuning.callbacks import Weights
from molhpft.tuning.phase import Phase
from molhpft.tuning.trained_stages import trained_stages, with_weights


def make_optimizer(network: Network, phase: Phase, *, adapters: Adapters = NONE) -> Optimizer:
    """A fresh optimizer over what the phase trains; `base_lr` of each group is its own rate.

    Args:
        network: that is trained.
        phase: says how.
        adapters: what is trained in place of weights of the network.

    Raises:
        ValueError: no parameter of it requires gradients.
    """
    groups = _groups(network, phase, adapters)
    if not groups:
        trained = "the head" if phase.trains == "head" else "the network"
        raise ValueError(f"nothing to train: no parameter of {trained} requires gradients")
    # fused: one pass over the weights instead of one a formula, on CPU and GPU alike
    options: dict[str, Any] = {"weight_decay": phase.weight_decay, "fused": True}
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=phase.lr, momentum=phase.momentum, **options)
    kind = torch.optim.AdamW if phase.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=phase.lr, **options)


# of torch's OneCycleLR: what the rate begins with, and ends with, as fractions of the peak
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START / 1e4


def set_learning_rate(optimizer: Optimizer, phase: Phase, *, done: float, steps: int) -> None:
    """Set every group's learning rate for the step that comes next.

    Args:
        optimizer: of the phase.
        phase: says how rates go.
        done: fraction of the phase that is over, in [0, 1].
        steps: optimizer steps in the phase.
    """
    factor = _rate_factor(phase, done=done, steps=steps)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _rate_factor(phase: Phase, *, done: float, steps: int) -> float:
    """What rates are multiplied by: a formula of the step, so that nothing has to be resumed."""
    if phase.schedule == "one_cycle":
        return _one_cycle(done * steps, peak=phase.warmup * steps - 1, last=steps - 1)
    if done < phase.warmup:  # the first step is no step of rate 0
        return min(1.0, (done + 1 / steps) / phase.warmup)
    if phase.schedule == "cosine":
        return (1 + cos(pi * (done - phase.warmup) / (1 - phase.warmup))) / 2
    return 1.0


def _one_cycle(step: float, *, peak: float, last: float) -> float:
    """Half a cosine up to 1 at step `peak`, and another down to the end at step `last`."""
    if step < peak:
        return 1 + (ONE_CYCLE_START - 1) * (1 + cos(pi * step / peak)) / 2
    peak = max(peak, 0.0)
    way = (step - peak) / (last - peak) if last > peak else 0.0
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * (1 + cos(pi * way)) / 2


def backbone_rate(network: Network, phase: Phase) -> float:
    """The learning rate of the fastest stage of the backbone; 0 where none of it is trained."""
    own = {id(parameter) for parameter in network.backbone.parameters()}
    groups = _groups(network, phase)
    return max(
        (g["base_lr"] for g in groups if any(id(p) in own for p in g["params"])), default=0.0
    )


def optimizer_tensors(optimizer: Optimizer) -> Weights:
    """Copies of moments and step counts, flat: "parameter number.name" to tensor."""
    state: dict[int, Weights] = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": value.clone()
        for i, moments in state.items()
        for name, value in moments.items()
    }


def load_optimizer_tensors(optimizer: Optimizer, saved: Weights) -> None:
    """Put copies of what `optimizer_tensors` gave into an optimizer of the same phase."""
    state: dict[int, Weights] = {}
    for key, value in saved.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _groups(network: Network, phase: Phase, adapters: Adapters = NONE) -> list[dict[str, Any]]:
    """Parameters by learning rate: few groups, as each costs calls of its own in every step."""
    stages: list[tuple[str, nn.Module, float]] = [("", network.head, phase.lr)]
    trained = trained_stages(network.backbone, phase)
    layers = network.backbone.named_stages()
    for depth, name in enumerate(reversed(with_weights(layers, layers)), start=1):
        if name in trained:
            rate = (phase.backbone_lr or phase.lr) * phase.layer_decay**depth
            # torch's fused SGD takes no group of which some have begun and others not
            stages.append((name if phase.unfreeze_every else "", layers[name], rate))
    groups: dict[tuple[str, float], list[Tensor]] = {}
    for begins_with, module, rate in stages:
        own = groups.setdefault((begins_with, rate), [])
        trained_here = (p for p in module.parameters() if p.requires_grad)
        own.extend(one for p in trained_here for one in adapters.in_place_of(p))
    return [{"params": own, "base_lr": rate} for (_, rate), own in groups.items() if own]
