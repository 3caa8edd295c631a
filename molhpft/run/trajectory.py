"""One run of head probing: what is probed, what its heads give, and the cache of shared probes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.determinism import seed_for
from molhpft.core.evaluate import Predictions, RunningScore, predictions_in_batches
from molhpft.core.network import Network
from molhpft.domains.files import Json, cached_tensors, digest
from molhpft.domains.weights import strip_prefix
from molhpft.measure.features import RunningEnergy
from molhpft.tuning.fit import DivergedError
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.probe import Trajectory, with_head
from molhpft.tuning.stacked import feature_rows

_LOGITS = 2**26  # computed at a time: those of every tau together may fill the memory


def without_test(task: Task) -> Task:
    """The task with its training and validation splits alone, for everything that chooses."""
    return replace(task, splits={split: task.rows(split) for split in ("train", "valid")})


def probing_ground(
    network: Network, task: Task, *, views: int | Literal["live"], seed: int
) -> tuple[Network, Task]:
    """What a head is probed on: a network with that head, and the task it reads.

    Args:
        network: whose head is to be probed.
        task: to probe on.
        views: as in a config; "live" gives both back as they are.
        seed: of the run, which draws the views.
    """
    if views == "live":
        return network, task
    rng = torch.Generator().manual_seed(seed_for(seed, "views"))
    return on_features(network, task, views=views, rng=rng)


def head_energies(trajectory: Trajectory, network: Network, task: Task) -> dict[int, float]:
    """Tau to the energy (AIE) of its head on the training split.

    Args:
        trajectory: of the network's head.
        network: that was probed; left as it is.
        task: that it was probed on.
    """
    energies = {}
    for tau, pieces in _predictions(trajectory, network, task, "train"):
        energy = RunningEnergy(task.objective)
        for some in pieces:
            energy.add(some)
        energies[tau] = energy.value().aie
    return energies


def head_rows(trajectory: Trajectory, network: Network, task: Task) -> dict[int, Json]:
    """Tau to the energy (`aie`) and the `train` and `valid` score of its head.

    Arguments are those of `head_energies`.
    """
    rows: dict[int, Json] = {tau: {} for tau in trajectory.heads}
    for split in ("train", "valid"):
        for tau, pieces in _predictions(trajectory, network, task, split):
            score = RunningScore(task.objective, rows=len(task.rows(split)))
            energy = RunningEnergy(task.objective)
            for some in pieces:
                score.add(some)
                if split == "train":
                    energy.add(some)
            if split == "train":
                rows[tau]["aie"] = energy.value().aie
            rows[tau][split] = score.value()
    return rows


def at_taus(trajectory: Trajectory, taus: set[int]) -> Trajectory:
    """The same trajectory with the heads of `taus` alone."""
    return replace(trajectory, heads={t: h for t, h in trajectory.heads.items() if t in taus})


def _predictions(
    trajectory: Trajectory, network: Network, task: Task, split: str
) -> Iterator[tuple[int, Iterable[Predictions]]]:
    """Tau and the predictions of its head, in pieces, in the order of the trajectory."""
    if feature_rows(network, task) is None:
        for tau, head in trajectory.heads.items():
            yield tau, predictions_in_batches(with_head(network, head), task, split)
        return
    taus = list(trajectory.heads)
    size = max(1, _LOGITS // (len(task.rows(split)) * task.outputs))
    for start in range(0, len(taus), size):
        some = at_taus(trajectory, set(taus[start : start + size]))
        for tau, snapshot in some.snapshots(network, task, split).items():
            yield tau, [snapshot]


def shared_trajectory(
    name: str,
    taus: Sequence[int],
    build: Callable[[Sequence[int]], Trajectory],
    *,
    shared: Sequence[int] = (),
) -> Trajectory:
    """The trajectory that `build(taus)` gives, from a cached one that serves other runs too.

    Args:
        name: of everything that decides the probe, except tau.
        taus: of this run, numbers of epochs.
        build: probes; gives the head of each tau it is called with.
        shared: taus of all runs together. Without any, or where this run does not probe, nothing
            is cached.

    Raises:
        DivergedError: a head diverges within this run's own taus.
    """
    every = sorted({*taus, *shared})
    if not shared or not max(taus):
        return build(taus)
    key = digest(f"{name} {every}")[:32]
    try:
        tensors = cached_tensors(f"probes/{key}", lambda: _to_tensors(build(every)))
    except DivergedError:  # perhaps at epochs that only others asked for
        return build(taus)
    return _from_tensors(tensors, taus)


def _to_tensors(trajectory: Trajectory) -> dict[str, Tensor]:
    heads = {
        f"head/{tau}/{name}": value.clone()
        for tau, head in trajectory.heads.items()
        for name, value in head.items()
    }
    # numbered, because a file does not keep the order of its tensors
    columns = {
        f"rows/{i}/{name}": torch.tensor(
            [row[name] for row in trajectory.rows],
            dtype=torch.float64 if isinstance(trajectory.rows[0][name], float) else torch.int64,
        )
        for i, name in enumerate(trajectory.rows[0])
    }
    return heads | columns


def _from_tensors(tensors: dict[str, Tensor], taus: Sequence[int]) -> Trajectory:
    names = sorted(key for key in tensors if key.startswith("rows/"))
    columns = [tensors[name][: max(taus)].tolist() for name in names]
    rows = [
        {name.split("/", 2)[2]: value for name, value in zip(names, values, strict=True)}
        for values in zip(*columns, strict=True)
    ]
    return Trajectory({tau: strip_prefix(tensors, f"head/{tau}/") for tau in taus}, rows)
