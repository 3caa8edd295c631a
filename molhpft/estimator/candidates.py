"""What may answer for a model: networks of each tau, and kernel models, on one scale."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel
from molhpft.estimator.blend import Line, fit_line
from molhpft.estimator.kernel_fitting import Fitted, fit_kernel_models
from molhpft.estimator.kernel_models import KernelModels
from molhpft.estimator.model import NetworkSpec
from molhpft.estimator.networks import NetworksOfTau, finetuned
from molhpft.estimator.settings import Inference, Members
from molhpft.estimator.validation import (
    VALID,
    Fold,
    choosing_task,
    fold_tasks,
    further_splits,
    split_targets,
    without_calibration,
)
from molhpft.run.folder import RunFolder
from molhpft.run.side_by_side import processes_for


@dataclass(frozen=True, eq=False)
class Candidate:
    """What may answer: networks that began alike, or a kernel model.

    Attributes:
        name: for people.
        logits: split to (n, t); "valid" is of the molecules that choose, by members that did not
            train on them.
        lines: from what each of its networks says, or the kernel model, to these logits.
        networks: that are averaged; none of a kernel model.
        kernel_model: its number; None of networks.
        tau: epochs of head probing of networks; None where their head was solved or kept.
    """

    name: str
    logits: Mapping[str, Tensor]
    lines: tuple[Line, ...]
    networks: tuple[Network, ...] = ()
    kernel_model: int | None = None
    tau: int | None = None


def all_candidates(
    config: RunConfig,
    task: Task,
    folds: Sequence[Fold],
    spec: NetworkSpec,
    out: Path,
    inference: Inference,
) -> tuple[list[Candidate], KernelModels | None, list[RunFolder]]:
    """All that may answer, the simplest first: of equals the first one does.

    Args:
        config: of the runs.
        task: on molecules.
        folds: parts of the training split that are held out in turn, if any.
        spec: of the networks.
        out: folder of run folders; an interrupted run resumes there.
        inference: says what may answer.

    Returns:
        the candidates, the kernel models among them, and the folders of the runs.

    Raises:
        ValueError: task, settings and this machine do not go together.
        OSError: `out` cannot be written to.
    """
    y = split_targets(choosing_task(task, folds), VALID)
    classes = isinstance(spec.objective, Multilabel)
    parts = [without_calibration(one) for one in fold_tasks(task, folds) or [task]]
    kernels, networks, folders = _fitted(config, task, folds, parts, spec, out, inference.members)
    candidates = list[Candidate]()
    if kernels:
        rates = _rates(task) if classes else None
        for k, model in enumerate(kernels.models.models):
            outputs = {split: of_all[k] for split, of_all in kernels.outputs.items()}
            line = fit_line(outputs[VALID], y, classes=classes, rates=rates)
            logits = _after(line, outputs)
            candidates.append(Candidate(f"GP, {model.name}", logits, (line,), kernel_model=k))
    for one in networks:
        name = f"networks, {config.method.name if one.tau is None else key_in_words(one.key)}"
        outputs = {VALID: _judged(one, parts, folds)}
        outputs |= {s: one.logits(task, s) for s in further_splits(task) if s != VALID}
        line = fit_line(outputs[VALID], y, classes=classes)
        lines = tuple(line.after(unit) for unit in one.units)
        candidates.append(
            Candidate(name, _after(line, outputs), lines, networks=one.networks, tau=one.tau)
        )
    return candidates, kernels.models if kernels else None, folders


def _after(line: Line, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {split: line(of_split) for split, of_split in outputs.items()}


def _fitted(
    config: RunConfig,
    task: Task,
    folds: Sequence[Fold],
    parts: Sequence[Task],
    spec: NetworkSpec,
    out: Path,
    wanted: Members,
) -> tuple[Fitted | None, list[NetworksOfTau], list[RunFolder]]:
    """The kernel models and networks that are wanted; both at a time where processes allow it."""
    only = wanted if wanted in ("features", "fingerprints") else None
    kernels = partial(fit_kernel_models, config, task, folds, only=only)
    if wanted not in ("all", "networks"):
        return kernels(), [], []
    processes = processes_for(config, parts)
    if wanted == "networks":
        return None, *finetuned(config, parts, spec, out, processes)
    with processes.meanwhile(kernels) as fitted:
        networks, folders = finetuned(config, parts, spec, out, processes)
        return fitted(), networks, folders


def _judged(one: NetworksOfTau, parts: Sequence[Task], folds: Sequence[Fold]) -> Tensor:
    """What networks say of the molecules that choose, each by one that did not train on it."""
    judged = torch.cat(one.member_logits(parts, VALID))
    return judged[torch.cat([fold.held for fold in folds]).argsort()] if folds else judged


def _rates(task: Task) -> Tensor:
    """Share of label 1 of what kernel models learn from, as if each class had one more, (t,).

    NaN of a target without labels.
    """
    splits = [split for split in ("train", VALID) if split in task.splits]
    y = torch.cat([split_targets(task, split) for split in splits])
    count = (~y.isnan()).sum(0)
    return torch.where(count > 0, ((y == 1).sum(0) + 1) / (count + 2), torch.nan)


def key_in_words(key: str) -> str:
    """Settings in the key of a recipe: "tau 20, smoothing 0.1" of "tau20-smoothing0.1"."""
    settings = re.split(r"-(?=[a-z])", key)
    return ", ".join(re.sub(r"\d", r" \g<0>", setting, count=1) for setting in settings)
