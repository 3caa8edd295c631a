"""Any file with a table of molecules as rows of cells, each with the line where it stands.

CSV (separated by commas, semicolons, tabs or bars, or as Excel's `sep=` line says), Parquet, SDF
and lists of SMILES, each also packed by gzip, bzip2, xz or zip. What a file is, its first bytes
say; its ending, in any case, counts for lists alone, which have no mark. A pipe (`/dev/stdin`) is
read like a file.
"""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any, TextIO, TypeAlias, Union
from zipfile import BadZipFile, ZipFile

import numpy as np

from molhpft.domains.extras import require
from molhpft.domains.files import listed
from molhpft.domains.molecules.sdf import begins_with_a_molfile, sdf_table
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.table_options import how_to_give

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 512  # of a part

LIST_COLUMNS = ("smiles", "name")
"""Columns of a list of SMILES, which has no others."""

SHOWN = 20  # columns, of those that a sentence lists
_HEAD = 1 << 16  # bytes by which a file is recognised
_LONGEST_CELL = 100_000_000  # characters
_SEPARATORS = (",", "\t", ";", "|")
_LISTS = (".smi", ".smiles", ".ism", ".can")
_PACKED = (".gz", ".bz2", ".xz", ".zip")
_ENDINGS = (".csv", ".tsv", ".tab", ".parquet", ".pq", ".sdf", ".sd", ".txt", *_LISTS)
_LIST_LINE = re.compile(r"(\S+(?:[ \t]+\|[^|]*\|)?)\s*(.*)")

_WRITABLE = "have a text or a number in every cell"
_READABLE = "a table (CSV, Parquet, SDF) or a list of SMILES (.smi)"
_PACKINGS: dict[re.Pattern[bytes], Callable[[IO[bytes]], Any]] = {
    re.compile(rb"\x1f\x8b"): gzip.open,
    re.compile(rb"BZh[1-9]1AY&SY"): bz2.open,
    re.compile(rb"\xfd7zXZ\x00"): lzma.open,
}
# four letters may be the beginning of a text: what follows them there is none
_PARQUET = re.compile(rb"PAR1($|[^ -~\t\r\n])")
_FOREIGN = {
    re.compile(rb"\xd0\xcf\x11\xe0"): "an old Excel workbook",
    re.compile(rb"ARROW1\0"): "an Arrow (Feather) file",
    re.compile(rb"PARE[^ -~\t\r\n]"): "an encrypted Parquet file",
    re.compile(rb"\x89HDF"): "an HDF5 file",
    re.compile(rb"SQLite format 3\0"): "an SQLite database",
    re.compile(rb"\x93NUMPY"): "a NumPy array",
    re.compile(rb"\x28\xb5\x2f\xfd"): "packed by zstandard",
    re.compile(rb"7z\xbc\xaf"): "a 7-Zip archive",
    re.compile(rb"%PDF-"): "a PDF",
    re.compile(rb"\x80"): "a Python pickle or another binary file",
}
_WORKBOOKS = {"xl/workbook.xml": "an Excel workbook", "content.xml": "an OpenDocument spreadsheet"}

Cells: TypeAlias = Union[Sequence[str], "pa.Array"]
_Row: TypeAlias = tuple[int, list[str]]
"""The line where a row begins, and its cells."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some consecutive rows of a table.

    Attributes:
        path: of the file.
        lines: (n,), where each row begins: its line in the file (a header is line 1), or its number
            in a Parquet file, counted from 1.
        cells: column name to n cells as they stand in the file: text, or what Parquet holds.
    """

    path: Path
    lines: tuple[int, ...]
    cells: Mapping[str, Cells]

    def texts(self, name: str) -> list[str]:
        """Cells of a column as text without spaces around; bytes are UTF-8, null and NaN empty.

        Raises:
            ValueError: no column has that name, or its cells are lists or structs.
        """
        if name not in self.cells:
            raise _unknown(self.path, name, self.cells)
        texts = _texts(self.cells[name])
        if texts is None:
            raise _mistyped(self.path, name, _foreign_type(self.cells[name]), _WRITABLE)
        return texts

    def molecules(self, name: str) -> list[str]:
        """`texts` of the column that is given as that of SMILES.

        Raises:
            ValueError: no column has that name, or it holds no text but numbers, lists, ...
        """
        name = spelled(name, self.cells)
        if kind := _foreign_type(self.cells.get(name, ())):
            raise _mistyped(self.path, name, kind, "hold SMILES as text")
        if name not in self.cells:
            raise _unknown(self.path, name, self.cells, option="smiles_column")
        return self.texts(name)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A whole table as text: columns of n cells each, without surrounding spaces.

    Attributes:
        path: of the file.
        columns: column name to cells (n,), but for columns of lists, structs and the like.
        lines: (n,), as in `Part`.
        types: of the columns that hold no text but numbers, lists, ...; of Parquet files only.
        nameless: columns that the header leaves without a name; they are called by their place.
        unit: what `lines` are, "line" or "row".
    """

    path: Path
    columns: dict[str, tuple[str, ...]]
    lines: tuple[int, ...]
    types: dict[str, str]
    nameless: frozenset[str]
    unit: str

    @property
    def names(self) -> list[str]:
        """Names of all columns."""
        return list(dict.fromkeys((*self.columns, *self.types)))

    def column(self, name: str, *, option: str | None = None) -> tuple[str, ...]:
        """Cells of a column.

        Args:
            name: of the column.
            option: of the table that has given the name, for errors; None where none has.

        Raises:
            ValueError: no column has that name, or it holds lists or structs; the message says so.
        """
        if name in self.columns:
            return self.columns[name]
        if name in self.types:
            raise _mistyped(self.path, name, self.types[name], _WRITABLE)
        raise _unknown(self.path, name, self.names, option=option)

    def molecules(self, name: str) -> tuple[str, ...]:
        """Cells of the column that is given as that of SMILES.

        Raises:
            ValueError: no column has that name, or it holds no text but numbers, lists, ...
        """
        name = spelled(name, self.names)
        if name in self.types:
            raise _mistyped(self.path, name, self.types[name], "hold SMILES as text")
        return self.column(name, option="smiles_column")


def read_sheet(path: Path) -> Sheet:
    """A whole table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table that can be read, or a wrong one; the message says where and why.
    """
    columns: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    lines: list[int] = []
    with _opened(path) as source:
        for part in source.parts:
            lines += part.lines
            for name, cells in part.cells.items():
                if kind := _foreign_type(cells):
                    types[name] = kind
                if (texts := _texts(cells)) is not None:
                    columns.setdefault(name, []).extend(texts)
    if not lines:
        raise ValueError(f"{path} should have rows of molecules; it has none")
    return Sheet(
        path=path,
        columns={name: tuple(texts) for name, texts in columns.items()},
        lines=tuple(lines),
        types=types,
        nameless=source.nameless,
        unit=source.unit,
    )


def stream_parts(path: Path) -> Iterator[Part]:
    """A table in parts of `ROWS` rows (the last one may have fewer), however long it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as for `read_sheet`, where the row is reached.
    """
    part = None
    with _opened(path) as source:
        for part in source.parts:
            yield part
    if part is None:
        raise ValueError(f"{path} should have rows of molecules; it has none")


def spelled(name: str, names: Iterable[str]) -> str:
    """The one column whose name differs from `name` in case alone; `name` if none or several do.

    >>> spelled("smiles", ["SMILES", "y"]), spelled("smiles", ["SMILES", "Smiles"])
    ('SMILES', 'smiles')
    """
    names = list(names)
    alike = [one for one in names if one.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 and name not in names else name


def spelling_note(name: str, own: str) -> str:
    """A sentence about the column of molecules where its name is spelled otherwise; else empty."""
    return "" if name == own else f"Molecules are those of column {own!r}: there is no {name!r}."


def is_table(name: str) -> bool:
    """Whether a name is that of a table: by its ending, in any case, or since a file is there."""
    if Path(_unpacked_name(name.lower())).suffix in _ENDINGS:
        return True
    return Path(name).exists() and not Path(name).is_dir()


def table_name(path: Path) -> str:
    """Name of a file without the endings that say what it is.

    >>> table_name(Path("assays/herg.csv.gz"))
    'herg'
    """
    name = _unpacked_name(path.name)
    return Path(name).stem if Path(name).suffix.lower() in _ENDINGS else name


def text_of(value: object) -> str | None:
    """A SMILES as anybody hands it over, as text; None for a type that is no text.

    Bytes are UTF-8; None, NaN and pandas' NA are the empty string, an unreadable molecule.
    """
    if isinstance(value, str):
        return str(value)  # of a subclass, such as NumPy's
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else None
    import pandas as pd  # its import takes long, and few values come this far

    return "" if value is pd.NA or value is pd.NaT else None


def arrow() -> ModuleType:
    """The package pyarrow with its module `parquet`; imported once, and not before it is used.

    Raises:
        MissingExtraError: it is not installed.
    """
    require("pyarrow.parquet", extra="parquet")
    return require("pyarrow", extra="parquet")


@dataclass(frozen=True, eq=False)
class _Source:
    """An open file and what is in it."""

    parts: Iterator[Part]
    nameless: frozenset[str] = frozenset()
    unit: str = "line"


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    """A block that reads a table, whose failures are one sentence."""
    if path.is_dir():
        raise ValueError(f"{path} should be {_READABLE}; it is a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path} should be {_READABLE}; no file is there")
    try:
        with ExitStack() as opened:
            file: IO[bytes] = opened.enter_context(path.open("rb"))
            if not file.seekable():  # a pipe, which cannot be read twice
                file = opened.enter_context(_spooled(file))
            yield _recognised(path, _plain(path, file, opened), opened)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be text in UTF-8: {error}; save it as UTF-8") from error
    except (EOFError, zlib.error, lzma.LZMAError, BadZipFile, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # gzip and bz2 give none: their files are damaged, not absent
        raise ValueError(f"{path} should be a packed file, whole: {error}") from error


@contextmanager
def _spooled(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The same bytes in a file on disk."""
    with TemporaryFile() as aside:
        shutil.copyfileobj(file, aside)
        aside.seek(0)
        yield aside


def _plain(path: Path, file: IO[bytes], opened: ExitStack) -> IO[bytes]:
    """What a packed file holds; a plain one as it is."""
    head = _head(file)
    for mark, unpack in _PACKINGS.items():
        if mark.match(head):
            return _plain(path, opened.enter_context(unpack(file)), opened)
    if head.startswith(b"PK\x03\x04"):
        archive = opened.enter_context(ZipFile(file))
        return _plain(path, opened.enter_context(_member(path, archive)), opened)
    return file


def _member(path: Path, archive: ZipFile) -> IO[bytes]:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    for name, what in _WORKBOOKS.items():
        if name in names:
            raise ValueError(f"{path} is {what}; save its sheet as CSV")
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ValueError(
            f"{path} should be a zip archive of one file; it holds "
            f"{listed(names, most=3) or 'none'}"
        )
    try:
        return archive.open(names[0])
    except (RuntimeError, NotImplementedError) as error:  # a password, an odd compression
        raise ValueError(f"{path} cannot be unpacked: {error}") from error


def _head(file: IO[bytes]) -> bytes:
    """First bytes of a file, which stay to be read."""
    head = file.read(_HEAD)
    file.seek(0)
    return head


def _recognised(path: Path, file: IO[bytes], opened: ExitStack) -> _Source:
    head = _head(file)
    if _PARQUET.match(head):
        # it is read from its end, to which gzip cannot go
        whole = opened.enter_context(_spooled(file)) if isinstance(file, gzip.GzipFile) else file
        return _Source(_parquet_parts(path, whole), unit="row")
    for mark, what in _FOREIGN.items():
        if mark.match(head):
            raise ValueError(f"{path} is {what}, which is not read; save it as CSV")
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in head and not _is_text_so_far(head):
        raise ValueError(f"{path} is a binary file of no known kind, not {_READABLE}")
    # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name
    text = opened.enter_context(io.TextIOWrapper(file, encoding=encoding, newline=""))
    start = head.decode(encoding, "ignore")
    ending = Path(_unpacked_name(path.name.lower())).suffix
    if begins_with_a_molfile(start) or ending in (".sdf", ".sd"):
        return _Source(_parts(path, *sdf_table(text, LIST_COLUMNS)))
    if ending in _LISTS or (ending == ".txt" and _begins_with_a_molecule(start)):
        return _Source(_parts(path, [*LIST_COLUMNS], _without_blank_end(_list_rows(text))))
    return _csv_source(path, text, start)


def _is_text_so_far(head: bytes) -> bool:
    try:  # the last character may be cut
        return bool(codecs.getincrementaldecoder("utf-8")().decode(head))
    except UnicodeDecodeError:
        return False


def _begins_with_a_molecule(text: str) -> bool:
    words = text.split(None, 1)
    return bool(words) and parse(words[0]) is not None


def _parts(path: Path, names: list[str], rows: Iterator[_Row]) -> Iterator[Part]:
    while some := list(islice(rows, ROWS)):
        lines, cells = zip(*some, strict=True)
        yield Part(path, lines, dict(zip(names, zip(*cells, strict=True), strict=True)))


def _list_rows(file: TextIO) -> Iterator[_Row]:
    for line, text in enumerate(file, start=1):
        match = _LIST_LINE.match(text.strip())
        yield line, [match[1], match[2].strip()] if match else ["", ""]


def _csv_source(path: Path, text: TextIO, start: str) -> _Source:
    separator, skipped = _separator(start)
    rows = _csv_rows(path, text, separator, skipped)
    header = next((cells for _, cells in rows if _any(cells)), [])
    header = [cell.strip() for cell in header]
    while header and not header[-1]:
        header = header[:-1]  # of trailing separators, which spreadsheets leave
    if not header:
        raise ValueError(f"{path} should have a line of column names and rows below; it is empty")
    names = [name or f"column {k}" for k, name in enumerate(header, start=1)]
    _check_names(path, names)
    nameless = frozenset(name for name, own in zip(names, header, strict=True) if not own)
    rows = _without_blank_end(_checked(path, len(names), rows))
    return _Source(_parts(path, names, rows), nameless)


def _separator(start: str) -> tuple[str, int]:
    """What separates the cells of a text, and how many lines say so and are no rows.

    Those come first by which a column is called smiles, for names and cells may have as many commas
    as each other. Of them, or of all, it is the first of `_SEPARATORS` that cuts the header and the
    row below into equally many cells, more than one; else the one that cuts the header into most.
    """
    if line := re.match(r'"?sep=(.)"?\r?\n', start, re.IGNORECASE):
        return line[1], 1
    cut: dict[str, list[list[str]]] = {}
    for separator in _SEPARATORS:
        rows = csv.reader(io.StringIO(start, newline=""), delimiter=separator)
        try:
            cut[separator] = list(islice(filter(any, rows), 2))
        except csv.Error:
            cut[separator] = []
    cut = {mark: rows for mark, rows in cut.items() if _names_molecules(rows)} or cut
    counts = {separator: [*map(len, rows)] for separator, rows in cut.items()}
    for separator, lengths in counts.items():
        if len(lengths) == 2 and lengths[0] == lengths[1] > 1:
            return separator, 0
    return max(counts, key=lambda separator: counts[separator][:1]), 0


def _names_molecules(rows: Sequence[Sequence[str]]) -> bool:
    """Whether one of several columns is called smiles, in any case."""
    header = [name.strip().casefold() for row in rows[:1] for name in row]
    return len(header) > 1 and "smiles" in header


def _csv_rows(path: Path, file: TextIO, separator: str, skipped: int) -> Iterator[_Row]:
    """All rows, blank ones too."""
    for _ in range(skipped):
        file.readline()
    # for the whole process: its own 131,072 characters refuse a table for a column of notes, and
    # without any limit a quote that is not closed takes all of a long file into memory
    csv.field_size_limit(_LONGEST_CELL)
    reader, line = csv.reader(file, delimiter=separator, strict=True), skipped + 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + skipped + 1
    except csv.Error as error:
        raise ValueError(
            f"{path} should be a table with cells separated by {separator!r}; the row that begins "
            f"in line {line} is not: {error}; look for a quote that is not closed"
        ) from error


def _checked(path: Path, width: int, rows: Iterator[_Row]) -> Iterator[_Row]:
    """Rows of that many cells; a blank line is a row where there is one column, else none.

    A line of separators alone is a row without a molecule, however many they are.
    """
    for line, cells in rows:
        if len(cells) <= 1 < width and not _any(cells):
            continue
        if not _any(cells):
            yield line, [""] * width
        elif len(cells) == width:
            yield line, cells
        elif len(cells) > width and not _any(cells[width:]):
            yield line, cells[:width]
        else:
            more = len(cells) > width
            remedy = (
                "put a cell that holds the separator in quotes, and write decimals with a point"
                if more
                else "add what is missing, or separators for empty cells"
            )
            raise ValueError(
                f"every row of {path} should have {width} cells as its header has; line {line} has "
                f"{len(cells)}: {remedy}"
            )


def _without_blank_end(rows: Iterable[_Row]) -> Iterator[_Row]:
    """Rows up to the last one with text: spreadsheets leave blank ones below a table."""
    blank: list[_Row] = []
    for line, cells in rows:
        if not _any(cells):
            blank.append((line, cells))
            continue
        yield from blank
        yield line, cells
        blank = []


def _any(cells: Sequence[str]) -> bool:
    """Whether a cell has more than spaces."""
    return any(map(str.strip, cells))


def _parquet_parts(path: Path, file: IO[bytes]) -> Iterator[Part]:
    pa = arrow()
    try:
        with pa.parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            _check_names(path, names)
            first = 1
            for batch in table.iter_batches(batch_size=ROWS):
                lines = tuple(range(first, first + len(batch)))
                first += len(batch)
                yield Part(path, lines, dict(zip(names, batch.columns, strict=True)))
    except pa.ArrowException as error:
        message = " ".join(str(error).split())
        raise ValueError(f"{path} should be a Parquet file, whole: {message}") from error


def _texts(cells: Cells) -> list[str] | None:
    """Cells as `Part.texts` has them; None where they are of a type that no text says."""
    if isinstance(cells, Sequence):
        return list(map(str.strip, cells))
    pa = arrow()
    if isinstance(cells.type, pa.BaseExtensionType):
        return _texts(cells.storage)
    if pa.types.is_dictionary(cells.type):
        return _texts(cells.dictionary_decode())
    if pa.types.is_nested(cells.type):
        return None
    if not _foreign_type(cells):
        return [(text_of(cell) or "").strip() for cell in cells.to_pylist()]
    try:
        texts = cells.cast("string").to_pylist()
    except pa.ArrowException:  # a type without a text, or a time in a zone that is not known
        return None
    return ["" if text in (None, "nan") else text for text in texts]  # nan is NaN of a number


def _foreign_type(cells: Cells) -> str:
    """The type of cells that hold no text or bytes but numbers, lists, ...; else empty."""
    if isinstance(cells, Sequence):
        return ""
    return "" if _is_text(cells.type) else str(cells.type)


def _is_text(kind: "pa.DataType") -> bool:
    pa = arrow()
    if isinstance(kind, pa.BaseExtensionType):
        return _is_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    texts = (pa.string(), pa.large_string(), pa.string_view())
    binaries = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1))
    return kind.id in {text.id for text in (*texts, *binaries)} or pa.types.is_null(kind)


def _unknown(
    path: Path, name: str, names: Iterable[str], *, option: str | None = None
) -> ValueError:
    names = list(names)
    near = get_close_matches(name.casefold(), [one.casefold() for one in names], n=1)
    meant = " or ".join(repr(one) for one in names if one.casefold() in near)
    hint = f"did you mean {meant}? " if meant else ""
    remedy = f"; name one of these by {how_to_give(option)}" if option else ""
    shown = listed(names, most=SHOWN)
    return ValueError(f"{path} has no column {name!r}; {hint}it has: {shown}{remedy}")


def _mistyped(path: Path, name: str, kind: str, should: str) -> ValueError:
    return ValueError(f"column {name!r} of {path} should {should}; it is of type {kind}")


def _check_names(path: Path, header: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise ValueError(
            f"column names of {path} should differ; repeated: {', '.join(repeated)}; "
            "rename or delete one of each"
        )


def _unpacked_name(name: str) -> str:
    for ending in _PACKED:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
