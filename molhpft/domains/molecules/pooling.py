"""From the features of atoms to those of their molecules: pools, and jumping knowledge.

Every pool reads the rows of atoms, the first ones of the running tensor, and leaves out what stands
below them. So stages may append rows of their own: virtual nodes, or the molecule features that
jumping knowledge collects.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from molhpft.core.network import Batch, Stage
from molhpft.domains.molecules.graphs import GraphBatch
from molhpft.kernels.tied_rows import remember_mapped

Pooling = Literal["mean", "sum", "mean+sum", "attention"]

# atoms of a drug-like molecule: divided by it, a sum is about as large as a mean, so that neither
# dominates the gradient of a layer that reads both
TYPICAL_ATOMS = 25


class MeanPool(Stage):
    """Mean of each molecule's atoms, (n, width); 0 for a molecule without atoms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, width)."""
        return _mean(sum_pool(h, batch.inputs), batch.inputs)


class SumPool(Stage):
    """Sum of each molecule's atoms over `TYPICAL_ATOMS`, (n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, width)."""
        return sum_pool(h, batch.inputs) / TYPICAL_ATOMS


class MeanAndSumPool(Stage):
    """Mean of each molecule's atoms, then their sum over `TYPICAL_ATOMS`, (n, 2 * atom width).

    Args:
        width: of an atom's features; that of the stage is twice as much.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, 2 * atom width)."""
        total = sum_pool(h, batch.inputs)
        return torch.cat([_mean(total, batch.inputs), total / TYPICAL_ATOMS], 1)


class AttentionPool(Stage):
    """Mean of each molecule's atoms with weights `softmax(w h_i + b)`, (n, width).

    The global attention of Li et al. (2016), with the atoms themselves as values.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.width = width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, width)."""
        graphs: GraphBatch = batch.inputs
        h = _in_full_precision(_atoms(h, graphs))
        # weights are quotients of exponentials, for which bfloat16 is too coarse
        with torch.autocast(h.device.type, enabled=False):
            scores = self.score(h)
        lowest = scores.new_full((len(graphs), 1), -torch.inf)
        highest = lowest.scatter_reduce(0, graphs.graph[:, None], scores.detach(), "amax")
        weights = (scores - highest.index_select(0, graphs.graph)).exp()
        total = sum_pool(torch.cat([weights * h, weights], 1), graphs)
        # the highest weight of a molecule with atoms is 1
        return total[:, :-1] / total[:, -1:].clamp(min=1)


POOLS: dict[Pooling, type[MeanPool | SumPool | MeanAndSumPool | AttentionPool]] = {
    "mean": MeanPool,
    "sum": SumPool,
    "mean+sum": MeanAndSumPool,
    "attention": AttentionPool,
}


def atom_pool(pool: Pooling, width: int) -> Stage:
    """The pool of a name.

    Args:
        pool: `mean`; `sum`, which counts, over `TYPICAL_ATOMS`; `mean+sum`, both side by side; or
            `attention`, a mean with learned weights.
        width: of an atom's features.
    """
    return POOLS[pool](width)


class CollectMolecules(Stage):
    """A convolution that appends the molecule features of its atoms below all rows it got.

    So jumping knowledge costs a row a molecule and layer, not one an atom and layer.

    Args:
        convolution: reads and emits atoms, then what else it needs, such as virtual nodes.
        pool: of its atoms; `k` times as wide as the convolution.
        before: number of such stages before this one.
    """

    gives_nodes = True

    def __init__(self, convolution: Stage, pool: Stage, *, before: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.pool = pool
        self.before = before
        self.width = convolution.width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Rows of the convolution, then `k` rows a molecule of every layer so far."""
        collected = self.before * len(batch.inputs) * (self.pool.width // self.width)
        # the first gets the very tensor of the embedding, which products of its table need
        rows, earlier = h, h[:0]
        if collected:
            rows, earlier = torch.split(h, [len(h) - collected, collected])
            remember_mapped(rows, h)
        rows = self.convolution(rows, batch)
        result = torch.cat([rows, earlier, self.pool(rows, batch).reshape(-1, self.width)])
        remember_mapped(result, rows)
        return result


class JoinLayers(Stage):
    """Jumping knowledge (Xu et al., 2018): molecule features of all layers side by side.

    Args:
        layers: number of `CollectMolecules` before it.
        width: of the molecule features of one layer.
    """

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers = layers
        self.width = layers * width

    def forward(self, h: Tensor, batch: Batch) -> Tensor:
        """Molecule features (n, layers * width), those of the first layer first."""
        n, atom_width = len(batch.inputs), h.shape[1]
        collected = h[len(h) - n * self.width // atom_width :]
        by_layer = collected.reshape(self.layers, n, self.width // self.layers)
        return by_layer.transpose(0, 1).reshape(n, self.width)


def sum_pool(h: Tensor, graphs: GraphBatch) -> Tensor:
    """Sum of the rows of each molecule's atoms, (n, d), in float32 at least."""
    h = _in_full_precision(_atoms(h, graphs))
    return h.new_zeros(len(graphs), h.shape[1]).index_add(0, graphs.graph, h)


def _atoms(h: Tensor, graphs: GraphBatch) -> Tensor:
    # even a slice of everything is copied in the backward pass
    return h if len(h) == len(graphs.graph) else h[: len(graphs.graph)]


def _mean(total: Tensor, graphs: GraphBatch) -> Tensor:
    return total / graphs.counts.clamp(min=1)[:, None]


def _in_full_precision(h: Tensor) -> Tensor:
    # rows that autocast has made half as precise are summed in float32
    return h.to(torch.promote_types(h.dtype, torch.float32))
