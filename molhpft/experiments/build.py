"""From a checked config to the objects it names."""

import hashlib
import json
from pathlib import Path

import torch

from molhpft import __version__
from molhpft.core.network import Network
from molhpft.core.task import Task
from molhpft.domains.molecules.examples import Molecules
from molhpft.experiments.catalog import ENCODERS, HEADS, METHODS, TASKS
from molhpft.experiments.config import Choice, RunConfig, resolved
from molhpft.tuning.recipes import Recipe


def build_task(config: RunConfig) -> Task:
    """The task, on the run's device.

    Raises:
        FileNotFoundError: its data are absent; the message says what to put where.
        ValueError: its data cannot be used, or a split is empty or cannot be scored.
    """
    task = TASKS[config.task.name](**config.task.options)
    _check_splits(task)
    return task.to(device_of(config))


def _check_splits(task: Task) -> None:
    """Find out before training, not after it, that a split is missing or cannot be scored."""
    for split in dict.fromkeys(("train", "valid", "test", *task.splits)):
        rows = task.rows(split)
        if not isinstance(task.examples, Molecules):
            continue
        try:
            task.objective.score(torch.zeros(len(rows), task.outputs), task.examples.targets[rows])
        except ValueError as error:
            raise ValueError(
                f"split {split!r} of {task.name} ({len(rows):,} molecules) cannot be scored: "
                f"{error}; give more molecules or another split"
            ) from error


def build_recipes(config: RunConfig) -> tuple[Recipe, ...]:
    """The method's recipes, one a tau."""
    return METHODS[config.method.name](config.probe, config.finetune, **config.method.options)


def build_network(config: RunConfig, task: Task, *, pretrained: bool) -> Network:
    """Encoder and head with the seed's random weights, then the encoder's own.

    Args:
        config: names encoder, weights and head.
        task: says how many outputs the head has.
        pretrained: False leaves the encoder random.

    Raises:
        ValueError: the weights do not fit the encoder.
    """
    encoder, options = ENCODERS[config.encoder.name], dict(config.encoder.options)
    weights: Path | None = options.pop("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(config.seed, "weights"))
        backbone = encoder.build(**options)
        head = HEADS[config.head.name](backbone.width, task.outputs, **config.head.options)
    if pretrained and weights is not None:
        encoder.load(backbone, weights)
    return Network(backbone, head).to(device_of(config))


def device_of(config: RunConfig) -> torch.device:
    """Where a run computes.

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ValueError("device is cuda, but PyTorch sees no GPU here; set device: auto or cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def stream(seed: int, purpose: str) -> int:
    """A seed of its own for each purpose, so that none uses up another's random numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def run_name(config: RunConfig, task: Task) -> str:
    """Name of a run by everything that decides its result: config, data, weights, version.

    Files count by what they hold, not by where they lie.
    """
    content = resolved(config) | {"device": device_of(config).type, "version": __version__}
    for section in ("task", "encoder"):
        choice: Choice = getattr(config, section)
        content[section] |= {
            k: _digest(v) for k, v in choice.options.items() if isinstance(v, Path)
        }
    content["data"] = task.fingerprint
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{task.name}-{config.encoder.name}-{config.method.name}-{digest[:10]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
