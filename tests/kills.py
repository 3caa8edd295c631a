"""A run that is killed right after it has saved its state."""

from contextlib import contextmanager

import pytest

from molhpft.run import run


class KilledError(BaseException):
    """Nobody catches it, as nobody catches a kill."""


@contextmanager
def killed_at_save(number):
    """A block that dies when a phase has saved its state for the so-and-so-many-th time."""
    real, count = run.save_phase, iter(range(1, 1000))

    def save_then_die(*args):
        real(*args)
        if next(count) == number:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save_phase", save_then_die)
        with pytest.raises(KilledError):
            yield
