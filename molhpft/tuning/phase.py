"""One stretch of training, as data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
        trains: "head" leaves every number of the backbone unchanged, batch-norm statistics
            included; "all" trains both.
        epochs: passes over the training split; 0 skips the phase.
        lr: learning rate of the head, and of the backbone unless `layer_decay` says otherwise.
        batch_size: most examples in a step.
        optimizer: "sgd" has momentum 0.9.
        schedule: "cosine" goes from `lr` to 0 over the phase, step by step.
        weight_decay: L2 penalty ("adamw": decoupled), all parameters.
        smoothing: label smoothing, 0 for none.
        layer_decay: each backbone stage learns at this times the rate of its neighbour nearer to
            the head, the last one at this times `lr`.
        anchor: L2-SP strength; pulls the backbone to its weights at the start of the phase.
        batch_norm: "frozen" keeps the backbone's running statistics and normalises with them.
        keep: weights to end with, those of the "last" epoch or of the one "best" on validation.
        patience: stop after this many epochs without a better validation score; None never stops.
    """

    trains: Literal["head", "all"]
    epochs: int
    lr: float
    batch_size: int = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    smoothing: float = 0.0
    layer_decay: float = 1.0
    anchor: float = 0.0
    batch_norm: Literal["train", "frozen"] = "train"
    keep: Literal["last", "best"] = "last"
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number out of its range, or a backbone option in a head phase.
        """
        for name, floor in (("epochs", 0), ("weight_decay", 0), ("anchor", 0), ("batch_size", 1)):
            if getattr(self, name) < floor:
                raise ValueError(f"{name} is at least {floor}, got {getattr(self, name)}")
        if self.lr <= 0:
            raise ValueError(f"lr is above 0, got {self.lr}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing lies in [0, 1), got {self.smoothing}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay lies in (0, 1], got {self.layer_decay}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is at least 1, or null for none, got {self.patience}")
        if self.trains == "head" and (self.layer_decay, self.anchor) != (1.0, 0.0):
            raise ValueError("layer_decay and anchor act on the backbone; a head phase has none")

    @property
    def watches_validation(self) -> bool:
        """Whether the validation score decides which weights this phase ends with, or when."""
        return self.keep == "best" or self.patience is not None
