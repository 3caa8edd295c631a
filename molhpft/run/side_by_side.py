"""Several runs at a time, or a run and something else, each in a process of its own, on one thread.

Layers on batches of small graphs gain little from a second thread, and on a busy machine they lose
by it; whole runs do not wait for one another.
"""

import io
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import torch
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.determinism import one_thread
from molhpft.domains.console import track
from molhpft.domains.parallel import worker_count
from molhpft.run.device import settled
from molhpft.run.folder import RunFolder
from molhpft.run.run import run

T = TypeVar("T")

Runs: TypeAlias = Sequence[tuple[RunConfig, Task]]

_WORTH_A_PROCESS = 4_000  # examples that are trained on, in about the time that a process starts in


def run_side_by_side(runs: Runs, out: Path) -> list[RunFolder]:
    """Run configs on tasks in memory, as many at a time as PyTorch has threads; in order.

    On a GPU, where there is one thread, or where runs are too short to be worth a process, they run
    one after another.

    Args:
        runs: configs and their tasks.
        out: folder of run folders; an interrupted run resumes there.

    Raises:
        ValueError: as of `run`; or a process was killed.
        OSError: `out` cannot be written to.
    """
    processes = min(len(runs), _processes(runs))
    if processes < 2:
        with one_thread():
            return [run(config, out, task=task) for config, task in runs]
    started = _started(processes, [partial(run, c, out, task=task) for c, task in runs])
    with _killed_is_an_error():
        finished = list(track(started, "finetuning", total=len(runs)))
    return [one.heard() for one in finished]


@contextmanager
def meanwhile(compute: Callable[[], T], runs: Runs) -> Iterator[Callable[[], T]]:
    """Compute something in another process while the context, which may run `runs`, goes on.

    The context gets a function that waits for the result. Where runs would not be side by side,
    that function computes it.

    Args:
        compute: sent to the other process, like what it returns.
        runs: that `run_side_by_side` is given within the context, or some that are like them.

    Raises:
        ValueError: the process was killed.
    """
    # as many as the runs get, which they then find there
    processes = min(max(2, len(runs)), _processes(runs))
    if processes < 2:
        yield compute
        return
    started = _started(processes, [compute])

    def result() -> T:
        with _killed_is_an_error():
            [finished] = started
        return finished.heard()

    try:
        yield result
    finally:
        # whoever does not wait for the result leaves no process behind, and knows it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            started.close()


def _processes(runs: Runs) -> int:
    """How many may work at a time for runs like these."""
    seen = [len(task.rows("train")) * config.finetune.epochs for config, task in runs]
    on_gpu = any(settled(config).device != "cpu" for config, _ in runs)
    if on_gpu or max(seen, default=0) < _WORTH_A_PROCESS:
        return 1
    return min(torch.get_num_threads(), worker_count())


def _started(processes: int, jobs: Sequence[Callable[[], T]]) -> "Generator[_Finished[T]]":
    """What jobs have come to, in order; they begin at once, in processes that are kept for more."""
    parallel = Parallel(processes, backend="loky", return_as="generator")
    started: Generator[_Finished[T]] = parallel(delayed(_quietly)(job) for job in jobs)
    return started


@contextmanager
def _killed_is_an_error() -> Iterator[None]:
    try:
        yield
    except TerminatedWorkerError as error:
        raise ValueError(
            "one of the processes of finetune was killed, often for lack of memory; again, with "
            "OMP_NUM_THREADS=1 in the environment, there is one at a time, and it goes on from here"
        ) from error


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
