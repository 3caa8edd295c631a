"""chemprop's D-MPNN (Yang et al., 2019) as a chain with the stages `embed, message, atoms, pool`.

Its matrices `W_i` and `W_o` read an atom's features beside other rows. Each is kept in two parts
here, so that all that a network knows of an atom comes through the first stage:

    embed    sent_v = W_i[atoms] x_v,  own_v = W_o[atoms] x_v + b_o
    message  a_vw^0 = sent_v + W_i[bonds] e_vw,  a_vw^t = a_vw^0 + W_h sum_{u != w} relu(a_uv^(t-1))
    atoms    h_v = relu(own_v + W_o[messages] sum_u relu(a_uv))

`W_h` is one matrix for all steps, so that they are one stage: a chain that could be cut between two
steps would train a part of what it keeps frozen.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molhpft.core.annotations import BelowOne, Count, Positive
from molhpft.core.network import Batch, Chain, Plain, Stage
from molhpft.domains.molecules.chemprop_features import (
    ATOM_FEATURES,
    BOND_FEATURES,
    AtomFeatures,
    directed_bonds,
    kind_features,
)
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.domains.molecules.pooling import sum_pool
from molhpft.kernels.directed import arrivals, bond_states, messages
from molhpft.kernels.ops import linear

NORM_CONSTANT = 100.0

Aggregation = Literal["mean", "sum", "norm"]


def dmpnn(
    *,
    depth: Count = 3,
    width: Count = 300,
    dropout: BelowOne = 0.0,
    aggregation: Aggregation = "norm",
    norm_constant: Positive | None = None,
    bias: bool = False,
    batch_norm: bool = False,
) -> Chain:
    """The D-MPNN of chemprop.

    Args:
        depth: number of times that messages are made, the first of bonds alone.
        width: length of bond, atom and molecule features.
        dropout: probability of dropping an entry of a bond's or an atom's features.
        aggregation: of a molecule's atoms: their mean, their sum, or the sum over a constant
            (norm).
        norm_constant: the divisor of aggregation norm; unset: 100.
        bias: whether the matrices `W_i` and `W_h` have biases.
        batch_norm: whether the features of molecules are normalised.

    Raises:
        ValueError: `norm_constant` is given for an aggregation that does not divide by it.
    """
    if norm_constant is not None and aggregation != "norm":
        raise ValueError(
            f"norm_constant divides the sum of aggregation norm, and aggregation is {aggregation}; "
            "leave it out"
        )
    constant = NORM_CONSTANT if norm_constant is None else norm_constant
    stages: dict[str, Stage] = {
        "embed": AtomInputs(width, bias=bias),
        "message": Messages(width, depth=depth, dropout=dropout, bias=bias),
        "atoms": AtomOutputs(width, dropout=dropout),
        "pool": Aggregate(width, aggregation, constant),
    }
    if batch_norm:
        stages["norm"] = Plain(nn.BatchNorm1d(width), width=width)
    return Chain(stages)


class AtomInputs(Stage):
    """What an atom sends along its bonds and, beside it, what it keeps for itself, (atoms, 2 d)."""

    gives_nodes = True

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.features = AtomFeatures()
        # drawn as chemprop draws the whole matrices
        self.sent = _part(nn.Linear(ATOM_FEATURES + BOND_FEATURES, width, bias), ATOM_FEATURES)
        self.own = _part(nn.Linear(ATOM_FEATURES + width, width), ATOM_FEATURES)
        self.width = 2 * width

    def forward(self, h: GraphBatch, batch: Batch) -> Tensor:
        """Rows of atoms (atoms, 2 d)."""
        weight = torch.cat([self.sent.weight, self.own.weight])
        bias = torch.cat([_bias(self.sent), _bias(self.own)])
        # a short product of a few features, which reduced precision would not make faster
        with torch.autocast(weight.device.type, enabled=False):
            return linear(self.features(h).to(weight.dtype), weight, bias)


class Messages(Stage):
    """Messages along directed bonds: what arrives at an atom takes the place of what it sent."""

    gives_nodes = True

    def __init__(self, width: int, *, depth: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.bonds = _part(nn.Linear(ATOM_FEATURES + BOND_FEATURES, width, False), -BOND_FEATURES)
        # at depth 1 there is no message for it to read
        self.linear = nn.Linear(width, width, bias) if depth > 1 else None
        self.register_buffer("kinds", kind_features(), persistent=False)
        self.kinds: Tensor
        self.depth = depth
        self.dropout = dropout
        self.width = 2 * width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Rows of atoms, (atoms, 2 d), from such rows."""
        sent, own = h.tensor_split(2, dim=1)
        graph = directed_bonds(batch.inputs)
        with torch.autocast(h.device.type, enabled=False):
            first = bond_states(sent, F.linear(self.kinds, self.bonds.weight), graph)
        a = first
        if self.linear is not None:
            weight, bias = self.linear.weight, _bias(self.linear)
            for _ in range(1, self.depth):
                # dropout of what a ReLU gives is the ReLU of what dropout gives
                a = first + linear(messages(a, graph), weight, bias)
                a = F.dropout(a, self.dropout, self.training)
        return torch.cat([arrivals(a, graph), own], 1)


class AtomOutputs(Stage):
    """An atom's own part and what arrived at it, (atoms, d)."""

    gives_nodes = True

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.linear = _part(nn.Linear(ATOM_FEATURES + width, width, False), -width)
        self.dropout = dropout
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Features of atoms (atoms, d) from rows (atoms, 2 d)."""
        arrived, own = h.tensor_split(2, dim=1)
        h = own + linear(arrived, self.linear.weight, _bias(self.linear))
        return F.dropout(F.relu(h), self.dropout, self.training)


class Aggregate(Stage):
    """Mean of each molecule's atoms, or their sum divided by a constant, (n, width)."""

    def __init__(self, width: int, aggregation: Aggregation, norm_constant: float) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.norm_constant = norm_constant
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, width); 0 for a molecule without atoms."""
        graphs: GraphBatch = batch.inputs
        total = sum_pool(h, graphs)
        if self.aggregation == "sum":
            return total
        if self.aggregation == "norm":
            return total / self.norm_constant
        return total / graphs.counts.clamp(min=1)[:, None]


def _part(whole: nn.Linear, columns: int) -> nn.Linear:
    """The first columns of a linear map, with its bias, or the last ones for a negative number."""
    weight = whole.weight[:, :columns] if columns > 0 else whole.weight[:, columns:]
    part = nn.Linear(weight.shape[1], weight.shape[0], bias=whole.bias is not None)
    part.weight = nn.Parameter(weight.detach().clone())
    part.bias = whole.bias
    return part


def _bias(layer: nn.Linear) -> Tensor:
    bias: Tensor | None = layer.bias
    return layer.weight.new_zeros(len(layer.weight)) if bias is None else bias
