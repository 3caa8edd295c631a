"""Molecules as bits: which circular neighbourhoods of atoms each of them has (Morgan, ECFP).

`Neighbours` says how near a molecule is to those that a model was trained on: a model is least sure
to be right far from all of them (Sheridan et al. 2004, J. Chem. Inf. Comput. Sci. 44:1912).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from torch import Tensor

from molhpft.domains.molecules.smiles import cached_rows, parse, smiles_digest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

RADIUS = 2
BITS = 2048
_MOST = 255  # what uint8 counts to

_PIECE = 8_192  # training molecules in a piece
_QUERIES = 128  # compared with a piece at a time: some ten megabytes
_BELOW = 0.05  # of training molecules lie below the typical similarity
_SAMPLE = 2_000  # training molecules that `typical` asks


def morgan_fingerprints(smiles: Sequence[str]) -> Tensor:
    """Morgan fingerprints of radius 2 folded to 2,048 bits, computed once and then cached.

    Args:
        smiles: (n,), read as for graphs, what RDKit refuses for its valences included.

    Returns:
        bool (n, 2048); no bit is set where a molecule cannot be read.
    """
    return unpack_bits(packed_fingerprints(smiles))


def packed_fingerprints(smiles: Sequence[str]) -> NDArray[np.uint8]:
    """`morgan_fingerprints` with eight bits a byte, (n, 256)."""
    return cached_rows(
        f"morgan/{RADIUS}-{BITS}-{smiles_digest(smiles)}",
        "packed",
        smiles,
        lambda some: fingerprint_rows(list(map(parse, some))),
        "computing fingerprints",
    )


def unpack_bits(fingerprints: NDArray[np.uint8]) -> Tensor:
    """Fingerprints of eight bits a byte (n, 256) as bool (n, 2048)."""
    return torch.from_numpy(np.unpackbits(fingerprints, axis=1)).bool()


def fingerprint_rows(molecules: Sequence[Chem.Mol | None]) -> NDArray[np.uint8]:
    """Fingerprints of parsed molecules, eight bits a byte, (n, 256); no bit is set for None."""
    return np.packbits(count_rows(molecules) > 0, axis=1)


def count_rows(
    molecules: Sequence[Chem.Mol | None],
    counter: Callable[[Chem.Mol], Any] | None = None,
    *,
    columns: int = BITS,
) -> NDArray[np.uint8]:
    """Counts of substructures of parsed molecules, at most 255, (n, columns); 0 for None.

    Args:
        molecules: (n,).
        counter: counts of one molecule, (columns,); None for circular neighbourhoods of radius 2.
        columns: length of a row.
    """
    counter = (
        counter or GetMorganGenerator(radius=RADIUS, fpSize=columns).GetCountFingerprintAsNumPy
    )
    counts = np.zeros((len(molecules), columns), dtype=np.uint8)
    for row, mol in enumerate(molecules):
        if mol is not None:
            counts[row] = np.minimum(counter(mol), _MOST)
    return counts


@final
class Neighbours:
    """Training molecules to compare others with, by Tanimoto similarity: shared bits / all bits.

    >>> training = Neighbours(morgan_fingerprints(["CCO", "c1ccccc1"]))
    >>> similarity, row = training.nearest(morgan_fingerprints(["c1ccccc1"]))
    >>> similarity.item(), row.item()
    (1.0, 1)
    """

    def __init__(self, bits: Tensor) -> None:
        """Keep the places of the bits, of which a molecule has some dozens.

        Args:
            bits: fingerprints of the training molecules, bool (m, 2048).

        Raises:
            ValueError: these are no fingerprints, or there is none.
        """
        if not len(_checked(bits)):
            raise ValueError("similarity needs at least 1 training molecule, got 0")
        from scipy.sparse import csr_matrix  # takes long, and only models compare

        # int16 holds any count of 2,048 bits, and is twice as fast as float32
        self._pieces = [
            csr_matrix(piece.numpy(), dtype=np.int16) for piece in torch.split(bits, _PIECE)
        ]

    def nearest(self, bits: Tensor) -> tuple[Tensor, Tensor]:
        """The training molecule that each molecule is most similar to.

        Args:
            bits: fingerprints, bool (n, 2048).

        Returns:
            the similarity, float32 (n,) in [0, 1], which is 0 for a molecule without bits; and the
            row of the training molecule, int64 (n,), the first of equals.

        Raises:
            ValueError: these are no fingerprints.
        """
        parts = [self._search(part.numpy()) for part in torch.split(_checked(bits), _QUERIES)]
        similarity, row = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        return torch.from_numpy(similarity), torch.from_numpy(row)

    def typical(self) -> float:
        """The similarity to their nearest other that all but 5% of training molecules reach.

        What is less similar lies outside the applicability domain. Of few molecules, one that is
        like no other would make it 0, which every molecule reaches; it is then the least likeness
        that there is, or 1 without any. Of more than 2,000 training molecules, that many are asked,
        evenly spaced; others are all.

        Raises:
            ValueError: there is only one training molecule.
        """
        m = sum(piece.shape[0] for piece in self._pieces)
        if m < 2:
            raise ValueError(f"a typical similarity needs at least 2 training molecules, got {m}")
        asked = np.linspace(0, m - 1, min(m, _SAMPLE)).round().astype(np.int64)
        parts = np.split(asked, range(_QUERIES, len(asked), _QUERIES))
        nearest = [self._search(self._bits(rows), without=rows)[0] for rows in parts]
        reached = np.concatenate(nearest)
        # the lower of two neighbours: between them, more than that share could lie below
        typical = float(np.quantile(reached, _BELOW, method="lower"))
        return typical or float(min(reached[reached > 0], default=1.0))

    def _bits(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Fingerprints of training molecules, whose rows rise."""
        piece_of = rows // _PIECE
        bits = [self._pieces[k][rows[piece_of == k] % _PIECE] for k in np.unique(piece_of)]
        return np.concatenate([part.toarray() for part in bits]).astype(bool)

    def _search(
        self, bits: NDArray[np.bool_], without: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """`nearest` of a few molecules, to each of which one row may be forbidden."""
        best, row = np.full(len(bits), -1, np.float32), np.zeros(len(bits), np.int64)
        everyone = np.arange(len(bits))
        for number, piece in enumerate(self._pieces):
            similarity, first = _tanimoto(piece, bits), number * _PIECE
            if without is not None:
                inside = (without >= first) & (without < first + len(similarity))
                similarity[without[inside] - first, everyone[inside]] = -1
            here = similarity.argmax(0)
            nearest = similarity[here, everyone]
            # an equal of a later piece is not the first of equals
            row = np.where(nearest > best, here + first, row)
            best = np.maximum(nearest, best)
        return best, row


def _tanimoto(piece: "csr_matrix", bits: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Similarities of all training molecules of a piece to all molecules, (rows, n)."""
    shared = piece @ bits.T.astype(np.int16, order="C")
    either = np.diff(piece.indptr).astype(np.int16)[:, None] + bits.sum(1, dtype=np.int16) - shared
    # both are whole numbers below 2^24, so this is the exact quotient, rounded once
    similarity: NDArray[np.float32] = np.divide(shared, either.clip(min=1), dtype=np.float32)
    return similarity


def _checked(bits: Tensor) -> Tensor:
    if bits.dtype != torch.bool or bits.dim() != 2 or bits.shape[1] != BITS:
        kind = str(bits.dtype).removeprefix("torch.")
        raise ValueError(f"fingerprints must be bool (n, {BITS}), got {kind} {tuple(bits.shape)}")
    return bits
