"""torch_geometric: our packed molecules as its batches and back, and its networks as encoders.

It takes seconds to import, so it is imported where it is used.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from molhpft.core.annotations import BelowOne, Count
from molhpft.core.network import Batch, Chain, Stage
from molhpft.domains.molecules.gcn import AtomEmbedding
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.domains.molecules.smiles import (
    ATOM_SIZES,
    BOND_SIZES,
    PACKED_ATOM_SIZES,
    PACKED_BOND_SIZES,
)

if TYPE_CHECKING:
    from torch_geometric.data import Batch as Graphs
    from torch_geometric.data import Data


def to_pyg(graphs: GraphBatch) -> "Graphs":
    """The same molecules as a PyG batch, which `to_data_list()` takes apart into a `Data` each.

    Returns:
        `x` int64 (N, 9), `edge_index` (2, E) with source above target, `edge_attr` int64 (E, 4),
        `batch` (N,) and `ptr` (n + 1,), in the order of `graphs`; and `x_extra` int64 (N, 2) and
        `edge_attr_extra` int64 (E, 1), the columns of which OGB's encoders know nothing.
    """
    from torch_geometric.data import Batch as Graphs
    from torch_geometric.data import Data

    atoms, bonds = graphs.atoms.long(), graphs.bonds.long()
    nodes = _halves("x", atoms, len(ATOM_SIZES))
    edges = _halves("edge_attr", bonds, len(BOND_SIZES))
    batch = Graphs(
        _base_cls=Data,
        edge_index=torch.stack([graphs.source, graphs.target]),
        **nodes,
        **edges,
        batch=graphs.graph,
        ptr=graphs.offsets,
    )
    # where each molecule starts, as `Batch.from_data_list` notes it; nothing public can
    first_edges = graphs.pointer[graphs.offsets]
    zeros = torch.zeros_like(graphs.offsets[1:])
    batch._num_graphs = len(graphs)
    batch._slice_dict = {
        **dict.fromkeys(nodes, graphs.offsets),
        **dict.fromkeys(("edge_index", *edges), first_edges),
    }
    batch._inc_dict = {
        **dict.fromkeys((*nodes, *edges), zeros),
        "edge_index": graphs.offsets[:-1],
    }
    return batch


def from_pyg(batch: "Data") -> GraphBatch:
    """A PyG batch, or a lone `Data`, of molecules as our packed batch; edges may have any order.

    Args:
        batch: `x` (N, 9) and `edge_attr` (E, 4) as `to_pyg` gives them, every bond in
            both directions with the same features. A batch has `ptr`, as `Batch.from_data_list`
            makes it. Where it has no `x_extra` and `edge_attr_extra`, as `to_pyg` gives them, the
            result lacks these columns, and encoders that read them refuse it.

    Raises:
        ValueError: it holds no molecules in this sense; the message says where it does not.
    """
    atoms = _packed(batch, "x", ATOM_SIZES, PACKED_ATOM_SIZES)
    bonds = _packed(batch, "edge_attr", BOND_SIZES, PACKED_BOND_SIZES)
    offsets, graph = _membership(batch, len(atoms))
    if batch.edge_index is None or batch.edge_index.shape != (2, len(bonds)):
        raise ValueError(f"edge_index should have a column for each row of edge_attr, {len(bonds)}")
    source, target = batch.edge_index.long()
    _check_bonds(source, target, bonds, graph)
    target, order = target.sort(stable=True)
    return GraphBatch(
        atoms=atoms.to(torch.uint8),
        source=source[order],
        target=target,
        bonds=bonds[order].to(torch.uint8),
        pointer=torch.searchsorted(target, torch.arange(len(atoms) + 1, device=target.device)),
        graph=graph,
        offsets=offsets,
    )


def pyg_gnn(
    *,
    model: Literal["gcn", "sage", "gin", "gat"] = "gin",
    layers: Count = 5,
    width: Count = 300,
    dropout: BelowOne = 0.5,
    jump: Literal["last", "cat", "max", "lstm"] | None = None,
    pool: Literal["mean", "sum", "max"] = "mean",
) -> Chain:
    """PyG's GCN, GraphSAGE, GIN or GAT on atom embeddings; bonds only say which atoms they join.

    Args:
        model: the network of `torch_geometric.nn.models`.
        layers: number of graph convolutions.
        width: length of atom and molecule features.
        dropout: probability of dropping an atom's feature after a convolution that has batch norm.
        jump: how the atom features of all layers are joined (Xu et al., 2018); None takes the last
            layer's, which then has neither batch norm nor activation.
        pool: how atom features become a molecule's.
    """
    from torch_geometric.nn import models

    from molhpft.domains.graphs.backbones import gnn_backbone

    kinds = {"gcn": models.GCN, "sage": models.GraphSAGE, "gin": models.GIN, "gat": models.GAT}
    gnn = kinds[model](width, width, layers, dropout=dropout, norm="batch_norm", jk=jump)
    chain = on_molecules(gnn_backbone(gnn, pool=pool))
    return Chain({"embed": AtomEmbedding(ATOM_SIZES, width)}).followed_by(chain)


def on_molecules(chain: Chain) -> Chain:
    """A chain of stages for PyG graphs as one that takes batches of our molecule tasks."""
    return chain.mapped(OnMolecules)


class OnMolecules(Stage):
    """A stage for PyG graphs, given the packed molecules of a batch as such."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.width = stage.width
        self.gives_nodes = stage.gives_nodes

    def forward(self, h: Any, batch: Batch) -> Tensor:
        """What the stage gives, (rows, width)."""
        graphs = to_pyg(batch.inputs)
        result: Tensor = self.stage(
            graphs if h is batch.inputs else h, replace(batch, inputs=graphs)
        )
        return result


def _halves(name: str, columns: Tensor, own: int) -> dict[str, Tensor]:
    """The columns that OGB's encoders know, and after them the others."""
    return {name: columns[:, :own], f"{name}_extra": columns[:, own:]}


def _packed(batch: "Data", name: str, own: Sequence[int], packed: Sequence[int]) -> Tensor:
    """The columns that OGB's encoders know, and the others where they are there."""
    columns, extra = _columns(batch, name, own), f"{name}_extra"
    if extra not in batch:
        return columns
    others = _columns(batch, extra, packed[len(own) :])
    if len(others) != len(columns):
        raise ValueError(
            f"{extra} should have a row for each row of {name}, {len(columns)}; "
            f"it has {len(others)}"
        )
    return torch.cat([columns, others], 1)


def _columns(batch: "Data", name: str, sizes: Sequence[int]) -> Tensor:
    columns: Tensor | None = getattr(batch, name, None)
    if columns is None or columns.dim() != 2 or columns.shape[1] != len(sizes):
        shape = "none" if columns is None else tuple(columns.shape)
        raise ValueError(
            f"{name} of molecules should have {len(sizes)} columns as to_pyg gives them, "
            f"its shape is {shape}"
        )
    whole = columns.long()
    limits = torch.tensor(sizes, device=columns.device)
    valid = (whole == columns) & (whole >= 0) & (whole < limits)
    for row in (~valid.all(1)).nonzero().flatten().tolist()[:1]:
        raise ValueError(
            f"columns of {name} should be whole numbers from 0 and below "
            f"{', '.join(map(str, sizes))}; row {row} is {columns[row].tolist()}"
        )
    return whole


def _membership(batch: "Data", n: int) -> tuple[Tensor, Tensor]:
    """First atom of each molecule, then N; and molecule of each atom."""
    device = batch.x.device
    if "batch" not in batch:
        return torch.tensor([0, n], device=device), torch.zeros(n, dtype=torch.long, device=device)
    if "ptr" not in batch:
        raise ValueError("a batch should have ptr, it has none; make it by Batch.from_data_list")
    graph = torch.arange(len(batch.ptr) - 1, device=device).repeat_interleave(batch.ptr.diff())
    if not torch.equal(graph, batch.batch):
        raise ValueError("atoms should come molecule after molecule; batch and ptr disagree")
    return batch.ptr, graph


def _check_bonds(source: Tensor, target: Tensor, bonds: Tensor, graph: Tensor) -> None:
    ends = torch.cat([source, target])
    if len(ends) and not 0 <= int(ends.min()) <= int(ends.max()) < len(graph):
        raise ValueError(
            f"edge_index should hold atoms 0 to {len(graph) - 1}, "
            f"it holds {int(ends.min())} to {int(ends.max())}"
        )
    wrong = (source == target) | (graph[source] != graph[target])
    for edge in wrong.nonzero().flatten().tolist()[:1]:
        raise ValueError(
            "a bond should join two atoms of a molecule; "
            f"edge {edge} goes from {int(source[edge])} to {int(target[edge])}"
        )
    there, back = (_keys(*pair, bonds, len(graph)) for pair in ((source, target), (target, source)))
    if not torch.equal(there.sort().values, back.sort().values):
        raise ValueError("every bond should be there in both directions with the same features")


def _keys(source: Tensor, target: Tensor, bonds: Tensor, atoms: int) -> Tensor:
    """One number for each edge that says its ends and features, (E,)."""
    key = source * atoms + target
    # of a batch without the extra columns, the first ones
    for column, size in zip(bonds.T, PACKED_BOND_SIZES[: bonds.shape[1]], strict=True):
        key = key * size + column
    return key
