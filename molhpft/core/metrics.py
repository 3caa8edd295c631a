"""Scores of a whole split as OGB's Evaluator defines them: unmeasured labels are left out.

What is predicted in their place changes nothing. A prediction that is not finite where a label was
measured makes the score NaN: which tasks, classes and examples count, labels alone decide.

Where a label was measured, and what follows where a prediction is not finite.

A missing label and a broken prediction are opposites. Whatever stands behind a missing label
changes no loss, score or energy. Where a label was measured, a prediction that is NaN or infinite
makes all of them NaN: it is never left out with the missing labels, and never the best.
"""

from math import inf, isnan, nan

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

IGNORE = -100


def measured(targets: Tensor, *, ignore: int = IGNORE) -> Tensor:
    """Where there is a label, bool, the shape of the targets.

    Args:
        targets: real numbers, NaN where unmeasured; or class ids.
        ignore: the class id of an unlabelled unit.
    """
    return ~targets.isnan() if targets.is_floating_point() else targets != ignore


def finite_or_nan(predictions: Tensor) -> Tensor:
    """The predictions, NaN where they are infinite.

    Of an infinite logit a probability would be 0 or 1, and its label perhaps perfectly met.
    """
    return torch.where(predictions.isfinite(), predictions, torch.nan)


def comparable(score: float | None) -> float:
    """A score to choose the highest by: NaN, of which a file makes None, is below all others."""
    return -inf if score is None or isnan(score) else score


_METRICS = {"rocauc": roc_auc_score, "ap": average_precision_score}


def task_scores(metric: str, targets: Tensor, logits: Tensor) -> list[float]:
    """Score of each task, NaN for one without both classes or with a prediction that is not finite.

    Args:
        metric: "rocauc" or "ap".
        targets: (n, t) of 0, 1 or NaN.
        logits: (n, t), any increasing function of the probability.
    """
    columns = zip(targets.cpu().T, logits.detach().cpu().T, strict=True)
    return [_score(metric, y.double().numpy(), a.double().numpy()) for y, a in columns]


def mean_over_tasks(metric: str, targets: Tensor, logits: Tensor) -> float:
    """Mean score over the tasks that have both classes.

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


def accuracy(targets: Tensor, logits: Tensor, *, ignore: int) -> float:
    """Share of labelled units whose largest logit (axis 1) is the right class.

    Raises:
        ValueError: every unit is unlabelled.
    """
    y, guess = _guessed("accuracy", targets, logits, ignore=ignore)
    return nan if guess is None else (guess == y).double().mean().item()


def mean_iou(targets: Tensor, logits: Tensor, *, ignore: int) -> float:
    """Intersection over union of each class, TP / (TP + FP + FN), then the mean over classes.

    Counts run over the labelled units of the whole split, as in PASCAL VOC. A class that is neither
    labelled nor predicted anywhere has no score and is left out of the mean.

    Args:
        targets: class ids (n, ...).
        logits: (n, classes, ...); the largest is the prediction.
        ignore: the class id of an unlabelled unit.

    Raises:
        ValueError: every unit is unlabelled.
    """
    y, guess = _guessed("mean IoU", targets, logits, ignore=ignore)
    if guess is None:
        return nan
    classes = logits.shape[1]
    hits, truly, guessed = (torch.bincount(x, minlength=classes) for x in (y[y == guess], y, guess))
    union = truly + guessed - hits
    return (hits.double() / union)[union > 0].mean().item()


def root_mean_squared_error(targets: Tensor, logits: Tensor) -> float:
    """Root mean squared error of each task over its measured labels, then the mean over tasks.

    Raises:
        ValueError: no label is measured.
    """
    squares = _errors(targets, logits).square()
    return _task_means("rmse", targets, squares).sqrt().mean().item()


def mean_absolute_error(targets: Tensor, logits: Tensor) -> float:
    """Mean absolute error of each task over its measured labels, then the mean over tasks.

    Raises:
        ValueError: no label is measured.
    """
    return _task_means("mae", targets, _errors(targets, logits).abs()).mean().item()


def rank_correlation(targets: Tensor, logits: Tensor) -> float:
    """Spearman's correlation of each task over its measured labels, then the mean over tasks.

    NaN where no task has two different labels, or one that has them gets predictions that are all
    alike, or not finite.
    """
    scores = []
    for y, q in zip(targets.double().cpu().T, logits.detach().double().cpu().T, strict=True):
        mask = measured(y)
        if _has_two_labels(y):
            scores.append(_spearman(y[mask].numpy(), q[mask].numpy()))
    return float(np.mean(scores)) if scores else nan


def _spearman(y: np.ndarray, q: np.ndarray) -> float:
    if not np.isfinite(q).all() or len(np.unique(q)) < 2:
        return nan
    return float(np.corrcoef(_ranks(y), _ranks(q))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value; equals share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    return means[place]


def _score(metric: str, y: np.ndarray, a: np.ndarray) -> float:
    mask = ~np.isnan(y)
    if len(np.unique(y[mask])) < 2 or not np.isfinite(a[mask]).all():
        return nan
    return float(_METRICS[metric](y[mask], a[mask]))


def _has_two_labels(column: Tensor) -> bool:
    """Whether two different labels were measured."""
    return len(torch.unique(column[measured(column)])) > 1


def _guessed(
    name: str, targets: Tensor, logits: Tensor, *, ignore: int
) -> tuple[Tensor, Tensor | None]:
    """Class ids of labelled units, and those of their largest logits, if all logits are finite."""
    mask = measured(targets, ignore=ignore)
    if not mask.any():
        raise ValueError(f"{name} needs a labelled unit; all {targets.numel()} are ignored")
    broken = ~logits.isfinite().all(1)
    return targets[mask], None if broken[mask].any() else logits.argmax(1)[mask]


def _errors(targets: Tensor, logits: Tensor) -> Tensor:
    return finite_or_nan(logits.detach().double()) - targets.double()


def _task_means(name: str, targets: Tensor, errors: Tensor) -> Tensor:
    """Mean over the measured labels of each task that has any."""
    mask = measured(targets)
    counts = mask.sum(0)
    if not counts.any():
        raise ValueError(f"{name} needs a measured label; all of {targets.numel()} are missing")
    return (torch.where(mask, errors, 0.0).sum(0) / counts)[counts > 0]


SHARES = ("rocauc", "ap", "accuracy", "miou")


def score_name(metric: str) -> str:
    """What people call a metric."""
    names = {
        "rocauc": "ROC-AUC (%)",
        "ap": "average precision (%)",
        "neg_rmse": "-RMSE",
        "neg_loss": "-loss",
    }
    return names.get(metric, metric)


def show(value: float | None, metric: str) -> str:
    """A score as text: percent for shares, the bare number otherwise."""
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if metric in SHARES else f"{value:.4f}"
