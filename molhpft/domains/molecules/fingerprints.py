"""Molecules as bits: which circular neighbourhoods of atoms each of them has (Morgan, ECFP)."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from torch import Tensor

from molhpft.domains.cache import cached_tensors
from molhpft.domains.molecules.featurize import FEATURISER_VERSION, parse
from molhpft.domains.parallel import parallel_map

RADIUS = 2
BITS = 2048


def morgan_fingerprints(smiles: Sequence[str]) -> Tensor:
    """Morgan fingerprints of radius 2 folded to 2,048 bits, computed once and then cached.

    Args:
        smiles: (n,), read as for graphs, what RDKit refuses for its valences included.

    Returns:
        bool (n, 2048); no bit is set where a molecule cannot be read.
    """
    return unpacked(morgan_prints(smiles))


def morgan_prints(smiles: Sequence[str]) -> NDArray[np.uint8]:
    """`morgan_fingerprints` with eight bits a byte, (n, 256)."""
    content = json.dumps([FEATURISER_VERSION, rdBase.rdkitVersion, RADIUS, BITS, list(smiles)])
    key = f"morgan/{hashlib.sha256(content.encode()).hexdigest()}"
    table = cached_tensors(key, lambda: {"packed": torch.from_numpy(_packed(smiles))})
    return table["packed"].numpy()


def unpacked(prints: NDArray[np.uint8]) -> Tensor:
    """Fingerprints of eight bits a byte (n, 256) as bool (n, 2048)."""
    return torch.from_numpy(np.unpackbits(prints, axis=1)).bool()


def _packed(smiles: Sequence[str]) -> NDArray[np.uint8]:
    """Eight bits a byte, (n, 256)."""
    if not smiles:
        return np.zeros((0, BITS // 8), dtype=np.uint8)
    return np.concatenate(parallel_map(_stretch, smiles, "computing fingerprints"))


def _stretch(smiles: Sequence[str]) -> NDArray[np.uint8]:
    return packed_prints(list(map(parse, smiles)))


def packed_prints(molecules: Sequence[Chem.Mol | None]) -> NDArray[np.uint8]:
    """Fingerprints of parsed molecules, eight bits a byte, (n, 256); none set for None."""
    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    bits = np.zeros((len(molecules), BITS), dtype=np.uint8)
    for row, mol in enumerate(molecules):
        if mol is not None:
            DataStructs.ConvertToNumpyArray(generator.GetFingerprint(mol), bits[row])
    return np.packbits(bits, axis=1)
