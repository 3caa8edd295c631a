"""What a run says of a network before and after finetuning: scores, energy, feature shift."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from math import isnan

from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.evaluate import EVALUATION_SIZE, Predictions, Snapshot, inference, predict, take
from molhpft.core.network import Network
from molhpft.domains.files import Json
from molhpft.measure.features import RunningShift, energy

_log = logging.getLogger(__name__)


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
    return {split: task.objective.score(p.logits, p.targets) for split, p in predicted}


def before_finetuning(predicted: Iterable[tuple[str, Predictions]], task: Task) -> Json:
    """`energy` on the training split, and the score of every split (`probe`).

    Args:
        predicted: split and predictions of the probed network, "train" among them.
        task: gives objective and score.
    """
    energies: Json = {}
    probe: dict[str, float] = {}
    for split, predictions in predicted:
        probe |= scores([(split, predictions)], task)
        if split == "train":
            energies = asdict(energy(predictions, task.objective))
    return {"energy": energies, "probe": probe}


def after_finetuning(start: Network, start_task: Task, end: Network, task: Task) -> Json:
    """The score of every split (`final`), and the `shift` of training features.

    Warns of predictions that are not finite, whose score is NaN.

    Args:
        start: the probed network, or its head alone.
        start_task: what `start` reads: the task itself, or its cached features.
        end: the finetuned network, through which every split goes once.
        task: what it reads, in the same order.
    """
    shift = RunningShift()
    with inference(start):
        batches = start_task.batches("train", size=EVALUATION_SIZE)
        before = (start.features(batch).cpu() for batch in batches)
        compared = predictions(end, task, watch_train=lambda z: shift.add(next(before), z))
        final = scores(compared, task)
    broken = [split for split, value in final.items() if isnan(value)]
    if broken:
        _log.warning(
            "predictions on %s of %s are not all finite after finetuning, and have no score; try a "
            "lower learning rate",
            ", ".join(broken),
            task.name,
        )
    return {"final": final, "shift": asdict(shift.mean())}
