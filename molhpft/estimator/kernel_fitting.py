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
from molhpft.domains.console import bar
from molhpft.domains.molecules.featurized import Reading
from molhpft.estimator.kernel_models import (
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
    backbone_alone = replace(recipe, keeps_head=False)
    return build_network(whole, task, backbone_alone).backbone.eval()


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

    def fit(self, rows: Tensor) -> KernelModels:
        """A model of each group, fitted to some rows (n,) or to a sample of them."""
        references = self._references(rows)
        return self._models(references, np.arange(len(references.rows)))

    def fit_by_folds(self, rows: Tensor, folds: Sequence[Fold]) -> tuple[KernelModels, Tensor]:
        """Models of all rows, and what models of each fold say of what it holds out.

        Args:
            rows: (n,).
            folds: of them.

        Returns:
            the models, and outputs (k, m, t) in the order of `held_rows`.
        """
        references, held = self._references(rows), held_rows(folds)
        judged = torch.empty(len(self.wanted), len(held), self.targets.shape[1])
        with bar("fitting Gaussian processes", total=len(folds) + 1) as move:
            for done, fold in enumerate(folds, start=1):
                own = torch.isin(references.rows, fold.train).nonzero().flatten().numpy()
                outputs = self.outputs(self._models(references, own), fold.held)
                judged[:, torch.isin(held, fold.held)] = outputs
                move(done)
            return self._models(references, np.arange(len(references.rows))), judged

    def outputs(self, models: KernelModels, rows: Tensor) -> Tensor:
        """Outputs (k, m, t) of some rows (m,)."""
        return models.outputs(molecules_of(self.task).store, rows, self.columns)

    def _references(self, rows: Tensor) -> "_References":
        """Some rows (n,), or a sample of them, to learn from."""
        rows = rows[torch.from_numpy(sampled_rows(self.targets[rows], seed=self.seed))]
        described = self.describer.described(molecules_of(self.task).store, rows, self.columns)
        names = self.describer.names
        alike = {name: similarity(name, described, described).astype(np.float32) for name in names}
        return _References(rows, described, alike)

    def _models(self, references: "_References", own: NDArray[np.int64]) -> KernelModels:
        """A model of each group, fitted to some of the references by their places, (m,)."""
        targets = self.targets[references.rows[own]]
        some = weighing_rows(targets, seed=self.seed)
        models = []
        for key, group in self.wanted.items():
            few = {name: references.kernel({name: 1.0}, own[some]) for name in group}
            covariance = likeliest_covariance(key, few, targets, some)
            models.append(
                fit_kernel_model(covariance, references.kernel(covariance.weights, own), targets)
            )
        return KernelModels(tuple(models), references.described.take(own), self.describer)


@dataclass(frozen=True, eq=False)
class _References:
    """Molecules that models learn from, all of them or all but those that a fold holds out.

    Attributes:
        rows: of the task, (n,).
        described: by whatever the similarities read.
        alike: how similar they are to one another, float32 (n, n) each: of 10,000 molecules two
            gigabytes for five similarities.
    """

    rows: Tensor
    described: Described
    alike: Mapping[Similarity, NDArray[np.float32]]

    def kernel(self, weights: Mapping[Similarity, float], own: NDArray[np.int64]) -> Array:
        """Weighted sum of the similarities of some molecules by their places (m,), (m, m)."""
        return weighted_sum(weights, lambda name: self.alike[name][np.ix_(own, own)])
