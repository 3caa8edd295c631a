"""Energy before finetuning, and what finetuning did to features and predictions.

The energy of an example depends on that example alone, whatever else its split or batch holds: of
an objective that compares examples, or has an auxiliary task, it is that of the part that predicts
the new task's labels. An energy is NaN where a prediction for a measured label is not finite.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.annotations import Float
from molhpft.core.data import Task
from molhpft.core.determinism import seed_dropout
from molhpft.core.evaluate import Predictions, take
from molhpft.core.metrics import measured
from molhpft.core.network import Chain, Network
from molhpft.core.objectives import Objective
from molhpft.measure.uncertainty import BINS, calibration_gaps

_ROWS = 4_096  # read at a time
_NUMBERS = 2**23  # of their logits: a row of pixels has millions


@dataclass(frozen=True)
class Energy:
    """Energies of one split, in units of probability (of the target for regression).

    Attributes:
        aie: average initial energy, see `initial_energy`.
        per_entry: mean |p - y| over measured labels, comparable between different numbers of tasks.
        balanced: mean |p - y| in which both classes of a task weigh the same, averaged over tasks:
            with few positives the plain energy says how well the negatives are fitted. Tasks that
            lack a class are left out; NaN where no task has two classes, as in a regression.
    """

    aie: float
    per_entry: float
    balanced: float


class RunningEnergy:
    """`energy` of a training split whose predictions come in pieces, so that none are stored.

    Args:
        objective: the finetuning objective, without label smoothing.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._lengths, self._units = 0.0, 0
        self._entries, self._measured = 0.0, 0
        self._sums, self._counts = torch.zeros(2, 1).double(), torch.zeros(2, 1).long()

    def add(self, predictions: Predictions) -> None:
        """The predictions for more examples."""
        for residual, y in _residuals(predictions, self._objective):
            lengths = torch.linalg.vector_norm(residual, dim=1)
            self._lengths += lengths.sum(dtype=torch.float64).item()
            self._units += len(lengths)
            size = residual.abs()
            entries = size[measured(y)]
            self._entries += entries.sum(dtype=torch.float64).item()
            self._measured += len(entries)
            if self._objective.has_classes:
                sums = [torch.where(y == label, size, 0.0).sum(0).double() for label in (0, 1)]
                self._sums = self._sums + torch.stack(sums)
                self._counts = self._counts + torch.stack([(y == label).sum(0) for label in (0, 1)])

    def value(self) -> Energy:
        """Every energy of all that was added."""
        both = (self._counts > 0).all(0)
        return Energy(
            aie=self._lengths / self._units if self._units else nan,
            per_entry=self._entries / self._measured if self._measured else nan,
            balanced=(self._sums / self._counts)[:, both].mean().item(),
        )


def energy(predictions: Predictions, objective: Objective) -> Energy:
    """Every energy of the training split, predicted just before finetuning."""
    running = RunningEnergy(objective)
    running.add(predictions)
    return running.value()


def initial_energy(predictions: Predictions, objective: Objective) -> float:
    """Mean Euclidean length of the residual `p - y` over labelled units (molecules, or pixels).

    The average initial energy of Ren et al. (2023), Proposition 1, which bounds how far finetuning
    moves features. Unmeasured labels of a molecule count as 0; a molecule without labels is left
    out.

    Args:
        predictions: of the training split, made just before finetuning.
        objective: the finetuning objective, without label smoothing.

    Returns:
        The energy: 0 for a perfect head, sqrt(2) for a confidently wrong softmax head.

    >>> from molhpft.core.objectives import Multiclass
    >>> wrong = Predictions(torch.tensor([[99.0, 0.0]]), torch.tensor([1]))
    >>> round(initial_energy(wrong, Multiclass()), 4)
    1.4142
    """
    return energy(predictions, objective).aie


def head_norm(head: Chain) -> float:
    """Euclidean length of all the weights of a head, biases included.

    Probing lengthens it. Tomihari and Sato (2024) find that finetuning then changes features less,
    and may end less calibrated. The head of a partial backbone has stages of the encoder, whose
    weights count. NaN for a head without weights.
    """
    weights = [parameter.detach().double().flatten().cpu() for parameter in head.parameters()]
    return torch.cat(weights).norm().item() if weights else float("nan")


class RunningCalibration:
    """Expected calibration error of a split whose predictions come in pieces: none are stored.

    Of class ids the most probable class is judged by its probability (Guo et al., 2017, equation
    3); of labels that are each yes or no, every measured one by the probability of yes, those of
    all tasks together.

    Args:
        objective: the task's; its label smoothing is not applied.

    Raises:
        ValueError: it is a regression.
    """

    def __init__(self, objective: Objective) -> None:
        if not objective.has_classes:
            raise ValueError(
                "calibration is of the probabilities of classes; a regression has none"
            )
        self._objective = objective.smoothed(0.0)
        self._gaps, self._count = torch.zeros(BINS, dtype=torch.float64), 0

    def add(self, predictions: Predictions) -> None:
        """The predictions for more examples."""
        for residual, y in _residuals(predictions, self._objective):
            if predictions.targets.is_floating_point():
                labelled = measured(y)
                p = (residual.double() + y.double())[labelled]
                right = y.double()[labelled]
            else:
                # only of the most probable class: doubles of every class of every pixel are many
                best = (residual + y).argmax(1, keepdim=True)
                right = y.gather(1, best).squeeze(1).double()
                p = residual.gather(1, best).squeeze(1).double() + right
            self._gaps += calibration_gaps(p, right)
            self._count += len(p)

    def value(self) -> float:
        """In [0, 1]; NaN where nothing is measured or a prediction for it is not finite."""
        return self._gaps.abs().sum().item() / self._count if self._count else nan


def _residuals(predictions: Predictions, objective: Objective) -> Iterator[tuple[Tensor, Tensor]]:
    """Residuals and labels, some rows at a time: copies of a whole large split fill the memory."""
    rows = max(1, min(_ROWS, _NUMBERS // max(1, predictions.logits[:1].numel())))
    pieces = (torch.split(t, rows) for t in (predictions.logits, predictions.targets))
    for logits, targets in zip(*pieces, strict=True):
        residual = objective.residual(logits, targets)
        yield residual, objective.labels(targets, outputs=residual.shape[1])


@dataclass(frozen=True)
class Shift:
    """How far finetuning moved features: means over examples, from `z_0` before it to `z_T` after.

    The distances of Ren et al. (2023), Figures 11-15.

    Attributes:
        distance: ||z_T - z_0||, falls as energy falls.
        cosine: angle's cosine between z_T and z_0, rises as energy falls.
        dot: z_T . z_0, first rises, then falls as energy falls.
        norm: ||z_T||, first rises, then falls as energy falls.
        start_norm: ||z_0||, the scale to read the others by.
    """

    distance: float
    cosine: float
    dot: float
    norm: float
    start_norm: float


def shift(before: Float[Tensor, "n ..."], after: Float[Tensor, "k ..."]) -> Shift:
    """Distances between features of the same examples.

    Args:
        before: `z_0`; both are measured in eval mode.
        after: `z_T`, the same shape.

    Raises:
        ValueError: the shapes differ.

    >>> shift(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]])).distance
    4.0
    """
    running = RunningShift()
    running.add(before, after)
    return running.mean()


class RunningShift:
    """`shift` of features that come some examples at a time, so that none need to be stored."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []

    def add(self, before: Float[Tensor, "n ..."], after: Float[Tensor, "k ..."]) -> None:
        """Add `z_0` and `z_T` of more examples.

        Raises:
            ValueError: the shapes differ.
        """
        check_one_shape("features before and after", before, after)
        start, end = before.flatten(1).double(), after.flatten(1).double()
        columns = (
            (end - start).norm(dim=1),
            F.cosine_similarity(start, end, dim=1),
            (start * end).sum(1),
            end.norm(dim=1),
            start.norm(dim=1),
        )
        self._rows.append(torch.stack(columns, dim=1).cpu())

    def mean(self) -> Shift:
        """Means over all that were added, of which there is one at least."""
        return Shift(*torch.cat(self._rows).mean(0).tolist())


def check_one_shape(what: str, *tensors: Tensor) -> None:
    """Refuse tensors of different shapes, which are not of the same examples.

    Raises:
        ValueError: they are, with all shapes.
    """
    if len({tensor.shape for tensor in tensors}) > 1:
        *first, last = (str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(f"{what} must have one shape, got {', '.join(first)} and {last}")


def correct_probability(predictions: Predictions, objective: Objective) -> Float[Tensor, " m"]:
    """Probability of the right answer, `1 - |p - y|` at every label that has one.

    Ren et al. (2023), Figure 2, shows it for the training split after each tau. Rows stand for the
    same units in every snapshot of a split, so that units can be followed from tau to tau.

    Args:
        predictions: of any split.
        objective: the task's; its label smoothing is not applied.

    Returns:
        Values in [0, 1] of every measured label in the order of the targets: for class ids p_y, for
        independent labels p or 1 - p. NaN where a prediction is not finite.

    Raises:
        ValueError: it is a regression.
    """
    if not objective.has_classes:
        raise ValueError("p(correct) is a probability of classes; a regression has none")
    objective = objective.smoothed(0.0)
    residual = objective.residual(predictions.logits, predictions.targets)
    y = objective.labels(predictions.targets, outputs=residual.shape[1]).to(residual)
    if predictions.targets.is_floating_point():
        return 1 - residual.abs()[measured(y)]
    # softmax: the entries of other classes say how they divide what is left, not how right it is
    return 1 - residual.gather(1, y.argmax(1, keepdim=True)).squeeze(1).abs()


class RunningConfidence:
    """`correct_probability` of a split whose predictions come in pieces, counted in bins.

    Args:
        objective: the task's; its label smoothing is not applied.
        bins: how many, of equal width in [0, 1].
    """

    def __init__(self, objective: Objective, *, bins: int) -> None:
        self._objective = objective
        self._counts, self._total, self._units = torch.zeros(bins, dtype=torch.int64), 0.0, 0

    def add(self, predictions: Predictions) -> None:
        """The predictions for more examples.

        Raises:
            ValueError: it is a regression.
        """
        p = correct_probability(predictions, self._objective)
        self._counts += torch.histc(p[p.isfinite()], len(self._counts), 0, 1).long()
        self._total += p.sum(dtype=torch.float64).item()
        self._units += len(p)

    def histogram(self) -> list[int]:
        """Labels in each bin, those without a finite prediction left out."""
        return self._counts.tolist()

    def mean(self) -> float:
        """Over all labels; NaN where there are none or a prediction for one is not finite."""
        return self._total / self._units if self._units else nan


def batch_norm_drift(
    network: Network,
    task: Task,
    *,
    epochs: int,
    rng: torch.Generator,
    size: int = 128,
    set_modes: Callable[[Network, int], object] | None = None,
    compared_on: Task | None = None,
) -> Shift:
    """Shift of the training split's features by batch-norm statistics alone.

    Batch norm moves its running statistics in training mode. On data unlike those of pretraining
    the features of eval mode move with them: a part of every measured shift that no energy caused.
    It is what finetuning with learning rate 0 does: forward passes in training mode, dropout
    included, on a copy. Without batch norm, or with it frozen while finetuning, there is no drift.

    Args:
        network: as it is when finetuning starts.
        task: its "train" split is passed through.
        epochs: passes over the split.
        rng: draws the order of examples, augmentations and dropout, as finetuning does.
        size: most examples in a batch.
        set_modes: puts a network into the mode in which an epoch, counted from 0, trains it; None
            trains all of it.
        compared_on: whose "train" split's features are compared; None for those of `task`.

    Raises:
        ValueError: `epochs` is negative.
    """
    if epochs < 0:
        raise ValueError(f"epochs is at least 0, got {epochs}")
    drifted = deepcopy(network).train()
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        for epoch in range(epochs):
            if set_modes is not None:
                set_modes(drifted, epoch)
            seed, batches = task.epoch(size=size, rng=rng)
            for step, batch in enumerate(batches):
                seed_dropout(seed + step, batch.targets.device)
                drifted(batch)
    running = RunningShift()
    for batch in (compared_on or task).batches("train", size=size):
        before, after = (take(n, [batch]).features for n in (network, drifted))
        running.add(before, after)
    return running.mean()
