"""One branch of a run: a probed network finetuned, and what that did to it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial

import torch

from molhpft.core.network import Network
from molhpft.core.snapshot import EVALUATION_SIZE, Predictions, Snapshot, inference, predict, take
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
        key, name = f"{recipe.key}-{number}", f"finetune{number or ''}"
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
        history += [{"phase": name, "tau": recipe.tau, **row} for row in rows]
    return history


def snapshots(network: Network, task: Task) -> dict[str, Snapshot]:
    """A snapshot of every split, features included."""
    return {
        split: take(network, task.batches(split, size=EVALUATION_SIZE)) for split in task.splits
    }


def predictions(network: Network, task: Task) -> Iterator[tuple[str, Predictions]]:
    """Predictions for one split after another: together, those of a large set fill the memory."""
    for split in task.splits:
        yield split, predict(network, task, split)


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
