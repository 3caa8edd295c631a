"""A branch of a run: finetuned from one prepared head, and described before and after."""

import logging
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from math import isnan

import torch
from torch import Tensor

from molhpft.config.measures import callbacks_along, phase_name
from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import (
    Predictions,
    RunningScore,
    Snapshot,
    evaluation_batches,
    evaluation_size,
    inference,
    predictions_in_batches,
    take,
)
from molhpft.core.network import Network
from molhpft.core.objectives import ScoredByLoss
from molhpft.domains.console import pace
from molhpft.domains.files import Json
from molhpft.measure.features import RunningCalibration, RunningEnergy, RunningShift
from molhpft.run.folder import RunFolder
from molhpft.run.resume import SavedPhase, phase_key
from molhpft.tuning.callbacks import Callback, PauseAfter
from molhpft.tuning.distributed import Machine
from molhpft.tuning.fit import fit
from molhpft.tuning.recipes import Recipe

_SAMPLE = 10_000  # training examples of a pretraining that are evaluated

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunContext:
    """Where a run happens: its config for this machine, its folder and its processes."""

    config: RunConfig
    folder: RunFolder
    machine: Machine


@dataclass(frozen=True)
class _Shown(Callback):
    """Shows how many examples have been trained on."""

    show: Callable[[int], object]

    def after_step(self, step: int, examples: int, progress: object) -> None:
        self.show(examples)


def finetune(
    start: Network, task: Task, recipe: Recipe, context: RunContext, *, until: int | None = None
) -> tuple[Network, list[Json]]:
    """Finetune a copy of a probed network, or resume that. Returns the copy and one row per epoch.

    Args:
        start: with the head of `recipe.tau`; left as it is.
        task: what to train on.
        recipe: the method; its phases after the probe are run.
        context: keeps the progress of each phase, and what an interrupted run left of it.
        until: epochs after which each phase pauses, to be resumed by a later call; None runs to
            the end.
    """
    config, machine, tuned = context.config, context.machine, deepcopy(start)
    callbacks = callbacks_along(config.measures, start, task, seed=config.seed)
    callbacks += [] if until is None else [PauseAfter(until)]
    history: list[Json] = []
    tau, repeat = recipe.reported_tau, {"repeat": recipe.repeat} if recipe.repeat else {}
    for number, phase in enumerate(recipe.after):
        saved = SavedPhase(context.folder, phase_key(recipe, number), config.checkpoint)
        rng = torch.Generator().manual_seed(seed_for(config.seed, recipe.stream) + number)
        total = phase.epochs * task.epoch_size
        words = "finetuning" + ("" if tau is None else f", tau {tau}")
        with pace(words, total, shown=machine.rank == 0) as show:
            along = [saved, *callbacks, _Shown(show)]
            rows = fit(tuned, phase, task, rng=rng, callbacks=along, machine=machine)
        about = {"phase": phase_name(number), "tau": tau, **repeat}
        history += [{**about, **row} for row in rows]
    return tuned, history


def write_member(tuned: Network, recipe: Recipe, context: RunContext) -> None:
    """Write a finetuned network, finished or paused, when the config asks for all of them."""
    if context.config.members:
        name = f"members/{recipe.key}.safetensors"
        context.folder.write_tensors(name, tuned.state_dict(), {"tau": recipe.reported_tau})


def evaluated(task: Task) -> Task:
    """The task that training is judged by: of a pretraining, with a sample of its training split.

    The loss on all of a million molecules with thousands of targets would say the same, fill the
    memory and take as long as training for half an epoch.
    """
    rows = task.rows("train")
    if not isinstance(task.objective, ScoredByLoss) or len(rows) <= _SAMPLE:
        return task
    sample = rows[torch.linspace(0, len(rows) - 1, _SAMPLE).long()]
    return replace(task, splits={**task.splits, "train": sample}, portions=())


def snapshots(network: Network, task: Task) -> dict[str, Snapshot]:
    """A snapshot of every split, features included."""
    return {split: take(network, evaluation_batches(task, split)) for split in task.splits}


def predictions(
    network: Network, task: Task, *, watch_train: Callable[[Tensor], None] | None = None
) -> Iterator[tuple[str, Iterable[Predictions]]]:
    """Predictions for one split after another, in batches: those of all pixels fill the memory.

    `watch_train` is given the features of each batch of the training split, in order.
    """
    for split in task.splits:
        watch = watch_train if split == "train" else None
        yield split, predictions_in_batches(network, task, split, watch=watch)


def scores(
    predicted: Iterable[tuple[str, Iterable[Predictions]]],
    task: Task,
    *,
    watch: Callable[[str, Predictions], None] | None = None,
) -> dict[str, float]:
    """Score of every split.

    Args:
        predicted: splits and their predictions in pieces.
        task: gives the objective.
        watch: is given every piece, with the name of its split.
    """
    result = {}
    for split, pieces in predicted:
        running = RunningScore(task.objective, rows=len(task.rows(split)))
        for some in pieces:
            running.add(some)
            if watch:
                watch(split, some)
        result[split] = running.value()
    return result


def before_finetuning(predicted: Iterable[tuple[str, Iterable[Predictions]]], task: Task) -> Json:
    """`energy` on the training split, and the score of every split (`probe`).

    Args:
        predicted: splits and predictions of the probed network in pieces, "train" among them.
        task: gives objective and score.
    """
    energy = RunningEnergy(task.objective)

    def watch(split: str, some: Predictions) -> None:
        if split == "train":
            energy.add(some)

    probe = scores(predicted, task, watch=watch)
    return {"energy": asdict(energy.value()), "probe": probe}


def after_finetuning(start: Network, start_task: Task, end: Network, task: Task) -> Json:
    """The score of every split (`final`), and the `shift` of training features.

    Where labels are classes, the calibration error of every split too (`ece`).

    Warns of predictions that are not finite, whose score is NaN.

    Args:
        start: the probed network, or its head alone.
        start_task: what `start` reads: the task itself, or its cached features.
        end: the finetuned network, through which every split goes once.
        task: what it reads, in the same order.
    """
    shift = RunningShift()
    errors: dict[str, RunningCalibration] = {}

    def watch(split: str, some: Predictions) -> None:
        if task.objective.has_classes:
            errors.setdefault(split, RunningCalibration(task.objective)).add(some)

    with inference(start):
        batches = start_task.batches("train", size=evaluation_size(task))
        before = (start.features(batch).cpu() for batch in batches)
        compared = predictions(end, task, watch_train=lambda z: shift.add(next(before), z))
        final = scores(compared, task, watch=watch)
    broken = [split for split, value in final.items() if isnan(value)]
    if broken:
        _log.warning(
            "predictions on %s of %s are not all finite after finetuning, and have no score; try a "
            "lower learning rate",
            ", ".join(broken),
            task.name,
        )
    ece = {split: error.value() for split, error in errors.items()}
    return {"final": final, "shift": asdict(shift.mean())} | ({"ece": ece} if ece else {})
