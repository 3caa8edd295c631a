"""Molecules that do not exist, as many and as large as those of ogbg-molpcba, in OGB's layout.

OGB's own split and numbers of atoms and bonds; atoms, bonds and labels are drawn.
"""

import gzip
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

TASKS = 128
NAME = "ogbg_molpcba"
SPLITS = ("train", "valid", "test")
_ELEMENTS = "CCCCCCNO"
_SPANS = (5, 4, 3, 2)  # atoms that a ring bond leaps over, the widest that fit
_ROWS = 2_000  # different rows of labels; each molecule draws one


def write(folder: Path, counts: Path, molecules: int | None = None) -> int:
    """A data folder with the first molecules of the data set, all by default.

    Args:
        folder: made if absent.
        counts: folder with `raw/num-*-list.csv.gz` and `split/scaffold/*.csv.gz` of the original.
        molecules: how many.

    Returns:
        the number of molecules.
    """
    sizes = [_numbers(counts / "raw" / f"num-{kind}-list.csv.gz") for kind in ("node", "edge")]
    atoms, bonds = (size[:molecules] for size in sizes)
    place = folder / NAME
    for part in ("mapping", "raw", "split/scaffold"):
        (place / part).mkdir(parents=True, exist_ok=True)
    for kind, size in (("node", atoms), ("edge", bonds)):
        _write_numbers(place / "raw" / f"num-{kind}-list.csv.gz", size)
    for split in SPLITS:
        rows = _numbers(counts / "split" / "scaffold" / f"{split}.csv.gz")
        _write_numbers(place / "split" / "scaffold" / f"{split}.csv.gz", rows[rows < len(atoms)])
    with gzip.open(place / "mapping" / "mol.csv.gz", "wt", compresslevel=1) as file:
        file.writelines(_table(atoms.tolist(), bonds.tolist()))
    return len(atoms)


def smiles(atoms: int, bonds: int, draw: random.Random) -> str:
    """A chain with ring bonds, or several chains, of so many atoms and bonds."""
    rings = bonds - atoms + 1
    if rings < 0:
        singles = -rings
        return ".".join([smiles(atoms - singles, bonds, draw), *("C" for _ in range(singles))])
    parts = [draw.choice(_ELEMENTS) for _ in range(atoms)]
    span = next(span for span in _SPANS if rings <= atoms - span) if rings else 0
    for ring in range(rings):
        begin = ring * (atoms - span) // rings
        for at in (begin, begin + span):
            parts[at] = "C" + parts[at][1:] + str(ring % 10)
    return "".join(parts)


def _table(atoms: list[int], bonds: list[int]) -> Iterator[str]:
    draw = random.Random(0)
    rows = [",".join(draw.choices(("0.0", "1.0", ""), (58, 2, 40), k=TASKS)) for _ in range(_ROWS)]
    yield ",".join([*(f"assay{k}" for k in range(TASKS)), "smiles", "mol_id"]) + "\n"
    for number, size in enumerate(zip(atoms, bonds, strict=True)):
        yield f"{draw.choice(rows)},{smiles(*size, draw)},M{number}\n"


def _numbers(path: Path) -> np.ndarray:
    return pd.read_csv(path, header=None, dtype=np.int64)[0].to_numpy()


def _write_numbers(path: Path, numbers: np.ndarray) -> None:
    pd.Series(numbers).to_csv(path, header=False, index=False)
