"""The `ogbg-mol*` data sets, read straight from OGB's own files.

OGB's loader needs an older PyTorch and asks questions at the keyboard; its files are simple.
`mapping/mol.csv.gz` has labels and SMILES, `split/scaffold/*.csv.gz` row numbers, and
`raw/num-*-list.csv.gz` the atoms and bonds of every molecule, which our graphs are held against.

OGB's own files: tables of numbers, and the molecules with their labels, which are cached.
"""

import gzip
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Objective, Squared
from molhpft.core.ranges import Seed
from molhpft.domains.files import (
    cached_tensors,
    data_folder,
    digest,
    fetch_archive,
    texts_from_tensors,
    texts_to_tensors,
)
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.splits import NAMES, Split, check_choice, chosen_split

_VERSION = 1  # raised with every change of what is cached


@dataclass(frozen=True)
class Table:
    """Molecules of a data set, in the order of its file.

    Attributes:
        smiles: (n,).
        targets: (n, t), NaN where unmeasured; float16 for classes, float32 for numbers.
        target_names: (t,), what each target is called.
    """

    smiles: list[str]
    targets: Tensor
    target_names: list[str]


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
    *target_names, smiles, _ = map(str, read_table(path, nrows=0).columns)
    if len(target_names) != tasks:
        raise ValueError(
            f"this data set should have {tasks} tasks; {path} has {len(target_names)} columns "
            "before its last two, SMILES and molecule id"
        )

    def parse() -> dict[str, Tensor]:
        types = {**dict.fromkeys(target_names, np.float32), smiles: str}
        # pandas would read the text "NA" as missing, in the SMILES column too
        missing = {column: ["", "nan"] for column in target_names}
        options = {"dtype": types, "keep_default_na": False, "na_values": missing}
        table = read_table(path, usecols=[*target_names, smiles], **options)
        targets = torch.from_numpy(table[target_names].to_numpy(dtype=np.float32, copy=True))
        return {
            "targets": targets.half() if classes else targets,
            **texts_to_tensors(table[smiles].tolist()),
        }

    found = cached_tensors(f"ogb/{_VERSION}-{classes:d}-{digest(path)}", parse)
    return Table(texts_from_tensors(found), found["targets"], target_names)


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


@dataclass(frozen=True)
class _Record:
    tasks: int
    objective: Objective
    top: str
    url: str


def ogb_names() -> list[str]:
    """Names of the data sets, as OGB's list has them."""
    return list(_records())


def ogb_folder(name: str) -> Path:
    """Where a data set lies or will lie: `ogbg_mol...` in the data folder.

    Raises:
        ValueError: no data set has that name.
    """
    _record(name)
    return data_folder() / name.replace("-", "_")


def ogb_task(name: str, *, split: Split = "scaffold", split_seed: Seed | None = None) -> Task:
    """An OGB data set with its labels and metric; fetched where it is absent.

    Regression targets keep their units.

    Args:
        name: one of `ogb_names()`.
        split: OGB's scaffold split; at random, 8 : 1 : 1; or random_and_scaffold, where OGB's test
            molecules are a fourth split, `ood`, and the others are dealt at random.
        split_seed: draws the random splits, 0 by default; for those only.

    Raises:
        ValueError: no data set has that name, its files contradict each other or our graphs, or
            the options contradict each other.
        FileNotFoundError: the data set is absent and cannot be fetched, or lacks a file.
    """
    check_choice(split, split_seed, get_args(Split))
    record, folder = _record(name), ogb_folder(name)
    if not folder.is_dir():
        _fetch(name, record, folder)
    path, classes = folder / "mapping" / "mol.csv.gz", isinstance(record.objective, Multilabel)
    table = read_molecules(path, tasks=record.tasks, classes=classes)
    smiles = table.smiles
    _check_counts(folder, smiles)
    return molecule_task(
        name,
        smiles=smiles,
        targets=table.targets,
        target_names=table.target_names,
        splits=chosen_split(
            split,
            split_seed,
            rows=torch.arange(len(smiles)),
            scaffold=lambda: _scaffold_split(folder, len(smiles)),
        ),
        objective=record.objective,
        standardise=not classes,
    )


@cache
def _records() -> dict[str, _Record]:
    with files("ogb").joinpath("graphproppred", "master.csv").open() as file:
        master = pd.read_csv(file, index_col=0, dtype=str)
    names = [name for name in master.columns if name.startswith("ogbg-mol")]
    return {name: _read_record(master[name]) for name in names}


def _read_record(column: "pd.Series[str]") -> _Record:
    objectives: dict[tuple[str, str], Objective] = {
        ("binary classification", "rocauc"): Multilabel(metric="rocauc"),
        ("binary classification", "ap"): Multilabel(metric="ap"),
        ("regression", "rmse"): Squared(),
    }
    return _Record(
        tasks=int(column["num tasks"]),
        objective=objectives[column["task type"], column["eval metric"]],
        top=column["download_name"],
        url=column["url"],
    )


def _record(name: str) -> _Record:
    if name not in _records():
        raise ValueError(f"no data set named {name!r}; there are: {', '.join(ogb_names())}")
    return _records()[name]


def _fetch(name: str, record: _Record, folder: Path) -> None:
    try:
        fetch_archive(record.url, folder, expected_top=record.top)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"data set {name} is not at {folder} and could not be fetched ({error}); put the "
            f"mapping, raw and split folders of {record.url} there, or set MOLHPFT_DATA to the "
            f"folder that holds {folder.name}"
        ) from error


def _scaffold_split(folder: Path, n: int) -> dict[str, Tensor]:
    splits = {
        name: read_numbers(folder / "split" / "scaffold" / f"{name}.csv.gz") for name in NAMES
    }
    if not torch.equal(torch.cat(list(splits.values())).sort().values, torch.arange(n)):
        sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
        raise ValueError(
            f"the splits in {folder} should hold each of its {n:,} molecules once; "
            f"their sizes are {sizes}: delete the folder to fetch it again"
        )
    return splits


def _check_counts(folder: Path, smiles: list[str]) -> None:
    store = load_or_pack(smiles)
    offsets = {"node": store.atom_offsets, "edge": store.bond_offsets}
    for kind, ours in offsets.items():
        path = folder / "raw" / f"num-{kind}-list.csv.gz"
        theirs = read_numbers(path)
        if len(theirs) != len(smiles):
            raise ValueError(
                f"{path} should have a row for each of {len(smiles):,} molecules, "
                f"it has {len(theirs):,}: delete {folder} to fetch it again"
            )
        wrong = (ours.diff() != theirs).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(_disagreement(path, wrong, smiles, ours.diff(), theirs))


def _disagreement(
    path: Path, wrong: list[int], smiles: list[str], ours: Tensor, theirs: Tensor
) -> str:
    row = wrong[0]
    return (
        f"graphs should have as many atoms and bonds as OGB's; row {row} ({smiles[row]}) has "
        f"{ours[row]}, and {theirs[row]} in {path} ({len(wrong):,} such molecules)"
    )
