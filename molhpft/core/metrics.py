"""Scores of a whole split as OGB's Evaluator defines them, over measured labels.

A missing label and a broken prediction are opposites. Whatever stands behind a missing label
changes no loss, score or energy. Where a label was measured, a prediction that is NaN or infinite
makes all of them NaN: it is never left out with the missing labels, and never the best.
"""

from math import inf, isnan, nan

import numpy as np
import torch
from torch import Tensor

from molhpft.core.annotations import Bool, Float, Shaped

IGNORE = -100
PERCENTAGES = ("rocauc", "ap", "accuracy", "miou")
"""Metrics that are shown in percent."""
_NAMES = {
    "rocauc": "ROC-AUC (%)",
    "ap": "average precision (%)",
    "neg_rmse": "RMSE",
    "neg_loss": "loss",
}
_ERRORS = ("neg_rmse", "neg_loss")


def measured(targets: Shaped[Tensor, "*n"], *, ignore: int = IGNORE) -> Bool[Tensor, "*n"]:
    """Where there is a label.

    Args:
        targets: real numbers, NaN where unmeasured; or class ids.
        ignore: the class id of an unlabelled unit.
    """
    return ~targets.isnan() if targets.is_floating_point() else targets != ignore


def finite_or_nan(predictions: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The predictions, NaN where they are infinite.

    The probability of an infinite logit would be 0 or 1, and might meet its label perfectly.
    """
    return torch.where(predictions.isfinite(), predictions, torch.nan)


def comparable(score: float | None) -> float:
    """A score to choose the highest by: NaN, which a file stores as None, is below all others."""
    return -inf if score is None or isnan(score) else score


def task_scores(
    metric: str, targets: Float[Tensor, "n t"], logits: Float[Tensor, "n t"]
) -> list[float]:
    """Score of each task, NaN for one without both classes or with a prediction that is not finite.

    Args:
        metric: "rocauc" or "ap".
        targets: 0, 1 or NaN.
        logits: any increasing function of the probability.
    """
    columns = zip(targets.cpu().T, logits.detach().cpu().T, strict=True)
    return [_score(metric, y.double().numpy(), a.double().numpy()) for y, a in columns]


def mean_over_tasks(
    metric: str, targets: Float[Tensor, "n t"], logits: Float[Tensor, "n t"]
) -> float:
    """Mean score over the tasks that have both classes.

    >>> y, a = torch.tensor([[0.0], [1.0], [1.0]]), torch.tensor([[0.1], [0.7], [-0.2]])
    >>> mean_over_tasks("rocauc", y, a)
    0.5

    Raises:
        ValueError: no task has both classes.
    """
    both = [_has_two_labels(column) for column in targets.cpu().T]
    if not any(both):
        raise ValueError(
            f"{metric} needs a task with both positive and negative labels; "
            f"none of {len(both)} tasks has both among {len(targets)} examples"
        )
    return float(np.mean(task_scores(metric, targets[:, both], logits[:, both])))


class ClassCounts:
    """How often each class is labelled, predicted and hit, of a split that comes in pieces.

    Accuracy and mean IoU need no more, so that the logits of a large split need not be stored.

    Args:
        ignore: the class id of an unlabelled unit.

    >>> counts = ClassCounts(ignore=-100)
    >>> for y, a in (([0, 1], [[2.0, 1.0], [2.0, 1.0]]), ([1], [[0.0, 1.0]])):
    ...     counts.add(torch.tensor(y), torch.tensor(a))
    >>> round(counts.accuracy(), 4), counts.mean_iou()
    (0.6667, 0.5)
    """

    def __init__(self, *, ignore: int) -> None:
        self._ignore = ignore
        # by class: hits, labelled, predicted, labelled whose logits are not all finite
        self._counts = torch.zeros(4, 0, dtype=torch.int64)
        self._units = 0

    def add(self, targets: Shaped[Tensor, "n ..."], logits: Float[Tensor, "n c ..."]) -> None:
        """Count some more examples.

        Args:
            targets: class ids.
            logits: of c classes (axis 1); the largest is the prediction.
        """
        mask = measured(targets, ignore=self._ignore)
        y, predicted = targets[mask], logits.argmax(1)[mask]
        self._units += targets.numel()
        broken = y[~logits.isfinite().all(1)[mask]]
        classes, kinds = logits.shape[1], (y[y == predicted], y, predicted, broken)
        new = [torch.bincount(x, minlength=classes) for x in kinds]
        self._counts = torch.stack(new).cpu() + (self._counts if self._counts.numel() else 0)

    def accuracy(self) -> float:
        """Fraction of labelled units whose largest logit is the right class.

        Raises:
            ValueError: every unit is unlabelled.
        """
        hits, labelled, _, broken = self._checked("accuracy")
        return nan if broken.any() else (hits.sum().double() / labelled.sum()).item()

    def recalls(self) -> list[float | None]:
        """Fraction of the units of each class whose largest logit is that class.

        Returns:
            a number a class: None for one that is labelled nowhere, NaN for one with a unit whose
            logits are not all finite.
        """
        rows = self._counts.double().T.tolist()
        return [
            None if not labelled else nan if broken else hits / labelled
            for hits, labelled, _, broken in rows
        ]

    def mean_iou(self) -> float:
        """Intersection over union of each class, TP / (TP + FP + FN), then the mean over classes.

        A class that is neither labelled nor predicted anywhere has no score and is left out of the
        mean, as in PASCAL VOC.

        Raises:
            ValueError: every unit is unlabelled.
        """
        hits, labelled, predicted, broken = self._checked("mean IoU")
        union = labelled + predicted - hits
        return nan if broken.any() else (hits.double() / union)[union > 0].mean().item()

    def _checked(self, name: str) -> Tensor:
        if not self._counts[1].any():
            raise ValueError(f"{name} needs a labelled unit; all {self._units} are ignored")
        return self._counts


def root_mean_squared_error(targets: Float[Tensor, "n t"], logits: Float[Tensor, "n t"]) -> float:
    """Root mean squared error of each task over its measured labels, then the mean over tasks.

    Raises:
        ValueError: no label is measured.
    """
    squares = _errors(targets, logits).square()
    return _task_means("rmse", targets, squares).sqrt().mean().item()


def mean_absolute_error(targets: Float[Tensor, "n t"], logits: Float[Tensor, "n t"]) -> float:
    """Mean absolute error of each task over its measured labels, then the mean over tasks.

    Raises:
        ValueError: no label is measured.
    """
    return _task_means("mae", targets, _errors(targets, logits).abs()).mean().item()


def rank_correlation(targets: Float[Tensor, "n t"], logits: Float[Tensor, "n t"]) -> float:
    """Spearman's correlation of each task over its measured labels, then the mean over tasks.

    NaN where a task that has two different labels gets predictions that are all alike or not
    finite.

    Raises:
        ValueError: no task has two different labels.
    """
    scores = []
    for y, q in zip(targets.double().cpu().T, logits.detach().double().cpu().T, strict=True):
        mask = measured(y)
        if _has_two_labels(y):
            scores.append(_spearman(y[mask].numpy(), q[mask].numpy()))
    if not scores:
        raise ValueError(f"a correlation needs two different labels; {len(targets)} have no two")
    return float(np.mean(scores))


def _spearman(y: np.ndarray, q: np.ndarray) -> float:
    if not np.isfinite(q).all() or len(np.unique(q)) < 2:
        return nan
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(y), rankdata(q))[0, 1])


def _score(metric: str, y: np.ndarray, a: np.ndarray) -> float:
    mask = ~np.isnan(y)
    if len(np.unique(y[mask])) < 2 or not np.isfinite(a[mask]).all():
        return nan
    return _SCORES[metric](y[mask], a[mask])


def _area_under_roc(y: np.ndarray, a: np.ndarray) -> float:
    """Share of pairs of a positive and a negative that are in order, ties count half.

    From the sum of the positives' ranks (Mann and Whitney, 1947); scikit-learn's area under a curve
    takes over ten times as long, which counts where a table has hundreds of targets.
    """
    from scipy.stats import rankdata

    positive = y == 1
    m, n = int(positive.sum()), int((~positive).sum())
    return float((rankdata(a)[positive].sum() - m * (m + 1) / 2) / (m * n))


def _average_precision(y: np.ndarray, a: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score  # its import takes as long as PyTorch's

    return float(average_precision_score(y, a))


_SCORES = {"rocauc": _area_under_roc, "ap": _average_precision}


def _has_two_labels(column: Tensor) -> bool:
    """Whether two different labels were measured."""
    return len(torch.unique(column[measured(column)])) > 1


def _errors(targets: Tensor, logits: Tensor) -> Tensor:
    return finite_or_nan(logits.detach().double()) - targets.double()


def _task_means(name: str, targets: Tensor, errors: Tensor) -> Tensor:
    """Mean over the measured labels of each task that has any."""
    mask = measured(targets)
    counts = mask.sum(0)
    if not counts.any():
        raise ValueError(f"{name} needs a measured label; all of {targets.numel()} are missing")
    return (torch.where(mask, errors, 0.0).sum(0) / counts)[counts > 0]


def score_name(metric: str) -> str:
    """What people call a metric; of an error without the minus of its scores, as `show` has them.

    >>> score_name("neg_rmse"), score_name("rocauc")
    ('RMSE', 'ROC-AUC (%)')
    """
    return _NAMES.get(metric, metric)


def signed_name(metric: str) -> str:
    """What to call a metric beside scores as they are stored, errors with a minus.

    >>> signed_name("neg_rmse"), signed_name("rocauc")
    ('-RMSE', 'ROC-AUC (%)')
    """
    return f"{'-' * (metric in _ERRORS)}{score_name(metric)}"


_HARDLY = 0.0005
_LARGE = {1e9: ".3e", 1e3: ",.0f", 1e2: ".1f"}


def show(value: float | None, metric: str) -> str:
    """A score, or a spread of scores, as text; a dash for none.

    Fractions are in percent. Errors, which are scored with a minus so that the higher score is
    always the better one, are without it.

    >>> show(-0.85, "neg_rmse"), show(0.85, "rocauc"), show(None, "rocauc")
    ('0.8500', '85.00', '-')
    """
    if value is None:
        return "-"
    if metric in PERCENTAGES:
        return f"{100 * value:.2f}"
    return show_number(abs(value) if metric in _ERRORS else value)


def show_tau(tau: int | None) -> str:
    """Epochs of head probing as text; a dash where none led to the head, as of a solved one."""
    return "-" if tau is None else str(tau)


def show_number(value: float) -> str:
    """Four decimals, three digits of what these would hardly show, fewer decimals from 100 on.

    >>> show_number(0.25), show_number(0.0000251), show_number(0)
    ('0.2500', '2.51e-05', '0.0000')
    >>> show_number(349.0908), show_number(-12345.678), show_number(2.5e10)
    ('349.1', '-12,346', '2.500e+10')
    """
    for least, how in _LARGE.items():
        if abs(value) >= least:
            return format(value, how)
    return f"{value:.3g}" if 0 < abs(value) < _HARDLY else f"{value:.4f}"
