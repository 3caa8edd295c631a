"""RDKit descriptors as targets: what anybody can pretrain on, since they need no labels."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import compress
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors
from torch import Tensor

from molhpft.domains.cache import cached_tensors
from molhpft.domains.molecules.featurize import parse_marked
from molhpft.domains.molecules.graphs import digest
from molhpft.domains.parallel import parallel_map

_VERSION = 1  # raised with every change of what is computed below
_SLOW = ("qed", "SPS", "Ipc", "AvgIpc", "BCUT2D_", "FpDensity")
_TAIL = 0.01


def descriptor_targets(smiles: Sequence[str], train: Tensor) -> tuple[Tensor, list[str]]:
    """Descriptors of molecules in standard deviations, for a regression.

    Taken are RDKit's `Descriptors.descList` without the slow ones and without fragment counts
    (`fr_`), which are close to structural alerts; about 3 ms a molecule. Heavy tails are cut off at
    the 1st and 99th percentile; descriptors that are then constant are left out. Percentiles, means
    and deviations are those of the measured values of the training split.

    Args:
        smiles: (n,).
        train: row numbers of the training split (k,).

    Returns:
        targets, float32 (n, t), and names of the descriptors (t,). A target is NaN, missing, where
        the descriptor is not finite, and all of a molecule's are where RDKit does not read it
        strictly: descriptors of impossible valences mean nothing.

    Raises:
        ValueError: no descriptor differs between training molecules.
    """
    targets, kept = _standardised(_cached_table(smiles), train)
    if not kept.any():
        raise ValueError(
            f"descriptors should differ between the {len(train):,} training molecules; none does: "
            "give more molecules, written so that RDKit reads them"
        )
    return targets, list(compress(_functions(), kept.tolist()))


@cache
def _functions() -> dict[str, Callable[[Chem.Mol], float]]:
    return {
        name: function
        for name, function in Descriptors.descList
        if not name.startswith(("fr_", *_SLOW))
    }


def _cached_table(smiles: Sequence[str]) -> Tensor:
    """Raw values: splits come and go, and a large set takes minutes."""
    key = f"descriptors/{_VERSION}-{digest(smiles)}"
    return cached_tensors(key, lambda: {"values": _table(smiles)})["values"]


def _table(smiles: Sequence[str]) -> Tensor:
    parts = parallel_map(_rows, smiles, "computing descriptors")
    return torch.from_numpy(np.concatenate(parts))


def _rows(smiles: Sequence[str]) -> NDArray[np.float32]:
    with rdBase.BlockLogs(), np.errstate(over="ignore"):
        return np.array([_row(string) for string in smiles], dtype=np.float64).astype(np.float32)


def _row(smiles: str) -> list[float]:
    functions = _functions().values()
    mol, dubious = parse_marked(smiles)
    if mol is None or dubious:
        return [nan] * len(functions)
    return [_value(function, mol) for function in functions]


def _value(function: Callable[[Chem.Mol], float], mol: Chem.Mol) -> float:
    try:
        return float(function(mol))
    # what descriptors raise for molecules that they are not defined for
    except (ArithmeticError, LookupError, ValueError, RuntimeError):
        return nan


def _standardised(values: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Columns worth predicting (n, t), in training deviations, and which of all were kept."""
    columns = [_standard(column, train) for column in values.T]
    kept = torch.tensor([column is not None for column in columns])
    found = [column for column in columns if column is not None]
    return torch.stack(found, 1) if found else values[:, :0], kept


def _standard(column: Tensor, train: Tensor) -> Tensor | None:
    """A column (n,) with its tails cut, in training deviations; None without information.

    One at a time: `Tensor.quantile` takes no more than 16 million numbers.
    """
    column = torch.where(column.isfinite(), column, torch.nan).double()
    known = column[train]
    known = known[~known.isnan()]
    if not len(known):
        return None
    low, high = known.quantile(torch.tensor([_TAIL, 1 - _TAIL], dtype=known.dtype))
    if low >= high:
        return None
    spread, centre = torch.std_mean(known.clamp(low, high))
    return ((column.clamp(low, high) - centre) / spread).float()
