"""Heads that read more than features: the stage that a backbone ends with, so that `z` has it all.

What is known of an example without training, such as the properties of a molecule, stands behind
the features that the encoder gives. Whatever reads features, a probe on cached ones or the energy,
then reads these columns as well.
"""

from collections.abc import Mapping
from math import log

import numpy as np
import torch
from torch import Tensor

from molhpft.core.annotations import Count, Float
from molhpft.core.data import Task
from molhpft.core.evaluate import evaluation_batches
from molhpft.core.network import Batch, Chain, Network, Stage
from molhpft.core.scale import Scale, fit_scale

STAGE = "beside"
"""Name of the stage in a backbone."""

MOST_COUNTED = 255
"""Greatest count that one byte holds."""


class Beside(Stage):
    """Features with further columns behind them; neither the columns nor their scale is trained.

    The inputs of a batch have the columns as `beside`, by name: counts in uint8, which become
    `log(1 + count)`, and real numbers, which become standard deviations from the mean of the
    training split, tails cut off, and 0 where they are NaN.

    Args:
        width: of the features.
        columns: how many columns each name has, in the order in which they are appended. All are
            mapped to 0 until their scale is fitted or loaded.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, width: Count, columns: Mapping[str, Count]) -> None:
        super().__init__()
        self.columns = dict(columns)
        count = sum(columns.values())
        self.width = width + count
        for name in ("low", "high", "mean"):
            self.register_buffer(name, torch.zeros(count))
        self.register_buffer("std", torch.ones(count))

    def forward(self, h: Float[Tensor, "n d"], batch: Batch) -> Float[Tensor, "n e"]:
        """Features, then the columns.

        Raises:
            ValueError: the batch has no such columns.
        """
        scale = Scale(self.low, self.high, self.mean, self.std)
        raw = torch.cat([_numbers(one) for one in _read(batch, self.columns)], dim=1)
        return torch.cat([h, scale.filled(raw).to(h)], dim=1)


def ending_beside(backbone: Chain, columns: Mapping[str, Count]) -> Chain:
    """The backbone with a stage that appends columns, whose scale is still to be set."""
    return backbone.followed_by(Chain({STAGE: Beside(backbone.width, columns)}))


def with_columns(network: Network, task: Task, columns: Mapping[str, Count]) -> Network:
    """The network with columns behind its features, on the scale of the training split.

    Counts are not divided by their deviation: a substructure that one molecule in a thousand has
    would then weigh as much as a molecular weight that is 30 deviations from the mean.

    Args:
        network: whose head is as wide as features and columns; its modules are shared with the
            result.
        task: whose training split is read once.
        columns: as of `Beside`.

    Raises:
        ValueError: the task's examples have no such columns.
    """
    device = next(network.parameters()).device
    batches = evaluation_batches(task, "train")
    parts = [[part.cpu() for part in _read(batch, columns)] for batch in batches]
    scales = [_scale(torch.cat(of_name)) for of_name in zip(*parts, strict=True)]
    fitted = {
        key: torch.cat([vars(one)[key] for one in scales]) for key in ("low", "high", "mean", "std")
    }
    backbone = ending_beside(network.backbone, columns)
    backbone.stages[STAGE].load_state_dict(fitted)
    return Network(backbone.to(device), network.head)


def _read(batch: Batch, names: Mapping[str, int]) -> list[Tensor]:
    beside = getattr(batch.inputs, "beside", {})
    missing = [name for name in names if name not in beside]
    if missing:
        raise ValueError(
            f"the head reads {', '.join(names)} beside features, and the examples come without "
            f"{', '.join(missing)}; read them with the examples"
        )
    return [beside[name] for name in names]


def _numbers(values: Tensor) -> Tensor:
    """Real numbers as they are, and the logarithm of counts."""
    return values if values.is_floating_point() else values.float().log1p()


def _scale(values: Tensor) -> Scale:
    """That of real numbers; the one that changes nothing for counts."""
    if values.is_floating_point():
        return fit_scale(values.numpy().astype(np.float64))
    zeros = torch.zeros(values.shape[1])
    return Scale(zeros, zeros + log(1 + MOST_COUNTED), zeros, zeros + 1)
