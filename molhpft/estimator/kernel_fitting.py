"""Kernel models of a table: fitted, and judged by molecules that are new to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.config.build import build_network, build_recipes
from molhpft.config.schema import RunConfig, without_beside
from molhpft.core.data import Task
from molhpft.core.network import Chain
from molhpft.core.scale import fit_scale
from molhpft.domains.molecules.featurized import Reading
from molhpft.estimator.kernel_models import (
    Covariance,
    KernelModel,
    KernelModels,
    fit_kernel_model,
    groups,
    likeliest_covariance,
    sampled_rows,
    weighing_rows,
    weighted_sum,
)
from molhpft.estimator.similarities import (
    SIMILARITIES,
    Described,
    Describer,
    Similarity,
    read_columns,
    similarity,
)
from molhpft.estimator.validation import VALID, Fold, held_rows, molecules_of

Array = NDArray[np.float64]

_MOST_KEPT = 5_000  # molecules whose five similarities to one another, a gigabyte, serve all folds


@dataclass(frozen=True, eq=False)
class Fitted:
    """Kernel models of a table.

    Attributes:
        models: fitted to the molecules that train and those that choose.
        outputs: split to those of all models, (k, n, t); "valid" is of the molecules that choose,
            by models that did not learn from them.
    """

    models: KernelModels
    outputs: dict[str, Tensor]


def fit_kernel_models(
    config: RunConfig, task: Task, folds: Sequence[Fold], *, only: str | None = None
) -> Fitted:
    """Fit a model to each group of similarities, again without each fold or the held-out part.

    Features are compared only where the encoder is pretrained.

    Args:
        config: says which encoder.
        task: on molecules; without folds with a "valid" split.
        folds: parts of the training split that are held out in turn; none where there is "valid".
        only: the one group that is wanted.

    Raises:
        ValueError: features are wanted of an encoder that is not pretrained.
    """
    backbone = None if only == "fingerprints" else _frozen(config, task)
    if only == "features" and backbone is None:
        raise ValueError(
            "members: features needs a pretrained encoder, and this one has random weights; take "
            "members: networks, or an encoder with weights"
        )
    names = [name for name in SIMILARITIES if backbone or name != "features"]
    wanted = {key: group for key, group in groups(names).items() if only in (None, key)}
    bench = _bench(task, backbone, wanted, seed=config.seed)
    train = task.rows("train")
    if folds:
        models, judged = bench.fit_by_folds(train, folds)
    else:
        held = task.rows(VALID)
        judged = bench.outputs(bench.fit(train), held)
        models = bench.fit(torch.cat([train, held]))
    further = {
        split: bench.outputs(models, task.rows(split))
        for split in task.splits
        if split not in ("train", VALID) and len(task.rows(split))
    }
    return Fitted(models, {VALID: judged, **further})


def _frozen(config: RunConfig, task: Task) -> Chain | None:
    """The pretrained encoder as it is before finetuning, standardised; None if it is random."""
    recipe = build_recipes(config)[0]
    if config.encoder.options["weights"] is None or not recipe.pretrained:
        return None
    whole = replace(config, head=without_beside(config.head), standardise=True, cut=None)
    return build_network(whole, task, recipe).backbone.eval()


def _bench(
    task: Task,
    backbone: Chain | None,
    wanted: Mapping[str, tuple[Similarity, ...]],
    *,
    seed: int,
) -> "_Bench":
    used = {name for group in wanted.values() for name in group}
    names = tuple(name for name in SIMILARITIES if name in used)
    columns = read_columns(names, molecules_of(task).smiles)
    scale = None
    if "properties" in names:
        scale = fit_scale(columns["properties"][task.rows("train").numpy()])
    describer = Describer(names, backbone if "features" in names else None, scale)
    return _Bench(task, describer, columns, wanted, seed)


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all kernel models of a table are fitted with.

    Attributes:
        task: on molecules.
        describer: of its molecules.
        columns: what was read of all of them.
        wanted: the groups of similarities.
        seed: of samples.
    """

    task: Task
    describer: Describer
    columns: Mapping[Reading, Any]
    wanted: Mapping[str, tuple[Similarity, ...]]
    seed: int

    @cached_property
    def targets(self) -> Tensor:
        """Of all molecules, float32 (n, t)."""
        molecules = molecules_of(self.task)
        return molecules.targets[torch.arange(len(molecules.smiles))].float()

    def described(self, rows: Tensor) -> Described:
        """Some molecules, (m,)."""
        return self.describer.described(molecules_of(self.task).store, rows, self.columns)

    def fit(self, rows: Tensor) -> KernelModels:
        """A model of each group, fitted to some rows (m,) or to a sample of them."""
        rows = self._sample(rows)
        known, targets = self.described(rows), self.targets[rows]
        some = weighing_rows(targets, seed=self.seed)
        few = self._among(known.take(some))
        covariances = [self._covariance(key, few, targets, some) for key in self.wanted]
        sums = self._sums(covariances, known)
        models = [fit_kernel_model(c, sums.pop(0), targets) for c in covariances]
        return KernelModels(tuple(models), known, self.describer)

    def fit_by_folds(self, rows: Tensor, folds: Sequence[Fold]) -> tuple[KernelModels, Tensor]:
        """Models of all rows, and what models of each fold say of what it holds out.

        Args:
            rows: (n,), rising.
            folds: of them.

        Returns:
            the models, and outputs (k, m, t) in the order of `held_rows`.
        """
        judged = torch.empty(len(self.wanted), len(rows), self.targets.shape[1])
        is_held = torch.isin(rows, held_rows(folds))
        if len(rows) > _MOST_KEPT:
            for fold in folds:
                said = self.outputs(self.fit(fold.train), fold.held)
                judged[:, torch.isin(rows, fold.held)] = said
            return self.fit(rows), judged[:, is_held]
        known, sample = self.described(rows), self._sample(rows)
        kernels = self._among(known)
        for fold in folds:
            own, held = (
                torch.isin(rows, some).nonzero().flatten().numpy()
                for some in (fold.train[torch.isin(fold.train, sample)], fold.held)
            )
            models = self._models(_part(kernels, own, own), rows[own])
            asked = _part(kernels, held, own)
            judged[:, held] = torch.stack([one.outputs(asked) for one in models]).float()
        places = torch.isin(rows, sample).nonzero().flatten().numpy()
        models = self._models(_part(kernels, places, places), rows[places])
        return KernelModels(models, known.take(places), self.describer), judged[:, is_held]

    def outputs(self, models: KernelModels, rows: Tensor) -> Tensor:
        """Outputs (k, m, t) of some rows (m,)."""
        return models.outputs(molecules_of(self.task).store, rows, self.columns)

    def _sample(self, rows: Tensor) -> Tensor:
        return rows[torch.from_numpy(sampled_rows(self.targets[rows], seed=self.seed))]

    def _among(self, known: Described) -> dict[Similarity, Array]:
        return {name: similarity(name, known, known) for name in self.describer.names}

    def _models(self, kernels: Mapping[Similarity, Array], rows: Tensor) -> tuple[KernelModel, ...]:
        """A model of each group, from the similarities (n, n) of its rows (n,) to one another."""
        targets = self.targets[rows]
        some = weighing_rows(targets, seed=self.seed)
        few, models = _part(kernels, some, some), []
        for key in self.wanted:
            covariance = self._covariance(key, few, targets, some)
            models.append(
                fit_kernel_model(covariance, weighted_sum(covariance.weights, kernels), targets)
            )
        return tuple(models)

    def _covariance(
        self,
        key: str,
        few: Mapping[Similarity, Array],
        targets: Tensor,
        some: NDArray[np.int64],
    ) -> Covariance:
        own = {name: few[name] for name in self.wanted[key]}
        return likeliest_covariance(key, own, targets, some)

    def _sums(self, covariances: Sequence[Covariance], known: Described) -> list[Array]:
        """The weighted sums (n, n) of each; one similarity is in memory at a time."""
        sums = [np.zeros((len(known), len(known))) for _ in covariances]
        for name in self.describer.names:
            if any(name in one.weights for one in covariances):
                kernel = similarity(name, known, known)
                for one, total in zip(covariances, sums, strict=True):
                    if name in one.weights:
                        total += one.weights[name] * kernel
        return sums


def _part(
    kernels: Mapping[Similarity, Array], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> dict[Similarity, Array]:
    return {name: kernel[np.ix_(rows, columns)] for name, kernel in kernels.items()}
