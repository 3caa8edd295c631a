"""What is known of molecules without training, and how alike it makes two of them.

Counts of substructures, features of a frozen encoder, properties: each is a similarity of its own,
and a kernel model says what it is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from molhpft.core.network import Chain
from molhpft.core.scale import Scale
from molhpft.domains.molecules.count_fingerprints import SUBSTRUCTURES, count_fingerprints
from molhpft.domains.molecules.featurized import Reading
from molhpft.domains.molecules.fingerprint_kernels import gaussian_kernel, minmax_kernel
from molhpft.domains.molecules.graphs import GraphStore
from molhpft.domains.molecules.properties import properties
from molhpft.estimator.frozen import backbone_features

Similarity = Literal["morgan", "atom_pairs", "torsions", "features", "properties"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)

WIDTHS: Mapping[Similarity, float] = {"features": 1.0, "properties": 2.0}
"""Standard deviations of every column that similar molecules may differ by."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Described:
    """What is known of n molecules.

    Attributes:
        columns: (n, k) each: counts sparse, standardised features and scaled properties dense.
    """

    columns: Mapping[Similarity, Any]

    def __len__(self) -> int:
        return next((int(values.shape[0]) for values in self.columns.values()), 0)

    def take(self, rows: NDArray[np.int64]) -> "Described":
        """Some of the molecules."""
        return Described({name: values[rows] for name, values in self.columns.items()})

    def only(self, names: Sequence[Similarity]) -> "Described":
        """Some of what is known of them."""
        return Described({name: self.columns[name] for name in SIMILARITIES if name in names})


@dataclass(frozen=True, eq=False)
class Describer:
    """What describes molecules: as many similarities as `names`.

    Attributes:
        names: of the similarities.
        backbone: of the frozen encoder, standardised at its end; None without "features".
        scale: of properties; None without "properties".
    """

    names: tuple[Similarity, ...]
    backbone: Chain | None = None
    scale: Scale | None = None

    @property
    def further(self) -> tuple[Reading, ...]:
        """What has to be read of molecules beside their graphs and circular neighbourhoods."""
        read: tuple[Reading, ...] = ("atom_pairs", "torsions", "properties")
        return tuple(name for name in read if name in self.names)

    def only(self, names: Sequence[Similarity]) -> "Describer":
        """The describer of some of the similarities."""
        return replace(
            self,
            names=tuple(name for name in self.names if name in names),
            backbone=self.backbone if "features" in names else None,
            scale=self.scale if "properties" in names else None,
        )

    def described(
        self, store: GraphStore, rows: Tensor, columns: Mapping[Reading, NDArray[Any]]
    ) -> Described:
        """Some molecules of a store.

        Args:
            store: molecules.
            rows: of those that are described, int64 (m,).
            columns: what was read of all molecules of the store.
        """
        return Described({name: self._column(name, store, rows, columns) for name in self.names})

    def _column(
        self,
        name: Similarity,
        store: GraphStore,
        rows: Tensor,
        columns: Mapping[Reading, NDArray[Any]],
    ) -> Any:
        if name == "features":
            assert self.backbone is not None
            return backbone_features([self.backbone], store, rows).numpy()
        own = columns[name][rows.numpy()]
        if name == "properties":
            assert self.scale is not None
            return self.scale.filled(torch.from_numpy(own.astype(np.float64))).float().numpy()
        return csr_matrix(own)


def read_columns(names: Sequence[Similarity], smiles: Sequence[str]) -> dict[Reading, Any]:
    """What similarities read of a table's molecules (n,) beside graphs, computed once and cached.

    Counts are sparse, (n, 2048); properties float32, (n, k).
    """
    columns: dict[Reading, Any] = {
        kind: count_fingerprints(kind, smiles) for kind in SUBSTRUCTURES if kind in names
    }
    if "properties" in names:
        columns["properties"] = properties(smiles)
    return columns


def similarity(name: Similarity, queries: Described, references: Described) -> Array:
    """Similarities of m molecules to n references by one of the kernels, (m, n).

    Of counts it is sum(min) / sum(max); of k standardised columns exp(-|a - b|^2 / (2 w^2 k)) with
    w = 1 for features and 2 for properties, so that molecules that differ by w standard deviations
    in each column are still alike.
    """
    a, b = queries.columns[name], references.columns[name]
    if name in SUBSTRUCTURES:
        return minmax_kernel(a, b)
    width = WIDTHS[name]
    return gaussian_kernel(a.astype(np.float64) / width, b.astype(np.float64) / width)
