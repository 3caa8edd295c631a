"""The columns by which chemprop 2 describes atoms and bonds, from our packed ones.

Equal to chemprop's own but for what the packed columns do not tell apart: atropisomers, which only
SMILES with extensions can write, are bonds of any stereochemistry, and isotopes beyond 255 are one.
"""

from collections.abc import Mapping
from functools import cache
from itertools import product

import torch
from rdkit import Chem
from torch import Tensor, nn

from molhpft.domains.molecules.gcn import once_a_batch
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.domains.molecules.smiles import PACKED_ATOM_SIZES, PACKED_BOND_SIZES
from molhpft.kernels.reference import BondGraph, reverse_edges

ATOM_FEATURES = 72
BOND_FEATURES = 14


class AtomFeatures(nn.Module):
    """The 72 columns of an atom (`MultiHotAtomFeaturizer.v2`).

    One bit each for element, degree, charge, chirality, hydrogens and hybridisation, then whether
    it is aromatic and a hundredth of its mass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", _places(), persistent=False)
        self.register_buffer("masses", _masses(), persistent=False)
        self.places: Tensor
        self.masses: Tensor

    def forward(self, graphs: GraphBatch) -> Tensor:
        """Float (atoms, 72).

        Raises:
            ValueError: the batch has OGB's columns only.
        """
        _check_columns(graphs)
        atoms = graphs.atoms.long()
        # hybridisations that OGB does not know have places after those that it knows
        hybridization = atoms[:, 6] + atoms[:, 9]
        columns = torch.cat([atoms[:, :5], hybridization[:, None]], 1)
        places = self.places[torch.arange(len(_COLUMNS), device=columns.device), columns]
        x = self.masses.new_zeros(len(atoms), ATOM_FEATURES).scatter_(1, places, 1.0)
        x[:, -2] = atoms[:, 7]
        x[:, -1] = self.masses[atoms[:, 0], atoms[:, 10]]
        return x


def kind_features() -> Tensor:
    """The 14 columns of each kind of bond, float (kinds, 14).

    A bit for no bond at all, which no bond has, one for the type, whether it is conjugated, whether
    it is in a ring, and one for its stereochemistry.
    """
    rows = torch.zeros(len(_KINDS), BOND_FEATURES)
    for row, (kind, stereo, conjugated, ring) in zip(rows, _KINDS, strict=True):
        if kind < _OTHER_BOND:
            row[1 + kind] = 1
        row[5], row[6] = conjugated, ring
        row[7 + _STEREO[stereo]] = 1
    return rows


@once_a_batch
def directed_bonds(graphs: GraphBatch) -> BondGraph:
    """Graph whose edges know their reverse and have a kind for each combination of columns.

    Raises:
        ValueError: the batch has OGB's columns only.
    """
    _check_columns(graphs)
    kind = torch.zeros_like(graphs.source)
    for column in _BOND_COLUMNS:
        kind = kind * PACKED_BOND_SIZES[column] + graphs.bonds[:, column]
    reverse = reverse_edges(graphs.source, graphs.target, len(graphs.atoms))
    return BondGraph(graphs.pointer, graphs.source, graphs.target, kind, reverse)


def _check_columns(graphs: GraphBatch) -> None:
    columns = graphs.atoms.shape[1], graphs.bonds.shape[1]
    if columns != (len(PACKED_ATOM_SIZES), len(PACKED_BOND_SIZES)):
        raise ValueError(
            f"a D-MPNN reads {len(PACKED_ATOM_SIZES)} columns of atoms and "
            f"{len(PACKED_BOND_SIZES)} of bonds, as pack gives them; this batch has {columns[0]} "
            f"and {columns[1]}: keep x_extra and edge_attr_extra of a PyG batch"
        )


_OTHER_BOND = 4  # dative and other types, of which chemprop has no bit
_STEREO = (0, 2, 3, 4, 5, 1)  # of STEREONONE, Z, E, CIS, TRANS, ANY, as RDKit numbers them
_BOND_COLUMNS = (0, 1, 2, 4)  # type, stereo, conjugated, in ring
_KINDS = tuple(product(*(range(PACKED_BOND_SIZES[column]) for column in _BOND_COLUMNS)))

_ELEMENTS = {**{number - 1: number - 1 for number in range(1, 37)}, 52: 36}  # iodine comes last
_CHARGES = {charge + 5: place for place, charge in enumerate((-1, -2, 1, 2, 0))}
# SP, SP2, SP3, SP3D, SP3D2; none of those that follow, S, SP2D
_HYBRIDIZATIONS = {0: 1, 1: 2, 2: 4, 3: 5, 4: 6, 6: 0, 7: 3}
# packed value to place, and the place of all others
_COLUMNS: tuple[tuple[Mapping[int, int], int], ...] = (
    (_ELEMENTS, 37),
    ({k: k for k in range(4)}, 4),  # chirality
    ({k: k for k in range(6)}, 6),  # degree
    (_CHARGES, 5),
    ({k: k for k in range(5)}, 5),  # hydrogens
    (_HYBRIDIZATIONS, 7),
)
# chemprop has the chirality after degree and charge
_ORDER = (0, 2, 3, 1, 4, 5)


def _places() -> Tensor:
    """Which of chemprop's columns is 1 for each value of the packed columns, int64 (6, 256)."""
    places, start = torch.empty(len(_COLUMNS), 256, dtype=torch.long), 0
    for column in _ORDER:
        vocabulary, other = _COLUMNS[column]
        places[column] = torch.tensor(
            [start + vocabulary.get(value, other) for value in range(256)]
        )
        start += other + 1
    return places


@cache
def _masses() -> Tensor:
    """A hundredth of the mass of each element and isotope, (119, 256); column 0 is the mean one."""
    table = Chem.GetPeriodicTable()
    masses = torch.zeros(PACKED_ATOM_SIZES[0], 256, dtype=torch.float64)
    for number in range(1, PACKED_ATOM_SIZES[0]):
        # RDKit takes the mass number for isotopes of which it has no mass
        isotopes = [table.GetMassForIsotope(number, k) or float(k) for k in range(1, 256)]
        mean = table.GetAtomicWeight(number)
        masses[number - 1] = torch.tensor([mean, *isotopes], dtype=masses.dtype)
    return (masses * 0.01).float()
