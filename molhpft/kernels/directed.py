"""The operations of directed message passing, by fused kernels on the CPU.

Edges hold rows `a` before the ReLU; what is sent along them is `relu(a)`.
"""

from functools import partial

from torch import Tensor

from molhpft.kernels import reference
from molhpft.kernels.dispatch import Operation, directed_kernels_for
from molhpft.kernels.reference import BondGraph


def bond_states(p: Tensor, q: Tensor, graph: BondGraph) -> Tensor:
    """A row of a node and one of a table for each edge; see `reference.bond_states`."""
    kernels = directed_kernels_for(p, q)
    if kernels is None:
        return reference.bond_states(p, q, graph)
    return Operation(
        reference=partial(reference.bond_states, graph=graph),
        forward=partial(kernels.bond_states, graph=graph),
        backward=lambda g, wanted, p, q: kernels.bond_states_backward(g, len(q), graph),
    )(p, q)


def messages(a: Tensor, graph: BondGraph) -> Tensor:
    """What each edge hears from the edges before it; see `reference.messages`."""
    kernels = directed_kernels_for(a)
    if kernels is None:
        return reference.messages(a, graph)
    return Operation(
        reference=partial(reference.messages, graph=graph),
        forward=partial(kernels.messages, graph=graph),
        backward=lambda g, wanted, a: (kernels.messages_backward(g, a, graph),),
    )(a)


def arrivals(a: Tensor, graph: BondGraph) -> Tensor:
    """What each node hears; see `reference.arrivals`."""
    kernels = directed_kernels_for(a)
    if kernels is None:
        return reference.arrivals(a, graph)
    return Operation(
        reference=partial(reference.arrivals, graph=graph),
        forward=partial(kernels.arrivals, graph=graph),
        backward=lambda g, wanted, a: (kernels.arrivals_backward(g, a, graph),),
    )(a)
