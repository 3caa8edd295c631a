"""What the heads along a probe say of training and validation examples."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from molhpft.core.network import Network
from molhpft.core.snapshot import Snapshot
from molhpft.core.task import Task
from molhpft.experiments.folder import Json
from molhpft.experiments.seeds import stream
from molhpft.measure.energy import initial_energy
from molhpft.tuning.features import on_features
from molhpft.tuning.stacked import feature_rows
from molhpft.tuning.trajectory import Trajectory

_LOGITS = 2**26  # taken at a time: those of every tau together may fill the memory


def without_test(task: Task) -> Task:
    """The task as those see it who still choose: its training and validation split alone."""
    return replace(task, splits={split: task.rows(split) for split in ("train", "valid")})


def probing_ground(
    network: Network, task: Task, *, views: int | Literal["live"], seed: int
) -> tuple[Network, Task]:
    """What a network's head is probed on; a head loaded into one of the two networks is in both.

    Args:
        network: whose head is to be probed.
        task: on which.
        views: as in a config: "live" leaves both as they are.
        seed: of the run, which draws the views.
    """
    if views == "live":
        return network, task
    rng = torch.Generator().manual_seed(stream(seed, "views"))
    return on_features(network, task, views=views, rng=rng)


def energies(trajectory: Trajectory, network: Network, task: Task) -> dict[int, float]:
    """Tau to the energy (AIE) of its head on the training split.

    Args:
        trajectory: of the network's head.
        network: that was probed; left as it is.
        task: that it was probed on.
    """
    taken = _taken(trajectory, network, task, "train")
    return {tau: initial_energy(snapshot, task.objective) for tau, snapshot in taken}


def looks(trajectory: Trajectory, network: Network, task: Task) -> dict[int, Json]:
    """Tau to energy (`aie`), `train` and `valid` score of its head.

    Args:
        trajectory: of the network's head.
        network: that was probed; left as it is.
        task: that it was probed on.
    """
    found: dict[int, Json] = {tau: {} for tau in trajectory.heads}
    for tau, snapshot in _taken(trajectory, network, task, "train"):
        found[tau]["aie"] = initial_energy(snapshot, task.objective)
        found[tau]["train"] = task.objective.score(snapshot.logits, snapshot.targets)
    for tau, snapshot in _taken(trajectory, network, task, "valid"):
        found[tau]["valid"] = task.objective.score(snapshot.logits, snapshot.targets)
    return found


def only(trajectory: Trajectory, taus: set[int]) -> Trajectory:
    """The same trajectory with the heads of `taus` alone."""
    return replace(trajectory, heads={t: h for t, h in trajectory.heads.items() if t in taus})


def _taken(
    trajectory: Trajectory, network: Network, task: Task, split: str
) -> Iterator[tuple[int, Snapshot]]:
    """Tau and what its head says, in the order of the trajectory."""
    taus = list(trajectory.heads)
    together = feature_rows(network, task) is not None
    size = max(1, _LOGITS // (len(task.rows(split)) * task.outputs)) if together else 1
    for start in range(0, len(taus), size):
        some = only(trajectory, set(taus[start : start + size]))
        yield from some.snapshots(network, task, split).items()
