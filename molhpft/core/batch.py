"""What a loader yields: inputs of a few examples and their labels."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One mini-batch: what the first stage reads, and the labels.

    Attributes:
        inputs: a tensor with n rows, or a batch of n graphs; anything with `.to(device)`. If it is
            no tensor and holds real numbers, it has `.apply(f)` too, as torch_geometric's batches.
        targets: float (n, t), NaN where unmeasured; or int class ids (n,) or (n, height, width).
    """

    inputs: Any
    targets: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))

    def double(self) -> "Batch":
        """The same batch with real numbers in float64, for a network in float64."""
        if isinstance(self.inputs, Tensor):
            return Batch(_double(self.inputs), _double(self.targets))
        if hasattr(self.inputs, "apply"):  # in place: the copy that is changed is ours
            return Batch(deepcopy(self.inputs).apply(_double), _double(self.targets))
        return Batch(self.inputs, _double(self.targets))


def _double(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values
