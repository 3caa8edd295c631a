"""A sweep from its trials to its rows: finished trials stay, all others run, whatever fails.

One loop hands trials to a pool of workers: processes of this machine, or a Ray cluster. It is not
joblib's, which loses a sweep to one killed worker; `docs/decisions.md` has the figures.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic
from typing import IO, Any, Literal, Protocol, TextIO

import torch

from molhpft.config.build import build_recipes, served_task
from molhpft.config.options import Options
from molhpft.config.schema import Choice, parse_config, plain, resolved
from molhpft.domains.extras import MissingExtraError, require
from molhpft.domains.files import Json, UnwritableError
from molhpft.run.device import hardware
from molhpft.run.lock import locked
from molhpft.run.run import run
from molhpft.sweep.progress import Board, Lines, displayed
from molhpft.sweep.spec import Trial, settings_text
from molhpft.sweep.store import Outcome, Store, store_at

_LONGEST = 2_000  # characters of an error: a message fits a pipe whole
_LOCAL_STARTS = 2  # of a trial whose process is killed
_RAY_RETRIES = 3  # of a trial whose process or machine is lost
_RAY_PATIENCE = 20.0  # seconds that a cluster has to answer


class Pool(Protocol):
    """Workers that execute trials, several at a time."""

    @property
    def has_room(self) -> bool:
        """Whether one more trial can be started."""
        ...

    def start(self, trial: Trial) -> None:
        """Begin a trial; only while there is room."""
        ...

    def wait(self) -> list[Outcome]:
        """Outcomes of trials that have ended; empty where none has within a second."""
        ...


class Backend(Protocol):
    """Where trials are executed."""

    def pool(self, store: Store, trials: int) -> AbstractContextManager[Pool]:
        """Workers for so many trials, which end with the block, whatever ends it."""
        ...


def sweep(
    trials: Sequence[Trial], out: str, backend: Backend, *, retry: bool = False
) -> list[Json]:
    """Run every trial that is not finished, whatever becomes of the others.

    Another sweep at work in the same local folder is waited for.

    Args:
        trials: in the order in which they start.
        out: folder of run folders, or its URL; beside them, `trials/` holds a record of each trial
            and `logs/` the output of local workers.
        backend: executes the trials.
        retry: run trials again that failed in an earlier call; otherwise their error is reported
            again.

    Returns:
        a row a trial: name, settings, status ("done" or "failed"), run, error, seconds, hardware;
        where it is done also task, metric, parameters, the chosen tau and its `valid` and `test`
        score.

    Raises:
        ValueError: a file in the folder is damaged.
        OSError: `out` cannot be written to; what has finished stays.
    """
    store = store_at(out)
    store.prepare()
    with locked(store.local / "sweep") if store.local else nullcontext():
        status = {trial.name: _status(trial, store, retry=retry) for trial in trials}
        waiting = [trial for trial in trials if status[trial.name] == "left"]
        if waiting:
            count = Counter(status.values())
            board = Board(done=count["done"], failed=count["failed"], left=count["left"])
            _execute(waiting, store, backend, board)
        return [_row(trial, store) for trial in trials]


def _status(trial: Trial, store: Store, *, retry: bool) -> Literal["done", "failed", "left"]:
    record = store.record(trial)
    if record is None:
        return "left"
    if record["status"] == "failed":
        return "left" if retry else "failed"
    return "done" if store.is_complete(str(record["run"])) else "left"


def _execute(trials: Sequence[Trial], store: Store, backend: Backend, board: Board) -> None:
    waiting, running = deque(trials), dict[str, Trial]()
    report = Lines(board)
    with displayed(board), backend.pool(store, len(trials)) as pool:
        while waiting or running:
            while waiting and pool.has_room:
                trial = waiting.popleft()
                pool.start(trial)
                running[trial.name] = trial
                board.start(trial.name, settings_text(trial.settings))
            for outcome in pool.wait():
                if outcome.status == "stopped":
                    raise OSError(outcome.error)
                store.write_record(running.pop(outcome.name), outcome)
                board.end(outcome.name, done=outcome.status == "done")
            report()


def _row(trial: Trial, store: Store) -> Json:
    record = store.record(trial) or asdict(Outcome(trial.name, "failed", error="no record of it"))
    row = {key: record[key] for key in ("name", "status", "run", "error", "seconds", "hardware")}
    row["settings"] = trial.settings
    if record["status"] == "failed":
        return row
    try:
        summary = store.summary(str(record["run"]))
    except ValueError as error:  # damaged since; the other rows are no worse for it
        return {**row, "status": "failed", "error": str(error)}
    chosen = next(b for b in summary["branches"] if b["tau"] == summary["chosen_tau"])
    scores = {split: chosen["final"][split] for split in ("valid", "test")}
    about = {key: summary[key] for key in ("task", "metric", "parameters")}
    return {**row, **about, "tau": chosen["tau"], **scores}


def run_trial(trial: Trial, out: Path) -> Outcome:
    """Run a trial, resume it, or find it done; a failure is an outcome like any other.

    Args:
        trial: to run.
        out: folder of run folders.
    """
    begin = monotonic()
    try:
        folder = run(trial.config, out, shared=trial.shared)
        folder.read_json("summary.json")  # a finished run may have been damaged since
    except UnwritableError as error:
        return Outcome(trial.name, "stopped", error=str(error), seconds=monotonic() - begin)
    except Exception as error:
        # whatever a trial dies of, the others have to go on
        traceback.print_exc()
        # these already are sentences for a user
        plain = isinstance(error, ValueError | OSError | MissingExtraError)
        message = str(error) if plain else f"{type(error).__name__}: {error}"
        return Outcome(trial.name, "failed", None, message[:_LONGEST], monotonic() - begin)
    seconds = monotonic() - begin
    return Outcome(trial.name, "done", folder.path.name, None, seconds, hardware(trial.config))


@dataclass(frozen=True)
class LocalWorkers:
    """Processes of this machine, each with its share of the processors and with one GPU.

    They are new processes and no forks, which PyTorch does not survive.

    Attributes:
        workers: how many; None for one a GPU, or one a processor where there is none.
        threads: of each; None divides those that PyTorch would use.
    """

    workers: int | None = None
    threads: int | None = None

    @contextmanager
    def pool(self, store: Store, trials: int) -> Iterator[Pool]:
        """The processes, killed with whatever they started when the block ends.

        Raises:
            ValueError: the store is no folder of this machine.
            UnwritableError: no log can be written there.
        """
        if store.local is None:
            raise ValueError(
                f"{store.root} is no folder of this machine; local processes write to one, and "
                "--backend ray to a URL"
            )
        count = min(self.workers or torch.cuda.device_count() or _processors(), trials)
        threads = self.threads or max(1, torch.get_num_threads() // count)
        pool = _LocalPool(store.local, threads)
        try:
            for number in range(count):
                pool.open(number)
            yield pool
        finally:
            for worker in pool.workers:
                worker.kill()


@dataclass(eq=False)
class _Worker:
    """A process, the trial it has, and the pipes for trials and for outcomes."""

    number: int
    process: subprocess.Popen[bytes]
    trials: IO[bytes]
    outcomes: IO[bytes]
    trial: Trial | None = None

    def give(self, trial: Trial) -> None:
        self.trial = trial
        message = vars(trial) | {"config": resolved(trial.config)}
        with suppress(BrokenPipeError):  # it has died, which the end of its outcomes will show
            self.trials.write(json.dumps(message, default=str).encode() + b"\n")
            self.trials.flush()

    def kill(self) -> int:
        """End the process and those it has started, at once; its exit status."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        for pipe in (self.trials, self.outcomes):
            with suppress(BrokenPipeError):
                pipe.close()
        return status


@dataclass(eq=False)
class _LocalPool:
    out: Path
    threads: int
    workers: list[_Worker] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)

    @property
    def has_room(self) -> bool:
        return any(worker.trial is None for worker in self.workers)

    def open(self, number: int) -> _Worker:
        """Start a process; its standard error goes to a log."""
        logs = self.out / "logs"
        try:
            logs.mkdir(exist_ok=True)
            with (logs / f"worker{number}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(self.out)],
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
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a worker is started with pipes")
        worker = _Worker(number, process, process.stdin, process.stdout)
        self.workers.append(worker)
        return worker

    def start(self, trial: Trial) -> None:
        next(worker for worker in self.workers if worker.trial is None).give(trial)

    def wait(self) -> list[Outcome]:
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.outcomes, selectors.EVENT_READ, worker)
            ready = [key.data for key, _ in selector.select(timeout=1.0)]
        return [outcome for worker in ready if (outcome := self._receive(worker))]

    def _receive(self, worker: _Worker) -> Outcome | None:
        """An outcome; None where the process has died and another one has its trial."""
        line, trial = worker.outcomes.readline(), worker.trial
        worker.trial = None
        if line.endswith(b"\n"):
            return Outcome(**json.loads(line))
        self.workers.remove(worker)
        status = worker.kill()
        successor = self.open(worker.number)
        if trial is None:
            return None
        self.deaths[trial.name] += 1
        if self.deaths[trial.name] < _LOCAL_STARTS:
            successor.give(trial)
            return None
        return Outcome(
            trial.name,
            "failed",
            error=f"its process ended {_LOCAL_STARTS} times without a result (exit status {status};"
            " -9 is a kill, often for lack of memory); "
            f"{self.out}/logs/worker{worker.number}.log may say more",
        )


def _environment(number: int, threads: int) -> dict[str, str]:
    """This process's environment, with the worker's part of the machine."""
    limits = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    if gpus := torch.cuda.device_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        devices = visible.split(",")
        limits["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return {"MOLHPFT_WORKERS": str(threads), **os.environ, **limits}


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work() -> None:
    """Main of a local process: lines of JSON, trials from standard input, outcomes to output."""
    out = Path(sys.argv[1])
    outcomes = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is for the log
    # a process forked for packing may outlive this one; the sweep would take it for this one
    os.register_at_fork(after_in_child=lambda: os.close(outcomes.fileno()))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    lines: SimpleQueue[str] = SimpleQueue()
    Thread(target=_listen, args=(sys.stdin, lines), daemon=True).start()
    while True:
        message = json.loads(lines.get())
        config, shared = parse_config(message["config"]), tuple(message["shared"])
        trial = Trial(message["name"], message["settings"], config, shared)
        print(f"--- {trial.name}", flush=True)
        outcomes.write(json.dumps(asdict(run_trial(trial, out))) + "\n")
        outcomes.flush()


def _listen(source: TextIO, lines: "SimpleQueue[str]") -> None:
    for line in source:
        lines.put(line)
    # the sweep is gone, killed perhaps: nobody would read what this process still writes, and the
    # next sweep of the folder waits for the run it has. It leads a session of its own.
    os.killpg(0, signal.SIGKILL)


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster, whose machines all reach the store under one name.

    A trial runs in a temporary folder of its machine and is copied to the store once complete.
    A machine that is lost takes unfinished trials with it, which Ray begins again elsewhere.

    Attributes:
        address: of an existing one, such as "10.0.0.1:6379", "auto" or "ray://host:10001"; None
            uses what `RAY_ADDRESS` names, or else starts one on this machine.
        gpus: of each trial; several trials share a GPU by fractions of it.
        threads: of each trial, as many processors as it takes up.
        workers: most trials at a time; None for as many as the cluster has room for.
    """

    address: str | None = None
    gpus: float = 0.0
    threads: int | None = None
    workers: int | None = None

    @contextmanager
    def pool(self, store: Store, trials: int) -> Iterator[Pool]:
        """The cluster, left when the block ends.

        Raises:
            ValueError: the cluster has too few GPUs or processors.
            MissingExtraError: Ray is not installed.
            OSError: there is no cluster at the address.
        """
        ray = require("ray", extra="cluster")
        address, threads = self.address or os.environ.get("RAY_ADDRESS"), self.threads or 1
        try:
            _check_answers(address or "")
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise OSError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        try:
            resources = ray.cluster_resources()
            for name, needed in (("GPU", self.gpus), ("CPU", threads)):
                if resources.get(name, 0) < needed:
                    raise ValueError(
                        f"a trial takes {needed:g} {name}, and the cluster has "
                        f"{resources.get(name, 0):g}; change --gpus-per-trial or --threads"
                    )
            options = {"num_cpus": threads, "num_gpus": self.gpus, "max_retries": _RAY_RETRIES}
            remote = ray.remote(**options)(run_and_publish)
            yield _RayPool(ray, remote, store.url, threads, self.workers or trials)
        finally:
            ray.shutdown()


@dataclass(eq=False)
class _RayPool:
    ray: Any
    remote: Any
    url: str
    threads: int
    most: int
    running: dict[Any, str] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.most

    def start(self, trial: Trial) -> None:
        reference = self.remote.remote(with_absolute_paths(trial), self.url, self.threads)
        self.running[reference] = trial.name

    def wait(self) -> list[Outcome]:
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=1.0)
        return [self._outcome(reference, self.running.pop(reference)) for reference in ready]

    def _outcome(self, reference: Any, name: str) -> Outcome:
        try:
            outcome: Outcome = self.ray.get(reference)
        except self.ray.exceptions.LocalRayletDiedError as error:
            # no trial can be heard of any more, and none of them is to blame
            remedy = "this machine's Ray node has died; start it again, and sweep again: it goes on"
            return Outcome(name, "stopped", error=f"{remedy} ({error})")
        except self.ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:500]
            return Outcome(name, "failed", error=f"lost {_RAY_RETRIES + 1} times by Ray: {reason}")
        return outcome


def run_and_publish(trial: Trial, out: str, threads: int) -> Outcome:
    """Run a trial in a temporary folder of this machine and copy the result to the store.

    Args:
        trial: to run.
        out: URL of the store.
        threads: for PyTorch.
    """
    torch.set_num_threads(threads)
    store = store_at(out)
    with TemporaryDirectory(prefix="molhpft-") as scratch:
        outcome = run_trial(trial, Path(scratch))
        try:
            if outcome.run is not None:
                store.publish(Path(scratch) / outcome.run)
                # also here, and not only by the sweep, which may be killed in between
                store.write_record(trial, outcome)
        except UnwritableError as error:
            return Outcome(trial.name, "stopped", error=str(error), seconds=outcome.seconds)
    return outcome


def _check_answers(address: str) -> None:
    """Raise OSError where nothing listens at host:port; Ray itself would wait there for ever."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_RAY_PATIENCE).close()


def with_absolute_paths(trial: Trial) -> Trial:
    """The trial with absolute paths of its files: other machines have other working folders."""
    config = trial.config
    config = replace(
        config,
        task=Choice(config.task.name, _absolute(config.task.options)),
        encoder=Choice(config.encoder.name, _absolute(config.encoder.options)),
    )
    if auxiliary := build_recipes(config)[0].auxiliary:
        options = served_task(auxiliary).options
        if moved := {k: v for k, v in _absolute(options).items() if v != options[k]}:
            # the method has them as a config file does, where paths are text
            served = {"name": auxiliary.task, **auxiliary.options, **plain(moved)}
            method = {**config.method.options, "pretraining": served}
            config = replace(config, method=Choice(config.method.name, method))
    return replace(trial, config=config)


def _absolute(options: Options) -> Options:
    """Options with absolute paths of files that are there; any other may be a data set's name."""

    def absolute(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(absolute(one) for one in value)
        return value.absolute() if isinstance(value, Path) and value.exists() else value

    return {key: absolute(value) for key, value in options.items()}


if __name__ == "__main__":
    _work()
