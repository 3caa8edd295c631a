"""Trials by processes of this machine, which has its processors divided among them."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from molhpft.domains.files import UnwritableError
from molhpft.sweep.store import Store
from molhpft.sweep.trial import Events, Job, Outcome, Started

_ATTEMPTS = 2  # of a trial whose process is killed


@dataclass(frozen=True)
class LocalWorkers:
    """Processes of this machine, started afresh: PyTorch does not survive a fork.

    Attributes:
        workers: how many; None for one a GPU, or one a processor where there is none.
        threads: of each; None divides those that PyTorch would take among them.
    """

    workers: int | None = None
    threads: int | None = None

    def outcomes(self, jobs: Sequence[Job], store: Store) -> Events:
        """Attempt every job; news as they come.

        Args:
            jobs: in the order of their beginnings.
            store: a local one.

        Raises:
            ValueError: the store is no folder of this machine.
            UnwritableError: no log can be written there.
        """
        if store.local is None:
            raise ValueError(
                f"{store.root} is no folder of this machine; local processes write to one, and "
                "--backend ray to a URL"
            )
        workers = min(self.workers or torch.cuda.device_count() or _processors(), len(jobs))
        threads = self.threads or max(1, torch.get_num_threads() // workers)
        pool = _Pool(store.local, threads, jobs)
        try:
            for number in range(workers):
                pool.start(number)
            yield from pool.events()
        finally:
            pool.stop()


@dataclass(eq=False)
class _Worker:
    """A process, and the job it has."""

    number: int
    process: subprocess.Popen[bytes]
    job: Job | None = None

    @property
    def pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Where jobs go in and outcomes come out."""
        into, out = self.process.stdin, self.process.stdout
        if into is None or out is None:
            raise RuntimeError("a worker is started with pipes")
        return into, out

    def give(self, job: Job) -> None:
        self.job = job
        with suppress(BrokenPipeError):  # it has died, which the end of its outcomes tells
            self.pipes[0].write(json.dumps(asdict(job), default=str).encode() + b"\n")
            self.pipes[0].flush()

    def end(self) -> int:
        """Exit status of the process, killed with those it has started if need be."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        for pipe in self.pipes:
            with suppress(BrokenPipeError):
                pipe.close()
        return status


@dataclass(eq=False)
class _Pool:
    """The processes of one sweep, and what is left for them."""

    out: Path
    threads: int
    jobs: Sequence[Job]
    workers: list[_Worker] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def __post_init__(self) -> None:
        self.waiting = deque(self.jobs)

    def start(self, number: int) -> None:
        """Start a process; its standard error goes to a log."""
        logs = self.out / "logs"
        try:
            logs.mkdir(exist_ok=True)
            with (logs / f"worker{number}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", f"{__package__}.worker", str(self.out)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(number, self.threads),
                    start_new_session=True,
                )
        except OSError as error:
            raise UnwritableError(
                f"cannot start a process with a log in {logs}: {error}"
            ) from error
        worker = _Worker(number, process)
        self.workers.append(worker)
        self.selector.register(worker.pipes[1], selectors.EVENT_READ, worker)

    def events(self) -> Events:
        """News until nothing is left."""
        yield from self._give()
        while any(worker.job for worker in self.workers):
            ready = self.selector.select(timeout=1.0)
            if not ready:
                yield None
            for key, _ in ready:
                outcome = self._hear(key.data)
                if outcome:
                    yield outcome
            yield from self._give()

    def stop(self) -> None:
        """End every process at once; what they had under way is gone on with another time."""
        for worker in self.workers:
            worker.end()
        self.selector.close()

    def _give(self) -> Events:
        for worker in self.workers:
            if worker.job is None and self.waiting:
                worker.give(self.waiting.popleft())
                yield Started(worker.job.name) if worker.job else None

    def _hear(self, worker: _Worker) -> Outcome | None:
        """An outcome; None where a process was killed and its job gets another."""
        line, job = worker.pipes[1].readline(), worker.job
        worker.job = None
        if line.endswith(b"\n"):
            return Outcome(**json.loads(line))
        self.selector.unregister(worker.pipes[1])
        self.workers.remove(worker)
        status = worker.end()
        self.start(worker.number)
        if job is None:
            return None
        self.deaths[job.name] += 1
        if self.deaths[job.name] < _ATTEMPTS:
            self.waiting.appendleft(job)
            return None
        return Outcome(job.name, "failed", error=_death(status, self.out, worker.number))


def _death(status: int, out: Path, number: int) -> str:
    return (
        f"its process ended {_ATTEMPTS} times without a word (exit status {status}; -9 is a kill, "
        f"often for lack of memory); {out}/logs/worker{number}.log may say more"
    )


def _environment(number: int, threads: int) -> dict[str, str]:
    """This process's environment, with the worker's share of the machine."""
    shares = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    given: dict[str, Any] = dict(os.environ)
    if torch.cuda.device_count():
        visible = given.get("CUDA_VISIBLE_DEVICES") or ",".join(
            map(str, range(torch.cuda.device_count()))
        )
        devices = visible.split(",")
        shares["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return {"MOLHPFT_WORKERS": str(threads), **given, **shares}


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
