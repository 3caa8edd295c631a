"""Molecules of any number of SMILES, as graphs and fingerprints, each string parsed once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rdkit import rdBase

from molhpft.domains.molecules.fingerprints import packed_prints
from molhpft.domains.molecules.smiles import Packed, chained, pack_molecules, parse_marked
from molhpft.domains.parallel import parallel_stream

T = TypeVar("T")

STRETCH = 512  # molecules that go to a process at a time


@dataclass(frozen=True, eq=False)
class Described:
    """Some molecules; what cannot be read has no atoms and no bits.

    Attributes:
        smiles: (n,).
        graphs: end to end.
        prints: Morgan fingerprints, eight bits a byte, uint8 (n, 256).
        dubious: bool (n,), whether a molecule was read although RDKit refuses its valences, such as
            those of carbon with five bonds.
    """

    smiles: tuple[str, ...]
    graphs: Packed
    prints: NDArray[np.uint8]
    dubious: NDArray[np.bool_]


def described(smiles: Sequence[str]) -> Described:
    """Graphs and fingerprints of SMILES strings, by several processes where there are many."""
    parts = [_described([]), *described_stream(smiles, lambda stretch: stretch)]
    return Described(
        tuple(smiles),
        chained(part.graphs for part in parts),
        np.concatenate([part.prints for part in parts]),
        np.concatenate([part.dubious for part in parts]),
    )


def described_stream(smiles: Iterable[str], then: Callable[[Described], T]) -> Iterator[T]:
    """What `then` makes of stretches of molecules, in order, a few of them in memory at a time.

    Args:
        smiles: any number of strings.
        then: is called where the molecules were read, by one of several processes.
    """
    yield from described_parts(_stretches(smiles), then)


def described_parts(parts: Iterable[Sequence[str]], then: Callable[[Described], T]) -> Iterator[T]:
    """`described_stream` of molecules that come in parts: one result for each, in order."""
    yield from parallel_stream(lambda part: then(_described(part)), parts)


def _described(smiles: Sequence[str]) -> Described:
    with rdBase.BlockLogs():
        marked = [parse_marked(string) for string in smiles]
    molecules = [mol for mol, _ in marked]
    return Described(
        tuple(smiles),
        pack_molecules(zip(molecules, smiles, strict=True)),
        packed_prints(molecules),
        np.array([dubious for _, dubious in marked], dtype=np.bool_),
    )


def _stretches(smiles: Iterable[str]) -> Iterator[list[str]]:
    strings = iter(smiles)
    while stretch := list(islice(strings, STRETCH)):
        yield stretch
