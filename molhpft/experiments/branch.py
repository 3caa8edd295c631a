"""One branch of a run: a probed network finetuned, and what that did to it."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from math import isnan

import torch
from torch import Tensor

from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, Predictions, Snapshot, inference, predict, take
from molhpft.core.task import Task
from molhpft.domains.progress import pace
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.measures import Observer
from molhpft.experiments.resume import load_phase, save_phase
from molhpft.measure.energy import energy
from molhpft.measure.shift import RunningShift
from molhpft.tuning.checkpoints import Checkpoints
from molhpft.tuning.fit import fit
from molhpft.tuning.machine import Machine
from molhpft.tuning.recipes import Recipe

_log = logging.getLogger(__name__)


def finetune(
    network: Network,
    recipe: Recipe,
    task: Task,
    folder: RunFolder,
    machine: Machine,
    *,
    seed: int,
    observe: Observer | None = None,
    every: int | None = None,
    until: int | None = None,
) -> list[Json]:
    """Run the phases of a recipe that follow its probe, in place; one row an epoch.

    Args:
        network: with the head of `recipe.tau`.
        recipe: the method.
        task: what to train on.
        folder: keeps the state of each phase, and gives back that of an interrupted run.
        machine: precision, and the processes that share the work.
        seed: of the order of examples and of dropout.
        observe: numbers to add to each epoch's row.
        every: steps between two savings within an epoch; None for none.
        until: epochs after which each phase pauses, to go on in a later call; None for its end.
    """
    history: list[Json] = []
    for number, phase in enumerate(recipe.after):
        key = f"{recipe.key}-{number}"
        checkpoints = Checkpoints(
            load=partial(load_phase, folder, key),
            save=partial(save_phase, folder, key),
            steps=every,
        )
        total = phase.epochs * len(task.rows("train"))
        with pace(f"finetuning, tau {recipe.tau}", total, shown=machine.rank == 0) as tick:
            rows = fit(
                network,
                phase,
                task,
                rng=torch.Generator().manual_seed(seed + number),
                observe=observe,
                checkpoints=checkpoints,
                machine=machine,
                tick=tick,
                until=until,
            )
        history += [{"phase": phase_name(number), "tau": recipe.tau, **row} for row in rows]
    return history


def phase_name(number: int) -> str:
    """What `history.jsonl` calls a phase after the probe, counted from 0."""
    return f"finetune{number or ''}"


def snapshots(network: Network, task: Task) -> dict[str, Snapshot]:
    """A snapshot of every split, features included."""
    return {
        split: take(network, task.batches(split, size=EVALUATION_SIZE)) for split in task.splits
    }


def predictions(
    network: Network, task: Task, *, watch_train: Callable[[Tensor], None] | None = None
) -> Iterator[tuple[str, Predictions]]:
    """Predictions for one split after another: together, those of a large set fill the memory.

    `watch_train` is given the features of each batch of the training split, in order.
    """
    for split in task.splits:
        yield split, predict(network, task, split, watch=watch_train if split == "train" else None)


def scores(predicted: Iterable[tuple[str, Predictions]], task: Task) -> dict[str, float]:
    """Score of every split."""
    return {split: task.objective.score(found.logits, found.targets) for split, found in predicted}


def describe_start(tau: int, predicted: Iterable[tuple[str, Predictions]], task: Task) -> Json:
    """What a branch is when finetuning starts: tau, energy on training examples, scores.

    Args:
        tau: epochs of head probing.
        predicted: split and predictions, "train" among them.
        task: gives objective and score.
    """
    energies: Json = {}
    probe: dict[str, float] = {}
    for split, found in predicted:
        probe |= scores([(split, found)], task)
        if split == "train":
            energies = asdict(energy(found, task.objective))
    return {"tau": tau, "energy": energies, "probe": probe}


def describe_end(start: Network, start_task: Task, end: Network, task: Task) -> Json:
    """What a branch is when finetuning has ended: its scores, the shift of training features.

    Warns of predictions that are not finite, whose score is NaN.

    Args:
        start: the probed network, or its head alone.
        start_task: what `start` reads: the task itself, or its cached features.
        end: the finetuned network, through which every split goes once.
        task: what it reads, in the same order.
    """
    moved = RunningShift()
    with inference(start):
        batches = start_task.batches("train", size=EVALUATION_SIZE)
        begun = (start.features(batch).cpu() for batch in batches)
        compared = predictions(end, task, watch_train=lambda z: moved.add(next(begun), z))
        final = scores(compared, task)
    broken = [split for split, score in final.items() if isnan(score)]
    if broken:
        _log.warning(
            "predictions on %s of %s are not all finite after finetuning, and have no score; try a "
            "lower learning rate",
            ", ".join(broken),
            task.name,
        )
    return {"final": final, "shift": asdict(moved.mean())}
