"""Molecules packed end to end in a few small tensors, and batches collated from them by row number.

A molecule is a run of rows, so a data set of 40,000 molecules is five tensors of some 20 MB that
move to a device whole; a batch is then collated there by indexing, without a loop over molecules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from molhpft.domains.files import cached_tensors
from molhpft.domains.molecules.smiles import Packed, packed_graphs, smiles_digest
from molhpft.kernels.ops import collate
from molhpft.kernels.reference import run_offsets, runs_of


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Some molecules as one graph of `N` atoms and `E` directed edges, two for each bond.

    Edges are sorted by target atom, so the neighbours of atom i are the rows
    `pointer[i]` to `pointer[i + 1]` of `source`.

    Attributes:
        atoms: uint8 (N, 11), columns as in `smiles.PACKED_ATOM_SIZES`; molecule after molecule.
        source: int64 (E,), the atom an edge comes from.
        target: int64 (E,), the atom it goes to; ascending.
        bonds: uint8 (E, 5), columns as in `smiles.PACKED_BOND_SIZES`, equal in both directions.
        pointer: int64 (N + 1,), first edge of each atom, then E.
        graph: int64 (N,), number of the molecule each atom belongs to; ascending.
        offsets: int64 (n + 1,), first atom of each molecule, then N; a molecule may have none.
        beside: name to further columns of the molecules, (n, k) each: counts in uint8, or numbers.
    """

    atoms: Tensor
    source: Tensor
    target: Tensor
    bonds: Tensor
    pointer: Tensor
    graph: Tensor
    offsets: Tensor
    beside: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def to(self, device: torch.device | str) -> "GraphBatch":
        """The same molecules on `device`."""
        moved = {k: tensor.to(device) for k, tensor in _tensors(self).items()}
        return GraphBatch(**moved, beside={k: v.to(device) for k, v in self.beside.items()})

    @cached_property
    def counts(self) -> Tensor:
        """Atoms of each molecule, int64 (n,)."""
        return self.offsets.diff()

    @cached_property
    def degree(self) -> Tensor:
        """Neighbours of each atom plus one for itself, float (N,)."""
        return self.pointer.diff().float() + 1

    @cached_property
    def norm(self) -> Tensor:
        """`deg_i^-1/2 deg_j^-1/2` of each edge, float (E,), with `degree` as deg."""
        root = self.degree.rsqrt()
        return root[self.source] * root[self.target]


@dataclass(frozen=True, eq=False)
class GraphStore:
    """All molecules of a data set; row i is molecule i, and an unreadable one has no atoms.

    >>> store = pack(["CCO", "not a molecule", "c1ccccc1"])
    >>> store.readable.tolist()
    [True, False, True]
    >>> store.take(torch.tensor([2, 0])).counts.tolist()
    [6, 3]

    Attributes:
        atoms: uint8 (A, 11), columns as in `smiles.PACKED_ATOM_SIZES`.
        bonds: uint8 (B, 5), columns as in `smiles.PACKED_BOND_SIZES`; each bond once.
        ends: int16 (B, 2), atom numbers within the molecule.
        atom_offsets: int64 (n + 1,), first atom of each molecule, then A; on the CPU always.
        bond_offsets: int64 (n + 1,), first bond of each molecule, then B; on the CPU always.
        beside: name to further columns of the molecules, (n, k) each: counts in uint8, or numbers.
    """

    atoms: Tensor
    bonds: Tensor
    ends: Tensor
    atom_offsets: Tensor
    bond_offsets: Tensor
    beside: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.atom_offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = (*_tensors(self).values(), *self.beside.values())
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def readable(self) -> Tensor:
        """Which molecules have atoms, bool (n,)."""
        return self.atom_offsets.diff() > 0

    def to(self, device: torch.device | str) -> "GraphStore":
        """The same molecules on `device`, but for the offsets.

        They tell how large a batch will be, which the CPU has to know before it asks for one: it
        would wait for all that the device has been given to do, if it had to read them there.
        """
        return replace(
            self,
            atoms=self.atoms.to(device),
            bonds=self.bonds.to(device),
            ends=self.ends.to(device),
            beside={name: columns.to(device) for name, columns in self.beside.items()},
        )

    def take(self, index: Tensor) -> GraphBatch:
        """The molecules `index` (k,), in that order, repeats allowed, on the store's device.

        Nothing waits for the device if `index` is on the CPU.

        Raises:
            IndexError: `index` is not int64, or has a row that the store does not have.
        """
        rows = self._rows(index)
        batch = collate(
            rows,
            nodes=self.atoms,
            edges=self.bonds,
            ends=self.ends,
            node_offsets=self.atom_offsets,
            edge_offsets=self.bond_offsets,
        )
        return GraphBatch(*batch, beside=_rows_of(self.beside, rows))

    def subset(self, rows: Tensor) -> "GraphStore":
        """The molecules `rows` (k,), in that order, as a store."""
        device = self.atoms.device
        atoms, _, atom_offsets = runs_of(self.atom_offsets, rows, device=device)
        bonds, _, bond_offsets = runs_of(self.bond_offsets, rows, device=device)
        return GraphStore(
            atoms=self.atoms[atoms],
            bonds=self.bonds[bonds],
            ends=self.ends[bonds],
            atom_offsets=atom_offsets.cpu(),
            bond_offsets=bond_offsets.cpu(),
            beside=_rows_of(self.beside, rows),
        )

    def _rows(self, index: Tensor) -> Tensor:
        """Row numbers, checked, on the CPU."""
        if index.dtype != torch.int64:
            raise IndexError(f"molecules are taken by int64 row numbers, got {index.dtype}")
        index = index.cpu()
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(self):
            raise IndexError(
                f"row numbers should lie in 0 to {len(self) - 1}, "
                f"got {int(index.min())} to {int(index.max())}"
            )
        return index


def pack(smiles: Sequence[str]) -> GraphStore:
    """Graphs of SMILES strings, row i from string i; what cannot be read gives no atoms."""
    return graph_store(packed_graphs(smiles))


def graph_store(packed: Packed) -> GraphStore:
    """Packed molecules as tensors."""
    return GraphStore(
        atoms=torch.from_numpy(packed.graph.atoms),
        bonds=torch.from_numpy(packed.graph.bonds),
        ends=torch.from_numpy(packed.graph.ends),
        atom_offsets=run_offsets(torch.from_numpy(packed.atoms)),
        bond_offsets=run_offsets(torch.from_numpy(packed.bonds)),
    )


def joined(stores: Sequence[GraphStore]) -> GraphStore:
    """The molecules of several stores, one after another, without columns beside them."""
    if len(stores) == 1:
        return stores[0]
    return GraphStore(
        atoms=torch.cat([store.atoms for store in stores]),
        bonds=torch.cat([store.bonds for store in stores]),
        ends=torch.cat([store.ends for store in stores]),
        atom_offsets=run_offsets(torch.cat([store.atom_offsets.diff() for store in stores])),
        bond_offsets=run_offsets(torch.cat([store.bond_offsets.diff() for store in stores])),
    )


def load_or_pack(smiles: Sequence[str]) -> GraphStore:
    """`pack(smiles)`, kept in the cache folder and mapped into memory from there the next time."""
    key = f"graphs/{smiles_digest(smiles)}"
    graphs: dict[str, Any] = cached_tensors(key, lambda: _tensors(pack(smiles)))
    return GraphStore(**graphs)


def _rows_of(columns: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {k: v[rows.to(v.device, non_blocking=True)] for k, v in columns.items()}


def _tensors(value: Any) -> dict[str, Tensor]:
    """Fields of the graphs by name, without what has been derived from them since."""
    return {one.name: getattr(value, one.name) for one in fields(value) if one.name != "beside"}
