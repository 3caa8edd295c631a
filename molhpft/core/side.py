"""Side-tuning: a frozen backbone with a trainable copy beside it (Zhang et al., ECCV 2020)."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from molhpft.core.batch import Batch
from molhpft.core.network import Chain, Stage


def side_tuned(backbone: Chain) -> Chain:
    """A backbone of one stage that blends a frozen copy of `backbone` with `backbone` itself.

    Both are equal at first, so the features are those of `backbone` until training moves the side.

    Args:
        backbone: becomes the side network; it is not copied.
    """
    return Chain({"blend": Blend(backbone)})


class Blend(Stage):
    """`a base(x) + (1 - a) side(x)` with a learned share `a` that starts at one half."""

    def __init__(self, side: Chain) -> None:
        super().__init__()
        self.base = _frozen(deepcopy(side))
        self.side = side
        self.logit = nn.Parameter(torch.zeros(()))
        self.width = side.width

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """Blended features, shaped like those of the backbone."""
        share = self.logit.sigmoid()
        blended: Tensor = share * self.base(h, batch) + (1 - share) * self.side(h, batch)
        return blended

    def train(self, mode: bool = True) -> "Blend":
        """Sets the mode of the side alone; the base always evaluates."""
        super().train(mode)
        self.base.eval()
        return self


def _frozen(module: nn.Module) -> nn.Module:
    """Every parameter as a buffer: no optimizer, decay or anchor can find it."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return module
