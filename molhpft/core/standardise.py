"""Features in standard units: the stage that a backbone may end with, so that a head learns faster.

The columns of pretrained features differ in scale by orders of magnitude. A head that reads them as
they are learns the large ones only in the few epochs that a probe has.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from molhpft.core.annotations import Count, Float
from molhpft.core.data import Task
from molhpft.core.evaluate import evaluation_batches, inference
from molhpft.core.network import Batch, Chain, Network, Stage

STAGE = "standardised"
"""Name of the stage in a backbone."""

_LEAST = 0.1  # of the root mean square deviation; a column that varies less is hardly one


class Standardised(Stage):
    """`(z - mean) / std`, column by column (axis 1). Neither mean nor std is trained.

    Args:
        width: number of columns; their mean is 0 and their std 1 until they are fitted.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: Count) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, h: Float[Tensor, "rows d ..."], batch: Batch) -> Float[Tensor, "rows d ..."]:
        """Features in standard units."""
        shape = (-1, *[1] * (h.ndim - 2))
        return (h - self.mean.view(shape)) / self.std.view(shape)


def ending_standardised(backbone: Chain) -> Chain:
    """The backbone with a stage that standardises its features and is still to be fitted."""
    return backbone.followed_by(Chain({STAGE: Standardised(backbone.width)}))


def standardised(network: Network, task: Task) -> Network:
    """The network with features of mean 0 and standard deviation 1 over the training split.

    They are fitted once, to the features in eval mode, and stay when the backbone moves. A column
    that is as good as constant on these examples is not blown up on others: std is at least a tenth
    of the columns' root mean square.

    Args:
        network: its modules are shared with the result.
        task: whose training split is read once, without augmentation.
    """
    device = next(network.parameters()).device
    with inference(network):
        batches = evaluation_batches(task, "train")
        mean, std = _moments(network.features(b.to(device)) for b in batches)
    backbone = ending_standardised(network.backbone)
    backbone.stages[STAGE].load_state_dict({"mean": mean, "std": std})
    return Network(backbone.to(device), network.head)


def _moments(features: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and floored standard deviation of each column, float32 (d,), from features in parts."""
    n, shift, total, squares = 0, torch.empty(0), torch.empty(0), torch.empty(0)
    for z in features:
        rows = z.movedim(1, -1).flatten(0, -2).double()
        if not n:  # sums of squares of numbers far from 0 would cancel
            shift, total, squares = rows.mean(0), rows.new_zeros(()), rows.new_zeros(())
        moved = rows - shift
        n, total, squares = n + len(rows), total + moved.sum(0), squares + moved.square().sum(0)
    mean = total / n
    variance = (squares / n - mean.square()).clamp(min=0)
    least = _LEAST * variance.mean().sqrt()
    std = variance.sqrt().clamp(min=least if least > 0 else torch.ones_like(least))
    return (shift + mean).float(), std.float()
