"""One run of head probing for all runs that differ only in what follows it."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from molhpft.domains.cache import cached_tensors
from molhpft.tuning.trajectory import Trajectory


def shared_trajectory(
    name: str,
    taus: Sequence[int],
    build: Callable[[Sequence[int]], Trajectory],
    *,
    shared: Sequence[int] = (),
) -> Trajectory:
    """The trajectory that `build(taus)` gives, out of one that serves other runs too.

    Args:
        name: of everything that decides the probe, save tau.
        taus: of this run, numbers of epochs.
        build: probes; gives the head of each tau it is called with.
        shared: taus of all runs together. Without any, or where this run does not probe, nothing
            is kept.

    Raises:
        ValueError: probing fails within this run's own taus.
    """
    every = sorted({*taus, *shared})
    if not shared or not max(taus):
        return build(taus)
    key = hashlib.sha256(f"{name} {every}".encode()).hexdigest()[:32]
    try:
        kept = cached_tensors(f"probes/{key}", lambda: _packed(build(every)))
    except ValueError:
        # it may have diverged at epochs that only others asked for
        return build(taus)
    return _unpacked(kept, taus)


def _packed(trajectory: Trajectory) -> dict[str, Tensor]:
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


def _unpacked(kept: dict[str, Tensor], taus: Sequence[int]) -> Trajectory:
    names = sorted(key for key in kept if key.startswith("rows/"))
    columns = [kept[name][: max(taus)].tolist() for name in names]
    rows = [
        {name.split("/", 2)[2]: value for name, value in zip(names, values, strict=True)}
        for values in zip(*columns, strict=True)
    ]
    return Trajectory({tau: _head(kept, f"head/{tau}/") for tau in taus}, rows)


def _head(kept: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in kept.items() if k.startswith(start)}
