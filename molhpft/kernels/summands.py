"""Which rows of a table a tensor is the sums of, for those who can make use of it."""

from dataclasses import dataclass

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True, eq=False)
class Summands:
    """A tensor (n, d) as the sums of rows of a table.

    Attributes:
        rows: int64 (n, columns), the numbers of the rows that are summed.
        table: (length, d).
    """

    rows: Tensor
    table: Tensor


@dataclass(frozen=True, eq=False)
class _Note:
    summands: Summands
    versions: tuple[int, int]


_notes = WeakIdKeyDictionary()  # of tensors that are still in use, and of no others


def note_summands(h: Tensor, summands: Summands) -> None:
    """Remember what `h` is the sums of, for as long as there is `h`."""
    # without a count of changes, nothing would tell whether the note still holds
    if not h.is_inference():
        _notes[h] = _Note(summands, _versions(h, summands))


def summands_of(h: Tensor) -> Summands | None:
    """What `h` is known to be the sums of; None once it or the table was changed in place."""
    note: _Note | None = _notes.get(h)  # type: ignore[no-untyped-call]
    if note is None or note.versions != _versions(h, note.summands):
        return None
    return note.summands


def _versions(h: Tensor, summands: Summands) -> tuple[int, int]:
    return h._version, summands.table._version
