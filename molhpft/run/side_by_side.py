"""Several runs at a time, each in a process of its own, on one thread.

Layers on batches of small graphs gain little from a second thread, and on a busy machine they lose
by it; whole runs do not wait for one another.
"""

import io
import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path

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

_WORTH_A_PROCESS = 4_000  # examples that are trained on, in about the time that a process starts in


def run_side_by_side(runs: Sequence[tuple[RunConfig, Task]], out: Path) -> list[RunFolder]:
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
    processes = min(len(runs), torch.get_num_threads(), worker_count())
    seen = [len(task.rows("train")) * config.finetune.epochs for config, task in runs]
    on_gpu = any(settled(config).device != "cpu" for config, _ in runs)
    if processes < 2 or on_gpu or max(seen) < _WORTH_A_PROCESS:
        with one_thread():
            return [run(config, out, task=task) for config, task in runs]
    parallel = Parallel(processes, backend="loky", return_as="generator")
    done = parallel(delayed(_run_quietly)(config, task, out) for config, task in runs)
    try:
        finished = list(track(done, "finetuning", total=len(runs)))
    except TerminatedWorkerError as error:
        raise ValueError(
            f"one of {processes} processes that finetune was killed, often for lack of memory; "
            "again, with OMP_NUM_THREADS=1 in the environment, one of them runs at a time and goes "
            "on from here"
        ) from error
    for one in finished:
        one.repeat_messages()
    return [RunFolder(one.path) for one in finished]


@dataclass(frozen=True)
class _Finished:
    """A run in another process.

    Attributes:
        path: of its folder.
        records: of what it logged.
        warned: of it.
    """

    path: Path
    records: Sequence[tuple[str, int, str]]
    warned: Sequence[Warning | str]

    def repeat_messages(self) -> None:
        """Say here what was said there, where nobody could see it."""
        for name, level, message in self.records:
            logging.getLogger(name).log(level, "%s", message)
        for warning in self.warned:
            warnings.warn(warning, stacklevel=3)


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelno, record.getMessage()))


def _run_quietly(config: RunConfig, task: Task, out: Path) -> _Finished:
    """A run whose bars do not show, and whose messages are kept."""
    kept, log = _Kept(), logging.getLogger("molhpft")
    log.addHandler(kept)
    try:
        with (
            one_thread(),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")  # which are shown is for the other process to say
            folder = run(config, out, task=task)
    finally:
        log.removeHandler(kept)
    return _Finished(folder.path, kept.records, [one.message for one in warned])
