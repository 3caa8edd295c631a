"""SDF files as rows: the SMILES of every record, its title and its data items."""

import re
from collections.abc import Iterator
from typing import TextIO

from rdkit import Chem, rdBase

from molhpft.domains.molecules.featurize import kept_valences

_END = "$$$$"
_ITEM = re.compile(r">.*<(.+)>")
_COUNTS = re.compile(r"(?:[^\n]*\n){3}[^\n]*V[23]000")


def looks_like_sdf(text: str) -> bool:
    """Whether a text begins as a record does: its fourth line says V2000 or V3000."""
    return _COUNTS.match(text) is not None


def item_names(file: TextIO) -> list[str]:
    """Names of the data items of all records, in the order in which they come up."""
    items = (_ITEM.match(line) for line in file if line.startswith(">"))
    return list(dict.fromkeys(item[1] for item in items if item is not None))


def records(file: TextIO) -> Iterator[tuple[int, str, str, dict[str, str]]]:
    """Every record: its first line's number, SMILES, title and data items.

    The SMILES is empty where RDKit cannot read the structure; what it refuses for its valences
    alone is kept, as in `featurize.parse`.
    """
    lines: list[str] = []
    first = 1
    for number, line in enumerate(file, start=1):
        lines.append(line.rstrip("\r\n"))
        if lines[-1].startswith(_END):
            yield first, *_record(lines)
            lines, first = [], number + 1
    if any(map(str.strip, lines)):  # the last record may end with the file
        yield first, *_record(lines)


def _record(lines: list[str]) -> tuple[str, str, dict[str, str]]:
    items: dict[str, str] = {}
    starts = [k for k, line in enumerate(lines) if line.startswith(">")]
    for start in starts:
        if (item := _ITEM.match(lines[start])) is not None:
            rest = lines[start + 1 :]
            # an item ends at an empty line
            ends = [k for k, line in enumerate(rest) if not line.strip() or line.startswith(_END)]
            items[item[1]] = "\n".join(rest[: ends[0] if ends else None]).strip()
    block = "\n".join(lines[: starts[0] if starts else None])
    return _smiles(block), lines[0].strip(), items


def _smiles(block: str) -> str:
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromMolBlock(block)
            if mol is None:
                mol = kept_valences(Chem.MolFromMolBlock(block, sanitize=False))
            return "" if mol is None else str(Chem.MolToSmiles(mol))
        except (ValueError, RuntimeError):
            return ""
