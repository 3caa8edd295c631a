"""ResNets (He et al., 2016) with torchvision's names, as chains `stem, layer1.0, ..., pool`.

Our own come in two families: those for CIFAR, with a stem that keeps the size of the image, and
those for ImageNet. Any other ResNet becomes a chain by the attribute names that torchvision, timm
and the CIFAR ResNets share.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import Count
from molhpft.core.evaluate import inference
from molhpft.core.network import Chain, Plain

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
        Its blocks answer to the names of Ren et al. (2023) too: `layer4.2` is `L4.3`.

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
    if ours.shape != theirs.shape or not _equal(ours, theirs):
        raise ValueError(
            f"{type(module).__name__} should compute conv1, bn1, relu, maxpool, "
            f"{_residual_layers(module)}, pool and classifier in this order; "
            "its forward pass gives something else"
        )
    return Chain(stages, also=_paper_names(stages))


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    """Whether both are equal up to rounding; a module without numbers has only their shapes."""
    return ours.is_meta or torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def _paper_names(stages: Iterable[str]) -> dict[str, str]:
    """Blocks as Ren et al. (2023) call them, counted from 1: layer4.2 is L4.3."""
    blocks = (re.fullmatch(r"layer(\d+)\.(\d+)", name) for name in stages)
    return {block[0]: f"L{block[1]}.{int(block[2]) + 1}" for block in blocks if block}


def _stem(module: nn.Module) -> nn.Module:
    parts = {name: _required(module, name) for name in ("conv1", "bn1")}
    parts["relu"] = _first(module, _ACTIVATIONS, nn.ReLU())
    parts["maxpool"] = _first(module, ("maxpool",), nn.Identity())
    return nn.Sequential(OrderedDict(parts))


def _blocks(module: nn.Module) -> dict[str, nn.Module]:
    return {
        f"{layer}.{name}": block
        for layer in _residual_layers(module)
        for name, block in _required(module, layer).named_children()
    }


def _residual_layers(module: nn.Module) -> list[str]:
    return ["layer1", *(name for name in _FURTHER_LAYERS if hasattr(module, name))]


def _pool(module: nn.Module) -> nn.Module:
    return nn.Sequential(_first(module, _POOLS, nn.AdaptiveAvgPool2d(1)), nn.Flatten())


def _first(module: nn.Module, names: tuple[str, ...], otherwise: nn.Module) -> nn.Module:
    parts = (getattr(module, name, None) for name in names)
    return next((part for part in parts if isinstance(part, nn.Module)), otherwise)


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


Dilations = tuple[int, int]  # of a block's first and second 3 x 3 convolution

_CIFAR_WIDTHS = (16, 32, 64)
_WIDTHS = (64, 128, 256, 512)
_COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_STRIDES_AND_DILATIONS = {  # of the four layers, by output stride
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
}


def cifar_resnet(*, depth: Literal[18, 20, 32, 34, 44, 50, 56] = 20, channels: Count = 3) -> Chain:
    """ResNet for images of about 32 x 32 pixels, whose stem is one 3 x 3 convolution.

    Of depth 20, 32, 44 or 56 it is that of He et al. section 4.2, with features of width 64. Of
    depth 18, 34 or 50 it is ImageNet's without the strides and the max-pool of its stem, as most
    networks that are called ResNet-18 for CIFAR; widths are those of `resnet`.

    >>> cifar_resnet(depth=20).names[:3]
    ['stem', 'layer1.0', 'layer1.1']

    Args:
        depth: layers with weights, a classifier included.
        channels: of the images.
    """
    if depth in _COUNTS:
        layers, width = _imagenet_layers(depth, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1)), 64
    else:
        counts, width = [(depth - 2) // 6] * 3, 16
        layers = _layers(_cifar_block, 16, _CIFAR_WIDTHS, counts, strides=(1, 2, 2))
    conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return resnet_chain(ResNet(conv1, nn.Identity(), layers))


def resnet(
    *, depth: Literal[18, 34, 50] = 50, output_stride: Literal[8, 16, 32] = 32, channels: Count = 3
) -> Chain:
    """ResNet as for ImageNet, features of width 512 (depth 18 and 34) or 2,048 (50).

    Args:
        depth: layers with weights, a classifier included.
        output_stride: image pixels for each step on the last feature map; below 32 the last stages
            widen their kernels (dilation) instead of striding.
        channels: of the images.
    """
    strides, dilations = _STRIDES_AND_DILATIONS[output_stride]
    layers = _imagenet_layers(depth, strides=strides, dilations=dilations)
    conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return resnet_chain(ResNet(conv1, nn.MaxPool2d(3, stride=2, padding=1), layers))


def _imagenet_layers(
    depth: int, *, strides: Sequence[int], dilations: Sequence[int]
) -> list[nn.Sequential]:
    make, expansion = (_bottleneck, 4) if depth == 50 else (_basic_block, 1)
    widths = [width * expansion for width in _WIDTHS]
    return _layers(make, 64, widths, _COUNTS[depth], strides=strides, dilations=dilations)


class ResNet(nn.Module):
    """Stem, layers of blocks, mean over the feature map: images to features (n, d)."""

    def __init__(
        self, conv1: nn.Conv2d, maxpool: nn.Module, layers: Sequence[nn.Sequential]
    ) -> None:
        super().__init__()
        self.conv1 = conv1
        self.bn1 = nn.BatchNorm2d(conv1.out_channels)
        self.relu = nn.ReLU()
        self.maxpool = maxpool
        self.layer_names = [f"layer{k}" for k in range(1, len(layers) + 1)]
        for name, layer in zip(self.layer_names, layers, strict=True):
            self.add_module(name, layer)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, d) of images (n, channels, height, width)."""
        h: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self.layer_names:
            h = self.get_submodule(name)(h)
        features: Tensor = self.avgpool(h)
        return features.flatten(1)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        dilations: Dilations,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.conv1 = _conv3(inputs, width, stride, dilations[0])
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, 1, dilations[1])
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, height / stride, width / stride)."""
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(h + (x if self.downsample is None else self.downsample(x)))
        return result


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut; the stride is the 3 x 3's."""

    def __init__(
        self,
        inputs: int,
        width: int,
        stride: int,
        dilations: Dilations,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        narrow = width // 4
        self.conv1 = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = _conv3(narrow, narrow, stride, dilations[0])
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = nn.Conv2d(narrow, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, height / stride, width / stride)."""
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(h)))))
        result: Tensor = self.relu(h + (x if self.downsample is None else self.downsample(x)))
        return result


class PadShortcut(nn.Module):
    """He et al.'s option A: every second pixel, missing channels zero on both sides; no weights."""

    def __init__(self, missing: int) -> None:
        super().__init__()
        self.pad = missing // 2

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels + missing, height / 2, width / 2)."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


def _layers(
    make: Callable[[int, int, int, Dilations], nn.Module],
    inputs: int,
    widths: Sequence[int],
    counts: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1, 1),
) -> list[nn.Sequential]:
    layers, before = [], 1
    for width, count, stride, dilation in zip(widths, counts, strides, dilations, strict=True):
        # where a stride became a dilation, the first block still sees inputs at the old spacing
        first = make(inputs, width, stride, (before, dilation))
        rest = [make(width, width, 1, (dilation, dilation)) for _ in range(count - 1)]
        layers.append(nn.Sequential(first, *rest))
        inputs, before = width, dilation
    return layers


def _cifar_block(inputs: int, width: int, stride: int, dilations: Dilations) -> nn.Module:
    shortcut = PadShortcut(width - inputs) if stride > 1 or inputs != width else None
    return BasicBlock(inputs, width, stride, dilations, shortcut)


def _basic_block(inputs: int, width: int, stride: int, dilations: Dilations) -> nn.Module:
    return BasicBlock(inputs, width, stride, dilations, _conv_shortcut(inputs, width, stride))


def _bottleneck(inputs: int, width: int, stride: int, dilations: Dilations) -> nn.Module:
    return Bottleneck(inputs, width, stride, dilations, _conv_shortcut(inputs, width, stride))


def _conv_shortcut(inputs: int, width: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == width:
        return None
    conv = nn.Conv2d(inputs, width, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width))


def _conv3(inputs: int, width: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False
    )
