"""Transferability scores: how well frozen features suit a task, from one pass and no training.

Each is of features `z` and one column of labels `y`: class ids, or real numbers where the score is
defined for them. `label_columns` takes the targets of a task apart, so that an example counts in
the columns that have its label and in no other. Higher is better. Scores of one kind are compared
between encoders on one task, never between tasks.
"""

from dataclasses import dataclass
from math import exp, inf, log, pi
from statistics import mean

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from molhpft.core.annotations import Float, Int, Shaped
from molhpft.core.metrics import measured
from molhpft.core.objectives import Multiclass, Multilabel, Objective, ScoredByLoss, Squared

NEIGHBOURS = 10

_DISTORTION = 1e-4  # epsilon of the coding rate, as in the listing of its paper
_LEAST = 1e-10  # of the largest eigenvalue; below are directions that rounding has made
_RATIOS = torch.logspace(-10, 10, 81, dtype=torch.float64)  # of penalty to mean eigenvalue
_ROWS = 1_024  # whose distances to all others are in memory at a time


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """The examples that have a label of one target, and these labels.

    Attributes:
        rows: numbers of the examples.
        labels: class ids, int64, or real numbers, float64.
    """

    rows: Int[Tensor, " k"]
    labels: Shaped[Tensor, " k"]

    @property
    def is_varied(self) -> bool:
        """Whether there are two different labels, without which features have nothing to tell."""
        return len(torch.unique(self.labels)) > 1


def label_columns(objective: Objective, targets: Shaped[Tensor, "n ..."]) -> list[LabelColumn]:
    """The targets of a task, one by one, without missing labels.

    Args:
        objective: of the task.
        targets: as in `Batch`: (n, t) for labels and numbers, (n,) for class ids.

    Raises:
        ValueError: the objective has several parts, contrasts classes, or is of pixels.
    """
    if isinstance(objective, ScoredByLoss):
        return label_columns(objective.objective, targets)
    if isinstance(objective, Multiclass) and targets.ndim == 1:
        rows = measured(targets, ignore=objective.ignore).nonzero().flatten()
        return [LabelColumn(rows, targets[rows].long())]
    if isinstance(objective, Multilabel | Squared):
        columns = [(measured(y).nonzero().flatten(), y) for y in targets.T]
        ids = isinstance(objective, Multilabel)
        return [
            LabelColumn(rows, y[rows].long() if ids else y[rows].double()) for rows, y in columns
        ]
    raise ValueError(
        "transferability scores are of labels, classes or numbers of whole examples, and the "
        f"objective of this task is {type(objective).__name__}"
        f"{' of pixels' if isinstance(objective, Multiclass) else ''}"
    )


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """Features along the directions in which they vary, largest variance first.

    Attributes:
        mean: of the features, subtracted before the rest is computed; 0 if it is left in.
        axes: orthonormal, one a column.
        coordinates: of the examples along the axes.
        sums: over examples, of squared coordinates along each axis, above 0.
    """

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d r"]
    coordinates: Float[Tensor, "n r"]
    sums: Float[Tensor, " r"]

    def along(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m r"]:
        """Coordinates of further examples."""
        return (z.double() - self.mean) @ self.axes


def principal_axes(z: Float[Tensor, "n d"], *, centred: bool = True) -> PrincipalAxes:
    """Eigenvectors of the smaller of the two Gram matrices, in float64.

    Args:
        z: features.
        centred: whether their mean is subtracted.
    """
    z = z.double()
    centre = z.mean(0) if centred else torch.zeros_like(z[0])
    x = z - centre
    n, d = x.shape
    sums, vectors = torch.linalg.eigh(x.T @ x if d <= n else x @ x.T)
    is_large = sums > _LEAST * sums[-1].clamp(min=torch.finfo(sums.dtype).tiny)
    sums, vectors = sums[is_large].flip(0), vectors[:, is_large].flip(1)
    if d <= n:
        return PrincipalAxes(centre, vectors, x @ vectors, sums)
    return PrincipalAxes(centre, x.T @ vectors / sums.sqrt(), vectors * sums.sqrt(), sums)


def logme(z: Float[Tensor, "n d"], y: Shaped[Tensor, " n"]) -> float:
    """Log of the maximum evidence of a linear model of the labels, for each example.

    You et al. (ICML 2021): with weights `w ~ N(0, I / a)` and labels
    `y ~ N(z w, 1 / b)`,

        log p(y | z, a, b) = n/2 log b + d/2 log a - n/2 log 2 pi
                             - b/2 |z m - y|^2 - a/2 |m|^2 - 1/2 log det A,
        A = a I + b z^T z,   m = b A^-1 z^T y,

    at the a and b that maximise it, divided by n. For classes it is the mean over those of y = 1
    where an example has the class, else 0. Rotating features, or multiplying all of them by one
    number, changes nothing.

    The paper alternates between a and b. Here b is solved for, `b = n / (|y|^2 - ...)`, and the one
    number that is left, `a / b`, is searched, so that nothing has to converge.

    Args:
        z: features, with a 1 among them if the model is to have an intercept.
        y: class ids, int64, or real numbers.
    """
    axes = principal_axes(z, centred=False)
    columns = [y.double()]
    if not y.is_floating_point():
        columns = [(y == label).double() for label in torch.unique(y)]
    return mean(_maximum_evidence(axes, column)[0] for column in columns) / len(y)


def _maximum_evidence(axes: PrincipalAxes, y: Float[Tensor, " n"]) -> tuple[float, float]:
    """The largest log evidence over a and b, and the penalty `a / b` of ridge regression there.

    Labels are N(0, (I + x x^T / penalty) / b), whose covariance is diagonal along the axes.
    """
    n, sums = len(y), axes.sums
    u = (axes.coordinates.T @ y) ** 2 / sums
    outside = (y.square().sum() - u.sum()).clamp(min=0)  # what no weights can predict

    def evidence(penalty: Tensor) -> Tensor:
        ratio = sums / penalty[:, None]
        squares = (u / (1 + ratio)).sum(1) + outside
        tiny = torch.finfo(squares.dtype).tiny
        b = n / squares.clamp(min=tiny)
        return (n * (b.log() - log(2 * pi) - 1) - ratio.log1p().sum(1)) / 2

    scale = sums.mean().item() if len(sums) else 1.0
    grid = evidence(_RATIOS * scale)
    best = int(grid.argmax())
    around = (_RATIOS[[max(best - 1, 0), min(best + 1, len(_RATIOS) - 1)]] * scale).log().tolist()
    optimum = minimize_scalar(
        lambda at: -evidence(torch.tensor([exp(at)], dtype=torch.float64)).item(),
        bounds=around,
        method="bounded",
        options={"xatol": 1e-6},
    )
    return -float(optimum.fun), exp(optimum.x)


def h_score(axes: PrincipalAxes, y: Int[Tensor, " n"]) -> float:
    """How far apart the classes' mean features are, in units of how far features vary.

    Bao et al. (ICIP 2019): `tr(cov(z)^-1 cov(E[z | y]))`. With fewer examples than features it is
    the number of classes less 1 whatever the features are, and ill-conditioned before that, so
    this is the shrunk one of Ibrahim et al. (2022),

        H = (1 - s) tr(((1 - s) cov(z) + s m I)^-1 cov(E[z | y])),   m = tr(cov(z)) / d,

    with the shrinkage s of Ledoit and Wolf (2004). Between 0 and the number of classes less 1. For
    two classes and s = 0 it is R^2 of a linear regression. It is not defined for real numbers, all
    of which differ, so that E[z | y] is z.

    Args:
        axes: of the features, centred.
        y: class ids.
    """
    x, n, d = axes.coordinates, len(y), len(axes.mean)
    variances = axes.sums / n
    shrinkage, level = _shrinkage(variances, x, d), variances.sum() / d
    inverse = 1 / ((1 - shrinkage) * variances + shrinkage * level)
    classes, ids, counts = torch.unique(y, return_inverse=True, return_counts=True)
    means = F.one_hot(ids, len(classes)).double().T @ x / counts[:, None]
    between = (counts[:, None] / n * means.square()).sum(0)
    return float((1 - shrinkage) * (between * inverse).sum())


def _shrinkage(variances: Float[Tensor, " r"], x: Float[Tensor, "n r"], d: int) -> Tensor:
    """Ledoit and Wolf's: variance of the covariance matrix over its distance from `m I`."""
    squares = variances.square().sum()
    distance = squares - variances.sum() ** 2 / d
    noise = (x.square().sum(1).square().mean() - squares) / len(x)
    return torch.where(distance > 0, noise / distance, 0.0).clamp(0, 1)


def transrate(axes: PrincipalAxes, y: Int[Tensor, " n"]) -> float:
    """Rate in nats at which features are coded, less the rate if the class is known.

    Huang et al. (ICML 2022): `R(z) - R(z | y)` of centred features, where

        R(z) = 1/2 log det(I + z^T z / (n e)),   R(z | y) = sum_c n_c / n R(z of class c),

    e = 1e-4: an estimate of the information that features have about classes, which grows with
    their width. Features are scaled to a mean squared length of 1, as without it the score would
    depend on their unit. It is defined for classes; 0 if there is one class.

    Args:
        axes: of the features, centred.
        y: class ids.
    """
    n, total = len(y), axes.sums.sum().clamp(min=torch.finfo(torch.float64).tiny)
    x = axes.coordinates * (n / total).sqrt()
    of_classes = [(y == label, int((y == label).sum())) for label in torch.unique(y)]
    return _rate(x) - sum(count / n * _rate(x[rows]) for rows, count in of_classes)


def _rate(x: Float[Tensor, "n r"]) -> float:
    n, r = x.shape
    gram = x.T @ x if r <= n else x @ x.T
    whole = torch.eye(len(gram), dtype=x.dtype) + gram / (n * _DISTORTION)
    return float(torch.linalg.cholesky(whole).diagonal().log().sum())


def leep(p: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> float:
    """Mean log likelihood of labels, predicted from what a source head says of each example.

    Nguyen et al. (ICML 2020): with `P(y, k) = 1/n sum_i [y_i = y] p_ik` over the
    source's classes k,

        LEEP = 1/n sum_i log sum_k P(y_i | k) p_ik.

    At most 0; minus the entropy of the labels where the source says nothing of them.

    Args:
        p: probabilities of the source's classes, rows of which sum to 1.
        y: class ids.
    """
    p = p.double()
    hot = F.one_hot(torch.unique(y, return_inverse=True)[1]).double()
    joint = hot.T @ p / len(y)
    given = joint / joint.sum(0).clamp(min=torch.finfo(joint.dtype).tiny)
    return ((p @ given.T) * hot).sum(1).log().mean().item()


def leep_of_outputs(p: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> float:
    """LEEP of a source head whose outputs are independent yes-or-no labels: that of the best one.

    Such a head has no distribution over classes. Each output is a source of the two classes yes and
    no by itself, and the one that tells most about the labels counts.

    Args:
        p: probability of yes, for each output.
        y: class ids.
    """
    return max((leep(torch.stack([1 - q, q], 1), y) for q in p.T), default=-inf)


def neighbour_predictions(
    z: Float[Tensor, "n d"],
    columns: list[LabelColumn],
    asked: Float[Tensor, "m d"],
    *,
    classes: int = 0,
) -> Float[Tensor, "m t"]:
    """Mean label of the `NEIGHBOURS` nearest examples that have one, by Euclidean distance.

    All count where fewer have a label.

    Args:
        z: features of the training examples.
        columns: labels of each target.
        asked: features to predict for.
        classes: of class ids, whose fractions are predicted; 0 where a column is a target.

    Returns:
        A column for each target or class; 0 for a target without labels.
    """
    z, asked = z.double(), asked.double()
    predicted = []
    for some in torch.split(asked, _ROWS):
        distance = torch.cdist(some, z)
        parts = []
        for column in columns:
            k = min(NEIGHBOURS, len(column.rows))
            nearest = distance[:, column.rows].topk(k, largest=False).indices
            parts.append(_values(column.labels, classes)[nearest].sum(1) / max(k, 1))
        predicted.append(torch.cat(parts, 1))
    return torch.cat(predicted)


def linear_predictions(
    axes: PrincipalAxes,
    y: Shaped[Tensor, " n"],
    asked: Float[Tensor, "m d"],
    *,
    classes: int = 0,
) -> Float[Tensor, "m c"]:
    """A linear probe: ridge regression of the labels, with the penalty that maximises the evidence.

    It has an intercept without penalty. The penalty is `a / b` of `logme`, of centred features and
    labels, so that no validation label chooses it. Alain and Bengio (2017) introduce linear probes.

    Args:
        axes: of the features of the examples with a label, centred.
        y: labels of one target.
        asked: features to predict for.
        classes: of class ids, each of which is regressed on; 0 for a target.

    Returns:
        A column for the target, or for each class.
    """
    values = _values(y, classes)
    means = values.mean(0)
    weights = []
    for centred in (values - means).T:
        penalty = _maximum_evidence(axes, centred)[1] if centred.any() else 1.0
        weights.append(axes.coordinates.T @ centred / (axes.sums + penalty))
    return axes.along(asked) @ torch.stack(weights, 1) + means


def _values(y: Shaped[Tensor, " n"], classes: int) -> Float[Tensor, "n c"]:
    """Labels as numbers: a column for each class, or one."""
    return F.one_hot(y, classes).double() if classes else y.double()[:, None]
