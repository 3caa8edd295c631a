"""Two objectives on one network: the new task's, and the pretraining's that is kept beside it."""

from dataclasses import dataclass, replace

from torch import Tensor

from molhpft.core.objectives import Objective


@dataclass(frozen=True)
class Joint:
    """The first outputs belong to the main objective, the others to the one that is kept.

    Energy and score are those of the main objective alone: it is what the head is prepared for.

    Attributes:
        main: of the new task.
        kept: of the pretraining; finetuning goes on serving it (FLYP, Goyal et al., 2023).
        outputs: number of logits, and of target columns, that are the main objective's.
        weight: of the kept loss beside the main one.
    """

    main: Objective
    kept: Objective
    outputs: int
    weight: float

    @property
    def metric(self) -> str:
        """That of the main objective."""
        return self.main.metric

    @property
    def has_classes(self) -> bool:
        """Whether the main objective has."""
        return self.main.has_classes

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Main loss plus `weight` times the kept one; targets (n, t + k), NaN where unmeasured."""
        t = self.outputs
        kept = self.kept.loss(logits[:, t:], targets[:, t:])
        return self.main.loss(logits[:, :t], targets[:, :t]) + self.weight * kept

    def labels(self, targets: Tensor, *, outputs: int) -> Tensor:
        """Those of the main objective."""
        return self.main.labels(targets[:, : self.outputs], outputs=outputs)

    def labelled_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Those of the main objective."""
        t = self.outputs
        return self.main.labelled_logits(logits[:, :t], targets[:, :t])

    def residual(self, logits: Tensor, targets: Tensor) -> Tensor:
        """That of the main objective, (m, t)."""
        t = self.outputs
        return self.main.residual(logits[:, :t], targets[:, :t])

    def score(self, logits: Tensor, targets: Tensor) -> float:
        """That of the main objective."""
        t = self.outputs
        return self.main.score(logits[:, :t], targets[:, :t])

    def smoothed(self, amount: float) -> "Joint":
        """Smooths the main objective; pretraining targets stay as they are."""
        return replace(self, main=self.main.smoothed(amount))
