"""An objective that is scored by its own loss, where its metric says little.

The average precision of an assay with thirty actives, three of them in the validation split, is
chance; the loss over all its molecules, and over the other targets beside it, is not.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from molhpft.core.measured import finite_or_nan
from molhpft.core.objectives import Objective


@dataclass(frozen=True)
class ScoredByLoss:
    """Another objective with minus its loss on a whole split as the score.

    Attributes:
        objective: gives everything else.
    """

    objective: Objective

    @property
    def metric(self) -> str:
        """Minus the loss, so that higher is better."""
        return "neg_loss"

    @property
    def has_classes(self) -> bool:
        """Whether the objective has."""
        return self.objective.has_classes

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """That of the objective."""
        return self.objective.loss(logits, targets)

    def labels(self, targets: Tensor, *, outputs: int) -> Tensor:
        """Those of the objective."""
        return self.objective.labels(targets, outputs=outputs)

    def labelled_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Those of the objective."""
        return self.objective.labelled_logits(logits, targets)

    def residual(self, logits: Tensor, targets: Tensor) -> Tensor:
        """That of the objective."""
        return self.objective.residual(logits, targets)

    def score(self, logits: Tensor, targets: Tensor) -> float:
        """Minus the loss of the split as one batch, every measured label counting the same.

        NaN where a prediction for one of them is not finite.
        """
        return -self.objective.loss(finite_or_nan(logits), targets).item()

    def smoothed(self, amount: float) -> "ScoredByLoss":
        """The same around the smoothed objective."""
        return replace(self, objective=self.objective.smoothed(amount))
