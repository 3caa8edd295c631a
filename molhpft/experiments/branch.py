"""One branch of a run: a probed network finetuned, and what that did to it."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import torch

from molhpft.core.network import Network
from molhpft.core.snapshot import Predictions, Snapshot, inference, predict, take
from molhpft.core.task import Task
from molhpft.domains.progress import pace
from molhpft.experiments.folder import Json, RunFolder
from molhpft.experiments.measures import Observer
from molhpft.experiments.resume import load_phase, save_phase
from molhpft.measure.energy import energy
from molhpft.measure.shift import Shift, mean_shift
from molhpft.tuning.checkpoints import Checkpoints
from molhpft.tuning.fit import fit
from molhpft.tuning.machine import Machine
from molhpft.tuning.recipes import Recipe

EVALUATION_SIZE = 1024


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
) -> list[Json]:
    """Run the phases of a recipe that follow its probe, in place; one row an epoch.

    Args:
        network: with the head of `recipe.tau`.
        recipe: the method.
        task: what to train on.
        folder: keeps the state of the phase under way, and gives back that of an interrupted run.
        machine: precision, and the processes that share the work.
        seed: of the order of examples and of dropout.
        observe: numbers to add to each epoch's row.
        every: steps between two savings within an epoch; None for none.
    """
    history: list[Json] = []
    for number, phase in enumerate(recipe.after):
        key, name = f"tau{recipe.tau}-{number}", f"finetune{number or ''}"
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
            )
        history += [{"phase": name, "tau": recipe.tau, **row} for row in rows]
    return history


def snapshots(network: Network, task: Task) -> dict[str, Snapshot]:
    """A snapshot of every split, features included."""
    return {
        split: take(network, task.batches(split, size=EVALUATION_SIZE)) for split in task.splits
    }


def predictions(network: Network, task: Task) -> dict[str, Predictions]:
    """Predictions for every split."""
    return {
        split: predict(network, task.batches(split, size=EVALUATION_SIZE)) for split in task.splits
    }


def scores(predicted: Mapping[str, Predictions], task: Task) -> dict[str, float]:
    """Score of every split."""
    return {
        split: task.objective.score(found.logits, found.targets)
        for split, found in predicted.items()
    }


def training_shift(start: Network, start_task: Task, end: Network, task: Task) -> Shift:
    """How far finetuning moved the features of the training split, some examples at a time.

    Args:
        start: the probed network, or its head alone.
        start_task: what `start` reads: the task itself, or its cached features.
        end: the finetuned network.
        task: what it reads, in the same order.
    """
    with inference(start), inference(end):
        sides = (t.batches("train", size=EVALUATION_SIZE) for t in (start_task, task))
        return mean_shift(
            (start.features(begun), end.features(ended))
            for begun, ended in zip(*sides, strict=True)
        )


def describe_branch(
    tau: int,
    before: Mapping[str, Predictions],
    after: Mapping[str, Predictions],
    moved: Shift,
    task: Task,
) -> Json:
    """The row of a branch: tau, energy, scores before and after finetuning, shift of features.

    Args:
        tau: epochs of head probing.
        before: for every split, when finetuning starts.
        after: for every split, when it has ended.
        moved: shift of the training split's features.
        task: gives objective and score.
    """
    return {
        "tau": tau,
        "energy": asdict(energy(before["train"], task.objective)),
        "probe": scores(before, task),
        "final": scores(after, task),
        "shift": asdict(moved),
    }
