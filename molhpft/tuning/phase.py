"""One stretch of training, as data."""

from dataclasses import dataclass, fields
from typing import Literal

from molhpft.core.annotations import (
    BelowOne,
    Count,
    Decay,
    Fraction,
    NonNegative,
    Positive,
    Whole,
    check_ranges,
    ranges_of,
)

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training.

    Attributes:
        trains: "head" leaves every number of the backbone unchanged, batch-norm statistics
            included; "all" trains both.
        epochs: passes over the training split; 0 skips the phase.
        lr: learning rate of the head, and of the backbone where the next two do not say otherwise.
        backbone_lr: learning rate of the backbone; None is that of the head.
        batch_size: most examples in a step.
        optimizer: "sgd" steps with `momentum`.
        schedule: how rates go on once `warmup` is over, step by step: they stay ("constant"), fall
            to 0 ("cosine"), or do as one-cycle has it ("one_cycle", Smith and Topin, 2019): they
            rise from 1/25 of `lr` along half a cosine, and fall to a 250,000th of it along another.
        warmup: fraction of the steps in which rates rise, for "constant" and "cosine" linearly to
            `lr`; "one_cycle" needs one (0.3 is usual).
        weight_decay: L2 penalty ("adamw": decoupled), all parameters.
        smoothing: label smoothing, 0 for none.
        perturbation: of a head phase; size of the step by which features move to where the head is
            less certain before it learns from them (`tuning/hardened.py`), 0 for none.
        layer_decay: each backbone stage with weights learns at this times the rate of its neighbour
            nearer to the head, the last one at this times the backbone's rate.
        momentum: of "sgd", in [0, 1); 0 with a batch of everything is plain gradient descent.
        stages: names of the backbone's stages that are trained; None trains all of them. The others
            keep every number, batch-norm statistics included.
        unfreeze_every: epochs after which one stage more is trained, beginning with the last one of
            the backbone; 0 trains all from the first epoch on.
        anchor: L2-SP strength; pulls the backbone to its weights at the start of the phase.
        head_penalty: L2-SP's strength for the new layers, beta; pulls the head to 0.
        stage_anchor: DELTA's strength; keeps what every stage of the backbone gives near what it
            gave at the start of the phase.
        feature_anchor: strength of distillation from the start; keeps the features near theirs.
        spectral_shrinkage: BSS's strength; shrinks the smallest singular value of each batch of
            features.
        node_transport: GTOT's strength; keeps the nodes of each graph near what they or their
            neighbours were at the start of the phase.
        running_statistics: stochastic norm's probability by which a channel of the backbone's batch
            norms is normalised by its running statistics in a step, not by those of the batch.
        adapter_rank: rank of the adapters that are trained in place of the backbone's linear maps
            and convolutions (`tuning/adapters.py`). All its other weights are frozen; batch-norm
            statistics are as `batch_norm` says. 0 leaves the backbone as it is, None trains its
            weights.
        adapter_scaling: what the learned scaling of each adapter begins with; None for a scaling of
            1 that is not learned.
        batch_norm: "frozen" keeps the backbone's running statistics and normalises with them.
        keep: weights to end with, those of the "last" epoch or of the one "best" on validation.
        patience: stop after this many epochs without a better validation score; None never stops.
    """

    trains: Literal["head", "all"]
    epochs: Whole
    lr: Positive
    backbone_lr: Positive | None = None
    batch_size: Count = 128
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    warmup: BelowOne = 0.0
    weight_decay: NonNegative = 0.0
    smoothing: BelowOne = 0.0
    perturbation: NonNegative = 0.0
    layer_decay: Decay = 1.0
    momentum: BelowOne = MOMENTUM
    stages: tuple[str, ...] | None = None
    unfreeze_every: Whole = 0
    anchor: NonNegative = 0.0
    head_penalty: NonNegative = 0.0
    stage_anchor: NonNegative = 0.0
    feature_anchor: NonNegative = 0.0
    spectral_shrinkage: NonNegative = 0.0
    node_transport: NonNegative = 0.0
    running_statistics: Fraction = 0.0
    adapter_rank: Whole | None = None
    adapter_scaling: Positive | None = None
    batch_norm: Literal["train", "frozen"] = "train"
    keep: Literal["last", "best"] = "last"
    patience: Count | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: a number out of its range, or settings that contradict each other: a
                backbone option in a head phase, an option of a head phase in one that trains all,
                momentum for an optimizer without, one cycle that does not rise, no stage to train,
                frozen statistics that are used at times, a scaling without adapters.
        """
        check_ranges(self, _RANGES)
        if self.optimizer != "sgd" and self.momentum != MOMENTUM:
            raise ValueError(
                f"momentum is for optimizer sgd, got momentum {self.momentum} with "
                f"{self.optimizer}; leave it out or take sgd"
            )
        if self.schedule == "one_cycle" and not self.warmup:
            raise ValueError(
                "schedule one_cycle rises over warmup, a fraction of the steps, and warmup is 0; "
                "set warmup: 0.3"
            )
        if self.stages == ():
            raise ValueError(
                "stages lists at least one stage of the backbone, got none; leave it out to train "
                "all, or take method lp to train the head alone"
            )
        if self.batch_norm == "frozen" and self.running_statistics:
            raise ValueError(
                "running_statistics says how often they are used, and batch_norm: frozen uses them "
                f"always; got running_statistics {self.running_statistics:g}: leave out one"
            )
        if self.adapter_scaling is not None and self.adapter_rank is None:
            raise ValueError(
                f"adapter_scaling {self.adapter_scaling:g} is of adapters, and adapter_rank is "
                "None; give an adapter_rank"
            )
        if self.trains == "all" and self.perturbation:
            raise ValueError(
                "perturbation moves the features that a head phase reads, and this phase trains "
                f"all; got perturbation {self.perturbation:g}: leave it out"
            )
        given = [name for name in OF_BACKBONE if getattr(self, name) != _DEFAULTS[name]]
        if self.trains == "head" and given:
            raise ValueError(
                f"{', '.join(OF_BACKBONE)} act on the backbone, which a head phase leaves as it "
                f"is; got {', '.join(f'{name} {getattr(self, name)}' for name in given)}"
            )

    @property
    def depends_on_its_end(self) -> bool:
        """Whether the rate of a step depends on how many epochs the phase has."""
        return self.schedule != "constant" or self.warmup > 0

    @property
    def watches_validation(self) -> bool:
        """Whether the validation score decides which weights this phase ends with, or when."""
        return self.keep == "best" or self.patience is not None


OF_BACKBONE = (
    "backbone_lr",
    "layer_decay",
    "stages",
    "unfreeze_every",
    "anchor",
    "stage_anchor",
    "feature_anchor",
    "spectral_shrinkage",
    "node_transport",
    "running_statistics",
    "adapter_rank",
    "adapter_scaling",
    "batch_norm",
)
"""Settings of a phase that act on the backbone alone."""
_DEFAULTS = {field.name: field.default for field in fields(Phase)}
_RANGES = ranges_of(Phase)
