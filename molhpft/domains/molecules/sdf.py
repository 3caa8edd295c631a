"""Records of an SD file: molfiles (V2000 and V3000), each with a title and data items."""

import re
from collections.abc import Iterator, Sequence
from typing import TextIO

from rdkit import Chem, rdBase

from molhpft.domains.molecules.smiles import sanitize_leniently

_COUNTS = re.compile(r"(?:[^\n]*\n){3}[^\n]*V[23]000")  # a molfile's fourth line
_ITEM = re.compile(r">.*<(.+)>")
_END = "$$$$"


def begins_with_a_molfile(text: str) -> bool:
    """Whether a file that begins with `text` is an SD file by its fourth line."""
    return bool(_COUNTS.match(text))


def sdf_table(
    file: TextIO, own: Sequence[str]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Columns, and for every record the line where it begins and its cells.

    The columns are the SMILES, the title, and the data items of all records in the order in which
    they come. The SMILES of a structure that RDKit cannot read, and an item that a record lacks,
    are empty.

    Args:
        file: is read twice, and can be sought in.
        own: names of the columns of SMILES and title.
    """
    items = (_ITEM.match(line) for line in file if line.startswith(">"))
    names = list(dict.fromkeys(item[1] for item in items if item is not None))
    file.seek(0)
    shown = [f"{name} (item)" if name in own else name for name in names]
    return [*own, *shown], _rows(file, names)


def _rows(file: TextIO, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    record: list[str] = []
    first = 1
    for number, line in enumerate(file, start=1):
        record.append(line.rstrip("\r\n"))
        if record[-1].startswith(_END):
            yield first, _cells(record, names)
            record, first = [], number + 1
    if any(map(str.strip, record)):  # the last record may end with the file
        yield first, _cells(record, names)


def _cells(lines: list[str], names: Sequence[str]) -> list[str]:
    items: dict[str, str] = {}
    starts = [k for k, line in enumerate(lines) if line.startswith(">")]
    for start in starts:
        if (item := _ITEM.match(lines[start])) is not None:
            rest = lines[start + 1 :]
            # an item ends at an empty line
            ends = [k for k, x in enumerate(rest) if not x.strip() or x.startswith(_END)]
            items[item[1]] = "\n".join(rest[: ends[0] if ends else None]).strip()
    block = "\n".join(lines[: starts[0] if starts else None])
    return [_smiles(block), lines[0].strip(), *(items.get(name, "") for name in names)]


def _smiles(block: str) -> str:
    """SMILES of a structure, read as leniently as `smiles.parse`; empty where RDKit cannot."""
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromMolBlock(block)
            if mol is None:
                mol = sanitize_leniently(Chem.MolFromMolBlock(block, sanitize=False))
            return "" if mol is None else str(Chem.MolToSmiles(mol))
        except (ValueError, RuntimeError):
            return ""
