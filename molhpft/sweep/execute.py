"""A sweep from its trials to its records: what is finished is left, everything else attempted."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from typing import Literal, Protocol

from molhpft.domains.files import Json
from molhpft.run.lock import locked
from molhpft.sweep.progress import Board, Lines, shown
from molhpft.sweep.spec import Trial, described
from molhpft.sweep.store import Store, store_at
from molhpft.sweep.trial import Events, Job, Outcome, Started, job_of


class Backend(Protocol):
    """What makes attempts at trials."""

    def outcomes(self, jobs: Sequence[Job], store: Store) -> Events:
        """Attempt every job; news as they come."""
        ...


def sweep(
    trials: Sequence[Trial], out: str, backend: Backend, *, retry: bool = False
) -> list[Json]:
    """Run every trial that is not finished, whatever becomes of the others.

    A sweep that another process has under way in the same folder is waited for.

    Args:
        trials: in the order of their beginnings.
        out: folder of run folders, or for a cluster its URL; beside them, `trials/` has a record
            of each trial and `logs/` what local processes said.
        backend: makes the attempts.
        retry: whether trials that failed in an earlier call are attempted again; their error is
            reported again otherwise.

    Returns:
        a row a trial: name, settings, status ("done" or "failed"), run, error, seconds, hardware;
        and of those done task, metric, parameters, the chosen tau and its `valid` and `test` score.

    Raises:
        ValueError: a file in the folder is damaged.
        OSError: `out` takes no more; what was finished is kept.
    """
    store = store_at(out)
    store.prepare()
    jobs = [job_of(trial) for trial in trials]
    with locked(store.local / "sweep") if store.local else nullcontext():
        found = Counter(status := [_status(job, store, retry=retry) for job in jobs])
        board = Board(done=found["done"], failed=found["failed"], left=found["left"])
        left = [job for job, word in zip(jobs, status, strict=True) if word == "left"]
        if left:
            _attempt(left, store, backend, board)
        return [_row(job, store) for job in jobs]


def _status(job: Job, store: Store, *, retry: bool) -> Literal["done", "failed", "left"]:
    record = store.record(job)
    if record is None:
        return "left"
    if record["status"] == "failed":
        return "left" if retry else "failed"
    return "done" if store.is_complete(str(record["run"])) else "left"


def _attempt(jobs: Sequence[Job], store: Store, backend: Backend, board: Board) -> None:
    of = {job.name: job for job in jobs}
    tick = Lines(board)
    # closing: its processes end when this one leaves for whatever reason
    with shown(board), closing(backend.outcomes(jobs, store)) as events:
        for event in events:
            tick()
            if isinstance(event, Started):
                board.start(event.name, described(of[event.name].settings))
            elif isinstance(event, Outcome):
                _stop_if_full(event)
                store.keep(of[event.name], event)
                board.end(event.name, well=event.status == "done")


def _stop_if_full(outcome: Outcome) -> None:
    if outcome.status == "stopped":
        raise OSError(outcome.error)


def _row(job: Job, store: Store) -> Json:
    record = store.record(job) or asdict(Outcome(job.name, "failed", error="no record of it"))
    row = {key: record[key] for key in ("name", "status", "run", "error", "seconds", "hardware")}
    row = {**row, "settings": job.settings}
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
