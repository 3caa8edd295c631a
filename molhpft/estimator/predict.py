"""Predictions and features for the rows of a table, in its order, however long it is.

Tables of any length that are written a few hundred rows at a time.
"""

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol, TextIO, TypeAlias, TypeVar

import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from torch import Tensor

from molhpft.core.determinism import threads
from molhpft.core.objectives import Squared
from molhpft.domains.console import bar
from molhpft.domains.files import replacing, writing
from molhpft.domains.molecules.examples import ZERO_ONE
from molhpft.domains.molecules.fingerprints import Featurized, featurized_parts, unpack_bits
from molhpft.domains.molecules.graphs import graph_store
from molhpft.domains.molecules.table_files import Cells, Part, stream_parts
from molhpft.estimator.confidence import Prediction
from molhpft.estimator.model import Model
from molhpft.run.folder import ANOTHER_FILE, check_output

Columns: TypeAlias = Sequence[tuple[str, Cells]]
"""Names, which may repeat in a CSV file, and n cells each."""

STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


class Writer(Protocol):
    """A table under way."""

    def __call__(self, columns: Columns) -> None:
        """Append rows, column by column; names and types are those of the first call."""


def table_writer(path: Path) -> AbstractContextManager[Writer]:
    """Writes a table of rows that come in parts; the file appears when all is well.

    Args:
        path: `.csv` or `.parquet`; a file that is there is replaced at the end, and so is the one
            that a link leads to. A pipe or device (`/dev/stdout`) gets CSV row by row.

    Raises:
        ValueError: the name ends otherwise.
        OSError: the place cannot be written to.
    """
    if is_stream(path):
        return _streamed(path)
    kinds = {".csv": _csv_writer, ".parquet": _parquet_writer}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} should end in .csv or .parquet")
    return _whole(path, kinds[path.suffix.lower()])


def is_stream(path: Path) -> bool:
    """Whether a path is no place for a file but a pipe or a device, standard output among them."""
    return str(path) in STDOUT or (path.exists() and not path.is_file() and not path.is_dir())


@contextmanager
def _streamed(path: Path) -> Iterator[Writer]:
    with writing(path, remedy=ANOTHER_FILE), ExitStack() as stack:
        # standard output by its number: a file behind it would be opened from its beginning
        place: Any = os.dup(1) if str(path) in STDOUT else path
        file = stack.enter_context(open(place, "w", encoding="utf-8", newline=""))
        yield _csv_rows(file)


@contextmanager
def _whole(
    path: Path, opened: Callable[[Path], AbstractContextManager[Writer]]
) -> Iterator[Writer]:
    place = Path(os.path.realpath(path))
    with ExitStack() as cleanup:
        with writing(path, remedy=ANOTHER_FILE):
            if place.is_dir():
                raise IsADirectoryError("it is a folder")
            place.parent.mkdir(parents=True, exist_ok=True)
            aside = cleanup.enter_context(replacing(place))
            file = cleanup.enter_context(ExitStack())
            write = file.enter_context(opened(aside))

        def append(columns: Columns) -> None:
            with writing(path, remedy=ANOTHER_FILE):
                write(columns)

        yield append
        with writing(path, remedy=ANOTHER_FILE):
            file.close()
            cleanup.close()


@contextmanager
def _csv_writer(path: Path) -> Iterator[Writer]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield _csv_rows(file)


def _csv_rows(file: TextIO) -> Writer:
    # as if lines ended in \r\n: else Python 3.11 leaves a cell with \r in it without quotes
    lines = SimpleNamespace(write=lambda line: file.write(f"{line[:-2]}\n"))
    writer, begun = csv.writer(lines, lineterminator="\r\n"), False

    def write(columns: Columns) -> None:
        nonlocal begun
        if not begun:
            writer.writerow([name for name, _ in columns])
        begun = True
        writer.writerows(zip(*(_texts_streams(cells) for _, cells in columns), strict=True))

    return write


def _texts_streams(cells: Cells) -> Sequence[Any]:
    """Cells as the csv module writes them: bytes as UTF-8, lists and structs as JSON."""
    if not isinstance(cells, pa.Array):
        return cells
    kind = cells.type
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return list(cells.cast(pa.float32()).cast(pa.string()).to_pylist())
    found = list(cells.to_pylist())
    if pa.types.is_nested(kind):
        return [None if x is None else json.dumps(x, default=str) for x in found]
    return [x.decode("utf-8", "backslashreplace") if isinstance(x, bytes) else x for x in found]


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Writer]:
    writer: parquet.ParquetWriter | None = None

    def write(columns: Columns) -> None:
        nonlocal writer
        arrays = [c if isinstance(c, pa.Array) else pa.array(c, pa.string()) for _, c in columns]
        table = pa.Table.from_arrays(arrays, names=[name for name, _ in columns])
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


T = TypeVar("T")
Named = Iterator[tuple[str, pa.Array]]

Precision = Literal["32", "bf16-mixed"]

OK, DUBIOUS, UNREADABLE = "ok", "dubious", "unreadable"
OWN = "molhpft "
"""Stands before the name of a column that the table, or another column, has already."""


def predict_table(
    model: Model, path: Path, out: Path, *, smiles_column: str, precision: Precision = "32"
) -> dict[str, int]:
    """Write a row of predictions for every row of a table, beside all that the table has.

    After the table's own columns come `status` (ok, unreadable, or dubious: read and answered for,
    though RDKit refuses a valence in it); for every target its value, or the probability of its
    second class (`<target> p(<class>)` where the classes are not 0 and 1), its `spread` over
    members, and the set of labels or the ends of the interval that hold the truth at the model's
    level; `similarity` to the nearest training molecule, that molecule, and whether it is near
    (`in_domain`). Cells of unreadable molecules are empty, as are the ends of an interval that is
    unbounded. Outside the domain no label is ruled out and no interval bounded. A name that the
    table has gets `molhpft` before it.

    Args:
        model: fitted.
        path: of a table or list of any kind that `sheets` reads.
        out: `.csv` or `.parquet`, or a stream such as `/dev/stdout`; not `path`.
        smiles_column: name of the column with the molecules.
        precision: of the networks' products. "bf16-mixed" is faster on processors with units for
            it and rounds a logit by half a percent.

    Returns:
        number of rows by status.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it is none, or lacks the column; or `out` is the table.
        OSError: `out` cannot be written to.
    """
    neighbours = model.trust.neighbours  # made here once, not by every process

    def compared(molecules: Featurized) -> tuple[Featurized, list[NDArray[Any]]]:
        with threads(1):  # a forked process has no others
            near = neighbours.nearest(unpack_bits(molecules.fingerprints))
        return molecules, [part.numpy() for part in near]

    def answered(found: tuple[Featurized, list[NDArray[Any]]]) -> tuple[Featurized, Tensor, Named]:
        molecules, (similarity, nearest) = found
        near = (torch.from_numpy(similarity), torch.from_numpy(nearest))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision != "32"):
            answers = model.answers(molecules, near)
        return molecules, answers.readable, _answers(model, answers)

    return _answered(path, out, smiles_column, compared, answered, what="predicting")


def embed_table(model: Model, path: Path, out: Path, *, smiles_column: str) -> dict[str, int]:
    """Write the features of every row of a table, `z0`, `z1`, ...; otherwise as `predict_table`."""

    def embedded(molecules: Featurized) -> tuple[Featurized, Tensor, Named]:
        store = graph_store(molecules.graphs)
        rows = store.readable.nonzero().flatten()
        z = torch.full((len(store), model.width), torch.nan)
        z[rows] = model.features(store, rows)
        named = ((f"z{k}", _cells(column)) for k, column in enumerate(z.T))
        return molecules, store.readable, named

    return _answered(path, out, smiles_column, lambda found: found, embedded, what="embedding")


def _answered(
    path: Path,
    out: Path,
    smiles_column: str,
    then: Callable[[Featurized], T],
    answered: Callable[[T], tuple[Featurized, Tensor, Named]],
    *,
    what: str,
) -> dict[str, int]:
    """Write a table with columns of answers behind its own.

    Args:
        path: of the table.
        out: what is written.
        smiles_column: name of the column with the molecules.
        then: is done to molecules by the processes that read them.
        answered: makes of that the molecules, which of them are readable, and their answers.
        what: for the progress bar.
    """
    check_output(out, path)
    parts: deque[Part] = deque()  # those under way; answers come in their order

    def molecules() -> Iterator[Sequence[str]]:
        for part in stream_parts(path):
            smiles = part.molecules(smiles_column)
            parts.append(part)
            yield smiles

    counts = {OK: 0, DUBIOUS: 0, UNREADABLE: 0}
    # the processes that read molecules need the other half
    with (
        threads(max(1, torch.get_num_threads() // 2)),
        table_writer(out) as write,
        bar(what, total=None) as move,
    ):
        for found, readable, named in map(answered, featurized_parts(molecules(), then)):
            status = _status(readable, found)
            write(_beside(parts.popleft(), [("status", _texts(status)), *named]))
            for one in counts:
                counts[one] += status.count(one)
            move(sum(counts.values()))
    return counts


def _status(readable: Tensor, molecules: Featurized) -> list[str]:
    marks = zip(readable.tolist(), molecules.dubious.tolist(), strict=True)
    return [(DUBIOUS if dubious else OK) if read else UNREADABLE for read, dubious in marks]


def _beside(part: Part, own: Iterable[tuple[str, pa.Array]]) -> Columns:
    """The columns of a table as they are and others, under names that are not taken."""
    columns: dict[str, Cells] = dict(part.cells)
    for given, cells in own:
        name = given
        while name in columns:
            name = OWN + name
        columns[name] = cells
    return list(columns.items())


def _answers(model: Model, found: Prediction) -> Named:
    numbers = isinstance(model.shape.objective, Squared)
    shape = model.shape
    for k, name in enumerate(shape.targets):
        yield shape.value_names[k], _cells(found.values[:, k])
        yield f"{name} spread", _cells(found.spread[:, k])
        ends = found.sets[:, k]
        if numbers:
            yield f"{name} low", _cells(ends[:, 0])
            yield f"{name} high", _cells(ends[:, 1])
        else:
            classes = shape.classes[k] if shape.classes else ZERO_ONE
            yield f"{name} set", _texts(_set(pair, classes) for pair in ends.tolist())
    columns = (found.nearest, found.in_domain, found.readable)
    near = list(zip(*(column.tolist() for column in columns), strict=True))
    yield "similarity", _cells(found.similarity)
    yield "nearest", _texts(model.training_smiles[row] if ok else None for row, _, ok in near)
    yield "in_domain", pa.array([is_near if ok else None for _, is_near, ok in near], pa.bool_())


def _set(pair: list[bool], classes: tuple[str, str]) -> str:
    return " or ".join(label for label, is_in in zip(classes, pair, strict=True) if is_in)


def _texts(column: Iterable[str | None]) -> pa.Array:
    return pa.array(list(column), pa.string())


def _cells(column: Tensor) -> pa.Array:
    """Numbers of a column, rounded to what a float32 network can mean; None where not finite."""
    numbers = [float(f"{x:.6g}") if isfinite(x) else None for x in column.tolist()]
    return pa.array(numbers, pa.float64())
