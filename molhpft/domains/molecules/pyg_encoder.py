"""torch_geometric's own networks as molecule encoders, by name."""

from typing import Literal

from molhpft.core.network import Chain
from molhpft.core.ranges import BelowOne, Count
from molhpft.domains.molecules.gcn import AtomEmbedding
from molhpft.domains.molecules.smiles import ATOM_SIZES


def pyg_gnn(
    *,
    model: Literal["gcn", "sage", "gin", "gat"] = "gin",
    layers: Count = 5,
    width: Count = 300,
    dropout: BelowOne = 0.5,
    jump: Literal["last", "cat", "max", "lstm"] | None = None,
    pool: Literal["mean", "sum", "max"] = "mean",
) -> Chain:
    """PyG's GCN, GraphSAGE, GIN or GAT on atom embeddings; bonds say only who is whose neighbour.

    Args:
        model: the network of `torch_geometric.nn.models`.
        layers: number of graph convolutions.
        width: length of atom and molecule features.
        dropout: probability of dropping an atom's feature after a convolution that has batch norm.
        jump: how the atom features of all layers are joined (Xu et al., 2018); None takes the last
            layer's, which then has neither batch norm nor activation.
        pool: how atom features become a molecule's.
    """
    # imported on use: it takes seconds, and every other encoder does without
    from torch_geometric.nn import models

    from molhpft.domains.graphs.backbones import gnn_backbone
    from molhpft.domains.molecules.pyg import on_molecules

    kinds = {"gcn": models.GCN, "sage": models.GraphSAGE, "gin": models.GIN, "gat": models.GAT}
    gnn = kinds[model](width, width, layers, dropout=dropout, norm="batch_norm", jk=jump)
    chain = on_molecules(gnn_backbone(gnn, pool=pool))
    return Chain({"embed": AtomEmbedding(ATOM_SIZES, width), **chain.named_stages()})
