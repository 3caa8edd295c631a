"""A graph isomorphism network that reads bonds (GINE) as a chain `embed, conv0 ... conv4, pool`."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from molhpft.core.annotations import BelowOne, Count
from molhpft.core.network import Chain
from molhpft.domains.molecules.gcn import (
    OGB_SIZES,
    AtomEmbedding,
    ColumnEmbedding,
    Norm,
    StageOptions,
    encoder_chain,
    norm_layer,
    ogb_edges,
    once_a_batch,
)
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.domains.molecules.pooling import Pooling
from molhpft.domains.molecules.smiles import ATOM_SIZES
from molhpft.kernels.ops import convolve, linear, normalise
from molhpft.kernels.reference import CSRGraph


def gine(
    *,
    layers: Count = 5,
    width: Count = 300,
    dropout: BelowOne = 0.5,
    virtual_node: bool = False,
    norm: Norm = "batch",
    residual: bool = False,
    jumping_knowledge: bool = False,
    pool: Pooling = "mean",
    projection: Count | None = None,
) -> Chain:
    """GINE, which is also OGB's example GIN at these defaults; arguments as for `gcn`.

    It sums over neighbours without dividing by their number, so an atom can count them, and has
    four times the weights of a GCN of the same width. `norm` is that inside its perceptrons too.
    """
    options = StageOptions(
        dropout, virtual_node, norm, residual, jumping_knowledge, pool, projection
    )
    embed = AtomEmbedding(ATOM_SIZES, width)
    return encoder_chain(embed, lambda width: GINEConvolution(width, norm), layers, options)


class GINEConvolution(nn.Module):
    """Graph isomorphism convolution with bonds (Hu et al., 2020).

    `mlp((1 + eps) h_i + sum_j relu(h_j + bond_ij))` with a learned `eps`, 0 at first, and a
    perceptron of one hidden layer, twice as wide, with a norm and a ReLU.
    """

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(1))
        self.bond = ColumnEmbedding(OGB_SIZES, width)
        self.hidden = nn.Linear(width, 2 * width)
        self.norm = norm_layer(norm, 2 * width)
        self.out = nn.Linear(2 * width, width)
        self.register_buffer("no_root", torch.zeros(width), persistent=False)
        self.no_root: Tensor

    def forward(self, h: Tensor, graphs: GraphBatch) -> Tensor:
        """New atom features (atoms, d) from `h` (atoms, d)."""
        heard = convolve(h, self.bond.combinations(), self.no_root, gine_edges(graphs))
        # a factor without axes leaves rows in the precision that autocast gave them
        x = (1 + self.eps.squeeze()) * h + heard
        x = linear(x, self.hidden.weight, self.hidden.bias)
        x = normalise(x, self.norm, relu=True, dropout=0.0, training=self.training)
        return linear(x, self.out.weight, self.out.bias)


@once_a_batch
def gine_edges(graphs: GraphBatch) -> CSRGraph:
    """`ogb_edges` of weight 1, in which what an atom tells itself has weight 0."""
    edges = ogb_edges(graphs)
    return replace(
        edges,
        norm=torch.ones_like(edges.norm),
        # its inverse is the weight of the atom itself
        degree=torch.full_like(edges.degree, torch.inf),
    )
