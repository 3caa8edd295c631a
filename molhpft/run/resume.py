"""What an interrupted run needs to go on: finished branches, and phases that were under way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from molhpft.domains.files import Json
from molhpft.domains.weights import strip_prefix
from molhpft.run.folder import RunFolder
from molhpft.tuning.callbacks import Callback, Progress, Row, Weights
from molhpft.tuning.recipes import Recipe

_GROUPS = ("weights", "best", "anchor", "adapters", "moments", "callbacks")
_ALONE = ("losses", "epoch_rng", "rng")
_APART = 10.0  # seconds; short epochs would take longer to save than to train again


def save_branch(
    folder: RunFolder, recipe: Recipe, weights: Weights, row: Json, history: Sequence[Json]
) -> None:
    """Keep a finished branch: its final weights, its row of the summary, and a row an epoch."""
    about = {"row": row, "history": list(history)}
    folder.write_tensors(_branch_file(recipe), weights, about)
    for number in range(len(recipe.after)):
        folder.remove(_phase_file(phase_key(recipe, number)))


def has_branch(folder: RunFolder, recipe: Recipe) -> bool:
    """Whether a branch has been finished."""
    return (folder.partial / _branch_file(recipe)).is_file()


def load_branch(folder: RunFolder, recipe: Recipe) -> tuple[Weights, Json]:
    """What `save_branch` kept: weights, and "row" and "history".

    Raises:
        ValueError: the branch has not been finished, or its file is damaged.
    """
    saved = folder.read_tensors(_branch_file(recipe))
    if saved is None:
        raise ValueError(f"{folder.partial} lacks {_branch_file(recipe)}; run again")
    return saved


@dataclass
class SavedPhase(Callback):
    """Keeps the progress of a phase in a run folder, and resumes from it.

    Attributes:
        folder: of the run.
        key: of the phase, such as "tau4-0".
        every: optimizer steps between two saves within an epoch; None saves between epochs only.
    """

    folder: RunFolder
    key: str
    every: int | None = None
    _epochs: int = field(default=0, init=False)  # that the last progress has
    _since: float = field(init=False)  # when it was saved, or this began

    def __post_init__(self) -> None:
        self._since = monotonic()

    def resume(self) -> Progress | None:
        """The progress last saved; None if there is none."""
        saved = self.folder.read_tensors(self._file)
        if saved is None:
            return None
        tensors, about = saved
        parts: dict[str, Any] = {g: strip_prefix(tensors, f"{g}/") for g in _GROUPS}
        parts |= {name: tensors[name] for name in _ALONE}
        self._epochs = len(about["rows"])
        return Progress(rows=tuple(about["rows"]), **parts)

    def after_step(self, step: int, examples: int, progress: Callable[[], Progress]) -> None:
        """Save every so many steps."""
        if self.every and step % self.every == 0:
            self.save(progress())

    def after_epoch(self, rows: Sequence[Row], progress: Callable[[], Progress]) -> None:
        """Save in place of an earlier progress, unless that is only seconds old."""
        if monotonic() - self._since >= _APART:
            self.save(progress())

    def after_phase(self, rows: Sequence[Row], progress: Callable[[], Progress]) -> None:
        """Save what has not been saved: a phase that pauses goes on from here."""
        if len(rows) > self._epochs:
            self.save(progress())

    def save(self, progress: Progress) -> None:
        """Write a progress in place of an earlier one."""
        grouped = {f"{g}/{k}": v for g in _GROUPS for k, v in getattr(progress, g).items()}
        alone = {name: getattr(progress, name) for name in _ALONE}
        self.folder.write_tensors(self._file, grouped | alone, {"rows": list(progress.rows)})
        self._epochs, self._since = len(progress.rows), monotonic()

    @property
    def _file(self) -> str:
        return _phase_file(self.key)


def phase_key(recipe: Recipe, number: int) -> str:
    """A name that no other phase of the run has; phases of a recipe are counted from 0."""
    return f"{recipe.key}-{number}"


def _phase_file(key: str) -> str:
    return f"resume/phase-{key}.safetensors"


def _branch_file(recipe: Recipe) -> str:
    return f"resume/{recipe.key}.safetensors"
