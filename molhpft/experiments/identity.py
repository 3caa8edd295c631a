"""What makes a run this run and no other."""

import hashlib
import json
from pathlib import Path

from molhpft import __version__
from molhpft.core.task import Task
from molhpft.domains.weights import weight_file
from molhpft.experiments.config import Choice, RunConfig, resolved


def run_name(config: RunConfig, task: Task) -> str:
    """Name of a run by everything that decides its result: config, data, weights, version.

    Files count by what they hold, not by where they lie.

    Args:
        config: settled, so that what "auto" means on this machine is in the name.
        task: its own.
    """
    content = resolved(config) | {"version": __version__}
    del content["checkpoint"]
    for section in ("task", "encoder"):
        choice: Choice = getattr(config, section)
        files = {
            k: _digest(weight_file(v)) for k, v in choice.options.items() if isinstance(v, Path)
        }
        content[section] |= files
    content["data"] = task.fingerprint
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{task.name}-{config.encoder.name}-{config.method.name}-{digest[:10]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
