"""A comma-separated file as plain text, every row with its line, strictly read.

The standard `csv` reader instead of pandas: pandas renames repeated columns, pads short rows and
forgets line numbers, and a wrong row should be named by the line a person sees in an editor.
"""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path

_EMPTY = "{} should have a line of column names and rows below; it is empty"
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})


@dataclass(frozen=True)
class Sheet:
    """Columns of n cells each, without surrounding spaces.

    Attributes:
        path: of the file.
        columns: column name to cells (n,).
        lines: (n,), the line of the file where each row begins; the header is line 1.
    """

    path: Path
    columns: dict[str, tuple[str, ...]]
    lines: tuple[int, ...]

    def column(self, name: str) -> tuple[str, ...]:
        """Cells of a column.

        Raises:
            ValueError: no column has that name; the message lists those that exist.
        """
        if name not in self.columns:
            raise ValueError(
                f"{self.path} has no column {name!r}; it has: {', '.join(self.columns)}"
            )
        return self.columns[name]

    def has_numbers(self, name: str) -> bool:
        """Whether a column has numbers and, besides missing cells, nothing else."""
        measured = {cell for cell in self.column(name) if not _is_missing(cell)}
        return bool(measured) and all(_number(cell) is not None for cell in measured)

    def numbers(self, name: str) -> list[float]:
        """Cells of a column as numbers (n,); NaN for an empty cell, NaN, NA, N/A, null or none.

        Raises:
            ValueError: no column has that name, or a cell is no number; the message says which.
        """
        values = {cell: _number(cell) for cell in set(self.column(name))}
        numbers = [value for cell in self.columns[name] if (value := values[cell]) is not None]
        if len(numbers) < len(self.lines):
            row = [values[cell] for cell in self.columns[name]].index(None)
            raise ValueError(f"column {name!r} should hold numbers; {self.place(row, name)}")
        return numbers

    def place(self, row: int, name: str) -> str:
        """Where a cell is and what it holds, for error messages."""
        return f"line {self.lines[row]} of {self.path} has {self.columns[name][row]!r}"


def read_sheet(path: Path) -> Sheet:
    """A `.csv` or `.csv.gz` file in UTF-8; its first line names the columns, blank lines are none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, has no rows, is not UTF-8, not CSV or not gzip, repeats a
            column name, or has a row of another length than the header.
    """
    with _reading(path):
        rows = list(_rows(path))
    if not rows:
        raise ValueError(_EMPTY.format(path))
    (_, header), *body = rows
    _check_names(path, header)
    if not body:
        raise ValueError(f"{path} should have rows below its column names; it has none")
    for line, cells in body:
        _check_length(path, header, line, cells)
    columns = zip(*(cells for _, cells in body), strict=True)
    return Sheet(path, dict(zip(header, columns, strict=True)), tuple(line for line, _ in body))


def stream_column(path: Path, name: str) -> Iterator[str]:
    """Cells of one column, row by row, however long the file is; otherwise as `read_sheet`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for `read_sheet`, where the row is reached; no column has that name.
    """
    with _reading(path):
        rows = _rows(path)
        _, header = next(rows, (0, []))
        if not header:
            raise ValueError(_EMPTY.format(path))
        if name not in header:
            raise ValueError(f"{path} has no column {name!r}; it has: {', '.join(header)}")
        _check_names(path, header)
        column = header.index(name)
        for line, cells in rows:
            _check_length(path, header, line, cells)
            yield cells[column]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line where it begins and cells of every row that is not blank, header first."""
    opened = gzip.open if path.suffix == ".gz" else open
    # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader, line = csv.reader(file, strict=True), 1
        try:
            for cells in reader:
                if cells:
                    yield line, [cell.strip() for cell in cells]
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{path} should be comma-separated values; the row that begins in line {line} is "
                f"not: {error}; look for a quote that is not closed"
            ) from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """A block that reads a table, whose failures are one sentence."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} should be a file of comma-separated values; none is there")
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be text in UTF-8: {error}; save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} should be a gzip file, whole: {error}") from error


def _check_names(path: Path, header: list[str]) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise ValueError(f"column names of {path} should differ; repeated: {', '.join(repeated)}")


def _check_length(path: Path, header: list[str], line: int, cells: list[str]) -> None:
    if len(cells) != len(header):
        raise ValueError(
            f"every row of {path} should have {len(header)} cells as its header has; "
            f"line {line} has {len(cells)}"
        )


def _is_missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def _number(cell: str) -> float | None:
    """Value of a cell, NaN where missing, None where it is no number."""
    try:
        return nan if _is_missing(cell) else float(cell)
    except ValueError:
        return None
