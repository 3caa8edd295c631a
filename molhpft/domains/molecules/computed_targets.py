"""Pretraining targets that are computed from structure: descriptors and counts of substructures.

They need no labels, and there are thousands of them for each of a million molecules. So they are
computed once, shard by shard, kept in the cache folder and mapped into memory from there: only
those of the molecules of a batch are ever made numbers to learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import accumulate
from math import nan
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from torch import Tensor

from molhpft.core.scale import Scale
from molhpft.domains.molecules.count_fingerprints import substructure_counter, substructure_counts
from molhpft.domains.molecules.smiles import cached_rows, parse_flagged, reading_digest

Kind = Literal["descriptors", "fragments", "morgan", "atom_pairs", "torsions"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CPU = torch.device("cpu")
SHARD = 65_536
"""Molecules whose targets lie in one file of the cache."""

COMPUTED_VERSION = 1
"""Raised with every change of what is computed below."""

_SLOW = ("qed", "SPS", "Ipc", "AvgIpc", "BCUT2D_", "FpDensity")
_FRAGMENT = "fr_"
_TAIL = 0.01
_SAMPLE = 100_000  # training molecules from which statistics of targets are taken
_LENGTHS = {"morgan": 1024, "atom_pairs": 512, "torsions": 512}
_MOST = 255  # that is counted


@dataclass(frozen=True, eq=False)
class Raw:
    """What RDKit computes for each molecule, (n, k), shard by shard.

    Attributes:
        shards: of at most `SHARD` molecules each; float32 (m, k) or uint8 counts.
        names: (k,).
    """

    shards: tuple[Tensor, ...]
    names: tuple[str, ...]

    @cached_property
    def offsets(self) -> Tensor:
        """First row of each shard, and n."""
        return torch.tensor([0, *accumulate(map(len, self.shards))])

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Values of molecules by row number, (m, k)."""
        values = self.shards[0].new_empty(len(rows), len(self.names))
        shard = torch.bucketize(rows, self.offsets[1:], right=True)
        within = rows - self.offsets[shard]
        for k in torch.unique(shard).tolist():
            here = (shard == k).nonzero().flatten()
            values[here] = self.shards[k][within[here]]
        return values


@dataclass(frozen=True, eq=False)
class Scaled:
    """Computed values on the scale on which they are learned.

    Descriptors have their tails cut off and are in standard deviations; a count is log(1 + count),
    in what is the root mean variance of all counts of its kind. Statistics are those of training
    molecules.

    Attributes:
        raw: the values.
        columns: which of its columns differ between training molecules, int64 (t,).
        scale: of these, float64.
    """

    raw: Raw
    columns: Tensor
    scale: Scale

    @property
    def names(self) -> tuple[str, ...]:
        """Of the targets, (t,)."""
        return tuple(self.raw.names[k] for k in self.columns.tolist())

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Targets of molecules by row number, float32 (m, t); NaN where a value is not finite."""
        return self.scale(_comparable(self.raw[rows][:, self.columns])).float()


def computed_targets(kind: Kind, sources: Sequence[Sequence[str]], train: Tensor) -> Scaled:
    """Targets of one kind, computed now or read from the cache of an earlier time.

    "descriptors" are all of RDKit's `Descriptors.descList` but the slow ones (a dozen that take a
    third of the time) and "fragments", its counts of functional groups (`fr_`). "morgan" (radius
    2), "atom_pairs" and "torsions" count substructures hashed to a fixed length. Descriptors that
    are constant between their 1st and 99th percentile, and counts that are constant, are left out.

    Args:
        kind: what to compute.
        sources: SMILES of each source, n in all; each is cached by itself.
        train: row numbers of the training molecules (k,), counted through all sources; where there
            are more, a hundred thousand of them, evenly, give the statistics.

    Raises:
        ValueError: nothing differs between training molecules.
    """
    raw = _raw(kind, sources)
    sample = train[torch.linspace(0, len(train) - 1, min(_SAMPLE, len(train))).long()]
    columns = [_statistics(kind, column) for column in raw[sample].T]
    varying = [k for k, column in enumerate(columns) if column is not None]
    if not varying:
        raise ValueError(
            f"{kind} should differ between the {len(train):,} training molecules; none does: give "
            "more molecules, written so that RDKit reads them"
        )
    low, high, mean, std = torch.tensor(
        [columns[k] for k in varying], dtype=torch.float64
    ).T.contiguous()
    if kind != "descriptors":
        std = std.square().mean().sqrt().expand_as(std).clone()
    return Scaled(raw, torch.tensor(varying), Scale(low, high, mean, std))


@dataclass(frozen=True, eq=False)
class Labels:
    """Measured labels of a run of molecules; all others have none.

    Attributes:
        values: (m, t), NaN where unmeasured.
        start: row number of the first of the m molecules.
        names: (t,).
    """

    values: Tensor
    start: int
    names: tuple[str, ...]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Labels of molecules by row number, float32 (k, t)."""
        own = rows - self.start
        inside = (own >= 0) & (own < len(self.values))
        labels = torch.full((len(rows), self.values.shape[1]), torch.nan)
        labels[inside] = self.values[own[inside]].float()
        return labels


@dataclass(frozen=True, eq=False)
class TargetColumns:
    """Targets of several kinds side by side, made when rows are asked for.

    Attributes:
        parts: what each gives its columns by row number.
        device: on which the targets are put.
    """

    parts: tuple[Labels | Scaled, ...]
    device: torch.device = CPU

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns, (t,)."""
        return tuple(name for part in self.parts for name in part.names)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Targets of molecules by row number, float32 (k, t)."""
        rows = rows.cpu()
        return torch.cat([part[rows] for part in self.parts], 1).to(self.device, non_blocking=True)

    def to(self, device: torch.device | str) -> "TargetColumns":
        """The same targets, to be put on `device`."""
        return replace(self, device=torch.device(device))


def descriptor_targets(smiles: Sequence[str], train: Tensor) -> tuple[Tensor, list[str]]:
    """All descriptors of molecules as targets, float32 (n, t), and their names (t,).

    A target is NaN, missing, where the descriptor is not finite, and all of a molecule's are where
    RDKit does not read it strictly: descriptors of impossible valences mean nothing.

    Args:
        smiles: (n,).
        train: row numbers of the training split (k,).

    Raises:
        ValueError: no descriptor differs between training molecules.
    """
    targets = computed_targets("descriptors", [smiles], train)
    return targets[torch.arange(len(smiles))], list(targets.names)


def _raw(kind: Kind, sources: Sequence[Sequence[str]]) -> Raw:
    """Values of all molecules, of which none are in memory that are not looked at."""
    parts = [
        smiles[k : k + SHARD] for smiles in sources for k in range(0, max(len(smiles), 1), SHARD)
    ]
    for part in parts[1:]:  # what has just been computed fills memory, what is read is mapped
        _shard(kind, part)
    return Raw(tuple(_shard(kind, part) for part in parts), _names(kind))


def _shard(kind: Kind, smiles: Sequence[str]) -> Tensor:
    key = f"{kind}/{reading_digest(smiles, COMPUTED_VERSION)}"  # raw values: splits come and go
    compute, doing = partial(_ROWS[kind], kind), f"computing {kind.replace('_', ' ')}"
    return torch.from_numpy(cached_rows(key, "values", smiles, compute, doing))


def _comparable(values: Tensor) -> Tensor:
    """Descriptors, or logarithms of counts, in float64; NaN where not finite."""
    if values.dtype == torch.uint8:
        return _LOGARITHMS[values.long()]
    return torch.where(values.isfinite(), values, torch.nan).double()


_LOGARITHMS = torch.arange(_MOST + 1, dtype=torch.float64).log1p()


def _statistics(kind: Kind, column: Tensor) -> tuple[float, float, float, float] | None:
    """Lowest and highest value, mean and standard deviation; None where nothing varies.

    One column at a time: `Tensor.quantile` takes no more than 16 million numbers.
    """
    measured = _comparable(column)
    measured = measured[~measured.isnan()]
    if not len(measured):
        return None
    low, high = measured.aminmax()
    if kind == "descriptors":
        ends = torch.tensor([_TAIL, 1 - _TAIL], dtype=measured.dtype)
        low, high = measured.quantile(ends)
    if low >= high:
        return None
    std, mean = torch.std_mean(measured.clamp(low, high))
    return low.item(), high.item(), mean.item(), std.item()


def _names(kind: Kind) -> tuple[str, ...]:
    if kind in ("descriptors", "fragments"):
        return tuple(_functions(kind))
    return tuple(f"{kind} {k}" for k in range(_LENGTHS[kind]))


@cache
def _functions(kind: str) -> dict[str, Callable[[Chem.Mol], float]]:
    from rdkit.Chem import Descriptors  # a tenth of a second, and only here

    wanted = kind == "fragments"
    return {
        name: function
        for name, function in Descriptors.descList
        if name.startswith(_FRAGMENT) == wanted and not name.startswith(_SLOW)
    }


def _descriptor_rows(kind: Kind, smiles: Sequence[str]) -> NDArray[np.float32]:
    with rdBase.BlockLogs(), np.errstate(over="ignore"):
        rows = [_descriptors_of(string) for string in smiles]
        return np.array(rows, dtype=np.float64).astype(np.float32)


def _descriptors_of(smiles: str) -> list[float]:
    functions = _functions("descriptors").values()
    mol, invalid_valence = parse_flagged(smiles)
    if mol is None or invalid_valence:
        return [nan] * len(functions)
    return [_value(function, mol) for function in functions]


def _value(function: Callable[[Chem.Mol], float], mol: Chem.Mol) -> float:
    try:
        return float(function(mol))
    # what descriptors raise for molecules that they are not defined for
    except (ArithmeticError, LookupError, ValueError, RuntimeError):
        return nan


def _count_rows(kind: Kind, smiles: Sequence[str]) -> NDArray[np.uint8]:
    return substructure_counts(_counter(kind), smiles, columns=len(_names(kind)))


def _counter(kind: Kind) -> Callable[[Chem.Mol], Any]:
    """What counts the substructures of a molecule, (k,)."""
    if kind == "morgan" or kind == "atom_pairs" or kind == "torsions":
        return substructure_counter(kind, _LENGTHS[kind])
    functions = _functions(kind).values()
    return lambda mol: [function(mol) for function in functions]


_ROWS: dict[Kind, Callable[[Kind, Sequence[str]], NDArray[Any]]] = {
    **dict.fromkeys(KINDS, _count_rows),
    "descriptors": _descriptor_rows,
}
