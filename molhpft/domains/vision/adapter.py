"""Any ResNet as a chain with the stages `stem, layer1.0, layer1.1, ..., pool`.

Parts are found by the attribute names that torchvision, timm and the CIFAR ResNets share.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from molhpft.core.network import Chain, Plain
from molhpft.core.snapshot import inference

_ACTIVATIONS = ("relu", "act1")
_POOLS = ("avgpool", "global_pool")
_FURTHER_LAYERS = tuple(f"layer{k}" for k in range(2, 10))
_CLASSIFIERS = ("fc", "linear")


def resnet_chain(module: nn.Module) -> Chain:
    """The backbone of a ResNet, its classifier left out; modules and weights are shared.

    A ReLU after `bn1` and the mean over the feature map are put in where the module has none of its
    own (CIFAR ResNets call functions). The chain is held against the module on a test image.

    Args:
        module: has `conv1`, `bn1`, `layer1`, `layer2`, ...; perhaps `relu` or `act1`, `maxpool`,
            `avgpool` or `global_pool`, and a classifier `fc` or `linear`.

    Returns:
        a chain whose state dict names the parameter `layer1.0.conv1.weight` of the module
        `stages.layer1_0.module.conv1.weight`, and `conv1.weight` `stages.stem.module.conv1.weight`.

    Raises:
        ValueError: an attribute is missing, or the module's own forward pass is not its stem,
            layers, pool and classifier in this order.
    """
    parts = {"stem": _stem(module), **_blocks(module), "pool": _pool(module)}
    stages = {}
    with inference(module):
        image = h = _test_image(parts["stem"])
        for name, part in parts.items():
            h = part(h)
            stages[name] = Plain(part, width=h.shape[1])
        classifier = _first(module, _CLASSIFIERS, nn.Identity())
        ours, theirs = classifier(h), module(image)
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
        raise ValueError(
            f"{type(module).__name__} should compute conv1, bn1, relu, maxpool, {_layers(module)}, "
            "pool and classifier in this order; its forward pass gives something else"
        )
    return Chain(stages)


def _stem(module: nn.Module) -> nn.Module:
    parts = {name: _required(module, name) for name in ("conv1", "bn1")}
    parts["relu"] = _first(module, _ACTIVATIONS, nn.ReLU())
    parts["maxpool"] = _first(module, ("maxpool",), nn.Identity())
    return nn.Sequential(OrderedDict(parts))


def _blocks(module: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{layer}.{name}": block
        for layer in _layers(module)
        for name, block in _required(module, layer).named_children()
    }


def _layers(module: nn.Module) -> list[str]:
    return ["layer1", *(name for name in _FURTHER_LAYERS if hasattr(module, name))]


def _pool(module: nn.Module) -> nn.Module:
    return nn.Sequential(_first(module, _POOLS, nn.AdaptiveAvgPool2d(1)), nn.Flatten())


def _first(module: nn.Module, names: tuple[str, ...], otherwise: nn.Module) -> nn.Module:
    found = (getattr(module, name, None) for name in names)
    return next((part for part in found if isinstance(part, nn.Module)), otherwise)


def _required(module: nn.Module, name: str) -> nn.Module:
    part = getattr(module, name, None)
    if not isinstance(part, nn.Module):
        raise ValueError(
            f"{type(module).__name__} should have the attributes conv1, bn1, layer1, ... of a "
            f"ResNet; it has no module {name}"
        )
    return part


def _test_image(stem: nn.Module) -> Tensor:
    """Two different images of 32 x 32 pixels, small enough for CIFAR's and ImageNet's ResNets."""
    conv = next(part for part in stem.modules() if isinstance(part, nn.Conv2d))
    steps = torch.arange(2 * conv.in_channels * 32 * 32).to(conv.weight)
    return steps.sin().reshape(2, conv.in_channels, 32, 32)
