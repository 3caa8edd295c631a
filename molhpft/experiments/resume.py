"""What an interrupted run needs to go on: finished branches, and phases that were under way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from molhpft.experiments.folder import Json, RunFolder
from molhpft.tuning.checkpoints import Progress, Weights

_GROUPS = ("weights", "best", "anchor", "moments")


def save_branch(folder: RunFolder, tau: int, weights: Weights, about: Json) -> None:
    """Keep a finished branch: its final weights and everything said about it."""
    folder.write_tensors(f"resume/tau{tau}.safetensors", weights, about)
    folder.remove(f"resume/phase-tau{tau}-*")


def load_branch(folder: RunFolder, tau: int) -> tuple[Weights, Json] | None:
    """What `save_branch` kept, or None if that branch has not finished."""
    return folder.read_tensors(f"resume/tau{tau}.safetensors")


def save_phase(folder: RunFolder, key: str, progress: Progress) -> None:
    """Keep the state of the phase `key`; it replaces that of an earlier epoch."""
    tensors = {f"{group}/{k}": v for group in _GROUPS for k, v in getattr(progress, group).items()}
    alone = {name: getattr(progress, name) for name in ("losses", "epoch_rng", "rng")}
    folder.write_tensors(_phase_file(key), tensors | alone, {"rows": list(progress.rows)})


def load_phase(folder: RunFolder, key: str) -> Progress | None:
    """State of the phase `key` when it was last kept, or None if it has none."""
    saved = folder.read_tensors(_phase_file(key))
    if saved is None:
        return None
    tensors, about = saved
    return Progress(
        rows=tuple(about["rows"]),
        losses=tensors["losses"],
        **{group: _group(tensors, group) for group in _GROUPS},
        epoch_rng=tensors["epoch_rng"],
        rng=tensors["rng"],
    )


@dataclass(frozen=True)
class Observed:
    """What observers of a branch have kept, see `measures.Memory`.

    Attributes:
        folder: of the run.
        key: of the branch.
    """

    folder: RunFolder
    key: str

    def load(self) -> Mapping[str, Tensor] | None:
        """What was kept last; None for nothing."""
        saved = self.folder.read_tensors(self._file)
        return None if saved is None else saved[0]

    def save(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep these, and nothing that was kept before."""
        self.folder.write_tensors(self._file, tensors, {})

    @property
    def _file(self) -> str:
        return f"resume/observed-{self.key}.safetensors"


def _phase_file(key: str) -> str:
    return f"resume/phase-{key}.safetensors"


def _group(tensors: dict[str, Any], name: str) -> dict[str, Tensor]:
    start = f"{name}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
