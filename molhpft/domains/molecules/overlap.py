"""Which molecules two data sets share, however they are written: the leak check of pretraining."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdinchi
from torch import Tensor

from molhpft.domains.files import cached_tensors
from molhpft.domains.molecules.graphs import digest
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import scaffold
from molhpft.domains.parallel import parallel_map

_VERSION = 1  # raised with every change of what is computed below
_LENGTH = 14


def shared(smiles: Sequence[str], others: Sequence[str]) -> Tensor:
    """Which molecules are among `others` too, bool (n,).

    Molecules are the same when their largest fragments (salts lose their ions) have the same first
    block of the InChIKey: formula and connectivity, whatever the stereochemistry, isotopes and
    protonation.

    Args:
        smiles: (n,); what cannot be read, or has no InChI, is shared with nothing.
        others: any number.
    """
    return among(skeletons(smiles), skeletons(others))


def among(keys: NDArray[np.bytes_], others: NDArray[np.bytes_]) -> Tensor:
    """`shared` by keys of `skeletons`, bool (n,): for parts of data sets, which then count once."""
    return torch.from_numpy(np.isin(keys, others) & (keys != b""))


def skeletons(smiles: Sequence[str]) -> NDArray[np.bytes_]:
    """First blocks of the InChIKeys of largest fragments (n,), empty where there is none.

    Kept in the cache folder: a molecule takes about a millisecond.
    """
    if not smiles:
        return np.empty(0, dtype=f"S{_LENGTH}")
    table = cached_tensors(
        f"inchikeys/{_VERSION}-{digest(smiles)}",
        lambda: {"keys": torch.from_numpy(_table(smiles))},
    )
    return table["keys"].numpy().view(f"S{_LENGTH}")[:, 0]


def scaffold_keys(smiles: Sequence[str]) -> NDArray[np.int64]:
    """A number for the scaffold of each molecule (n,), the same for the same scaffold.

    0 for a molecule without a ring, or that cannot be read. Kept in the cache folder.
    """
    if not smiles:
        return np.empty(0, dtype=np.int64)
    name = f"scaffold-keys/{_VERSION}-{digest(smiles)}"
    table = cached_tensors(name, lambda: {"keys": torch.from_numpy(_scaffold_table(smiles))})
    return table["keys"].numpy()


def _scaffold_table(smiles: Sequence[str]) -> NDArray[np.int64]:
    return np.concatenate(parallel_map(_scaffold_rows, smiles, "finding scaffolds"))


def _scaffold_rows(smiles: Sequence[str]) -> NDArray[np.int64]:
    return np.array([_scaffold_key(string) for string in smiles], dtype=np.int64)


def _scaffold_key(smiles: str) -> int:
    mol = parse(smiles)
    found = "" if mol is None else scaffold(mol)
    return int.from_bytes(sha256(found.encode()).digest()[:7], "big") if found else 0


def _table(smiles: Sequence[str]) -> NDArray[np.uint8]:
    """The ASCII codes of the keys (n, 14), which is what the cache can hold."""
    parts = parallel_map(_rows, smiles, "computing InChIKeys")
    return np.concatenate(parts).view(np.uint8).reshape(-1, _LENGTH)


def _rows(smiles: Sequence[str]) -> NDArray[np.bytes_]:
    return np.array([_key(string) for string in smiles], dtype=f"S{_LENGTH}")


def _key(smiles: str) -> str:
    mol = parse(smiles)
    if mol is None:
        return ""
    with rdBase.BlockLogs():
        fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
        largest = max(fragments, key=Chem.Mol.GetNumHeavyAtoms)
        key: str = rdinchi.MolToInchiKey(largest)
    return key[:_LENGTH]
