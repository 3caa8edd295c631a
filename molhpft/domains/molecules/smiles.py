"""Molecules as small integers: SMILES strings to OGB's atom and bond features, end to end.

One table of features serves all families of encoders. OGB's read the first nine atom columns and
the first three bond columns. The public checkpoints of Hu et al. (2020) read atom columns 0 (atomic
number - 1, the same numbering) and 1 (chirality, of which they know 0, 1 and 2 only) and bond
columns 0 (single, double, triple, aromatic as here; no "misc") and 3 (direction, which OGB does not
have). chemprop's read all but the direction; the last columns are for them alone.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from torch import Tensor

from molhpft.domains.files import cached_tensors, digest
from molhpft.domains.parallel import parallel_map

# raised whenever a SMILES string gets other numbers, so that no cache outlives the change
FEATURISER_VERSION: int = 3

# element, chirality, degree, charge, hydrogens, radical electrons, hybridisation, aromatic, in ring
ATOM_SIZES: tuple[int, ...] = (119, 5, 12, 12, 10, 6, 6, 2, 2)

# type, stereo, conjugated, direction (none, up right, down right)
BOND_SIZES: tuple[int, ...] = (5, 6, 2, 3)

# after these: hybridisation that OGB has no name for (none, S, SP2D) and isotope (0 where it is not
# given, 255 also for those beyond); whether the bond is in a ring
PACKED_ATOM_SIZES: tuple[int, ...] = (*ATOM_SIZES, 3, 256)
PACKED_BOND_SIZES: tuple[int, ...] = (*BOND_SIZES, 2)

MOST_ATOMS = 32_767  # what int16 can number

LONGEST = 100_000  # characters of a SMILES string: RDKit reads megabytes for minutes

# RDKit itself reads up to the first white space and takes "C C O" for methane
_WRITTEN = re.compile(r"[!-~]+([ \t]+\|[ -~]*\|)?")

_STRETCH = 500  # molecules that a process packs at a time, which takes a tenth of a second


@dataclass(frozen=True, eq=False)
class Graph:
    """One molecule of `a` atoms and `b` bonds; its hydrogens are a column of `atoms`.

    >>> pack_molecules([(parse("CCO"), "CCO")]).graph.ends.tolist()
    [[0, 1], [1, 2]]

    Attributes:
        atoms: uint8 (a, 11), entries below `PACKED_ATOM_SIZES`.
        bonds: uint8 (b, 5), entries below `PACKED_BOND_SIZES`; each bond once, in RDKit's order.
        ends: int16 (b, 2), the two atom numbers of each bond.
    """

    atoms: NDArray[np.uint8]
    bonds: NDArray[np.uint8]
    ends: NDArray[np.int16]


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


@dataclass(frozen=True)
class Columns:
    """The numbers of one molecule before they are tables.

    Attributes:
        atoms: a string of bytes for each of `PACKED_ATOM_SIZES`, as long as there are atoms.
        bonds: one for each of `PACKED_BOND_SIZES`, as long as there are bonds.
        ends: int16 numbers of the first and of the second atom of each bond.
    """

    atoms: list[bytes]
    bonds: list[bytes]
    ends: list[bytes]


def parse(smiles: str) -> Chem.Mol | None:
    """Molecule of a SMILES string; None where it cannot be read or has no atoms.

    Spaces around the string mean nothing. White space within it may stand only before a CXSMILES
    block (`CCO |$_R1;;$|`): `CCO ethanol` is no SMILES, a name belongs in a column of its own.
    Anything but ASCII is unreadable, and so are strings of more than `LONGEST` characters, which
    are not tried, and molecules of more than `MOST_ATOMS` atoms.

    What RDKit refuses for its valences alone (aluminium with six bonds) is read, as OGB reads it.
    """
    with rdBase.BlockLogs():
        return parse_flagged(smiles)[0]


def parse_flagged(smiles: str) -> tuple[Chem.Mol | None, bool]:
    """`parse`, and whether it has an invalid valence: is read though RDKit refuses it.

    RDKit's messages are for the caller to silence, around all of its many strings.
    """
    if len(smiles) > LONGEST or not _WRITTEN.fullmatch(text := smiles.strip()):
        return None, False
    try:
        strict = Chem.MolFromSmiles(text)
        lenient = strict is None
        mol = sanitize_leniently(Chem.MolFromSmiles(text, sanitize=False)) if lenient else strict
    # sanitising raises ValueErrors, RDKit's broken pre-conditions RuntimeErrors
    except (ValueError, RuntimeError):
        return None, False
    if mol is None or not 0 < mol.GetNumAtoms() <= MOST_ATOMS:
        return None, False
    return mol, lenient


def sanitize_leniently(mol: Chem.Mol | None) -> Chem.Mol | None:
    """An unsanitised molecule, sanitised but for the valences.

    In these, newer RDKits are stricter than that of OGB.
    """
    if mol is not None:
        mol.UpdatePropertyCache(strict=False)
        Chem.SanitizeMol(mol, Chem.SANITIZE_ALL ^ Chem.SANITIZE_PROPERTIES)
    return mol


def columns(mol: Chem.Mol, smiles: str) -> Columns:
    """Features and bonds of a molecule, part by part.

    Values outside a vocabulary take its last entry: OGB's "misc" where there is one, and
    STEREOANY for the atropisomers on which OGB itself fails. Directions other than up right and
    down right count as none.

    Args:
        mol: the molecule.
        smiles: the string `mol` was read from: without a sign of stereochemistry, isotopes or rings
            in it, the columns for these are all 0, and RDKit is not asked.

    Raises:
        ValueError: the molecule has more atoms than int16 can number.
    """
    if mol.GetNumAtoms() > MOST_ATOMS:
        raise ValueError(
            f"a molecule should have at most {MOST_ATOMS:,} atoms, "
            f"this one has {mol.GetNumAtoms():,}; leave it out"
        )
    # by number: iterating over mol.GetAtoms() takes twice as long
    atoms = list(map(mol.GetAtomWithIdx, range(mol.GetNumAtoms())))
    bonds = list(map(mol.GetBondWithIdx, range(mol.GetNumBonds())))
    return Columns(
        atoms=_all_numbers(atoms, _ATOM_COLUMNS, smiles),
        bonds=_all_numbers(bonds, _BOND_COLUMNS, smiles),
        ends=[array("h", map(end, bonds)).tobytes() for end in _ENDS],
    )


def packed_graphs(smiles: Sequence[str]) -> Packed:
    """Graphs of SMILES strings, by as many processes as `parallel.worker_count` says."""
    # joined where they are made: a few arrays go from process to process, not a list of molecules
    return concatenate(parallel_map(_pack_stretch, smiles, "packing molecules", chunk=_STRETCH))


def pack_molecules(molecules: Iterable[tuple[Chem.Mol | None, str]]) -> Packed:
    """Molecules that are parsed already, each with the SMILES it was read from, end to end.

    Raises:
        ValueError: a molecule has more atoms than int16 can number.
    """
    parts = [None if mol is None else columns(mol, smiles) for mol, smiles in molecules]
    counts = [(0, 0) if p is None else (len(p.atoms[0]), len(p.bonds[0])) for p in parts]
    atoms, bonds = np.array(counts, dtype=np.int64).reshape(-1, 2).T.copy()
    return Packed(_join(part for part in parts if part is not None), atoms, bonds)


def concatenate(parts: Iterable[Packed]) -> Packed:
    """Several packed parts as one, in order."""
    parts = [_NO_MOLECULES, *parts]
    return Packed(
        Graph(
            atoms=np.concatenate([part.graph.atoms for part in parts]),
            bonds=np.concatenate([part.graph.bonds for part in parts]),
            ends=np.concatenate([part.graph.ends for part in parts]),
        ),
        atoms=np.concatenate([part.atoms for part in parts]),
        bonds=np.concatenate([part.bonds for part in parts]),
    )


def smiles_digest(smiles: Sequence[str]) -> str:
    """Name of all that numbers of molecules depend on: strings, featuriser, RDKit's version."""
    return reading_digest(smiles, FEATURISER_VERSION)


def reading_digest(smiles: Sequence[str], version: int | str) -> str:
    """Name of what is computed from molecules as RDKit reads them, by code of a version."""
    return digest(json.dumps([version, rdBase.rdkitVersion, list(smiles)]))


def cached_rows(
    key: str,
    name: str,
    smiles: Sequence[str],
    compute: Callable[[Sequence[str]], NDArray[Any]],
    doing: str,
) -> NDArray[Any]:
    """One row for each molecule, (n, ...), computed by several processes once and then cached.

    Args:
        key: of the cache, as in `cached_tensors`.
        name: of the tensor in it.
        smiles: (n,).
        compute: the rows of some of the molecules.
        doing: what the progress bar says, such as "computing fingerprints".
    """
    if not smiles:
        return compute([])

    def build() -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.concatenate(parallel_map(compute, smiles, doing)))}

    return cached_tensors(key, build)[name].numpy()


def _pack_stretch(smiles: Sequence[str]) -> Packed:
    with rdBase.BlockLogs():
        return pack_molecules((parse_flagged(text)[0], text) for text in smiles)


def _join(parts: Iterable[Columns]) -> Graph:
    """Molecules end to end, each with `ends` of its own count; none give no rows."""
    parts = [_NOTHING, *parts]
    return Graph(
        atoms=_table([part.atoms for part in parts], np.uint8),
        bonds=_table([part.bonds for part in parts], np.uint8),
        ends=_table([part.ends for part in parts], np.int16),
    )


def _table(parts: Sequence[Sequence[bytes]], dtype: type[Any]) -> NDArray[Any]:
    """Rows (all atoms or bonds, columns) of the columns of each molecule."""
    whole = [np.frombuffer(b"".join(column), dtype=dtype) for column in zip(*parts, strict=True)]
    return np.stack(whole, axis=1)


class _Numbers(dict[Any, int]):
    """RDKit's value to its number in a column.

    Args:
        entries: values in the order of their numbers, enum members by name.
        enum: RDKit's enum, where the values belong to one.
        other: number of a value that is not among the entries.
    """

    def __init__(self, entries: Iterable[Any], enum: Any, *, other: int) -> None:
        names = enum.names if enum else {}
        super().__init__({names.get(entry, entry): k for k, entry in enumerate(entries)})
        self.other = other

    def __missing__(self, value: Any) -> int:
        return self.other


@dataclass(frozen=True)
class _Column:
    """How to fill a column.

    Attributes:
        value: RDKit's value of an atom or a bond.
        number: that value's number in the column; None where it is a number or truth value itself.
        signs: a SMILES string without any of these has 0 in the whole column; none where no sign
            tells.
        needs: an earlier column and a number in it: where no part has it, this column is 0 too.
    """

    value: Callable[[Any], Any]
    number: Callable[[Any], int] | None = None
    signs: Sequence[str] = ()
    needs: tuple[int, int] | None = None


def _ogb_column(
    value: Callable[[Any], Any],
    entries: Sequence[Any],
    enum: Any = None,
    *,
    signs: Sequence[str] = (),
) -> _Column:
    """A column as OGB numbers it: by the place among the entries, the last for anything else."""
    return _Column(value, _Numbers(entries, enum, other=len(entries) - 1).__getitem__, signs)


def _all_numbers(parts: Sequence[Any], columns: Sequence[_Column], smiles: str) -> list[bytes]:
    """Numbers of all atoms or all bonds in each column."""
    done: list[bytes] = []
    for column in columns:
        absent = column.needs is not None and column.needs[1] not in done[column.needs[0]]
        done.append(bytes(len(parts)) if absent else _numbers(parts, column, smiles))
    return done


def _numbers(parts: Sequence[Any], column: _Column, smiles: str) -> bytes:
    """Numbers of all atoms or all bonds in a column."""
    if column.signs and not any(map(smiles.__contains__, column.signs)):
        return bytes(len(parts))
    # a column at a time inside C: a Python loop over the atoms takes a quarter longer
    values = map(column.value, parts)
    return bytes(values if column.number is None else map(column.number, values))


# SMILES writes stereochemistry with @ at atoms and / \\ at bonds, isotopes as [13C], and
# closes rings by digits; its extensions open with |
_AT_ATOMS, _AT_BONDS, _DIGITS = "@|", "/\\|", "0123456789"
_ISOTOPES = tuple(f"[{digit}" for digit in _DIGITS)
_MISC = "misc"
# ogb.utils.features.allowable_features
_CHIRALITY = ("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER", _MISC)
_HYBRIDIZATION = ("SP", "SP2", "SP3", "SP3D", "SP3D2", _MISC)
_BOND_TYPE = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC", _MISC)
_BOND_STEREO = tuple(f"STEREO{kind}" for kind in ("NONE", "Z", "E", "CIS", "TRANS", "ANY"))
_RARE_HYBRIDIZATION = _Numbers((_MISC, "S", "SP2D"), Chem.HybridizationType, other=0)
_ISOTOPE = _Numbers(range(255), None, other=255)
_ATOM_COLUMNS: tuple[_Column, ...] = (
    _ogb_column(Chem.Atom.GetAtomicNum, (*range(1, 119), _MISC)),
    _ogb_column(Chem.Atom.GetChiralTag, _CHIRALITY, Chem.ChiralType, signs=_AT_ATOMS),
    _ogb_column(Chem.Atom.GetTotalDegree, (*range(11), _MISC)),
    _ogb_column(Chem.Atom.GetFormalCharge, (*range(-5, 6), _MISC)),
    _ogb_column(Chem.Atom.GetTotalNumHs, (*range(9), _MISC)),
    _ogb_column(Chem.Atom.GetNumRadicalElectrons, (*range(5), _MISC)),
    _ogb_column(Chem.Atom.GetHybridization, _HYBRIDIZATION, Chem.HybridizationType),
    _Column(Chem.Atom.GetIsAromatic),
    _Column(Chem.Atom.IsInRing),
    _Column(
        Chem.Atom.GetHybridization,
        _RARE_HYBRIDIZATION.__getitem__,
        needs=(6, _HYBRIDIZATION.index(_MISC)),
    ),
    _Column(Chem.Atom.GetIsotope, _ISOTOPE.__getitem__, _ISOTOPES),
)
_DIRECTION = _Numbers(("NONE", "ENDUPRIGHT", "ENDDOWNRIGHT"), Chem.BondDir, other=0)
_BOND_COLUMNS: tuple[_Column, ...] = (
    _ogb_column(Chem.Bond.GetBondType, _BOND_TYPE, Chem.BondType),
    _ogb_column(Chem.Bond.GetStereo, _BOND_STEREO, Chem.BondStereo, signs=_AT_BONDS),
    _Column(Chem.Bond.GetIsConjugated),
    _Column(Chem.Bond.GetBondDir, _DIRECTION.__getitem__, _AT_BONDS),
    _Column(Chem.Bond.IsInRing, signs=_DIGITS),
)
_ENDS = (Chem.Bond.GetBeginAtomIdx, Chem.Bond.GetEndAtomIdx)
_NOTHING = Columns([b""] * len(_ATOM_COLUMNS), [b""] * len(_BOND_COLUMNS), [b""] * len(_ENDS))
_NO_MOLECULES = pack_molecules([])
