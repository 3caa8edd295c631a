"""The head that an encoder was pretrained with, where its weight file still has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from molhpft.config.registry import HEADS
from molhpft.config.schema import BESIDE
from molhpft.core.network import Batch, Chain, Plain
from molhpft.core.standardise import STAGE
from molhpft.domains.weights import WeightFile, strip_prefix

_FFN = "predictor.ffn."


@dataclass(frozen=True, eq=False)
class SourceHead:
    """What a pretrained head says of features.

    Attributes:
        head: reads features as the encoder gives them.
        outputs: independent labels, or classes that exclude one another.
        mean: of each feature, subtracted before the head reads them, or 0.
        std: that features are divided by then, or 1.
    """

    head: Chain
    outputs: Literal["labels", "classes"]
    mean: Tensor
    std: Tensor

    def probabilities(self, z: Tensor) -> Tensor:
        """Of yes for each label, or of each class, (n, k), for features (n, d)."""
        with torch.no_grad():
            x = (z.float() - self.mean) / self.std
            logits: Tensor = self.head(x, Batch(x, x[:, :0]))
        return logits.sigmoid() if self.outputs == "labels" else logits.softmax(1)


def source_head(file: WeightFile, *, width: int) -> SourceHead | str:
    """The head of a weight file whose outputs are labels or classes, or why there is none.

    Read are the heads of this package's own runs, and of chemprop's models of yes-or-no labels.

    Args:
        file: of an encoder.
        width: of the encoder's features.
    """
    if file.about:
        return _own_head(file, width)
    if not any(name.startswith(_FFN) for name in file.tensors):
        return "its file has no head that is known"
    return _chemprop_head(file, width)


def _own_head(file: WeightFile, width: int) -> SourceHead | str:
    weights, about = strip_prefix(file.tensors, "head."), file.about
    config: Mapping[str, Any] = about.get("config", {})
    if not weights or "head" not in config:
        return "its file has no head"
    outputs = about.get("outputs")
    if outputs not in ("labels", "classes"):
        return "its head predicts numbers, or its file does not say what"
    if config.get("cut") is not None:
        return "its head has layers of the encoder"
    if config["head"].get(BESIDE):
        return "its head reads more than features"
    options = {key: value for key, value in config["head"].items() if key != "name"}
    last = [tensor for tensor in weights.values() if tensor.ndim == 2][-1]
    head = HEADS[config["head"]["name"]].build(width, len(last), **options)
    head.load_state_dict(weights)
    own = strip_prefix(file.tensors, f"backbone.stages.{STAGE}.")
    mean, std = own.get("mean", torch.zeros(())), own.get("std", torch.ones(()))
    return SourceHead(head, outputs, mean, std)


def _chemprop_head(file: WeightFile, width: int) -> SourceHead | str:
    """Linear layers with a ReLU between, as `BinaryClassificationFFN` has them."""
    settings = file.settings.get("predictor", {})
    if settings.get("cls") != "BinaryClassificationFFN":
        return f"the outputs of its head ({settings.get('cls', 'unknown')}) are no labels"
    if settings.get("activation", "ReLU").lower() != "relu":
        return f"its head has the activation {settings['activation']}, which is not read"
    weights = strip_prefix(file.tensors, _FFN)
    names = sorted(name for name in weights if name.endswith(".weight"))
    if weights[names[0]].shape[1] != width:
        return "its head reads more than features"
    layers: dict[str, Plain] = {}
    for k, name in enumerate(names):
        if k:
            layers[f"relu{k}"] = Plain(torch.nn.ReLU(), width=weights[name].shape[1])
        layers[f"linear{k}"] = _linear(weights[name], weights[name.replace("weight", "bias")])
    return SourceHead(Chain(layers), "labels", torch.zeros(()), torch.ones(()))


def _linear(weight: Tensor, bias: Tensor) -> Plain:
    linear = torch.nn.Linear(weight.shape[1], len(weight))
    linear.load_state_dict({"weight": weight, "bias": bias})
    return Plain(linear, width=len(weight))
