"""Trials by a Ray cluster: as many at a time as it has room for, results on storage all share.

Each is run in a temporary folder of whichever machine has it and copied to the store when it is
complete. A machine that is lost takes unfinished trials with it, which Ray begins again elsewhere.
"""

import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from molhpft.config.schema import Choice, parse_config, resolved
from molhpft.domains.files import UnwritableError
from molhpft.sweep.store import Store, store_at
from molhpft.sweep.trial import Events, Job, Outcome, Started, attempt

_RETRIES = 3  # of a trial whose process or machine is lost
_PATIENCE = 20.0  # seconds that a cluster has to answer


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster.

    Attributes:
        address: of an existing one, such as "10.0.0.1:6379", "auto" or "ray://host:10001"; None
            takes what `RAY_ADDRESS` names, or else starts one on this machine.
        gpus: of each trial; several trials share a GPU by fractions of it.
        threads: of each trial, as many processors as it takes up.
        workers: most trials at a time; None for as many as the cluster has room for.
    """

    address: str | None = None
    gpus: float = 0.0
    threads: int | None = None
    workers: int | None = None

    def outcomes(self, jobs: Sequence[Job], store: Store) -> Events:
        """Attempt every job; news as they come.

        Args:
            jobs: in the order of their beginnings.
            store: that every machine of the cluster reaches under the same name.

        Raises:
            ValueError: Ray is not installed, or the cluster has too few GPUs or processors.
            OSError: there is no cluster at the address.
        """
        ray = _ray()
        try:
            _answers(self.address or os.environ.get("RAY_ADDRESS", ""))
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            place = self.address or os.environ.get("RAY_ADDRESS") or "this machine"
            raise OSError(f"no Ray cluster at {place}: {error}") from error
        try:
            self._check(ray.cluster_resources())
            yield from self._events(ray, jobs, store)
        finally:
            ray.shutdown()

    def _check(self, resources: dict[str, float]) -> None:
        for name, wanted in (("GPU", self.gpus), ("CPU", self.threads or 1)):
            if resources.get(name, 0) < wanted:
                raise ValueError(
                    f"a trial takes {wanted:g} {name}, and the cluster has "
                    f"{resources.get(name, 0):g}; change --gpus-per-trial or --threads"
                )

    def _events(self, ray: Any, jobs: Sequence[Job], store: Store) -> Events:
        threads = self.threads or 1
        remote = ray.remote(num_cpus=threads, num_gpus=self.gpus, max_retries=_RETRIES)(elsewhere)
        url = store.fs.unstrip_protocol(store.root)
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        while waiting or running:
            while waiting and len(running) < (self.workers or len(jobs)):
                job = waiting.popleft()
                running[remote.remote(_anchored(job), url, threads)] = job
                yield Started(job.name)
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            yield None
            for reference in ready:
                yield _outcome(ray, reference, running.pop(reference))


def _answers(address: str) -> None:
    """Raise OSError where nothing listens at host:port; Ray itself would wait there for ever."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _anchored(job: Job) -> Job:
    """The job with files by absolute paths: other machines work in folders of their own."""
    config = parse_config(job.config)
    anchored = replace(config, task=_absolute(config.task), encoder=_absolute(config.encoder))
    return replace(job, config=resolved(anchored))


def _absolute(choice: Choice) -> Choice:
    files = {
        key: value.absolute()
        for key, value in choice.options.items()
        if isinstance(value, Path) and value.exists()
    }
    return Choice(choice.name, {**choice.options, **files})


def _outcome(ray: Any, reference: Any, job: Job) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.LocalRayletDiedError as error:
        # nothing can be heard of any trial; none of them is to blame
        said = "this machine's Ray node has died; start it again, and sweep again: it goes on"
        return Outcome(job.name, "stopped", error=f"{said} ({error})")
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())[:500]
        return Outcome(job.name, "failed", error=f"lost {_RETRIES + 1} times by Ray: {said}")
    return outcome


def elsewhere(job: Job, out: str, threads: int) -> Outcome:
    """An attempt on the machine this is called on, its result copied to the store.

    Args:
        job: the trial.
        out: URL of the store.
        threads: for PyTorch.
    """
    torch.set_num_threads(threads)
    store = store_at(out)
    with TemporaryDirectory(prefix="molhpft-") as scratch:
        outcome = attempt(job, Path(scratch))
        try:
            if outcome.run is not None:
                store.publish(Path(scratch) / outcome.run)
                # also here, and not only by the sweep, which may be killed in between
                store.keep(job, outcome)
        except UnwritableError as error:
            return Outcome(job.name, "stopped", error=str(error), seconds=outcome.seconds)
    return outcome


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "sweeps by Ray need it installed: pip install 'molhpft[cluster]'"
        ) from error
    return ray
