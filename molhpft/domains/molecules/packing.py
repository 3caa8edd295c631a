"""Graphs of many SMILES strings end to end, cut into stretches for several processes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from molhpft.domains.molecules.featurize import Graph, columns, join, parse_aloud
from molhpft.domains.parallel import parallel_map

_STRETCH = 500  # a tenth of a second: the last one keeps nobody waiting


@dataclass(frozen=True, eq=False)
class Packed:
    """Molecules end to end.

    Attributes:
        graph: all atoms and bonds; `ends` counts atoms within each molecule.
        atoms: int64 (n,), atoms of each molecule; 0 where a string cannot be read.
        bonds: int64 (n,), bonds of each molecule.
    """

    graph: Graph
    atoms: NDArray[np.int64]
    bonds: NDArray[np.int64]


def packed_graphs(smiles: Sequence[str]) -> Packed:
    """Graphs of SMILES strings, by as many processes as `parallel.worker_count` says."""
    # joined where they are made: a few arrays go from process to process, not a list of molecules
    parts = parallel_map(pack_stretch, smiles, "packing molecules", chunk=_STRETCH)
    return chained(parts)


def pack_stretch(smiles: Sequence[str]) -> Packed:
    """`packed_graphs` in this process."""
    with rdBase.BlockLogs():
        return pack_molecules(zip(map(parse_aloud, smiles), smiles, strict=True))


def pack_molecules(molecules: Iterable[tuple[Chem.Mol | None, str]]) -> Packed:
    """Molecules that are parsed already, each with the SMILES it was read from, end to end.

    Raises:
        ValueError: a molecule has more atoms than int16 can number.
    """
    parts = [None if mol is None else columns(mol, smiles) for mol, smiles in molecules]
    graph = join(part for part in parts if part is not None)
    return Packed(
        graph,
        atoms=_counts(0 if part is None else len(part.atoms[0]) for part in parts),
        bonds=_counts(0 if part is None else len(part.bonds[0]) for part in parts),
    )


def chained(parts: Iterable[Packed]) -> Packed:
    """Several as one, in order."""
    parts = [_NOTHING, *parts]
    return Packed(
        Graph(
            atoms=np.concatenate([part.graph.atoms for part in parts]),
            bonds=np.concatenate([part.graph.bonds for part in parts]),
            ends=np.concatenate([part.graph.ends for part in parts]),
        ),
        atoms=np.concatenate([part.atoms for part in parts]),
        bonds=np.concatenate([part.bonds for part in parts]),
    )


def _counts(counts: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(counts, dtype=np.int64)


_NOTHING = pack_stretch([])
