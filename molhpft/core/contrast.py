"""The pretraining objective kept while finetuning (FLYP), for tasks with classes.

Goyal et al. (2023) finetune CLIP with its own loss, images against texts. Where an encoder knows no
texts, this is an analogue and not their method: examples against learned class vectors, both ways.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from molhpft.core.measured import IGNORE
from molhpft.core.objectives import Multiclass


@dataclass(frozen=True)
class ClassContrast:
    """Examples find their class, classes find their examples: targets are class ids (n,).

    Half the mean cross-entropy over classes for each example plus half the mean cross-entropy over
    the batch for each class that occurs in it, whose right answer is any of its examples.

    Energy and p(correct) are those of the first half. What a class is asked depends on the examples
    that share its batch, of which a split has no one set, and no other method has it to compare.

    Attributes:
        ignore: the class id of an unlabelled example.
    """

    has_classes: ClassVar[bool] = True
    ignore: int = IGNORE

    @property
    def metric(self) -> str:
        """Accuracy over labelled examples."""
        return "accuracy"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean of both directions; 0 without labels."""
        a = self.labelled_logits(logits, targets)
        y = self.labels(targets, outputs=logits.shape[1]).to(a)
        if not len(y):
            return (a * 0).sum()
        rows = -(a.log_softmax(1) * y).sum(1).mean()
        present, shares = self._columns(y)
        columns = -(a.log_softmax(0) * shares).sum(0)[present].mean()
        return (rows + columns) / 2

    def labels(self, targets: Tensor, *, outputs: int) -> Tensor:
        """One-hot rows of labelled examples, (m, outputs)."""
        return self._softmax.labels(targets, outputs=outputs)

    def labelled_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits of labelled examples, (m, c)."""
        return self._softmax.labelled_logits(logits, targets)

    def residual(self, logits: Tensor, targets: Tensor) -> Tensor:
        """`softmax(a) - y` over classes, (m, c)."""
        return self._softmax.residual(logits, targets)

    def score(self, logits: Tensor, targets: Tensor) -> float:
        """Share of labelled examples whose largest logit is the right class."""
        return self._softmax.score(logits, targets)

    def smoothed(self, amount: float) -> "ClassContrast":
        """Itself for `amount` 0.

        Raises:
            ValueError: any other amount.
        """
        if amount:
            raise ValueError(f"class contrast has no smoothed labels, got smoothing={amount}")
        return self

    @property
    def _softmax(self) -> Multiclass:
        return Multiclass(ignore=self.ignore)

    @staticmethod
    def _columns(y: Tensor) -> tuple[Tensor, Tensor]:
        """Which classes occur (c,), and the right answer of each class over the batch (m, c)."""
        sizes = y.sum(0)
        return sizes > 0, y / torch.clamp(sizes, min=1)
