"""Several jobs at a time, in other processes, each on one thread.

Layers on batches of small graphs gain little from a second thread, and on a busy machine they lose
by it; finetunings do not wait for one another, but where one is gone on with that another began.
"""

import atexit
import io
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache, partial
from typing import Generic, TypeVar, cast

import torch
from joblib import Parallel, delayed
from joblib.externals.loky import process_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import one_thread
from molhpft.domains.console import track
from molhpft.domains.parallel import worker_count
from molhpft.run.device import settled

T = TypeVar("T")

_LOOK_EVERY = 0.5  # seconds
_WORTH_A_PROCESS = 4_000  # examples that are trained on, in about the time that a process starts in


@dataclass(frozen=True)
class Processes:
    """Other processes, which are kept from one job to the next, and end with this one.

    Attributes:
        count: how many there are; with fewer than two, jobs are done here, one after another.

    Raises:
        ValueError: of all methods, if one of the processes was killed.
    """

    count: int = 0

    def results(self, jobs: Sequence[Callable[[], T]], what: str) -> Generator[T]:
        """What jobs come to, in order; in other processes each is done on one thread.

        Args:
            jobs: sent to the other processes, like what they return.
            what: is being done, for the progress bar; jobs that are done here show their own.
        """
        if self.count < 2:
            yield from (job() for job in jobs)
            return
        with self._started(jobs) as started:
            for finished in track(started, what, total=len(jobs)):
                yield finished.heard()

    @contextmanager
    def meanwhile(self, compute: Callable[[], T]) -> Iterator[Callable[[], T]]:
        """Compute something in another process while the context, which may have jobs, goes on.

        The context gets a function that waits for the result; where there is no other process, it
        computes it. Further processes get ready for the jobs of the context.

        Args:
            compute: sent to the other process, like what it returns.
        """
        if self.count < 1:
            yield compute
            return
        jobs: list[Callable[[], T | None]] = [compute]
        if self.count > 1:
            jobs = [partial(_and_get_ready, compute), *[_get_ready] * (self.count - 1)]
        with self._started(jobs) as started:

            def result() -> T:
                finished, *_ = started
                return cast(T, finished.heard())

            yield result

    @contextmanager
    def _started(self, jobs: Sequence[Callable[[], T]]) -> "Iterator[Iterator[_Finished[T]]]":
        """What jobs have come to, in order; they begin at once, and end with the context."""
        # with one process joblib would do all here
        parallel = Parallel(max(2, self.count), backend="loky", return_as="generator")
        started: Generator[_Finished[T]] = parallel(
            delayed(_quietly)(job, os.getpid()) for job in jobs
        )
        try:
            yield started
        except TerminatedWorkerError as error:
            raise ValueError(
                "one of the processes of finetune was killed, often for lack of memory; again, "
                "with OMP_NUM_THREADS=1 in the environment, there is one at a time, and it goes on "
                "from here"
            ) from error
        finally:
            # whoever does not wait for the results leaves no process behind, and knows it
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                started.close()


HERE = Processes()


def processes_for(config: RunConfig, tasks: Sequence[Task]) -> Processes:
    """As many other processes as there are tasks, for runs of a config, or as PyTorch has threads.

    A single run stays here, beside one for what goes on meanwhile. On a GPU, on one thread, and
    where runs are too short to be worth a process, there is none.
    """
    seen = max(len(task.rows("train")) for task in tasks) * config.finetune.epochs
    most = min(torch.get_num_threads(), worker_count())
    if settled(config).device != "cpu" or seen < _WORTH_A_PROCESS or most < 2:
        return HERE
    return Processes(min(len(tasks), most))


@cache
def _end_with(parent: int) -> None:
    """See to it that this process ends when its parent has ended, which held the locks.

    Where the parent waits for its end, that is at once: taking apart all that was imported takes
    seconds.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    atexit.register(os._exit, 0)


def _and_get_ready(compute: Callable[[], T]) -> T:
    result = compute()
    _get_ready()
    return result


def _get_ready() -> None:
    """Import what training needs, which takes seconds."""
    # the first optimizer imports PyTorch's compiler
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


@dataclass(frozen=True)
class _Finished(Generic[T]):
    """A job in another process.

    Attributes:
        result: of it.
        records: of what it logged.
        warned: of it.
    """

    result: T
    records: Sequence[tuple[str, int, str]]
    warned: Sequence[Warning | str]

    def heard(self) -> T:
        """The result, after saying here what was said there, where nobody could see it."""
        for name, level, message in self.records:
            logging.getLogger(name).log(level, "%s", message)
        for warning in self.warned:
            warnings.warn(warning, stacklevel=3)
        return self.result


class _Collected(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))


def _quietly(job: Callable[[], T], parent: int) -> _Finished[T]:
    """A job of another process, the parent: its bars do not show, and its messages are kept."""
    if parent != os.getpid():  # joblib may have no process to spare
        _end_with(parent)
        # 300 MB more than after the first job are a leak to joblib, which begins another process
        process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    handler, log = _Collected(), logging.getLogger("molhpft")
    log.addHandler(handler)
    try:
        with (
            one_thread(),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")  # which are shown is for the other process to say
            result = job()
    finally:
        log.removeHandler(handler)
    return _Finished(result, handler.records, [one.message for one in warned])
