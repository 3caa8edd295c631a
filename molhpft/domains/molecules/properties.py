"""Properties that RDKit computes fast enough to screen by: sizes, rings, polarity, shape, charges.

The full list of descriptors (`computed_targets`) takes several times as long, for a few that are
written in Python, and tells a kernel no more.
"""

from collections.abc import Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem.rdMolDescriptors import PEOE_VSA_, SMR_VSA_, Properties, SlogP_VSA_

from molhpft.domains.molecules.smiles import cached_rows, parse, reading_digest

_NAMES = (
    *("exactmw", "amw", "lipinskiHBA", "lipinskiHBD", "NumRotatableBonds", "NumHBD", "NumHBA"),
    *("NumHeavyAtoms", "NumAtoms", "NumHeteroatoms", "NumAmideBonds", "FractionCSP3", "NumRings"),
    *("NumAromaticRings", "NumAliphaticRings", "NumSaturatedRings", "NumHeterocycles"),
    *("NumAromaticHeterocycles", "NumSaturatedHeterocycles", "NumAliphaticHeterocycles"),
    *("NumSpiroAtoms", "NumBridgeheadAtoms", "NumAtomStereoCenters"),
    *("NumUnspecifiedAtomStereoCenters", "labuteASA", "tpsa", "CrippenClogP", "CrippenMR"),
    *("chi0v", "chi1v", "chi2v", "chi3v", "chi4v", "chi0n", "chi1n", "chi2n", "chi3n", "chi4n"),
    *("hallKierAlpha", "kappa1", "kappa2", "kappa3", "Phi"),
)
_SURFACES = {SlogP_VSA_: 12, SMR_VSA_: 10, PEOE_VSA_: 14}  # by lipophilicity, size, charge
_COMPUTED = Properties(_NAMES)
_VERSION = 1  # raised with every change of what is computed

COUNT = len(_NAMES) + sum(_SURFACES.values())


def properties(smiles: Sequence[str]) -> NDArray[np.float32]:
    """Properties of molecules, computed once and then cached.

    Args:
        smiles: (n,), read as for graphs.

    Returns:
        float32 (n, 79); NaN where a molecule cannot be read or a property is not defined.
    """
    key = f"properties/{reading_digest(smiles, _VERSION)}"

    def computed(some: Sequence[str]) -> NDArray[np.float32]:
        with rdBase.BlockLogs():
            return property_rows([parse(string) for string in some])

    return cached_rows(key, "properties", smiles, computed, "computing properties")


def property_rows(molecules: Sequence[Chem.Mol | None]) -> NDArray[np.float32]:
    """Properties of parsed molecules, float32 (n, 79); NaN for None and where not defined."""
    rows = np.full((len(molecules), COUNT), nan)
    for row, mol in zip(rows, molecules, strict=True):
        if mol is not None:
            row[:] = _values(mol)
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(rows), rows, nan).astype(np.float32)


def _values(mol: Chem.Mol) -> list[float]:
    try:
        values = list(_COMPUTED.ComputeProperties(mol))
        for surface in _SURFACES:
            values += surface(mol)
    # pre-conditions that molecules with impossible valences break
    except (ValueError, RuntimeError):
        return [nan] * COUNT
    return values
