"""Molecules as counts of substructures, hashed to a fixed number of columns.

How often a neighbourhood occurs tells molecules apart that have the same bits, and models of counts
predict better than models of bits on most tables.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.rdFingerprintGenerator import (
    GetAtomPairGenerator,
    GetMorganGenerator,
    GetTopologicalTorsionGenerator,
)
from scipy.sparse import csr_matrix

from molhpft.domains.molecules.fingerprints import RADIUS, count_rows
from molhpft.domains.molecules.smiles import cached_rows, parse, reading_digest

Substructure = Literal["morgan", "atom_pairs", "torsions"]
SUBSTRUCTURES: tuple[Substructure, ...] = get_args(Substructure)

COLUMNS = 2_048

_VERSION = 1  # raised with every change of what is counted
_GENERATORS: dict[Substructure, Callable[..., Any]] = {
    "morgan": partial(GetMorganGenerator, radius=RADIUS),
    "atom_pairs": GetAtomPairGenerator,
    "torsions": GetTopologicalTorsionGenerator,
}


def count_fingerprints(kind: Substructure, smiles: Sequence[str]) -> csr_matrix:
    """Counts of substructures folded to 2,048 columns, computed once and then cached.

    Args:
        kind: circular neighbourhoods of radius 2 ("morgan"), pairs of atoms with the number of
            bonds between them ("atom_pairs"), or paths of four atoms ("torsions").
        smiles: (n,), read as for graphs, what RDKit refuses for its valences included.

    Returns:
        float32 (n, 2048), at most 255; nothing is counted where a molecule cannot be read.
    """
    key = f"counts/{kind}/{reading_digest(smiles, _VERSION)}"
    counted = partial(substructure_counts, substructure_counter(kind, COLUMNS), columns=COLUMNS)
    counts = cached_rows(key, "counts", smiles, counted, f"counting {kind.replace('_', ' ')}")
    return csr_matrix(counts).astype(np.float32)


def substructure_counter(kind: Substructure, columns: int) -> Callable[[Chem.Mol], Any]:
    """What counts the substructures of a molecule, hashed to so many columns (columns,)."""
    counter: Callable[[Chem.Mol], Any] = _GENERATORS[kind](
        fpSize=columns
    ).GetCountFingerprintAsNumPy
    return counter


def substructure_counts(
    counter: Callable[[Chem.Mol], Any], smiles: Sequence[str], *, columns: int
) -> NDArray[np.uint8]:
    """Counts of every molecule, at most 255, (n, columns); 0 where it cannot be read.

    Args:
        counter: counts of one molecule, (columns,).
        smiles: (n,).
        columns: length of a row.
    """
    with rdBase.BlockLogs():
        return count_rows([parse(string) for string in smiles], counter, columns=columns)
