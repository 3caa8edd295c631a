"""Which epochs of several runs are trained when, so that several processes end together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from math import ceil


@dataclass(frozen=True)
class Piece:
    """Epochs of one run that a process trains without a break.

    Attributes:
        run: its number, from 0.
        epochs: of the run, by their number of epochs before them: `range(3, 15)` goes on after
            three and ends after fifteen.
        start: of the piece, in epochs since the first piece started.
    """

    run: int
    epochs: range
    start: int


def timetable(runs: Sequence[range], *, processes: int) -> list[Piece]:
    """Pieces of runs in the order of their starts, which is that in which to hand them out.

    Every run has a piece, also one without epochs. All are done after
    `max(longest, ceil(total / processes))` epochs, before which no timetable ends.

    Where whole runs in their order end then, they stay whole. Else this is McNaughton's wrap-around
    rule (1959, "Scheduling with deadlines and loss functions", Theorem 3.1): runs lie end to end on
    one line, which is cut into a stretch of that length for each process. Of a run that is cut, the
    first epochs stand at the beginning of the later stretch and the last ones at the end of the
    earlier stretch. They never overlap, as no run is longer than a stretch.

    Args:
        runs: epochs that each has to be trained for, in order; `range(8, 15)` has eight behind it.
        processes: that train at the same time, at least 1; an epoch of each run is taken to last as
            long as any other.
    """
    lengths = [len(epochs) for epochs in runs]
    end = max(max(lengths, default=0), ceil(sum(lengths) / processes))
    whole = list(_in_order(runs, processes))
    if all(piece.start + len(piece.epochs) <= end for piece in whole):
        return whole
    return sorted(_wrapped_around(runs, end), key=lambda piece: piece.start)


def _in_order(runs: Sequence[range], processes: int) -> Iterator[Piece]:
    """Whole runs, each begun by the process that is the first to be free."""
    free = [0] * processes  # when each process is
    for number, epochs in enumerate(runs):
        yield Piece(number, epochs, free[0])
        heapreplace(free, free[0] + len(epochs))


def _wrapped_around(runs: Sequence[range], end: int) -> Iterator[Piece]:
    """Pieces of runs that lie end to end on stretches of length `end`."""
    start = 0
    for number, epochs in enumerate(runs):
        beyond = max(0, start + len(epochs) - end)
        if beyond:
            yield Piece(number, epochs[:beyond], 0)
        if beyond < len(epochs) or not epochs:
            yield Piece(number, epochs[beyond:], start)
        start = beyond or start + len(epochs)
