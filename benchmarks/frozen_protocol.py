"""How a fixed representation of molecules is judged: the same kernel machine for every one of them.

Features are standardised on the training rows (a column that is constant there is 0 everywhere),
then a support vector machine with C = 3 and the kernel exp(-|x - y|^2 / (2 d)) for d columns is
fitted, with nothing tuned. Numbers are standardised on the training rows as well, so that C and the
tube of 0.1 mean the same in every unit; the RMSE is in the unit of the table. Of several targets
each has its own machine, fitted to the rows it is measured on; their ROC-AUC is averaged over the
targets that have both classes among the scored rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from development_sets import DevelopmentSet, Fold, Rows
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from molhpft.core.network import Chain
from molhpft.domains.molecules.count_fingerprints import count_fingerprints
from molhpft.domains.molecules.fingerprint_kernels import gaussian_kernel, minmax_kernel
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.estimator.frozen import backbone_features

Array = NDArray[np.float64]

VERSION = "frozen 1"
C = 3.0
MOST_ROWS = 20_000  # of an exact machine: its kernel then takes 3 GB, and minutes
SAMPLE = 8_000  # rows of a set that has more

_TREES = 500


@dataclass(frozen=True, eq=False)
class Sides:
    """What a machine is fitted to and asked about, as `Kernel` or as inputs."""

    train: Array
    scored: Array


def encoder_features(backbone: Chain, smiles: tuple[str, ...]) -> NDArray[np.float32]:
    """Features in eval mode, (n, d)."""
    every = torch.arange(len(smiles))
    return backbone_features([backbone], load_or_pack(smiles), every).numpy()


@lru_cache(maxsize=1)
def morgan_counts(smiles: tuple[str, ...]) -> csr_matrix:
    """Counts of circular neighbourhoods of radius 2, folded to 2,048 columns, (n, 2048)."""
    return count_fingerprints("morgan", smiles)


def gaussian_kernels(features: NDArray[np.float32], fold: Fold) -> Sides:
    """Kernels of training rows, and of scored rows with them."""
    scaler = StandardScaler().fit(features[fold.train].astype(np.float64))
    x, q = (scaler.transform(features[rows]) for rows in (fold.train, fold.scored))
    return Sides(gaussian_kernel(x, x), gaussian_kernel(q, x))


def minmax_kernels(counts: csr_matrix, fold: Fold) -> Sides:
    """Kernels sum(min) / sum(max) of counts: Tanimoto's similarity where all are 0 or 1."""
    x, q = counts[fold.train], counts[fold.scored]
    return Sides(minmax_kernel(x, x), minmax_kernel(q, x))


def machine_score(data: DevelopmentSet, fold: Fold, kernels: Sides) -> float:
    """Score of support vector machines on given kernels."""

    def outputs(y: Array, rows: Rows) -> Array:
        kernel, test = kernels.train, kernels.scored
        if len(rows) < len(kernel):
            kernel, test = kernel[np.ix_(rows, rows)], test[:, rows]
        if data.classes:
            return SVC(C=C, kernel="precomputed").fit(kernel, y).decision_function(test)
        mean, std = y.mean(), y.std()
        machine = SVR(C=C, kernel="precomputed").fit(kernel, (y - mean) / std)
        return machine.predict(test) * std + mean

    return data.score(fold, _predicted(data, fold, outputs))


def forest_score(data: DevelopmentSet, fold: Fold, counts: csr_matrix, seed: int) -> float:
    """Score of a random forest on counts, one for each target."""
    x, q = (counts[rows].toarray() for rows in (fold.train, fold.scored))

    def outputs(y: Array, rows: Rows) -> Array:
        options = {"n_estimators": _TREES, "n_jobs": 2, "random_state": seed}
        if data.classes:
            return RandomForestClassifier(**options).fit(x[rows], y).predict_proba(q)[:, 1]
        return RandomForestRegressor(**options).fit(x[rows], y).predict(q)

    return data.score(fold, _predicted(data, fold, outputs))


def _predicted(data: DevelopmentSet, fold: Fold, outputs: Callable[[Array, Rows], Array]) -> Array:
    """Outputs for the scored rows, (m, t), of a model for each target that can be scored.

    Args:
        data: of the labels.
        fold: of its rows.
        outputs: from the labels that a target has, and their places among the training rows.
    """
    predicted = np.full((len(fold.scored), data.labels.shape[1]), np.nan)
    for target in data.scorable(fold):
        y = data.labels[fold.train, target]
        rows = np.flatnonzero(~np.isnan(y))
        predicted[:, target] = outputs(y[rows], rows)
    return predicted


def sampled(data: DevelopmentSet, fold: Fold) -> Fold:
    """The fold a machine can take: of more than `MOST_ROWS` training rows a sample of `SAMPLE`.

    Rows of the rarer class are all in it; the same are drawn on every call.
    """
    if len(fold.train) <= MOST_ROWS:
        return fold
    y = data.labels[fold.train, 0]
    rare = y == (np.nanmean(y) < 0.5)
    drawn = np.random.default_rng(0).permutation(np.flatnonzero(~rare))[: SAMPLE - rare.sum()]
    return Fold(fold.train[np.sort(np.concatenate([np.flatnonzero(rare), drawn]))], fold.scored)
