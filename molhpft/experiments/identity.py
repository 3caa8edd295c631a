"""What makes a run this run and no other: its name and its device."""

import hashlib
import json
from pathlib import Path

import torch

from molhpft import __version__
from molhpft.core.task import Task
from molhpft.domains.weights import weight_file
from molhpft.experiments.config import Choice, RunConfig, resolved


def run_name(config: RunConfig, task: Task) -> str:
    """Name of a run by everything that decides its result: config, data, weights, version.

    Files count by what they hold, not by where they lie.
    """
    content = resolved(config) | {"device": device_of(config).type, "version": __version__}
    for section in ("task", "encoder"):
        choice: Choice = getattr(config, section)
        files = {
            k: _digest(weight_file(v)) for k, v in choice.options.items() if isinstance(v, Path)
        }
        content[section] |= files
    content["data"] = task.fingerprint
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{task.name}-{config.encoder.name}-{config.method.name}-{digest[:10]}"


def device_of(config: RunConfig) -> torch.device:
    """Where a run computes.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ValueError("device is cuda, but PyTorch sees no GPU here; set device: auto or cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
