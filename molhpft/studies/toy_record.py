"""What figures of the toy are drawn from, as plain values that fit a file: one seed at a time."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from molhpft.core.annotations import Count, Seed, Whole
from molhpft.core.determinism import one_thread
from molhpft.domains.files import Json
from molhpft.domains.toy.digits import toy_pretrain_task, toy_task
from molhpft.measure.features import correct_probability
from molhpft.studies import toy_study as toy
from molhpft.studies.toy_study import Branch

_PER_CLASS = 100  # points of each class in a scatter


@one_thread()
def toy_record(
    *,
    mnist: Path | None = None,
    taus: tuple[Whole, ...] = toy.TAUS,
    infinity: Count = toy.INFINITY,
    per_class: Count = 1000,
    seed: Seed = 0,
) -> Json:
    """Finetune from every tau and note what Figures 1, 2, 3 and 11 of Ren et al. (2023) show.

    Arguments are those of `toy_study`.

    Returns:
        `task` and `classes`, names; `taus`, as text, with for each of them its row in `rows` and
        its training curve in `curves`; of seven of them, in `shown`, `p_correct` of every training
        example, the `gradients` and `changes` of the head, and the `exchange` by split; `scatter`,
        moment to points and labels.

    Raises:
        FileNotFoundError: `mnist` is given and is not there.
        ValueError: the file is not MNIST, or tau does not rise up to `infinity`.
    """
    toy.check_taus(taus, infinity)
    task = toy_task(mnist=mnist, per_class=per_class, seed=seed)
    encoder = toy.pretrained_mlp(toy_pretrain_task(mnist=mnist), seed=seed)
    branches = toy.finetuned_branches(encoder, task, taus=taus, infinity=infinity, seed=seed)
    shown = toy.spread(branches)
    names = toy.tau_names(branches)
    correct = (correct_probability(b.before["train"], task.objective) for b in shown)
    return {
        "task": task.name,
        "classes": list(task.target_names or ()),
        "taus": list(names.values()),
        "rows": [branch.row(task) for branch in branches],
        "curves": [list(branch.curve) for branch in branches],
        "shown": [names[branch.tau] for branch in shown],
        "p_correct": [[round(p, 5) for p in ps.tolist()] for ps in correct],
        "gradients": [branch.gradient for branch in shown],
        "changes": [list(branch.head_changes) for branch in shown],
        "exchange": {k: matrix.tolist() for k, matrix in toy.exchanged(shown, task).items()},
        "scatter": _scatter(branches, names),
    }


@one_thread()
def kernel_record(*, mnist: Path | None = None, per_class: Count = 1000, seed: Seed = 0) -> Json:
    """What Figure 6 shows.

    Arguments are those of `toy_study`.

    Returns:
        `task`, its name, and `paths`: backbone, "pretrained" or "random", to the fields of a
        `KernelPath`.
    """
    task = toy_task(mnist=mnist, per_class=per_class, seed=seed)
    encoder = toy.pretrained_mlp(toy_pretrain_task(mnist=mnist), seed=seed)
    paths = toy.kernel_paths(encoder, task, seed=seed)
    return {"task": task.name, "paths": {name: asdict(path) for name, path in paths.items()}}


def _scatter(branches: Sequence[Branch], names: dict[int, str]) -> Json:
    """Features before finetuning, and after it from the first, a middle and the last tau.

    All in the plane in which they vary most, before and after together.
    """
    middle = branches[len(branches) // 2]
    chosen = {branches[0].tau: branches[0], middle.tau: middle, branches[-1].tau: branches[-1]}
    labels = branches[0].before["train"].targets
    classes = range(int(labels.max()) + 1)
    rows = torch.cat([(labels == k).nonzero()[:_PER_CLASS, 0] for k in classes])
    moments = {"Features before finetuning": branches[0].before["train"].features[rows]} | {
        f"After finetuning from tau {names[tau]}": branch.after["train"].features[rows]
        for tau, branch in chosen.items()
    }
    points = _plane(torch.cat(list(moments.values()))).chunk(len(moments))
    return {
        name: [[[round(x, 4) for x in point] for point in part.tolist()], labels[rows].tolist()]
        for name, part in zip(moments, points, strict=True)
    }


def _plane(features: Tensor) -> Tensor:
    """The first two principal components of each row."""
    centred = features.double() - features.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    plane: Tensor = centred @ axes[:2].T
    return plane
