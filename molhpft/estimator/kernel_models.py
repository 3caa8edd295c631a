"""Gaussian processes on what is known of molecules without training, as sums of similarities.

They fit in seconds and are hard to beat on small tables. A model may hold some beside its networks.
Each predicts by a weighted sum of similarities to reference molecules, so that a file of tensors
holds it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from molhpft.core.network import Chain
from molhpft.core.scale import Scale
from molhpft.domains.files import Json
from molhpft.domains.molecules.count_fingerprints import COLUMNS, SUBSTRUCTURES
from molhpft.domains.molecules.featurized import Reading
from molhpft.domains.molecules.graphs import GraphStore
from molhpft.domains.weights import strip_prefix
from molhpft.estimator.similarities import (
    SIMILARITIES,
    Described,
    Describer,
    Similarity,
    similarity,
)
from molhpft.tuning.gaussian_process import conditioned, few_threads, likeliest_mixture
from molhpft.tuning.row_sample import MOST_KERNEL_ROWS, row_sample

Array = NDArray[np.float64]

FINGERPRINTS: tuple[Similarity, ...] = SUBSTRUCTURES
FEATURES: tuple[Similarity, ...] = ("features",)

BUDGET = 2.5e12  # cubed numbers of labels, summed over targets: minutes of one core
MIXED_ROWS = 500  # that say what similarities are worth
MIXED_BUDGET = 12 * MIXED_ROWS**3
LEAST_WEIGHT = 1e-3  # of the weights: a similarity that is worth less is left out
_STRETCH = 1_024  # molecules whose similarities are in memory at a time
_ENCODER, _SCALE, _REFERENCES = "encoder.", "scale.", "known."


def groups(names: Sequence[Similarity]) -> dict[str, tuple[Similarity, ...]]:
    """Similarities that answer together, by what people call them, the simplest first.

    >>> list(groups(SIMILARITIES))
    ['fingerprints', 'features', 'fingerprints, features and properties']

    Args:
        names: those that there are.
    """
    families = {"fingerprints": FINGERPRINTS, "features": FEATURES, "properties": ("properties",)}
    present = {key: some for key, some in families.items() if set(some) <= set(names)}
    alone = {key: some for key, some in present.items() if key != "properties"}
    *first, last = present
    together = f"{', '.join(first)} and {last}" if first else last
    return {**alone, together: tuple(name for some in present.values() for name in some)}


@dataclass(frozen=True, eq=False)
class KernelModel:
    """For each of t targets a sum of similarities to n reference molecules.

    Attributes:
        name: of what it compares, of `groups`.
        weights: of the similarities it adds up.
        coefficients: of the reference molecules, (n, t); 0 for those it did not learn from.
        intercepts: (t,).
    """

    name: str
    weights: Mapping[Similarity, float]
    coefficients: Array
    intercepts: Array

    def outputs(self, similarities: Mapping[Similarity, Array]) -> Tensor:
        """Outputs (m, t) for molecules with these similarities (m, n) to the references."""
        kernel = weighted_sum(self.weights, similarities.__getitem__)
        return torch.from_numpy(kernel @ self.coefficients + self.intercepts)


@dataclass(frozen=True)
class Covariance:
    """What a Gaussian process takes labels of molecules to share.

    Attributes:
        name: of what it compares, of `groups`.
        weights: of the similarities it adds up.
        noise: variance of the noise of standardised labels.
    """

    name: str
    weights: Mapping[Similarity, float]
    noise: float


def weighted_sum(
    weights: Mapping[Similarity, float], similarities: Callable[[Similarity], NDArray[Any]]
) -> Array:
    """Sum of the similarities (m, n) that weigh something; one at a time is asked for."""
    kernel: Array = np.zeros(())
    for name, weight in weights.items():
        part = weight * similarities(name)
        kernel = np.add(kernel, part, out=kernel if kernel.ndim else None, dtype=np.float64)
    return kernel


def likeliest_covariance(
    name: str, kernels: Mapping[Similarity, Array], targets: Tensor, some: NDArray[np.int64]
) -> Covariance:
    """What similarities are worth, as labels of all targets together say.

    Args:
        name: of what is compared.
        kernels: similarities of m molecules to one another, (m, m) each.
        targets: of n molecules, (n, t), NaN where unmeasured.
        some: rows of the m molecules, (m,), from `weighing_rows`.
    """
    labels = _standardised(targets)
    standard = np.where(labels.varies, labels.standard, np.nan)[some]
    mixture = likeliest_mixture(list(kernels.values()), standard)
    least = LEAST_WEIGHT * sum(mixture.weights)
    pairs = zip(kernels, mixture.weights, strict=True)
    return Covariance(name, {n: w for n, w in pairs if w >= least}, mixture.noise)


def fit_kernel_model(covariance: Covariance, kernel: Array, targets: Tensor) -> KernelModel:
    """A Gaussian process for each target.

    Labels of classes are learned as the numbers 0 and 1 are. A target without two different labels
    is a constant: its mean, or 0.

    Args:
        covariance: the same for all targets.
        kernel: its weighted sum of similarities of n molecules to one another, (n, n).
        targets: (n, t), NaN where unmeasured.
    """
    labels = _standardised(targets)
    coefficients, intercepts = np.zeros_like(labels.standard), labels.mean.copy()
    with few_threads(len(kernel)):
        for k in np.flatnonzero(labels.varies):
            rows = np.flatnonzero(~np.isnan(labels.standard[:, k]))
            among = kernel[np.ix_(rows, rows)]
            own, level = conditioned(among, labels.standard[rows, k], covariance.noise)
            coefficients[rows, k] = own * labels.std[k]
            intercepts[k] += level * labels.std[k]
    return KernelModel(covariance.name, covariance.weights, coefficients, intercepts)


@dataclass(frozen=True, eq=False)
class _Labels:
    """Targets, each of mean 0 and variance 1.

    Attributes:
        standard: (n, t), NaN where unmeasured.
        mean: (t,); 0 of a target without labels.
        std: (t,).
        varies: whether a target has two different labels, (t,).
    """

    standard: Array
    mean: Array
    std: Array
    varies: NDArray[np.bool_]


def _standardised(targets: Tensor) -> _Labels:
    values = targets.double().numpy()
    measured = ~np.isnan(values)
    count = np.maximum(measured.sum(0), 1)
    mean = np.where(measured, values, 0).sum(0) / count
    std = np.sqrt(np.where(measured, np.square(values - mean), 0).sum(0) / count)
    varies = std > 1e-9 * np.maximum(1, np.abs(mean))
    return _Labels((values - mean) / np.where(varies, std, 1), mean, std, varies)


def weighing_rows(targets: Tensor, *, seed: int) -> NDArray[np.int64]:
    """Rows of the few molecules that say what similarities are worth.

    Args:
        targets: (n, t), NaN where unmeasured.
        seed: of the sample.
    """
    return sampled_rows(targets, seed=seed, most=MIXED_ROWS, budget=MIXED_BUDGET)


def sampled_rows(
    targets: Tensor, *, seed: int, most: int = MOST_KERNEL_ROWS, budget: float = BUDGET
) -> NDArray[np.int64]:
    """Rows that kernel models learn from: all with a label, or a `row_sample` within a budget.

    Args:
        targets: (n, t), NaN where unmeasured.
        seed: of the sample.
        most: rows in it.
        budget: cubed numbers of labels in it, summed over targets.
    """
    measured = ~targets.isnan()
    labelled = int(measured.any(1).sum())
    share = float(budget / measured.sum(0).double().pow(3).sum().clamp(min=1)) ** (1 / 3)
    size = max(1, min(labelled, most, round(share * labelled)))
    classes = bool(((targets == 0) | (targets == 1) | ~measured).all())
    return row_sample(targets.double().numpy(), size, classes=classes, seed=seed)


@dataclass(frozen=True, eq=False)
class KernelModels:
    """Kernel models that know the same molecules, with what describes others to them.

    Attributes:
        models: k of them.
        references: the molecules that they compare others with.
        describer: of these and others.
    """

    models: tuple[KernelModel, ...]
    references: Described
    describer: Describer

    def outputs(
        self, store: GraphStore, rows: Tensor, columns: Mapping[Reading, NDArray[Any]]
    ) -> Tensor:
        """Outputs of each model for m molecules, float32 (k, m, t) on the CPU.

        Args:
            store: molecules.
            rows: of those that are asked about, int64 (m,).
            columns: what was read of all molecules of the store.
        """
        parts = []
        for some in torch.split(rows, _STRETCH):
            if not len(some):
                continue
            queries = self.describer.described(store, some, columns)
            by_name = {n: similarity(n, queries, self.references) for n in self.describer.names}
            parts.append(torch.stack([one.outputs(by_name) for one in self.models]))
        t = self.models[0].coefficients.shape[1]
        return torch.cat([torch.empty(len(self.models), 0, t), *parts], dim=1).float()

    def only(self, numbers: Sequence[int]) -> "KernelModels":
        """Some of the models, with the molecules and similarities that these need."""
        some = [self.models[k] for k in numbers]
        used = np.any([(one.coefficients != 0).any(1) for one in some], axis=0)
        rows = np.flatnonzero(used)
        names = {name for one in some for name in one.weights}
        describer = self.describer.only([name for name in SIMILARITIES if name in names])
        return KernelModels(
            tuple(replace(one, coefficients=one.coefficients[rows]) for one in some),
            self.references.take(rows).only(describer.names),
            describer,
        )

    def to_json(self) -> list[Json]:
        """Names and weights, for `kernel_models_from`."""
        return [{"name": one.name, "weights": dict(one.weights)} for one in self.models]

    def to_tensors(self) -> dict[str, Tensor]:
        """What `kernel_models_from` reads beside `to_json`."""
        tensors: dict[str, Tensor] = {}
        for name, values in self.references.columns.items():
            if name in SUBSTRUCTURES:
                tensors |= {
                    f"{_REFERENCES}{name}.starts": torch.from_numpy(values.indptr.astype(np.int64)),
                    f"{_REFERENCES}{name}.columns": torch.from_numpy(
                        values.indices.astype(np.int16)
                    ),
                    f"{_REFERENCES}{name}.values": torch.from_numpy(values.data.astype(np.uint8)),
                }
            else:
                tensors[f"{_REFERENCES}{name}"] = torch.from_numpy(values)
        for k, model in enumerate(self.models):
            tensors[f"{k}.coefficients"] = torch.from_numpy(model.coefficients)
            tensors[f"{k}.intercepts"] = torch.from_numpy(model.intercepts)
        scale, frozen = self.describer.scale, self.describer.backbone
        if scale is not None:
            tensors |= {f"{_SCALE}{key}": v for key, v in vars(scale).items()}
        if frozen is not None:
            tensors |= {f"{_ENCODER}{name}": tensor for name, tensor in frozen.state_dict().items()}
        return tensors


def kernel_models_from(
    tensors: Mapping[str, Tensor], models: Sequence[Json], backbone: Chain
) -> KernelModels:
    """The inverse of `KernelModels.to_json` and `to_tensors`.

    Args:
        tensors: of the latter.
        models: of the former.
        backbone: of the encoder's shape, standardised at its end; its weights are set.

    Raises:
        KeyError: a tensor is missing.
    """
    used = {name for one in models for name in one["weights"]}
    names = tuple(name for name in SIMILARITIES if name in used)
    if "features" in names:
        backbone.load_state_dict(strip_prefix(tensors, _ENCODER))
    keys = ("low", "high", "mean", "std")
    describer = Describer(
        names,
        backbone.eval() if "features" in names else None,
        Scale(**{key: tensors[f"{_SCALE}{key}"] for key in keys})
        if "properties" in names
        else None,
    )
    return KernelModels(
        tuple(
            KernelModel(
                one["name"],
                one["weights"],
                tensors[f"{k}.coefficients"].numpy(),
                tensors[f"{k}.intercepts"].numpy(),
            )
            for k, one in enumerate(models)
        ),
        Described({name: _references(name, tensors) for name in names}),
        describer,
    )


def _references(name: Similarity, tensors: Mapping[str, Tensor]) -> Any:
    if name not in SUBSTRUCTURES:
        return tensors[f"{_REFERENCES}{name}"].numpy()
    parts = [
        tensors[f"{_REFERENCES}{name}.{part}"].numpy() for part in ("values", "columns", "starts")
    ]
    return csr_matrix(tuple(parts), shape=(len(parts[2]) - 1, COLUMNS)).astype(np.float32)
