"""The names of runs, trials and probes: everything that decides a result, and nothing else."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from molhpft import __version__
from molhpft.config.build import build_recipes, served_task, weights_digest
from molhpft.config.options import Options
from molhpft.config.schema import RECORDED, RunConfig, resolved
from molhpft.core.data import Task
from molhpft.domains.files import path_digest, short_digest
from molhpft.tuning.recipes import Recipe

FORMAT = 6
"""Of run folders; raised when what an older version left is to be made again.

It is part of a folder's name, and `format` in `summary.json`: reports leave out other formats.
"""

# the recipe has the probe as it is trained
_NOT_PROBED = ("method", "probe", "finetune", "precision", *RECORDED)


def run_content(config: RunConfig, task: Task | None = None) -> Options:
    """Everything that decides the result of a run, as plain values, of which names are digests.

    Args:
        config: of the run; files that it names count by what they hold.
        task: its own, which counts by its fingerprint; None where the data are not read yet.

    Raises:
        ValueError: the task has no fingerprint, or the method goes on serving a pretraining task
            that is none of the catalog, or gives it options that it has not.
    """
    content = resolved(config) | {"version": __version__, "format": FORMAT}
    del content["checkpoint"]
    content["encoder"]["weights"] = weights_digest(config)
    if auxiliary := build_recipes(config)[0].auxiliary:
        options = served_task(auxiliary).options
        if any(_names_files(value) for value in options.values()):
            given = {"name": auxiliary.task, **auxiliary.options}
            served = _by_content(given, options, read=task is not None)
            content["method"] = content["method"] | {"pretraining": served}
    content["task"] = _by_content(content["task"], config.task.options, read=task is not None)
    if task is None:
        return content
    if not task.fingerprint:
        raise ValueError(
            f"task {task.name} has no fingerprint, which tells its results from those on "
            "other data; give Task a digest of its rows, labels and splits as fingerprint"
        )
    return content | {"data": [task.fingerprint, task.auxiliary]}


def run_name(config: RunConfig, task: Task) -> str:
    """Name of a run by everything that decides its result: config, data, weights, version.

    Files count by what they hold, not by where they lie.

    Args:
        config: settled, so that what "auto" means on this machine is in the name.
        task: its own.

    Raises:
        ValueError: the task has no fingerprint.
    """
    digest = short_digest(run_content(config, task))
    return f"{task.name}-{config.encoder.name}-{config.method.name}-{digest}"


def trial_name(config: RunConfig) -> str:
    """Name of a run before its data are read and a machine is chosen for it.

    A data file counts by what it holds, a folder of them by names, sizes and times of change.

    Raises:
        ValueError: the method goes on serving a pretraining task that is none of the catalog, or
            gives it options that it has not.
    """
    return f"{config.task.name}-{config.method.name}-{short_digest(run_content(config))}"


def probe_name(config: RunConfig, recipe: Recipe, task: Task | None = None) -> str:
    """Name of a head's probe: runs that differ only in what follows it have the same.

    Args:
        config: of the run.
        recipe: one of its recipes; their tau does not count.
        task: the run's own; None leaves the data out, where they are known to be the same.
    """
    content = {k: v for k, v in run_content(config, task).items() if k not in _NOT_PROBED}
    probe = replace(recipe.probe, epochs=0)
    prepared = replace(
        recipe, probe=probe, after=(), alphas=(), stage_mixing=None, soup=None, repeat=0
    )
    return short_digest(content | {"recipe": asdict(prepared)})


def _by_content(given: Options, options: Options, *, read: bool) -> Options:
    """Options of a task with its files by what they hold; without them once they have been read.

    Args:
        given: the options as a config has them.
        options: the same, checked.
        read: whether the task has been read, and has a fingerprint.
    """
    files = {k: v for k, v in options.items() if _names_files(v)}
    rest = {k: v for k, v in given.items() if k not in files}
    return rest if read else rest | {k: _held(v) for k, v in files.items()}


def _names_files(value: Any) -> bool:
    several = isinstance(value, tuple) and any(isinstance(one, Path) for one in value)
    return several or isinstance(value, Path)


def _held(value: Path | Sequence[Path]) -> str | list[str]:
    """What files hold; of what is no file, as the name of a data set, the name."""
    if not isinstance(value, Path):
        return [str(_held(one)) for one in value]
    return path_digest(value) if value.exists() else str(value)
