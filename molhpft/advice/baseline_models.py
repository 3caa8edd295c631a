"""Simple models of molecules that are hard to beat, and what they read: fingerprints, descriptors.

Their fixed settings are those that do well on the sets of `benchmarks/development_sets.py`; what is
left to choose is chosen on validation by `molhpft.advice.baselines`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Literal
from warnings import catch_warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC, SVR
from torch import Tensor

from molhpft.core.determinism import seed_for
from molhpft.domains.console import track
from molhpft.domains.files import Json
from molhpft.domains.molecules.computed_targets import descriptor_targets
from molhpft.domains.molecules.count_fingerprints import Substructure, count_fingerprints
from molhpft.domains.molecules.fingerprint_kernels import gaussian_kernel, minmax_kernel
from molhpft.domains.molecules.fingerprints import morgan_fingerprints
from molhpft.domains.parallel import worker_count
from molhpft.tuning.gaussian_process import NOISES, gaussian_process
from molhpft.tuning.row_sample import MOST_KERNEL_ROWS, row_sample

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

TREES = 500
INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
MARGIN_PENALTIES = (1.0, 3.0, 10.0)  # C of support vector machines
LEARNING_RATES = (0.05, 0.1)

MOST_PROCESS_ROWS = 5_000  # one factorisation takes seconds
MOST_DENSE_ROWS = 50_000  # dense columns of them take 0.8 GB

_CLIP = 1e-6  # a forest may be certain; a logit may not be infinite
_BLOCK = 2_048  # molecules that a kernel is computed for at a time
_LEAST = 20  # molecules in a leaf of boosting, where there are enough
_FOREST_BYTES = 1e9  # of trees in memory at a time


@dataclass(frozen=True, eq=False)
class Columns:
    """Molecules as rows of numbers, (n, d), sparse or dense."""

    values: Any


@dataclass(frozen=True, eq=False)
class Kernel:
    """Molecules as similarities to others.

    Attributes:
        vectors: (n, d), sparse or dense.
        similarity: of every row of one matrix to every row of another.
    """

    vectors: Any
    similarity: Callable[[Any, Any], Array]

    def among(self, rows: Rows) -> Array:
        """Similarities of molecules to one another, (m, m)."""
        vectors = self.vectors[rows]
        return self.similarity(vectors, vectors)

    def blocks(self, asked: Rows, rows: Rows) -> Iterator[Array]:
        """Similarities of the molecules `asked` to `rows` (m,): stretches of them, (_, m)."""
        vectors = self.vectors[rows]
        for start in range(0, len(asked), _BLOCK):
            yield self.similarity(self.vectors[asked[start : start + _BLOCK]], vectors)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one model learns from and is asked for.

    Attributes:
        inputs: of all molecules.
        rows: numbers of the molecules to learn from, (m,).
        y: their labels, (m,), or (m, t) for a model of several targets; none is missing, and none
            is constant.
        asked: numbers of the molecules to predict, (k,).
        classes: whether labels are 0 and 1; otherwise they are numbers.
        seed: of what is drawn.
    """

    inputs: Any
    rows: Rows
    y: Array
    asked: Rows
    classes: bool
    seed: int


Model = Callable[[Lesson, Sequence[Any]], list[Array]]
"""Logits or numbers (k,), or (k, t), for each of the values of its setting."""

Representation = Literal["morgan_bits", "morgan_counts", "atom_pairs", "torsions", "descriptors"]


@dataclass(frozen=True)
class Baseline:
    """A model of fingerprints or descriptors.

    Attributes:
        title: what it is, such as "random forest on Morgan counts".
        reads: what molecules are to it.
        model: how it learns.
        setting: name of what validation chooses; None where there is nothing to choose.
        values: of the setting to choose from.
        options: fixed settings, for the config that is written.
        similarity: how a kernel machine compares molecules; None for a model of columns.
        joint: whether one model learns all targets of a classification, a missing label as 0.
        most_rows: molecules that it learns a target from, of more a sample; None for no limit.
        regression_most: molecules of a regression that it takes, and no classes; None for any task.
    """

    title: str
    reads: Representation
    model: Model
    setting: str | None = None
    values: tuple[Any, ...] = (None,)
    options: Json = field(default_factory=dict)
    similarity: Literal["minmax", "gaussian"] | None = None
    joint: bool = False
    most_rows: int | None = None
    regression_most: int | None = None

    def refusal(self, targets: Tensor, *, classes: bool) -> str | None:
        """Why it does not fit targets (n, t) to learn from; None where it does."""
        if self.regression_most is None:
            return None
        if classes:
            return "it predicts numbers, and the targets are classes"
        most = _most_measured(targets)
        if most > self.regression_most:
            return f"it takes {self.regression_most:,} molecules at most, and there are {most:,}"
        return None

    def samples(self, targets: Tensor) -> bool:
        """Whether it learns a target from a sample of the molecules of targets (n, t)."""
        return self.most_rows is not None and _most_measured(targets) > self.most_rows


def _most_measured(targets: Tensor) -> int:
    return int((~targets.isnan()).sum(0).max()) if targets.numel() else 0


def predictions(
    baseline: Baseline,
    smiles: Sequence[str],
    targets: Tensor,
    *,
    train: Rows,
    asked: Rows,
    classes: bool,
    values: Sequence[Any],
    seed: int,
) -> list[Tensor]:
    """Logits or numbers (k, t) for each of some values of a baseline's setting.

    A target without two different labels to learn from gets one prediction for every molecule.

    Args:
        baseline: what learns.
        smiles: of all molecules, (n,).
        targets: of those to learn from (m, t), NaN where unmeasured.
        train: numbers of the molecules to learn from, (m,).
        asked: numbers of those to predict, (k,).
        classes: whether labels are 0 and 1; otherwise they are numbers.
        values: of its setting.
        seed: of what is drawn.
    """
    labels = targets.double().numpy()
    means = np.nan_to_num(labels).sum(0) / np.maximum((~np.isnan(labels)).sum(0), 1)
    results = [np.tile(means, (len(asked), 1)) for _ in values]
    varying = [k for k, y in enumerate(labels.T) if len(np.unique(y[~np.isnan(y)])) > 1]
    if varying:
        joint = baseline.joint and classes and len(varying) > 1
        targets_at_once = [varying] if joint else [[k] for k in varying]
        inputs = _inputs(baseline, smiles, train)
        for columns in track(targets_at_once, "fitting targets"):
            chosen = _seed(seed, "targets" if joint else f"target {columns[0]}")
            size = len(labels) if baseline.most_rows is None else baseline.most_rows
            rows = row_sample(labels[:, columns], size, classes=classes, seed=chosen)
            y = np.nan_to_num(labels[rows][:, columns])
            y = y if joint else y[:, 0]
            lesson = Lesson(inputs, train[rows], y, asked, classes, chosen)
            for result, answer in zip(results, baseline.model(lesson, values), strict=True):
                result[:, columns] = answer.reshape(len(asked), -1)
    return [torch.from_numpy(result) for result in results]


def _seed(seed: int, what: str) -> int:
    return seed_for(seed, what) % 2**32


def _inputs(baseline: Baseline, smiles: Sequence[str], train: Rows) -> Columns | Kernel:
    values = _READERS[baseline.reads](smiles, train)
    if baseline.similarity == "minmax":
        return Kernel(values, minmax_kernel)
    if baseline.similarity == "gaussian":
        return Kernel(values, gaussian_kernel)
    return Columns(values)


def _bits(smiles: Sequence[str], train: Rows) -> csr_matrix:
    return csr_matrix(morgan_fingerprints(smiles).numpy(), dtype=np.float64)


def _counts(kind: Substructure, smiles: Sequence[str], train: Rows) -> csr_matrix:
    return count_fingerprints(kind, smiles)


def _descriptors(smiles: Sequence[str], train: Rows) -> Array:
    """Descriptors in standard deviations of the training molecules; those that are not finite 0."""
    values, _ = descriptor_targets(smiles, torch.from_numpy(train))
    columns: Array = values.double().nan_to_num(0.0).numpy()
    return columns


_READERS: Mapping[Representation, Callable[[Sequence[str], Rows], Any]] = {
    "morgan_bits": _bits,
    "morgan_counts": partial(_counts, "morgan"),
    "atom_pairs": partial(_counts, "atom_pairs"),
    "torsions": partial(_counts, "torsions"),
    "descriptors": _descriptors,
}


def forest(lesson: Lesson, values: Sequence[int]) -> list[Array]:
    """Random forests of so many trees, of one target or of several."""
    return [_forest(lesson, trees) for trees in values]


def _forest(lesson: Lesson, trees: int) -> Array:
    x, asked = (lesson.inputs.values[rows] for rows in (lesson.rows, lesson.asked))
    votes: Any = 0.0
    pieces = _pieces(lesson, trees)
    for number, piece in enumerate(pieces):
        seed = lesson.seed if len(pieces) == 1 else _seed(lesson.seed, f"piece {number}")
        model = _trees(piece, seed, classes=lesson.classes)
        with catch_warnings():  # threads of scikit-learn may leave the filters of warnings empty
            model.fit(x, lesson.y)
        # threads add up the votes of trees in any order, and roundings differ
        model.set_params(n_jobs=1)
        votes = votes + piece * _votes(model, asked, lesson)
    mean: Array = votes / trees
    if not lesson.classes:
        return mean
    p = np.clip(mean, _CLIP, 1 - _CLIP)
    logits: Array = np.log(p) - np.log1p(-p)
    return logits


def _trees(count: int, seed: int, *, classes: bool) -> Any:
    common: Any = {"n_estimators": count, "random_state": seed, "n_jobs": worker_count()}
    if classes:
        return RandomForestClassifier(criterion="entropy", min_samples_split=10, **common)
    # trying a third of the columns at every node predicts no better and takes 1.6 times as long
    return RandomForestRegressor(max_features=0.1, **common)


def _votes(model: Any, asked: Any, lesson: Lesson) -> Array:
    if not lesson.classes:
        numbers: Array = model.predict(asked)
        return numbers
    p = model.predict_proba(asked)
    return p[:, 1] if lesson.y.ndim == 1 else np.stack([target[:, 1] for target in p], axis=1)


def _pieces(lesson: Lesson, trees: int) -> list[int]:
    """Numbers of trees to grow at a time: a tree has a share of every class of a target a node."""
    targets = 1 if lesson.y.ndim == 1 else lesson.y.shape[1]
    tree = 16 * targets * len(lesson.y)
    count = min(trees, max(1, ceil(trees * tree / _FOREST_BYTES)))
    return [len(part) for part in np.array_split(np.arange(trees), count)]


def boosting(lesson: Lesson, values: Sequence[float]) -> list[Array]:
    """Gradient boosting of histograms at some learning rates."""
    least = min(_LEAST, max(1, len(lesson.y) // 10))
    columns = lesson.inputs.values
    x, asked = columns[lesson.rows], columns[lesson.asked]
    if isinstance(x, csr_matrix):
        # a column with fewer counts can part no leaf: 2,048 columns become a few hundred
        frequent = x.getnnz(0) >= min(least, x.getnnz(0).max())
        x, asked = x[:, frequent].toarray(), asked[:, frequent]
    kind = HistGradientBoostingClassifier if lesson.classes else HistGradientBoostingRegressor
    results = []
    for rate in values:
        model = kind(
            learning_rate=rate,
            min_samples_leaf=least,
            early_stopping=False,
            random_state=lesson.seed,
        ).fit(x, lesson.y)
        answer = model.decision_function if lesson.classes else model.predict
        parts = [asked[start : start + _BLOCK] for start in range(0, asked.shape[0], _BLOCK)]
        dense = (part.toarray() if isinstance(part, csr_matrix) else part for part in parts)
        results.append(np.concatenate([answer(part) for part in dense]))
    return results


def linear(lesson: Lesson, values: Sequence[float]) -> list[Array]:
    """Logistic or ridge regression at some inverse penalties."""
    x, asked = (lesson.inputs.values[rows] for rows in (lesson.rows, lesson.asked))
    if not lesson.classes:
        return [Ridge(alpha=1 / value).fit(x, lesson.y).predict(asked) for value in values]
    models = (LogisticRegression(C=value, max_iter=5000).fit(x, lesson.y) for value in values)
    return [model.decision_function(asked) for model in models]


def support_vectors(lesson: Lesson, values: Sequence[float]) -> list[Array]:
    """Support vector machines on a kernel at some penalties of the margin (C).

    Numbers are standardised, so that C and the tube of 0.1 mean the same in every unit.
    """
    mean, std = (0.0, 1.0) if lesson.classes else (lesson.y.mean(), lesson.y.std())
    y, kernel = (lesson.y - mean) / std, lesson.inputs.among(lesson.rows)
    kind = SVC if lesson.classes else SVR
    machines = [kind(C=value, kernel="precomputed").fit(kernel, y) for value in values]
    del kernel
    answers: list[list[Array]] = [[] for _ in machines]
    for block in lesson.inputs.blocks(lesson.asked, lesson.rows):
        for parts, machine in zip(answers, machines, strict=True):
            answer = machine.decision_function if lesson.classes else machine.predict
            parts.append(answer(block))
    return [np.concatenate(parts) * std + mean for parts in answers]


def process(lesson: Lesson, values: Sequence[None]) -> list[Array]:
    """A Gaussian process on a kernel, which chooses its noise and scale itself."""
    fitted = gaussian_process(lesson.inputs.among(lesson.rows), lesson.y)
    blocks = lesson.inputs.blocks(lesson.asked, lesson.rows)
    return [np.concatenate([fitted.predict(block) for block in blocks])] * len(values)


_FOREST: Any = {
    "model": forest,
    "setting": "trees",
    "values": (TREES,),
    "options": {"trees": TREES, "missing_label": 0},
    "joint": True,
}
_BOOSTING: Any = {
    "model": boosting,
    "setting": "learning_rate",
    "values": LEARNING_RATES,
    "options": {"learning_rates": list(LEARNING_RATES), "most_rows": MOST_DENSE_ROWS},
    "most_rows": MOST_DENSE_ROWS,
}
_LINEAR: Any = {
    "model": linear,
    "setting": "inverse_penalty",
    "values": INVERSE_PENALTIES,
    "options": {"inverse_penalties": list(INVERSE_PENALTIES)},
}


def _machine(kernel: str, similarity: str) -> Any:
    return {
        "model": support_vectors,
        "setting": "margin_penalty",
        "values": MARGIN_PENALTIES,
        "options": {
            "kernel": kernel,
            "margin_penalties": list(MARGIN_PENALTIES),
            "most_rows": MOST_KERNEL_ROWS,
        },
        "similarity": similarity,
        "most_rows": MOST_KERNEL_ROWS,
    }


_MINMAX, _GAUSSIAN = _machine("minmax", "minmax"), _machine("gaussian", "gaussian")

BASELINES: dict[str, Baseline] = {
    "forest_counts": Baseline("random forest on Morgan counts", "morgan_counts", **_FOREST),
    "forest_atom_pairs": Baseline("random forest on atom pairs", "atom_pairs", **_FOREST),
    "forest_torsions": Baseline("random forest on torsions", "torsions", **_FOREST),
    "forest_descriptors": Baseline("random forest on descriptors", "descriptors", **_FOREST),
    "boosting_counts": Baseline("gradient boosting on Morgan counts", "morgan_counts", **_BOOSTING),
    "boosting_descriptors": Baseline(
        "gradient boosting on descriptors", "descriptors", **_BOOSTING
    ),
    "linear_bits": Baseline("logistic or ridge on Morgan bits", "morgan_bits", **_LINEAR),
    "linear_descriptors": Baseline("logistic or ridge on descriptors", "descriptors", **_LINEAR),
    "svm_counts": Baseline("SVM, MinMax of Morgan counts", "morgan_counts", **_MINMAX),
    "svm_atom_pairs": Baseline("SVM, MinMax of atom pairs", "atom_pairs", **_MINMAX),
    "svm_torsions": Baseline("SVM, MinMax of torsions", "torsions", **_MINMAX),
    "svm_descriptors": Baseline("SVM, Gaussian of descriptors", "descriptors", **_GAUSSIAN),
    "gp_counts": Baseline(
        "Gaussian process, MinMax of Morgan counts",
        "morgan_counts",
        process,
        options={"kernel": "minmax", "noises": list(NOISES)},
        similarity="minmax",
        regression_most=MOST_PROCESS_ROWS,
    ),
}
