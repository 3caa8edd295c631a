"""What a task asks for: a loss, its residual, a score, and label smoothing.

An unmeasured label is NaN (or the ignore index for class ids) and nothing else; neither it nor what
is predicted in its place enters loss, gradient, residual or score. Where a label was measured, a
prediction that is not finite makes residual and score NaN.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core import metrics
from molhpft.core.annotations import Float, Int, Shaped
from molhpft.core.metrics import IGNORE, finite_or_nan, measured


@runtime_checkable
class Objective(Protocol):
    """A loss and everything that energy and training need to know about it."""

    @property
    def metric(self) -> str:
        """Name of what `score` returns, higher is better."""

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes, and `p` the probability of each; a regression has none."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Scalar, averaged over measured labels; 0 when there are none."""

    def labels(self, targets: Tensor, *, outputs: int) -> Tensor:
        """`y` of the residual, (m, outputs); NaN where unmeasured."""

    def labelled_logits(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits of the units with a label, (m, c), row by row as `residual` and `labels`."""

    def residual(self, logits: Tensor, targets: Tensor) -> Tensor:
        """`p - y`, (m, c): a row for each unit with a label; 0 where unmeasured.

        A row depends on its own unit alone, so that a split may be read in pieces. It is the
        gradient of the loss with respect to the logits up to the averaging constant; of a loss
        that compares examples with one another, or has an auxiliary task, that of its other part.
        """

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """`log p` of every answer to every unit; of numbers, which have none, the predictions."""

    def uncertainty(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Entropy of `p`, in nats, summed over measured labels; what these say does not count.

        Raises:
            ValueError: a regression, which predicts no probabilities.
        """

    def score(self, logits: Tensor, targets: Tensor) -> float:
        """Metric of a whole split, higher is better."""

    def smoothed(self, amount: float) -> "Objective":
        """The same objective with labels pulled towards uniform by `amount` in [0, 1)."""


# shapes: a unit is what has a label, an example or a pixel
Scalar = Float[Tensor, ""]
Table = Float[Tensor, "n t"]  # a number for each example and task, or class
Dense = Float[Tensor, "n c ..."]  # c logits for each unit
Ids = Int[Tensor, "n ..."]  # class id of each unit
Labels = Shaped[Tensor, "n ..."]  # any of the above
PerUnit = Float[Tensor, "m c"]  # a row for each labelled unit


@dataclass(frozen=True)
class Multilabel:
    """Independent yes/no labels: targets (n, t) of 0, 1 or NaN; sigmoid cross-entropy.

    Attributes:
        metric: "rocauc" or "ap" (average precision), averaged over tasks as OGB's Evaluator does.
        smoothing: label smoothing `s`, y' = (1 - s) y + s / 2.

    >>> Multilabel().residual(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
    tensor([[-0.5000,  0.0000]])
    """

    has_classes: ClassVar[bool] = True
    metric: Literal["rocauc", "ap"] = "rocauc"
    smoothing: float = 0.0

    def loss(self, logits: Table, targets: Table) -> Scalar:
        """Mean binary cross-entropy over measured labels."""
        mask = measured(targets)
        y = torch.where(mask, self._smooth(targets), 0.0)
        # logits are masked before the loss: 0 * inf behind a missing label would be NaN
        entries = F.binary_cross_entropy_with_logits(
            torch.where(mask, logits, 0.0), y, reduction="none"
        )
        return (entries * mask).sum() / mask.sum().clamp(min=1)

    def labels(self, targets: Table, *, outputs: int) -> PerUnit:
        """Smoothed 0/1 labels of molecules that have any."""
        return self._smooth(targets)[_labelled(targets)]

    def labelled_logits(self, logits: Table, targets: Table) -> PerUnit:
        """Logits of molecules that have any label."""
        return logits[_labelled(targets)]

    def residual(self, logits: Table, targets: Table) -> PerUnit:
        """`sigmoid(a) - y`."""
        labelled = _labelled(targets)
        a, y = finite_or_nan(logits[labelled]), self._smooth(targets[labelled])
        return torch.where(measured(y), a.sigmoid() - y, 0.0)

    def log_probabilities(self, logits: Table) -> Float[Tensor, "n 2 t"]:
        """Of yes, then of no."""
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], 1)

    def uncertainty(self, logits: Table, targets: Table) -> Scalar:
        """Summed entropy of each yes or no that was measured, `softplus(a) - a sigmoid(a)`."""
        mask = measured(targets)
        a = torch.where(mask, logits, 0.0)
        return ((F.softplus(a) - a * a.sigmoid()) * mask).sum()

    def score(self, logits: Table, targets: Table) -> float:
        """Mean over the tasks that have both classes.

        Raises:
            ValueError: no task has both classes.
        """
        return metrics.mean_over_tasks(self.metric, targets, logits)

    def smoothed(self, amount: float) -> "Multilabel":
        """The same with smoothing `amount`."""
        return replace(self, smoothing=amount)

    def _smooth(self, targets: Tensor) -> Tensor:
        return targets * (1 - self.smoothing) + self.smoothing / 2


@dataclass(frozen=True)
class Multiclass:
    """One of c classes per unit: class ids (n,) or (n, height, width); softmax cross-entropy.

    Attributes:
        metric: "accuracy" over labelled units, or "miou" (mean intersection over union of classes).
        smoothing: label smoothing `s`, y' = (1 - s) onehot + s / c.
        ignore: the class id of an unlabelled unit.

    >>> Multiclass().residual(torch.zeros(1, 4), torch.tensor([1]))
    tensor([[ 0.2500, -0.7500,  0.2500,  0.2500]])
    """

    has_classes: ClassVar[bool] = True
    metric: Literal["accuracy", "miou"] = "accuracy"
    smoothing: float = 0.0
    ignore: int = IGNORE

    def loss(self, logits: Dense, targets: Ids) -> Scalar:
        """Mean cross-entropy over labelled units."""
        mask = measured(targets, ignore=self.ignore)
        # masked: what an ignored unit gets back is 0 times its softmax, which may be NaN
        rows = torch.where(mask.unsqueeze(1), logits, 0.0).movedim(1, -1)
        total = F.cross_entropy(
            # not as images, whose losses GPUs add up in any order
            rows.reshape(-1, rows.shape[-1]),
            targets.reshape(-1),
            label_smoothing=self.smoothing,
            ignore_index=self.ignore,
            reduction="sum",
        )
        return total / mask.sum().clamp(min=1)

    def labels(self, targets: Ids, *, outputs: int) -> PerUnit:
        """Smoothed one-hot rows of labelled units."""
        hot = F.one_hot(targets[measured(targets, ignore=self.ignore)], outputs).float()
        return hot * (1 - self.smoothing) + self.smoothing / outputs

    def labelled_logits(self, logits: Dense, targets: Ids) -> PerUnit:
        """Logits of labelled units."""
        return logits.movedim(1, -1)[measured(targets, ignore=self.ignore)]

    def residual(self, logits: Dense, targets: Ids) -> PerUnit:
        """`softmax(a) - y`."""
        rows = finite_or_nan(self.labelled_logits(logits, targets))
        return rows.softmax(1) - self.labels(targets, outputs=rows.shape[1]).to(rows)

    def log_probabilities(self, logits: Dense) -> Dense:
        """Of every class."""
        return logits.log_softmax(1)

    def uncertainty(self, logits: Dense, targets: Ids) -> Scalar:
        """Summed entropy of the softmax of labelled units."""
        log_p = self.labelled_logits(logits, targets).log_softmax(1)
        return -(log_p.exp() * log_p).sum()

    def score(self, logits: Dense, targets: Ids) -> float:
        """The metric over all labelled units, of which the largest logit is the prediction.

        Raises:
            ValueError: every unit is unlabelled.
        """
        counts = metrics.ClassCounts(ignore=self.ignore)
        counts.add(targets, logits)
        return self.score_counted(counts)

    def score_counted(self, counts: metrics.ClassCounts) -> float:
        """`score` of everything that was counted.

        Raises:
            ValueError: every unit is unlabelled.
        """
        return counts.mean_iou() if self.metric == "miou" else counts.accuracy()

    def smoothed(self, amount: float) -> "Multiclass":
        """The same with smoothing `amount`."""
        return replace(self, smoothing=amount)


@dataclass(frozen=True)
class Squared:
    """Real-valued targets (n, t), NaN where unmeasured; half the squared error.

    Targets in standard deviations from a mean are learned, and give an energy, alike whatever their
    unit; their scores and values are in the unit they were measured in.

    Attributes:
        mean: of each target, (t,), in its own unit; empty for targets that are in theirs.
        std: its standard deviation, (t,).

    >>> Squared(mean=(10.0,), std=(2.0,)).values(torch.tensor([[1.5]]))
    tensor([[13.]], dtype=torch.float64)
    """

    has_classes: ClassVar[bool] = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def metric(self) -> str:
        """Root mean squared error, negated so that higher is better."""
        return "neg_rmse"

    def loss(self, logits: Table, targets: Table) -> Scalar:
        """Half the squared error, averaged over measured labels."""
        mask = measured(targets)
        error = torch.where(mask, logits - targets, 0.0)
        return error.square().sum() / 2 / mask.sum().clamp(min=1)

    def labels(self, targets: Table, *, outputs: int) -> PerUnit:
        """Targets of the examples that have any."""
        return targets[_labelled(targets)]

    def labelled_logits(self, logits: Table, targets: Table) -> PerUnit:
        """Predictions for the examples that have any target."""
        return logits[_labelled(targets)]

    def residual(self, logits: Table, targets: Table) -> PerUnit:
        """`q - y`."""
        labelled = _labelled(targets)
        q, y = finite_or_nan(logits[labelled]), targets[labelled]
        return torch.where(measured(y), q - y, 0.0)

    def log_probabilities(self, logits: Table) -> Table:
        """The predictions themselves."""
        return logits

    def uncertainty(self, logits: Table, targets: Table) -> Scalar:
        """No number.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a squared loss predicts no probabilities, which a perturbation would make less "
            "certain; leave perturbation out for a regression"
        )

    def score(self, logits: Table, targets: Table) -> float:
        """Minus the root mean squared error, averaged over tasks as OGB's Evaluator does."""
        return -metrics.root_mean_squared_error(self.values(targets), self.values(logits))

    def values(self, logits: Table) -> Table:
        """Predictions, or targets, in the unit they were measured in, float64."""
        values = logits.double()
        if self.std:
            values = values * values.new_tensor(self.std) + values.new_tensor(self.mean)
        return values

    def standard(self, values: Table) -> Table:
        """What `values` undoes: numbers in their unit, in standard deviations from the mean."""
        mean, std = (values.new_tensor(x, dtype=torch.float64) for x in (self.mean, self.std))
        return (values.double() - mean) / std

    @staticmethod
    def mean_and_std(column: Float[Tensor, " n"]) -> tuple[float, float] | None:
        """Of a target's measured values, in its own unit; None where they do not vary."""
        values = column[measured(column)]
        if not len(values) or (values == values[0]).all():
            return None
        return values.mean().item(), values.std(correction=0).item()

    def column(self, k: int) -> "Squared":
        """The objective of target k alone."""
        return Squared(self.mean[k : k + 1], self.std[k : k + 1])

    def smoothed(self, amount: float) -> "Squared":
        """Itself for `amount` 0.

        Raises:
            ValueError: any other amount; real numbers have no uniform label.
        """
        if amount:
            raise ValueError(f"a squared loss has no labels to smooth, got smoothing={amount}")
        return self


def _labelled(targets: Tensor) -> Tensor:
    return measured(targets).any(1)


@dataclass(frozen=True)
class ClassContrast:
    """Examples find their class, classes find their examples: targets are class ids (n,).

    Half the mean cross-entropy over classes for each example plus half the mean cross-entropy over
    the batch for each class that occurs in it, whose right answer is any of its examples. Goyal et
    al. (2023) finetune CLIP with its own loss, images against texts (FLYP). Where an encoder knows
    no texts, this is an analogue and not their method: examples against learned class vectors.

    Energy and p(correct) are those of the first half, which is plain softmax cross-entropy. The
    second half depends on the other examples of a batch, and no other method has it to compare.

    Attributes:
        ignore: the class id of an unlabelled example.
    """

    has_classes: ClassVar[bool] = True
    ignore: int = IGNORE

    @property
    def metric(self) -> str:
        """Accuracy over labelled examples."""
        return "accuracy"

    @property
    def _softmax(self) -> Multiclass:
        return Multiclass(ignore=self.ignore)

    def loss(self, logits: Table, targets: Ids) -> Scalar:
        """Mean of both directions; 0 without labels."""
        a = self.labelled_logits(logits, targets)
        y = self.labels(targets, outputs=logits.shape[1]).to(a)
        if not len(y):
            return (a * 0).sum()
        to_classes = -(a.log_softmax(1) * y).sum(1).mean()
        sizes = y.sum(0)
        to_examples = -(a.log_softmax(0) * (y / sizes.clamp(min=1))).sum(0)[sizes > 0].mean()
        return (to_classes + to_examples) / 2

    def labels(self, targets: Ids, *, outputs: int) -> PerUnit:
        """One-hot rows of labelled examples."""
        return self._softmax.labels(targets, outputs=outputs)

    def labelled_logits(self, logits: Table, targets: Ids) -> PerUnit:
        """Logits of labelled examples."""
        return self._softmax.labelled_logits(logits, targets)

    def residual(self, logits: Table, targets: Ids) -> PerUnit:
        """`softmax(a) - y` over classes."""
        return self._softmax.residual(logits, targets)

    def log_probabilities(self, logits: Table) -> Table:
        """Of every class, for each example."""
        return self._softmax.log_probabilities(logits)

    def uncertainty(self, logits: Table, targets: Ids) -> Scalar:
        """Summed entropy over classes."""
        return self._softmax.uncertainty(logits, targets)

    def score(self, logits: Table, targets: Ids) -> float:
        """Fraction of labelled examples whose largest logit is the right class."""
        return self._softmax.score(logits, targets)

    def smoothed(self, amount: float) -> "ClassContrast":
        """Itself for `amount` 0.

        Raises:
            ValueError: any other amount.
        """
        if amount:
            raise ValueError(f"class contrast has no smoothed labels, got smoothing={amount}")
        return self


@dataclass(frozen=True)
class Part:
    """Some further outputs of a network, with an objective of their own.

    Attributes:
        objective: of these outputs.
        outputs: number of logits, and of target columns.
        weight: of their loss beside the main one.
    """

    objective: Objective
    outputs: int
    weight: float = 1.0


@dataclass(frozen=True)
class Joint:
    """The first outputs belong to the main objective, the others to auxiliary ones.

    Energy and score are those of the main objective alone: the head is prepared for it.

    Attributes:
        main: of the new task.
        outputs: number of logits, and of target columns, that are the main objective's.
        others: what follows them, such as the pretraining that finetuning goes on with (FLYP, Goyal
            et al., 2023).
    """

    main: Objective
    outputs: int
    others: tuple[Part, ...]

    @property
    def metric(self) -> str:
        """That of the main objective."""
        return self.main.metric

    @property
    def has_classes(self) -> bool:
        """Whether the main objective has."""
        return self.main.has_classes

    def loss(self, logits: Table, targets: Table) -> Scalar:
        """Main loss plus the weighted losses of the others."""
        loss = self.main.loss(logits[:, : self.outputs], targets[:, : self.outputs])
        begin = self.outputs
        for part in self.others:
            end = begin + part.outputs
            own = part.objective.loss(logits[:, begin:end], targets[:, begin:end])
            loss, begin = loss + part.weight * own, end
        return loss

    def labels(self, targets: Table, *, outputs: int) -> PerUnit:
        """Those of the main objective."""
        return self.main.labels(targets[:, : self.outputs], outputs=outputs)

    def labelled_logits(self, logits: Table, targets: Table) -> PerUnit:
        """Those of the main objective."""
        t = self.outputs
        return self.main.labelled_logits(logits[:, :t], targets[:, :t])

    def residual(self, logits: Table, targets: Table) -> PerUnit:
        """That of the main objective."""
        t = self.outputs
        return self.main.residual(logits[:, :t], targets[:, :t])

    def log_probabilities(self, logits: Table) -> Tensor:
        """Those of the main objective."""
        return self.main.log_probabilities(logits[:, : self.outputs])

    def uncertainty(self, logits: Table, targets: Table) -> Scalar:
        """That of the main objective."""
        t = self.outputs
        return self.main.uncertainty(logits[:, :t], targets[:, :t])

    def score(self, logits: Table, targets: Table) -> float:
        """That of the main objective."""
        t = self.outputs
        return self.main.score(logits[:, :t], targets[:, :t])

    def smoothed(self, amount: float) -> "Joint":
        """Smooths the main objective; auxiliary targets stay as they are."""
        return replace(self, main=self.main.smoothed(amount))


@dataclass(frozen=True)
class ScoredByLoss:
    """Another objective, scored by minus its loss on a whole split, where its metric says little.

    The average precision of an assay with thirty actives, three of them in the validation split, is
    chance; the loss over all its molecules, and over the other targets beside it, is not.

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

    def loss(self, logits: Dense, targets: Labels) -> Scalar:
        """That of the objective."""
        return self.objective.loss(logits, targets)

    def labels(self, targets: Labels, *, outputs: int) -> Float[Tensor, "m k"]:
        """Those of the objective."""
        return self.objective.labels(targets, outputs=outputs)

    def labelled_logits(self, logits: Dense, targets: Labels) -> Float[Tensor, "m k"]:
        """Those of the objective."""
        return self.objective.labelled_logits(logits, targets)

    def residual(self, logits: Dense, targets: Labels) -> Float[Tensor, "m k"]:
        """That of the objective."""
        return self.objective.residual(logits, targets)

    def log_probabilities(self, logits: Dense) -> Tensor:
        """Those of the objective."""
        return self.objective.log_probabilities(logits)

    def uncertainty(self, logits: Dense, targets: Labels) -> Scalar:
        """That of the objective."""
        return self.objective.uncertainty(logits, targets)

    def score(self, logits: Dense, targets: Labels) -> float:
        """Minus the loss of the split as one batch, every measured label counting the same.

        NaN where a prediction for one of them is not finite.
        """
        return -self.objective.loss(finite_or_nan(logits), targets).item()

    def smoothed(self, amount: float) -> "ScoredByLoss":
        """The same around the smoothed objective."""
        return replace(self, objective=self.objective.smoothed(amount))
