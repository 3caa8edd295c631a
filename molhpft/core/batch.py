"""What a loader yields: inputs of a few examples and their labels."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One mini-batch: what the first stage reads, and the labels.

    Attributes:
        inputs: a tensor with n rows, or a batch of n graphs; anything with `.to(device)`.
        targets: float (n, t), NaN where unmeasured; or int class ids (n,) or (n, height, width).
    """

    inputs: Any
    targets: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`."""
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))
