"""OGB's own files: tables of numbers, and the molecules with their labels, which are cached."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from molhpft.domains.cache import cached_tensors
from molhpft.domains.texts import joined, separate

_VERSION = 1  # raised with every change of what is cached


@dataclass(frozen=True)
class Table:
    """Molecules of a data set, in the order of its file.

    Attributes:
        smiles: (n,).
        targets: (n, t), NaN where unmeasured; float16 for classes, float32 for numbers.
        describes: (t,), what each target is called.
    """

    smiles: list[str]
    targets: Tensor
    describes: list[str]


def read_molecules(path: Path, *, tasks: int, classes: bool) -> Table:
    """A `mapping/mol.csv.gz`; parsed once, then read from the cache.

    Args:
        path: of the file: a column a target, then SMILES and a molecule id.
        tasks: number of targets it should have.
        classes: whether targets are 0 and 1, which are kept in half precision without loss.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such table.
    """
    *describes, smiles, _ = map(str, read_table(path, nrows=0).columns)
    if len(describes) != tasks:
        raise ValueError(
            f"this data set should have {tasks} tasks; {path} has {len(describes)} columns before "
            "its last two, SMILES and molecule id"
        )

    def parse() -> dict[str, Tensor]:
        types = {**dict.fromkeys(describes, np.float32), smiles: str}
        # pandas would read the text "NA" as missing, in the SMILES column too
        missing = {column: ["", "nan"] for column in describes}
        options = {"dtype": types, "keep_default_na": False, "na_values": missing}
        table = read_table(path, usecols=[*describes, smiles], **options)
        targets = torch.from_numpy(table[describes].to_numpy(dtype=np.float32, copy=True))
        return {"targets": targets.half() if classes else targets, **joined(table[smiles].tolist())}

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = cached_tensors(f"ogb/{_VERSION}-{classes:d}-{digest}", parse)
    return Table(separate(found), found["targets"], describes)


def read_numbers(path: Path) -> Tensor:
    """A file with one whole number a line, int64 (n,).

    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds something else.
    """
    table = read_table(path, header=None, dtype=np.int64)
    return torch.from_numpy(table[0].to_numpy(copy=True))


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A CSV file by pandas.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such table.
    """
    try:
        table: pd.DataFrame = pd.read_csv(path, **options)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is absent: a folder in OGB's layout has mapping, raw and split; "
            "delete it to fetch the data set again"
        ) from error
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} should be a table as OGB writes it, but: {error}; "
            "delete its data set to fetch it again"
        ) from error
    return table
