"""Tables of rows that come in parts, written as CSV or Parquet, into a file at once or a stream."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO, TypeAlias

import numpy as np

from molhpft.domains.files import ANOTHER_FILE, replacing, writing
from molhpft.domains.molecules.table_files import arrow

Named: TypeAlias = tuple[str, Any]
"""A column: its name, and n cells: text, a masked array, or an array of Arrow."""
Write: TypeAlias = Callable[[Sequence[Named]], None]
"""Appends rows, column by column; names, which may repeat in CSV, are those of the first call."""

PREFIX = "molhpft "
"""Stands before the name of a column that the table, or another column, has already."""

_STDOUT = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def distinct_names(columns: Iterable[Named]) -> list[Named]:
    """The columns, those under other names whose own is taken by a column before them.

    >>> distinct_names([("fold", 1), ("fold", 2)])
    [('fold', 1), ('molhpft fold', 2)]
    """
    together: dict[str, Any] = {}
    for name, cells in columns:
        while name in together:
            name = PREFIX + name
        together[name] = cells
    return list(together.items())


def is_stream(path: Path) -> bool:
    """Whether a path is no place for a file but a pipe or a device, standard output among them."""
    return str(path) in _STDOUT or (path.exists() and not path.is_file() and not path.is_dir())


def table_writer(path: Path) -> AbstractContextManager[Write]:
    """Writes a table whose rows come in parts; the file appears when all of it is written.

    Args:
        path: `.csv` or `.parquet`; a file that is there is replaced at the end, and so is the one
            that a link leads to. A pipe or device (`/dev/stdout`) gets CSV row by row.

    Raises:
        MissingExtraError: Parquet is asked for, and pyarrow is not installed.
        ValueError: the name ends otherwise.
        OSError: the place cannot be written to.
    """
    if is_stream(path):
        return _streamed(path)
    if path.suffix.lower() == ".csv":
        return _whole(path, _csv_file)
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path} should end in .csv or .parquet")
    arrow()
    return _whole(path, _parquet_file)


@contextmanager
def _streamed(path: Path) -> Iterator[Write]:
    with writing(path, remedy=ANOTHER_FILE), ExitStack() as stack:
        # standard output by its number: a file behind it would be opened from its beginning
        place: Any = os.dup(1) if str(path) in _STDOUT else path
        file = stack.enter_context(open(place, "w", encoding="utf-8", newline=""))
        yield _csv_rows(file)


@contextmanager
def _whole(path: Path, opened: Callable[[Path], AbstractContextManager[Write]]) -> Iterator[Write]:
    place = Path(os.path.realpath(path))
    with ExitStack() as cleanup:
        with writing(path, remedy=ANOTHER_FILE):
            if place.is_dir():
                raise IsADirectoryError("it is a folder")
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = cleanup.enter_context(replacing(place))
            file = cleanup.enter_context(ExitStack())
            write = file.enter_context(opened(temporary))

        def append(columns: Sequence[Named]) -> None:
            with writing(path, remedy=ANOTHER_FILE):
                write(columns)

        yield append
        with writing(path, remedy=ANOTHER_FILE):
            file.close()
            cleanup.close()


@contextmanager
def _csv_file(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield _csv_rows(file)


def _csv_rows(file: TextIO) -> Write:
    # as if lines ended in \r\n: else Python 3.11 leaves a cell with \r in it without quotes
    lines = SimpleNamespace(write=lambda line: file.write(f"{line[:-2]}\n"))
    writer, has_header = csv.writer(lines, lineterminator="\r\n"), False

    def write(columns: Sequence[Named]) -> None:
        nonlocal has_header
        if not has_header:
            writer.writerow([name for name, _ in columns])
        has_header = True
        writer.writerows(zip(*(_csv_cells(cells) for _, cells in columns), strict=True))

    return write


def _csv_cells(cells: Any) -> Sequence[Any]:
    """Cells as the csv module writes them: bytes as UTF-8, lists and structs as JSON."""
    if isinstance(cells, np.ma.MaskedArray):
        return list(cells.tolist())
    if isinstance(cells, list | tuple):
        return cells
    pa = arrow()
    kind = cells.type
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return list(cells.cast(pa.float32()).cast(pa.string()).to_pylist())
    try:
        values = list(cells.to_pylist())
    except pa.ArrowInvalid:  # times in a zone that is not known; they are stored in UTC
        values = list(cells.cast(pa.timestamp(kind.unit, "UTC")).to_pylist())
    if pa.types.is_nested(kind):
        return [None if x is None else json.dumps(x, default=str) for x in values]
    return [x.decode("utf-8", "backslashreplace") if isinstance(x, bytes) else x for x in values]


@contextmanager
def _parquet_file(path: Path) -> Iterator[Write]:
    pa = arrow()
    with ExitStack() as stack:
        writer: Any = None

        def write(columns: Sequence[Named]) -> None:
            nonlocal writer
            # a column of text may begin with a part that has none
            arrays = [
                pa.array(cells, pa.string()) if isinstance(cells, list | tuple) else pa.array(cells)
                for _, cells in columns
            ]
            table = pa.Table.from_arrays(arrays, names=[name for name, _ in columns])
            if writer is None:
                writer = stack.enter_context(pa.parquet.ParquetWriter(path, table.schema))
            writer.write_table(table)

        yield write
