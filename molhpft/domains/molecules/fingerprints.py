"""Molecules as bits: which circular neighbourhoods of atoms each of them has (Morgan, ECFP)."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import DataStructs, rdBase
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
    content = json.dumps([FEATURISER_VERSION, rdBase.rdkitVersion, RADIUS, BITS, list(smiles)])
    key = f"morgan/{hashlib.sha256(content.encode()).hexdigest()}"
    packed = cached_tensors(key, lambda: {"packed": torch.from_numpy(_packed(smiles))})["packed"]
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1)).bool()


def _packed(smiles: Sequence[str]) -> NDArray[np.uint8]:
    """Eight bits a byte, (n, 256)."""
    if not smiles:
        return np.zeros((0, BITS // 8), dtype=np.uint8)
    return np.concatenate(parallel_map(_stretch, smiles, "computing fingerprints"))


def _stretch(smiles: Sequence[str]) -> NDArray[np.uint8]:
    generator = GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    bits = np.zeros((len(smiles), BITS), dtype=np.uint8)
    for row, mol in enumerate(map(parse, smiles)):
        if mol is not None:
            DataStructs.ConvertToNumpyArray(generator.GetFingerprint(mol), bits[row])
    return np.packbits(bits, axis=1)
