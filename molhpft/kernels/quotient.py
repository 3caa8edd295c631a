"""Graph convolution of groups of nodes that are alike, each computed once."""

from dataclasses import dataclass, fields
from functools import cached_property, partial

from torch import Tensor

from molhpft.kernels import reference
from molhpft.kernels.dispatch import Kernels, Operation
from molhpft.kernels.reference import CSRGraph, EdgeLists
from molhpft.kernels.tied_rows import TiedRows


@dataclass(frozen=True, eq=False)
class QuotientGraph(CSRGraph):
    """A graph for kernels on the CPU that read a row for each group and give one for some nodes.

    Attributes:
        group: of each node, int64 (N,).
        nodes: that hear, int64.
    """

    group: Tensor
    nodes: Tensor

    @cached_property
    def edges(self) -> tuple[EdgeLists, EdgeLists]:
        """Edges into `nodes` from the groups, and out of each group into these."""
        from molhpft.kernels.edge_lists import edge_lists

        return edge_lists(self, self.group, self.nodes)


def convolve_groups(
    graph: CSRGraph, before: TiedRows, after: TiedRows, kernels: Kernels
) -> Operation:
    """`reference.convolve` of x, bond and root, with a row for each group; kernels of the CPU.

    Args:
        graph: on the CPU.
        before: which nodes have one row of x, (groups of `before`, d).
        after: which nodes have one row of the result, (groups of `after`, d).
        kernels: of the CPU.
    """
    own = {field.name: getattr(graph, field.name) for field in fields(CSRGraph)}
    quotient = QuotientGraph(**own, group=before.group, nodes=after.first)

    def plain(x: Tensor, bond: Tensor, root: Tensor) -> Tensor:
        h = reference.convolve(x.index_select(0, before.group), bond, root, graph)
        return h.index_select(0, after.first)

    return Operation(
        reference=plain,
        forward=partial(kernels.convolve, graph=quotient),
        backward=lambda g, wanted, x, bond, root: kernels.convolve_backward(
            g, x, bond, root, quotient
        ),
    )
