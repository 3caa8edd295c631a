"""What makes a run this run and no other, and what it shares with others."""

import hashlib
import json
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from molhpft import __version__
from molhpft.core.task import Task
from molhpft.domains.weights import weight_file
from molhpft.experiments.config import Choice, RunConfig, resolved
from molhpft.experiments.options import Options
from molhpft.tuning.recipes import Recipe

_NOT_PROBED = ("method", "finetune", "measures", "features", "members")


def run_name(config: RunConfig, task: Task) -> str:
    """Name of a run by everything that decides its result: config, data, weights, version.

    Files count by what they hold, not by where they lie.

    Args:
        config: settled, so that what "auto" means on this machine is in the name.
        task: its own.
    """
    digest = _short(_content(config) | {"data": task.fingerprint})
    return f"{task.name}-{config.encoder.name}-{config.method.name}-{digest}"


def trial_name(config: RunConfig) -> str:
    """Name of a run before its data are read and a machine is chosen for it."""
    return f"{config.task.name}-{config.method.name}-{_short(_content(config))}"


def probe_name(config: RunConfig, recipe: Recipe, task: Task | None = None) -> str:
    """Name of a head's probe: runs that differ only in what follows it have the same.

    Args:
        config: of the run.
        recipe: one of its recipes; their tau does not count.
        task: the run's own; None leaves the data out, where they are known to be the same.
    """
    content = {k: v for k, v in _content(config).items() if k not in _NOT_PROBED}
    prepared = replace(recipe, probe=replace(recipe.probe, epochs=0), after=(), shares=())
    return _short(content | {"recipe": asdict(prepared), "data": task and task.fingerprint})


def _content(config: RunConfig) -> Options:
    content = resolved(config) | {"version": __version__}
    del content["checkpoint"]
    for section in ("task", "encoder"):
        choice: Choice = getattr(config, section)
        files = {
            k: _digest(weight_file(v)) for k, v in choice.options.items() if isinstance(v, Path)
        }
        content[section] |= files
    return content


def _short(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def _digest(path: Path) -> str:
    if not path.is_file():
        return "absent"
    found = path.stat()
    return _digest_of(path.resolve(), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=256)
def _digest_of(path: Path, changed: int, size: int) -> str:
    """Digest of a file, read again where it has changed: many runs of a sweep ask for the same."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
