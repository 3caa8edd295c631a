"""The `ogbg-mol*` data sets, read straight from OGB's own files.

OGB's loader needs an older PyTorch and asks questions at the keyboard; its files are simple.
`mapping/mol.csv.gz` has labels and SMILES, `split/scaffold/*.csv.gz` row numbers, and
`raw/num-*-list.csv.gz` the atoms and bonds of every molecule, which our graphs are held against.
"""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import Tensor

from molhpft.core.annotations import Seed
from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Objective, Squared
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
from molhpft.domains.molecules.splits import NAMES, Split, check_choice, molecule_splits

if TYPE_CHECKING:
    import pandas as pd

_VERSION = 1  # raised with every change of what is cached
_ROC_AUC, _AVERAGE_PRECISION = Multilabel(metric="rocauc"), Multilabel(metric="ap")
_URL = "http://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download"


@dataclass(frozen=True)
class _DataSet:
    """What OGB's list of data sets (`graphproppred/master.csv`) says of one.

    Attributes:
        archive: name of the zip file and of the folder in it.
        targets: number of targets.
        objective: with OGB's metric.
    """

    archive: str
    targets: int = 1
    objective: Objective = _ROC_AUC

    @property
    def url(self) -> str:
        """Where OGB offers it."""
        return f"{_URL}/{self.archive}.zip"


_DATA_SETS = {
    "ogbg-molbace": _DataSet("bace"),
    "ogbg-molbbbp": _DataSet("bbbp"),
    "ogbg-molclintox": _DataSet("clintox", 2),
    "ogbg-molmuv": _DataSet("muv", 17, _AVERAGE_PRECISION),
    "ogbg-molpcba": _DataSet("pcba", 128, _AVERAGE_PRECISION),
    "ogbg-molsider": _DataSet("sider", 27),
    "ogbg-moltox21": _DataSet("tox21", 12),
    "ogbg-moltoxcast": _DataSet("toxcast", 617),
    "ogbg-molhiv": _DataSet("hiv"),
    "ogbg-molesol": _DataSet("esol", 1, Squared()),
    "ogbg-molfreesolv": _DataSet("freesolv", 1, Squared()),
    "ogbg-mollipo": _DataSet("lipophilicity", 1, Squared()),
    "ogbg-molchembl": _DataSet("chembl", 1310),
}


def ogb_names() -> list[str]:
    """Names of the data sets, in the order of OGB's list."""
    return list(_DATA_SETS)


def ogb_folder(name: str) -> Path:
    """Where a data set lies or will lie: `ogbg_mol...` in the data folder.

    Raises:
        ValueError: no data set has that name.
    """
    _data_set(name)
    return data_folder() / name.replace("-", "_")


def ogb_address(name: str) -> str:
    """Where OGB publishes a data set: a zip file with its folders mapping, raw and split.

    Raises:
        ValueError: no data set has that name.
    """
    return _data_set(name).url


def fetched(name: str) -> Path:
    """The folder of a data set, `ogb_folder`, after it was fetched where it was absent.

    Raises:
        ValueError: no data set has that name.
        FileNotFoundError: it is absent and cannot be fetched.
    """
    data_set, folder = _data_set(name), ogb_folder(name)
    if not folder.is_dir():
        try:
            fetch_archive(data_set.url, folder, expected_top=data_set.archive)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"data set {name} is not at {folder} and could not be fetched ({error}); put the "
                f"mapping, raw and split folders of {data_set.url} there, or set MOLHPFT_DATA to "
                f"the folder that holds {folder.name}"
            ) from error
    return folder


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
    data_set, folder = _data_set(name), fetched(name)
    smiles, targets, target_names = _read_molecules(folder / "mapping" / "mol.csv.gz", data_set)
    _check_counts(folder, smiles)
    return molecule_task(
        name,
        smiles=smiles,
        targets=targets,
        target_names=target_names,
        splits=molecule_splits(
            smiles,
            split,
            split_seed,
            rows=torch.arange(len(smiles)),
            scaffold=lambda: _scaffold_split(folder, len(smiles)),
        ),
        objective=data_set.objective,
        standardise=isinstance(data_set.objective, Squared),
    )


def _data_set(name: str) -> _DataSet:
    if name not in _DATA_SETS:
        raise ValueError(f"no data set named {name!r}; there are: {', '.join(ogb_names())}")
    return _DATA_SETS[name]


def _read_molecules(path: Path, data_set: _DataSet) -> tuple[list[str], Tensor, list[str]]:
    """SMILES (n,), targets (n, t) and their names (t,); parsed once, then read from the cache."""
    *names, smiles, _ = map(str, _read_csv(path, nrows=0).columns)
    if len(names) != data_set.targets:
        raise ValueError(
            f"this data set should have {data_set.targets} tasks; {path} has {len(names)} columns "
            "before its last two, SMILES and molecule id"
        )
    classes = isinstance(data_set.objective, Multilabel)

    def parse() -> dict[str, Tensor]:
        types = {**dict.fromkeys(names, np.float32), smiles: str}
        # pandas would read the text "NA" as missing, in the SMILES column too
        missing = {column: ["", "nan"] for column in names}
        options = {"dtype": types, "keep_default_na": False, "na_values": missing}
        table = _read_csv(path, usecols=[*names, smiles], **options)
        targets = torch.from_numpy(table[names].to_numpy(dtype=np.float32, copy=True))
        texts = texts_to_tensors(table[smiles].tolist())
        # 0 and 1 lose nothing in half precision
        return {"targets": targets.half() if classes else targets, **texts}

    tensors = cached_tensors(f"ogb/{_VERSION}-{classes:d}-{digest(path)}", parse)
    return texts_from_tensors(tensors), tensors["targets"], names


def _scaffold_split(folder: Path, n: int) -> dict[str, Tensor]:
    splits = {
        name: _read_numbers(folder / "split" / "scaffold" / f"{name}.csv.gz") for name in NAMES
    }
    if not torch.equal(torch.cat(list(splits.values())).sort().values, torch.arange(n)):
        sizes = ", ".join(f"{name} {len(rows):,}" for name, rows in splits.items())
        raise ValueError(
            f"the splits in {folder} should hold each of its {n:,} molecules once; "
            f"their sizes are {sizes}: delete the folder to fetch it again"
        )
    return splits


def _check_counts(folder: Path, smiles: Sequence[str]) -> None:
    """Refuse graphs of other sizes than OGB's."""
    store = load_or_pack(smiles)
    for kind, offsets in {"node": store.atom_offsets, "edge": store.bond_offsets}.items():
        path = folder / "raw" / f"num-{kind}-list.csv.gz"
        ours, theirs = offsets.diff(), _read_numbers(path)
        if len(theirs) != len(smiles):
            raise ValueError(
                f"{path} should have a row for each of {len(smiles):,} molecules, "
                f"it has {len(theirs):,}: delete {folder} to fetch it again"
            )
        wrong = (ours != theirs).nonzero().flatten().tolist()
        for row in wrong[:1]:
            raise ValueError(
                f"graphs should have as many atoms and bonds as OGB's; row {row} ({smiles[row]}) "
                f"has {ours[row]}, and {theirs[row]} in {path} ({len(wrong):,} such molecules)"
            )


def _read_numbers(path: Path) -> Tensor:
    """A file with one whole number a line, int64 (n,)."""
    table = _read_csv(path, header=None, dtype=np.int64)
    return torch.from_numpy(table[0].to_numpy(copy=True))


def _read_csv(path: Path, **options: Any) -> "pd.DataFrame":
    import pandas as pd  # takes long, and only OGB's files need it

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
