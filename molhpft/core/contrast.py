"""The pretraining objective kept while finetuning (FLYP), for tasks with classes.

Goyal et al. (2023) finetune CLIP with its own loss, images against texts. Where an encoder knows no
texts, this is an analogue and not their method: examples against learned class vectors, both ways.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core import metrics


@dataclass(frozen=True)
class ClassContrast:
    """Examples find their class, classes find their examples: targets are class ids (n,).

    Half the mean cross-entropy over classes for each example plus half the mean cross-entropy over
    the batch for each class that occurs in it, whose right answer is any of its examples.

    Attributes:
        ignore: the class id of an unlabelled example.
    """

    ignore: int = -100

    @property
    def metric(self) -> str:
        """Accuracy over labelled examples."""
        return "accuracy"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean of both directions; 0 without labels."""
        a, y = self._labelled(logits, targets)
        if not len(y):
            return logits.sum() * 0
        rows = -(a.log_softmax(1) * y).sum(1).mean()
        present, shares = self._columns(y)
        columns = -(a.log_softmax(0) * shares).sum(0)[present].mean()
        return (rows + columns) / 2

    def labels(self, targets: Tensor, *, outputs: int) -> Tensor:
        """One-hot rows of labelled examples, (m, outputs)."""
        return F.one_hot(targets[targets != self.ignore], outputs).float()

    def residual(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Gradient of the loss with respect to the logits times m, (m, c)."""
        a, y = self._labelled(logits, targets)
        present, shares = self._columns(y)
        weight = len(y) / present.sum().clamp(min=1)
        return ((a.softmax(1) - y) + weight * (a.softmax(0) - shares) * present) / 2

    def score(self, logits: Tensor, targets: Tensor) -> float:
        """Share of labelled examples whose largest logit is the right class."""
        return metrics.accuracy(targets, logits, ignore=self.ignore)

    def smoothed(self, amount: float) -> "ClassContrast":
        """Itself for `amount` 0.

        Raises:
            ValueError: any other amount.
        """
        if amount:
            raise ValueError(f"class contrast has no smoothed labels, got smoothing={amount}")
        return self

    def _labelled(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        kept = targets != self.ignore
        return logits[kept], self.labels(targets, outputs=logits.shape[1]).to(logits)

    @staticmethod
    def _columns(y: Tensor) -> tuple[Tensor, Tensor]:
        """Which classes occur (c,), and the right answer of each class over the batch (m, c)."""
        sizes = y.sum(0)
        return sizes > 0, y / torch.clamp(sizes, min=1)
