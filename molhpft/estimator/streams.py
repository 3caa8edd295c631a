"""Tables of any length that are written a few hundred rows at a time."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import parquet

from molhpft.experiments.folder import ANOTHER_FILE, writing

Columns = Mapping[str, pa.Array]

_PARQUET = ".parquet"


class Writer(Protocol):
    """A table under way."""

    def __call__(self, columns: Columns) -> None:
        """Append rows, column by column; names and types are those of the first call."""


def table_writer(path: Path) -> AbstractContextManager[Writer]:
    """Writes a table of rows that come in parts; the file appears when all is well.

    Args:
        path: `.csv` or `.parquet`; a file that is there is replaced at the end.

    Raises:
        ValueError: the name ends otherwise.
        OSError: the place cannot be written to.
    """
    kinds = {".csv": _csv_writer, _PARQUET: _parquet_writer}
    if path.suffix not in kinds:
        raise ValueError(f"{path} should end in .csv or .parquet")
    return _whole(path, kinds[path.suffix])


@contextmanager
def _whole(path: Path, opened: Any) -> Iterator[Writer]:
    aside = path.with_name(f"{path.name}.partial")
    with ExitStack() as cleanup:
        with writing(path, remedy=ANOTHER_FILE):
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            cleanup.callback(_remove, aside)
            file = cleanup.enter_context(ExitStack())
            write = file.enter_context(opened(aside))

        def append(columns: Columns) -> None:
            with writing(path, remedy=ANOTHER_FILE):
                write(columns)

        yield append
        with writing(path, remedy=ANOTHER_FILE):
            file.close()
            os.replace(aside, path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # the failure that is on its way says more
        path.unlink(missing_ok=True)


@contextmanager
def _csv_writer(path: Path) -> Iterator[Writer]:
    with path.open("w", encoding="utf-8", newline="") as file:
        # as if lines ended in \r\n: else Python 3.11 leaves a cell with \r in it without quotes
        lines = SimpleNamespace(write=lambda line: file.write(f"{line[:-2]}\n"))
        writer, begun = csv.writer(lines, lineterminator="\r\n"), False

        def write(columns: Columns) -> None:
            nonlocal begun
            if not begun:
                writer.writerow(columns)
            begun = True
            cells = (column.to_pylist() for column in columns.values())
            writer.writerows(zip(*cells, strict=True))

        yield write


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Writer]:
    writer: parquet.ParquetWriter | None = None

    def write(columns: Columns) -> None:
        nonlocal writer
        table = pa.table(dict(columns))
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
