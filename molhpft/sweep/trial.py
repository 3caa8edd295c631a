"""One attempt at a trial, wherever it is made, and what is said of it."""

import traceback
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from molhpft.config.options import Options
from molhpft.config.schema import parse_config, resolved
from molhpft.domains.files import UnwritableError
from molhpft.run.device import hardware
from molhpft.run.run import run
from molhpft.sweep.spec import Trial

_LONGEST = 2_000  # characters of an error: a message fits a pipe whole


@dataclass(frozen=True)
class Job:
    """A trial as plain values, which go to other processes and machines as JSON.

    Attributes:
        name: the trial's.
        settings: what the sweep varies.
        config: resolved.
        shared: taus of the probe that it shares; empty for none.
    """

    name: str
    settings: Options
    config: Options
    shared: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        name: the trial's.
        status: "done"; "failed", with the fault in the trial; "stopped", with the fault in the
            place that results go to, so that no other trial would fare better.
        run: name of the run folder; None without one.
        error: what went wrong; None if nothing did.
        seconds: that it took.
        hardware: that it ran on.
    """

    name: str
    status: Literal["done", "failed", "stopped"]
    run: str | None = None
    error: str | None = None
    seconds: float = 0.0
    hardware: str | None = None


@dataclass(frozen=True)
class Started:
    """That a job has been taken up.

    Attributes:
        name: the trial's.
    """

    name: str


Event = Started | Outcome | None
"""News of a sweep; None is that there are none, about once a second."""

Events = Generator[Event, None, None]


def job_of(trial: Trial) -> Job:
    """The job of a trial."""
    return Job(trial.name, trial.settings, resolved(trial.config), trial.shared)


def attempt(job: Job, out: Path) -> Outcome:
    """Run a trial, go on with it, or find it done; a failure is an outcome like another.

    Args:
        job: the trial.
        out: folder of run folders.
    """
    begin = monotonic()
    try:
        folder = run(parse_config(job.config), out, shared=tuple(job.shared))
        folder.read_json("summary.json")  # a finished run may have been damaged since
    except UnwritableError as error:
        return Outcome(job.name, "stopped", error=str(error), seconds=monotonic() - begin)
    except Exception as error:
        # whatever a trial dies of, the others have to go on
        traceback.print_exc()
        return Outcome(job.name, "failed", None, _sentence(error), monotonic() - begin)
    found = hardware(parse_config(job.config))
    return Outcome(job.name, "done", folder.path.name, None, monotonic() - begin, found)


def _sentence(error: Exception) -> str:
    plain = isinstance(error, ValueError | OSError)  # these already are sentences for a user
    text = str(error) if plain else f"{type(error).__name__}: {error}"
    return text[:_LONGEST]
