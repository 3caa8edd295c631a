"""Machines of a table: fitted, judged by molecules that are new to them, brought to logits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from molhpft.config.build import build_network, build_recipes
from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.network import Chain
from molhpft.core.objectives import Squared
from molhpft.domains.molecules.count_fingerprints import count_fingerprints
from molhpft.estimator.machines import (
    KERNELS,
    KernelName,
    Machines,
    affordable_rows,
    described,
    fit_machine,
    similarities,
)
from molhpft.estimator.validation import VALID, Fold, held_rows, molecules_of
from molhpft.measure.uncertainty import fit_platt


@dataclass(frozen=True, eq=False)
class Fitted:
    """Machines that are fitted to the whole training split.

    Attributes:
        machines: one for each kernel.
        logits: split to those of all machines, (k, n, t); "valid" is of the molecules that choose,
            by machines that did not train on them.
    """

    machines: Machines
    logits: dict[str, Tensor]


def fit_machines(
    config: RunConfig, task: Task, folds: Sequence[Fold], *, only: KernelName | None = None
) -> Fitted:
    """Fit a machine for each kernel, and again without each fold.

    Of features there are machines only where the encoder is pretrained. Distances to their margins
    become logits by Platt's lines on the molecules that choose.

    Args:
        config: says which encoder.
        task: on molecules; without folds with a "valid" split.
        folds: parts of the training split that are held out in turn; none where there is "valid".
        only: the one kernel that is wanted.

    Raises:
        ValueError: features are wanted of an encoder that is not pretrained.
    """
    backbone = None if only == "fingerprints" else _frozen(config, task)
    if only == "features" and backbone is None:
        raise ValueError(
            "members: features needs a pretrained encoder, and this one has random weights; take "
            "members: networks, or an encoder with weights"
        )
    names = [only] if only else [k for k in KERNELS if backbone or k == "fingerprints"]
    bench, rows = _Bench(task, backbone, names, seed=config.seed), task.rows("train")
    machines = bench.fit(rows)
    if folds:
        parts = [bench.logits(bench.fit(fold.train), fold.held) for fold in folds]
        order = torch.cat([fold.held for fold in folds]).argsort()
        held, judged = held_rows(folds), torch.cat(parts, dim=1)[:, order]
    else:
        held = task.rows(VALID)
        judged = bench.logits(machines, held)
    slopes, offsets = bench.lines(judged, held)
    scaled = machines.scaled(slopes, offsets)
    logits = {
        split: bench.logits(scaled, task.rows(split))
        for split in task.splits
        if split not in ("train", VALID) and len(task.rows(split))
    }
    return Fitted(scaled, {VALID: slopes[:, None] * judged + offsets[:, None], **logits})


def _frozen(config: RunConfig, task: Task) -> Chain | None:
    """The pretrained encoder as it is before finetuning, standardised; None if it is random."""
    recipe = build_recipes(config)[0]
    if config.encoder.options["weights"] is None or not recipe.pretrained:
        return None
    whole = replace(config, standardise=True, cut=None)
    return build_network(whole, task, recipe).backbone.eval()


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all machines of a table are fitted with."""

    task: Task
    backbone: Chain | None
    names: Sequence[KernelName]
    seed: int

    @property
    def classes(self) -> bool:
        """Whether targets are 0 and 1."""
        return not isinstance(self.task.objective, Squared)

    @cached_property
    def counts(self) -> csr_matrix:
        """Of all molecules of the task."""
        return count_fingerprints("morgan", molecules_of(self.task).smiles)

    def fit(self, rows: Tensor) -> Machines:
        """A machine for each kernel, fitted to some rows (m,) or to a sample of them."""
        targets = self.task.examples.targets[rows].float()
        sample = affordable_rows(targets, seed=self.seed)
        store, rows = molecules_of(self.task).store, rows[sample]
        known = described(self.backbone, store, rows, self.counts[rows.numpy()])
        by_kernel = similarities(known, known)
        fitted = [
            fit_machine(name, by_kernel[name], targets[sample], classes=self.classes)
            for name in self.names
        ]
        return Machines(tuple(fitted), known, self.backbone)

    def logits(self, machines: Machines, rows: Tensor) -> Tensor:
        """Logits (k, m, t) of some rows (m,)."""
        counts = self.counts[rows.numpy()]
        return machines.logits(molecules_of(self.task).store, rows, counts)

    def lines(self, judged: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes and offsets (k, t) from distances to margins to logits: 1 and 0 of numbers.

        Args:
            judged: what machines say of molecules that they did not train on, (k, m, t).
            held: rows of these molecules, (m,).
        """
        k, _, t = judged.shape
        if not self.classes:
            return torch.ones(k, t), torch.zeros(k, t)
        y = self.task.examples.targets[held].float()
        fitted = [fit_platt(one, y) for one in judged]
        return (
            torch.stack([line.slopes for line in fitted]).float(),
            torch.stack([line.offsets for line in fitted]).float(),
        )
