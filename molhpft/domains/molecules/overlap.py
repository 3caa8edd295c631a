"""Which molecules two data sets share, however they are written: the leak check of pretraining."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import rdBase
from torch import Tensor

from molhpft.domains.files import digest
from molhpft.domains.molecules.counter_ions import BLOCK_LENGTH, block_rule, inchikey_block
from molhpft.domains.molecules.smiles import cached_rows, parse, reading_digest
from molhpft.domains.molecules.splits import scaffold

_SCAFFOLD_VERSION = 4  # raised with every change of `splits.scaffold`
_BITS = 40  # of a hash: of a million molecules, one in a million others is taken for one of them


@dataclass(frozen=True, eq=False)
class MoleculeSet:
    """Molecules known by hashes of their InChIKey blocks: three bytes each in a file.

    An encoder comes with those it was pretrained on, so that a leak is found without the data.

    >>> known = MoleculeSet.of(inchikey_blocks(["CCO", "C"]))
    >>> known.has(inchikey_blocks(["OCC", "CC"])).tolist()
    [True, False]

    Attributes:
        hashes: uint64 (n,), ascending, each once.
    """

    hashes: NDArray[np.uint64]

    @classmethod
    def of(cls, blocks: NDArray[np.bytes_]) -> "MoleculeSet":
        """The molecules with these `inchikey_blocks`; empty ones are none."""
        return cls(np.unique(_hashes(blocks[blocks != b""])))

    @classmethod
    def from_bytes(cls, content: bytes) -> "MoleculeSet":
        """The set that `to_bytes` has written.

        Raises:
            ValueError: the content is damaged, or something else.
        """
        try:
            planes = np.frombuffer(zlib.decompress(content), dtype=np.uint8).reshape(8, -1)
        except (zlib.error, ValueError) as error:
            raise ValueError(f"no set of molecules, or a damaged one: {error}") from error
        gaps = np.ascontiguousarray(planes.T).view("<u8")[:, 0]
        return cls(gaps.astype(np.uint64).cumsum(dtype=np.uint64))

    def to_bytes(self) -> bytes:
        """Three bytes a molecule, of a million."""
        gaps = np.diff(self.hashes, prepend=np.uint64(0)).astype("<u8")
        # bytes of one significance together: the high ones are all 0
        return zlib.compress(gaps.view(np.uint8).reshape(-1, 8).T.tobytes(), level=9)

    def has(self, blocks: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which molecules, by their `inchikey_blocks`, are in the set, (n,)."""
        marks: NDArray[np.bool_] = np.isin(_hashes(blocks), self.hashes) & (blocks != b"")
        return marks


def _hashes(blocks: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Low bits of blocks read as numbers with 26 digits, which are hashes already, (n,)."""
    codes = (
        np.ascontiguousarray(blocks, dtype=f"S{BLOCK_LENGTH}")
        .view(np.uint8)
        .reshape(-1, BLOCK_LENGTH)
    )
    number = np.zeros(len(codes), dtype=np.uint64)
    for digit in codes.T.astype(np.uint64):
        number = number * np.uint64(26) + digit
    return number & np.uint64(2**_BITS - 1)


def is_among(blocks: NDArray[np.bytes_], others: NDArray[np.bytes_]) -> Tensor:
    """Which molecules, by their `inchikey_blocks`, are among `others` too, bool (n,).

    >>> is_among(inchikey_blocks(["OCC", "C"]), inchikey_blocks(["CCO"])).tolist()
    [True, False]
    """
    return torch.from_numpy(np.isin(blocks, others) & (blocks != b""))


def inchikey_blocks(smiles: Sequence[str]) -> NDArray[np.bytes_]:
    """First blocks of InChIKeys without counter-ions (n,), by which molecules are the same.

    A block is formula and connectivity, whatever the stereochemistry, isotopes and protonation; see
    `inchikey_block` for salts. Empty for what cannot be read or has no InChI. Kept in the cache
    folder: a molecule takes about a millisecond.
    """
    key = f"inchikeys/{reading_digest(smiles, block_rule())}"
    # the cache can hold ASCII codes, (n, 14)
    codes = cached_rows(key, "keys", smiles, _block_codes, "computing InChIKeys")
    return codes.view(f"S{BLOCK_LENGTH}")[:, 0]


def scaffold_keys(smiles: Sequence[str]) -> NDArray[np.int64]:
    """A number for the scaffold of each molecule (n,), the same for the same scaffold.

    0 for a molecule without a ring, or that cannot be read. Kept in the cache folder.
    """
    key = f"scaffold-keys/{reading_digest(smiles, _SCAFFOLD_VERSION)}"
    return cached_rows(key, "keys", smiles, _scaffold_keys, "finding scaffolds")


def _block_codes(smiles: Sequence[str]) -> NDArray[np.uint8]:
    blocks = np.array([_block(string) for string in smiles], dtype=f"S{BLOCK_LENGTH}")
    return blocks.view(np.uint8).reshape(-1, BLOCK_LENGTH)


def _block(smiles: str) -> str:
    mol = parse(smiles)
    if mol is None:
        return ""
    with rdBase.BlockLogs():
        return inchikey_block(mol)


def _scaffold_keys(smiles: Sequence[str]) -> NDArray[np.int64]:
    return np.array([_scaffold_key(string) for string in smiles], dtype=np.int64)


def _scaffold_key(smiles: str) -> int:
    mol = parse(smiles)
    name = "" if mol is None else scaffold(mol)
    return int(digest(name)[:14], 16) if name else 0
