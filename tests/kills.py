"""A run that is killed right after it has saved its state."""

from contextlib import contextmanager

import pytest

from molhpft.run import resume
from molhpft.run.resume import SavedPhase


class KilledError(BaseException):
    """Nobody catches it, as nobody catches a kill."""


@contextmanager
def killed_at_save(number):
    """A block that dies when a phase has saved its state for the so-and-so-many-th time.

    Within it, every epoch is saved.
    """
    real, count = SavedPhase.save, iter(range(1, 1000))

    def save_then_die(self, progress):
        real(self, progress)
        if next(count) == number:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "_APART", 0.0)
        patch.setattr(SavedPhase, "save", save_then_die)
        with pytest.raises(KilledError):
            yield
