"""Molecules as models read them: each string is read once, for its graph and for all else.

Where there are many, several processes read them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from molhpft.domains.molecules.count_fingerprints import (
    COLUMNS,
    SUBSTRUCTURES,
    substructure_counter,
)
from molhpft.domains.molecules.fingerprints import count_rows
from molhpft.domains.molecules.properties import property_rows
from molhpft.domains.molecules.smiles import Packed, concatenate, pack_molecules, parse_flagged
from molhpft.domains.parallel import parallel_stream

T = TypeVar("T")

Reading = Literal["morgan", "atom_pairs", "torsions", "properties"]

STRETCH = 512  # molecules that go to a process at a time


@dataclass(frozen=True, eq=False)
class Featurized:
    """Some molecules; what cannot be read has no atoms and no neighbourhoods.

    Attributes:
        smiles: (n,).
        graphs: end to end.
        columns: what else was read, (n, k) each: counts of substructures folded to 2,048 columns,
            at most 255, of which "morgan" is always there, or "properties", which may be NaN.
        invalid_valence: bool (n,), whether a molecule was read although RDKit refuses its valences,
            such as those of carbon with five bonds.
    """

    smiles: tuple[str, ...]
    graphs: Packed
    columns: Mapping[Reading, NDArray[Any]]
    invalid_valence: NDArray[np.bool_]

    @property
    def fingerprints(self) -> NDArray[np.uint8]:
        """Which circular neighbourhoods there are, eight bits a byte, (n, 256)."""
        return np.packbits(self.columns["morgan"] > 0, axis=1)


def featurized(smiles: Sequence[str], further: Sequence[Reading] = ()) -> Featurized:
    """Molecules of SMILES strings, by several processes where there are many.

    Args:
        smiles: (n,).
        further: what is read beside "morgan".
    """
    strings = iter(smiles)
    stretches = iter(lambda: list(islice(strings, STRETCH)), [])
    parts = [_featurized(further, []), *featurized_parts(stretches, lambda part: part, further)]
    return Featurized(
        tuple(smiles),
        concatenate(part.graphs for part in parts),
        {kind: np.concatenate([part.columns[kind] for part in parts]) for kind in parts[0].columns},
        np.concatenate([part.invalid_valence for part in parts]),
    )


def featurized_parts(
    parts: Iterable[Sequence[str]],
    then: Callable[[Featurized], T],
    further: Sequence[Reading] = (),
) -> Iterator[T]:
    """What `then` makes of each part, in order, a few of them in memory at a time.

    Args:
        parts: SMILES strings, any number of parts.
        then: is called where the molecules were read, by one of several processes.
        further: what is read beside "morgan".
    """
    yield from parallel_stream(lambda part: then(_featurized(further, part)), parts)


def _featurized(further: Sequence[Reading], smiles: Sequence[str]) -> Featurized:
    with rdBase.BlockLogs():
        flagged = [parse_flagged(string) for string in smiles]
        molecules = [mol for mol, _ in flagged]
        return Featurized(
            tuple(smiles),
            pack_molecules(zip(molecules, smiles, strict=True)),
            {kind: _READERS[kind](molecules) for kind in dict.fromkeys(("morgan", *further))},
            np.array([invalid_valence for _, invalid_valence in flagged], dtype=np.bool_),
        )


_READERS: Mapping[str, Callable[[Sequence[Chem.Mol | None]], NDArray[Any]]] = {
    **{
        kind: partial(count_rows, counter=substructure_counter(kind, COLUMNS), columns=COLUMNS)
        for kind in SUBSTRUCTURES
    },
    "properties": property_rows,
}
