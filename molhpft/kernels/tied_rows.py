"""Notes on the rows of a tensor: what they are sums of, and which of them are equal.

They are remembered of tensors in use, until PyTorch counts a change in place: between the
stages of an encoder only the tensor itself is handed on. Changes that PyTorch does not count,
through `.data` or a NumPy view, go unnoticed.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from molhpft.kernels.reference import CSRGraph


@dataclass(frozen=True, eq=False)
class TiedRows:
    """Which of `n` rows are equal because they were computed alike.

    All methyl groups have the same features until a convolution has heard of something that tells
    them apart. After `k` convolutions two atoms are alike if their surroundings up to `k` bonds
    are: the colours of Weisfeiler and Leman (1968).

    Attributes:
        before: int64 (n, columns), that each row was computed from; or which nodes were alike
            before they heard of their neighbours.
        graph: along which they heard of them; None of rows that heard of none.
    """

    before: "Tensor | TiedRows"
    graph: CSRGraph | None = None

    def __len__(self) -> int:
        return len(self.before if self.graph is None else self.graph.degree)

    @property
    def group(self) -> Tensor:
        """Number of the group of equal rows that each is in, int64 (n,)."""
        return self._groups[0]

    @property
    def first(self) -> Tensor:
        """First row of each group, int64 (groups,)."""
        return self._groups[1]

    @cached_property
    @torch.inference_mode(False)  # they are kept, and training may ask next
    def _groups(self) -> tuple[Tensor, Tensor]:
        # where it is first used: numba takes a good part of a second to import
        from molhpft.kernels.colour_refinement import groups_of_nodes

        if isinstance(self.before, Tensor):
            alone = torch.zeros(len(self) + 1, dtype=torch.long)
            return groups_of_nodes(self.before, alone, torch.empty(0, 1, dtype=torch.long))
        group, graph = self.before.group, self.graph
        assert graph is not None
        nodes = torch.stack([group, _bits(graph.degree)], 1)
        edges = torch.stack([group[graph.source], graph.kind, _bits(graph.norm)], 1)
        return groups_of_nodes(nodes, graph.pointer, edges)


def _bits(numbers: Tensor) -> Tensor:
    return numbers.detach().contiguous().view(torch.int32).long()


@dataclass(frozen=True, eq=False)
class RowSums:
    """Which `rows` (n, columns) of which `table` (length, d) a tensor (n, d) is the sums of.

    Attributes:
        rows: int64 (n, columns).
        table: (length, d).
        version: PyTorch's count of changes of the table when the sums were computed.
    """

    rows: Tensor
    table: Tensor
    version: int

    @cached_property
    def tied(self) -> TiedRows:
        """Which of the sums are equal: those of the same rows."""
        return TiedRows(self.rows)


_notes = WeakIdKeyDictionary()


def remember_row_sums(h: Tensor, rows: Tensor, table: Tensor) -> None:
    """Remember that `h` is the sums of `rows` of a `table`."""
    if not table.is_inference():
        _remember(h, RowSums(rows, table, table._version))


def row_sums_of(h: Tensor) -> RowSums | None:
    """What `h` is the sums of; None if unknown, or if `h` or the table was changed in place."""
    note = _note_of(h)
    return note if isinstance(note, RowSums) and note.version == note.table._version else None


def remember_mapped(result: Tensor, h: Tensor) -> None:
    """Remember that rows of `result` are equal where those of `h` are.

    One function was applied to every row; or the first rows are the same, and only others below
    them were added or taken away.
    """
    if (tied := tied_rows_of(h)) is not None:
        _remember(result, tied)


def remember_heard(result: Tensor, x: Tensor, graph: CSRGraph) -> None:
    """Remember that each row of `result` is a function of a node of `graph` and what it hears.

    Of its degree, its row of `x`, and, whatever their order, kinds and norms of the edges into it
    and the rows of `x` that they come from.
    """
    if (tied := tied_rows_of(x)) is not None:
        _remember(result, TiedRows(tied, graph))


def tied_rows_of(h: Tensor) -> TiedRows | None:
    """Which of the first rows of `h` are equal; None if unknown, or if `h` was changed in place."""
    note = _note_of(h)
    return note.tied if isinstance(note, RowSums) else note


def _remember(h: Tensor, note: RowSums | TiedRows) -> None:
    # PyTorch counts no changes of what inference mode computed
    if not h.is_inference():
        _notes[h] = h._version, note


def _note_of(h: Tensor) -> RowSums | TiedRows | None:
    entry: tuple[int, RowSums | TiedRows] | None = _notes.get(h)  # type: ignore[no-untyped-call]
    return entry[1] if entry and entry[0] == h._version else None
