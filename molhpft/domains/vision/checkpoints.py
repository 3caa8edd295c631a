"""Pretrained ResNets from files: our own, supervised ones, and those of MoCo, SimCLR or BYOL.

They all hold torchvision's names under some prefix (`module.encoder_q.layer1.0.conv1.weight`),
beside heads, queues and slowly moving copies of the encoder, which are left out.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from molhpft.core.network import Chain, linear_head
from molhpft.domains.weights import (
    WeightFile,
    backbone_weights,
    encoder_prefix,
    read_weights,
    strip_prefix,
)

_OURS = ("stages.stem.module.conv1.weight",)
_LANDMARKS = ("layer1.0.conv1.weight", "4.0.conv1.weight")
# nn.Sequential(*resnet.children()), as examples of SimCLR and BYOL build their encoders; without
# its max-pool, as those for CIFAR do, layers are numbered from 3
_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
_CLASSIFIER = re.compile(r"(.*\.)?(fc|linear)\.weight")
_BLOCK = re.compile(r"stages\.layer(\d)_(\d+)\.module\.(.+)")


def load_resnet(backbone: Chain, path: Path) -> None:
    """Put the weights of a file into a ResNet; heads, queues and momentum encoders are left out.

    Args:
        backbone: from `cifar_resnet`, `resnet` or `resnet_chain`; changed in place, or not at all.
        path: one of our `model.safetensors`, or a state dict with torchvision's names under any
            prefix: supervised (`module.`), MoCo v2 (`module.encoder_q.`), SimCLR and BYOL
            (`backbone.`, `encoder.`, `online_network.`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, holds no ResNet or several, or one of another
            architecture; the message says what it is and where it differs.
    """
    file = read_weights(path)
    weights, needed = encoder_weights(file), backbone.state_dict()
    if misfit := _first_misfit(weights, needed):
        hint = _other_stem(weights, needed)
        raise ValueError(
            f"{path} is {describe(file)}; this encoder differs from it: {misfit}{hint}"
        )
    backbone.load_state_dict({name: weights.get(name, needed[name]) for name in needed})


def supervised_head(path: Path) -> Chain:
    """The linear classifier in the file of a supervised ResNet, as a head for the same classes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, or holds no layer `fc` or `linear`, or several.
    """
    tensors = read_weights(path).tensors
    names = [name.removesuffix(".weight") for name in tensors if _CLASSIFIER.fullmatch(name)]
    if len(names) != 1 or f"{names[0]}.bias" not in tensors:
        classifiers = ", ".join(names) or "none"
        raise ValueError(f"{path} should hold one classifier, fc or linear; it has: {classifiers}")
    parts = {part: tensors[f"{names[0]}.{part}"] for part in ("weight", "bias")}
    outputs, width = parts["weight"].shape
    head = linear_head(width, outputs)
    head.load_state_dict({f"stages.linear.module.{part}": t for part, t in parts.items()})
    return head


def encoder_weights(file: WeightFile) -> dict[str, Tensor]:
    """Weights of the ResNet in a file, by the names its chain has for them.

    Raises:
        ValueError: the file holds no ResNet, or several of which none is plainly the encoder.
    """
    prefix, ours = _prefix(file)
    if ours:
        return backbone_weights(file, prefix)
    parts = strip_prefix(file.tensors, prefix)
    if _LANDMARKS[1] in parts:
        pooled = "3.0.conv1.weight" not in parts
        children = [name for name in _CHILDREN if pooled or name != "maxpool"]
        parts = {_named(name, children): tensor for name, tensor in parts.items()}
    renamed = ((_chain_name(name), tensor) for name, tensor in parts.items())
    return {name: tensor for name, tensor in renamed if name}


def describe(file: WeightFile) -> str:
    """What a weight file is, such as "a ResNet-50 (blocks 3, 4, 6, 3) stored as encoder_q.*".

    Raises:
        ValueError: it holds no ResNet this package knows.
    """
    names = [match.groups() for match in map(_BLOCK.fullmatch, encoder_weights(file)) if match]
    counts = Counter(layer for layer, _ in {(layer, block) for layer, block, _ in names})
    convolutions = 3 if any(name == "conv3.weight" for *_, name in names) else 2
    depth = convolutions * counts.total() + 2
    blocks = ", ".join(str(counts[layer]) for layer in sorted(counts))
    return f"a ResNet-{depth} (blocks {blocks}) stored as {_prefix(file)[0]}*"


def _other_stem(weights: dict[str, Tensor], needed: dict[str, Tensor]) -> str:
    """Which encoder has the stem of the file, where only the size of its kernel is another."""
    name = "stages.stem.module.conv1.weight"
    theirs, ours = (tuple(one[name].shape) if name in one else () for one in (weights, needed))
    if len(theirs) != 4 or theirs[:2] != ours[:2] or theirs == ours:
        return ""
    other = "cifar_resnet" if theirs[2] == 3 else "resnet"
    return f"; the encoder {other} has a stem of {theirs[2]} x {theirs[3]}"


def _prefix(file: WeightFile) -> tuple[str, bool]:
    """The prefix of the encoder's names, and whether they are those of our chain."""
    ours = encoder_prefix(file, _OURS)
    theirs = encoder_prefix(file, _LANDMARKS) if ours is None else None
    if ours is None and theirs is None:
        raise ValueError(
            f"{file.path} is no ResNet this package knows (its first tensors are "
            f"{', '.join(list(file.tensors)[:3]) or 'none'}); give a molhpft model.safetensors or "
            "a state dict with names such as layer1.0.conv1.weight"
        )
    return (ours, True) if ours is not None else (theirs or "", False)


def _named(numbered: str, children: Sequence[str]) -> str:
    number, _, rest = numbered.partition(".")
    exists = number.isdecimal() and int(number) < len(children)
    return f"{children[int(number)] if exists else number}.{rest}"


def _chain_name(name: str) -> str | None:
    """The chain's name for a parameter of stem or layers; None for a head's."""
    if match := re.fullmatch(r"(layer\d)\.(\d+)\.(.+)", name):
        layer, block, rest = match.groups()
        # as pytorch-cifar calls what torchvision calls downsample
        rest = re.sub(r"^shortcut\.", "downsample.", rest)
        return f"stages.{layer}_{block}.module.{rest}"
    return f"stages.stem.module.{name}" if re.match(r"(conv1|bn1)\.", name) else None


def _first_misfit(weights: dict[str, Tensor], needed: dict[str, Tensor]) -> str | None:
    for name in [*needed, *weights]:
        if name.endswith("num_batches_tracked"):
            continue  # files older than torch 0.4.1 lack it, and nothing here reads it
        if name not in weights:
            return f"it needs {name}, which the file lacks"
        if name not in needed:
            return f"the file has {name}, which it has no place for"
        if weights[name].shape != needed[name].shape:
            ours, theirs = tuple(needed[name].shape), tuple(weights[name].shape)
            return f"{name} is {ours} in it and {theirs} in the file"
    return None
