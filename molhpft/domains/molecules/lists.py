"""Molecules without labels: a plain list of SMILES, or one column of a table."""

import gzip
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from molhpft.domains.molecules.sheets import read_sheet

_TABLES = (".csv", ".csv.gz")
_LISTS = (".smi", ".smi.gz", ".txt", ".txt.gz")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmilesList:
    """Molecules of a file, in its order.

    Attributes:
        path: of the file.
        smiles: (n,), those that cannot be read too.
        lines: (n,), the line of the file where each stands.
    """

    path: Path
    smiles: tuple[str, ...]
    lines: tuple[int, ...]

    @property
    def name(self) -> str:
        """File name without its endings."""
        return self.path.name.removesuffix(".gz").rpartition(".")[0]


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its ending."""
    return path.name.endswith(_TABLES)


def read_list(path: Path, *, smiles_column: str | None = None) -> SmilesList:
    """SMILES of a file in UTF-8.

    Args:
        path: `.smi` or `.txt` with one SMILES a line, what follows a space (a name) left out, or
            `.csv`; each may be gzipped (`.gz`).
        smiles_column: name of the column with the molecules, "smiles" by default; for tables only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such list or table; the message says why.
    """
    if is_table(path):
        sheet = read_sheet(path)
        return SmilesList(path, sheet.column(smiles_column or "smiles"), sheet.lines)
    if not path.name.endswith(_LISTS):
        known = ", ".join((*_LISTS, *_TABLES))
        raise ValueError(f"{path} should be a list of SMILES or a table, by its ending: {known}")
    if smiles_column is not None:
        raise ValueError(
            f"smiles_column is for tables, got {smiles_column!r} for {path}: leave it out"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path} should be a file with one SMILES a line; none is there")
    rows = [(line, cells[0]) for line, cells in enumerate(_cells(path), start=1) if cells]
    if not rows:
        raise ValueError(f"{path} should have one SMILES a line; it is empty")
    lines, smiles = zip(*rows, strict=True)
    return SmilesList(path, smiles, lines)


def warn_of_unreadable(path: Path, lines: Sequence[int], readable: Tensor) -> None:
    """Log one warning that names the lines of molecules that cannot be read, if there are any.

    Args:
        path: of the file.
        lines: (n,), the line of each molecule.
        readable: bool (n,).
    """
    wrong = [line for line, ok in zip(lines, readable.tolist(), strict=True) if not ok]
    if wrong:
        _log.warning(
            "%d of %d molecules in %s cannot be read and enter no split; lines: %s%s",
            len(wrong),
            len(lines),
            path,
            ", ".join(map(str, wrong[:10])),
            ", ..." if len(wrong) > 10 else "",
        )


def _cells(path: Path) -> list[list[str]]:
    """What stands on each line between spaces."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        # utf-8-sig: editors on Windows put a byte-order mark in front of the first molecule
        with opened(path, "rt", encoding="utf-8-sig") as file:
            return [line.split() for line in file]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be text in UTF-8: {error}; save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} should be a gzipped list of SMILES: {error}") from error
