"""Several jobs at a time, each in a process of its own, on one thread.

Layers on batches of small graphs gain little from a second thread, and on a busy machine they lose
by it; whole finetunings do not wait for one another.
"""

import io
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import one_thread
from molhpft.domains.console import track
from molhpft.domains.parallel import worker_count
from molhpft.run.device import settled

T = TypeVar("T")

_WORTH_A_PROCESS = 4_000  # examples that are trained on, in about the time that a process starts in


@dataclass(frozen=True)
class Processes:
    """Processes that jobs are done in: this one alone, or several others, which stay for more.

    Attributes:
        count: how many jobs are done at a time; a single one is done here.

    Raises:
        ValueError: of all methods, if one of the processes was killed.
    """

    count: int = 1

    def results(self, jobs: Sequence[Callable[[], T]], what: str) -> Iterator[T]:
        """What jobs come to, in order; in other processes each is done on one thread.

        Args:
            jobs: sent to the other processes, like what they return.
            what: is being done, for the progress bar; a job that is done here shows its own.
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
        if self.count < 2:
            yield compute
            return
        ready: list[Callable[[], T | None]] = [_get_ready] * (self.count - 1)
        with self._started([compute, *ready]) as started:

            def result() -> T:
                finished, *_ = started
                return cast(T, finished.heard())

            yield result

    @contextmanager
    def _started(self, jobs: Sequence[Callable[[], T]]) -> "Iterator[Iterator[_Finished[T]]]":
        """What jobs have come to, in order; they begin at once, and end with the context."""
        parallel = Parallel(self.count, backend="loky", return_as="generator")
        started: Generator[_Finished[T]] = parallel(delayed(_quietly)(job) for job in jobs)
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
    """As many processes as runs of a config on some tasks, and what goes on meanwhile, may have.

    PyTorch's threads say how many, and more than two are no more than there are tasks. On a GPU, or
    where runs are too short to be worth a process, it is this one.
    """
    seen = max(len(task.rows("train")) for task in tasks) * config.finetune.epochs
    if settled(config).device != "cpu" or seen < _WORTH_A_PROCESS:
        return HERE
    return Processes(min(max(2, len(tasks)), torch.get_num_threads(), worker_count()))


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


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))


def _quietly(job: Callable[[], T]) -> _Finished[T]:
    """A job whose bars do not show, and whose messages are kept."""
    kept, log = _Kept(), logging.getLogger("molhpft")
    log.addHandler(kept)
    try:
        with (
            one_thread(),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")  # which are shown is for the other process to say
            result = job()
    finally:
        log.removeHandler(kept)
    return _Finished(result, kept.records, [one.message for one in warned])
