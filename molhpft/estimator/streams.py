"""Tables of any length that are written a few hundred rows at a time."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, TextIO, TypeAlias

import pyarrow as pa
from pyarrow import parquet

from molhpft.domains.folders import replacing
from molhpft.domains.molecules.sheets import Cells
from molhpft.experiments.folder import ANOTHER_FILE, writing

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
        writer.writerows(zip(*(_texts(cells) for _, cells in columns), strict=True))

    return write


def _texts(cells: Cells) -> Sequence[Any]:
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
