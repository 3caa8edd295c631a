"""Scores of a whole split as OGB's Evaluator defines them: unmeasured labels are left out."""

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

_METRICS = {"rocauc": roc_auc_score, "ap": average_precision_score}


def task_scores(metric: str, targets: Tensor, logits: Tensor) -> list[float]:
    """Score of each task, NaN for a task without both classes.

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
    scores = np.array(task_scores(metric, targets, logits))
    if np.isnan(scores).all():
        raise ValueError(
            f"{metric} needs a task with both positive and negative labels; "
            f"none of {len(scores)} tasks has both among {len(targets)} examples"
        )
    return float(np.nanmean(scores))


def accuracy(targets: Tensor, logits: Tensor, *, ignore: int) -> float:
    """Share of labelled units whose largest logit (axis 1) is the right class.

    Raises:
        ValueError: every unit is unlabelled.
    """
    labelled = targets != ignore
    if not labelled.any():
        raise ValueError(f"accuracy needs a labelled unit; all {targets.numel()} are ignored")
    return (logits.argmax(1) == targets)[labelled].double().mean().item()


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
    labelled, classes = targets != ignore, logits.shape[1]
    if not labelled.any():
        raise ValueError(f"mean IoU needs a labelled unit; all {targets.numel()} are ignored")
    y, guess = targets[labelled], logits.argmax(1)[labelled]
    hits, truly, guessed = (torch.bincount(x, minlength=classes) for x in (y[y == guess], y, guess))
    union = truly + guessed - hits
    return (hits.double() / union)[union > 0].mean().item()


def root_mean_squared_error(targets: Tensor, logits: Tensor) -> float:
    """Root mean squared error of each task over its measured labels, then the mean over tasks.

    Raises:
        ValueError: no label is measured.
    """
    y, a = targets.double(), logits.detach().double()
    squares = (y - a).square().nanmean(0)
    squares = squares[~squares.isnan()]
    if not len(squares):
        raise ValueError(f"rmse needs a measured label; all of {targets.numel()} are missing")
    return squares.sqrt().mean().item()


def mean_absolute_error(targets: Tensor, logits: Tensor) -> float:
    """Mean absolute error of each task over its measured labels, then the mean over tasks.

    Raises:
        ValueError: no label is measured.
    """
    errors = (targets.double() - logits.detach().double()).abs().nanmean(0)
    errors = errors[~errors.isnan()]
    if not len(errors):
        raise ValueError(f"mae needs a measured label; all of {targets.numel()} are missing")
    return errors.mean().item()


def rank_correlation(targets: Tensor, logits: Tensor) -> float:
    """Spearman's correlation of each task over its measured labels, then the mean over tasks.

    NaN where no task has two different labels and two different predictions.
    """
    found = []
    for y, q in zip(targets.double().cpu().T, logits.detach().double().cpu().T, strict=True):
        measured = ~y.isnan()
        pair = [column[measured].numpy() for column in (y, q)]
        if all(len(np.unique(column)) > 1 for column in pair):
            found.append(float(np.corrcoef(_ranks(pair[0]), _ranks(pair[1]))[0, 1]))
    return float(np.mean(found)) if found else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value; equals share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    return means[place]


def _score(metric: str, y: np.ndarray, a: np.ndarray) -> float:
    measured = ~np.isnan(y)
    if len(np.unique(y[measured])) < 2:
        return float("nan")
    return float(_METRICS[metric](y[measured], a[measured]))
