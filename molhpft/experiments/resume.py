"""What an interrupted run needs to go on: finished branches, and the phase that was under way."""

from typing import Any

from torch import Tensor

from molhpft.experiments.folder import Json, RunFolder
from molhpft.tuning.checkpoints import Progress, Weights

_PHASE = "resume/phase.safetensors"


def save_branch(folder: RunFolder, tau: int, weights: Weights, about: Json) -> None:
    """Keep a finished branch: its final weights and everything said about it."""
    folder.write_tensors(f"resume/tau{tau}.safetensors", weights, about)
    folder.remove(_PHASE)


def load_branch(folder: RunFolder, tau: int) -> tuple[Weights, Json] | None:
    """What `save_branch` kept, or None if that branch has not finished."""
    return folder.read_tensors(f"resume/tau{tau}.safetensors")


def save_phase(folder: RunFolder, key: str, progress: Progress) -> None:
    """Keep the state of the phase `key`; it replaces the one before."""
    groups = {"weights": progress.weights, "best": progress.best, "moments": progress.moments}
    tensors = {f"{group}/{k}": v for group, members in groups.items() for k, v in members.items()}
    alone = {name: getattr(progress, name) for name in ("losses", "epoch_rng", "rng")}
    about = {"key": key, "rows": list(progress.rows)}
    folder.write_tensors(_PHASE, tensors | alone, about)


def load_phase(folder: RunFolder, key: str) -> Progress | None:
    """State of the phase `key` when it was last kept, or None if it has none."""
    saved = folder.read_tensors(_PHASE)
    if saved is None or saved[1]["key"] != key:
        return None
    tensors, about = saved
    return Progress(
        rows=tuple(about["rows"]),
        losses=tensors["losses"],
        weights=_group(tensors, "weights"),
        best=_group(tensors, "best"),
        moments=_group(tensors, "moments"),
        epoch_rng=tensors["epoch_rng"],
        rng=tensors["rng"],
    )


def _group(tensors: dict[str, Any], name: str) -> dict[str, Tensor]:
    start = f"{name}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
