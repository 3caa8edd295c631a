"""What autograd can ask of a fused operation beyond one gradient: the reference's numbers."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import jacrev, jvp, vjp, vmap

from molhpft.kernels.ops import convolve, embed, linear, normalise, propagate
from tests.kernels.random_graphs import KINDS, RING, STAR, draw_leaves

ROWS = torch.tensor([[0, 2], [1, 3], [0, 3]])


def norm_of(weight, bias):
    norm = nn.BatchNorm1d(4).eval()
    norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
    return norm


OPERATIONS = {
    "linear": (linear, [(5, 4), (3, 4), (3,)]),
    "convolve": (lambda *a: convolve(*a, STAR), [(61, 4), (KINDS, 4), (4,)]),
    "propagate": (lambda x: propagate(x, STAR), [(61, 4)]),
    "embed": (lambda table: embed(ROWS, table), [(4, 3)]),
    "normalise": (
        lambda a: normalise(a, nn.BatchNorm1d(4), relu=True, dropout=0.0, training=True),
        [(7, 4)],
    ),
}
operations = pytest.mark.parametrize(("operation", "shapes"), OPERATIONS.values(), ids=OPERATIONS)


@pytest.fixture
def plain(monkeypatch):
    """Calls a function with the reference."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setenv("MOLHPFT_KERNELS", "reference")
            return function(*arguments)

    return call


@operations
def test_first_gradients_are_fused(operation, shapes, plain):
    leaves = draw_leaves(*shapes)
    out = operation(*leaves)
    assert type(out.grad_fn).__name__ == "_FusedBackward"
    ours = torch.autograd.grad(out.square().sum(), leaves)
    theirs = torch.autograd.grad(plain(operation, *leaves).square().sum(), leaves)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@operations
def test_batches_of_gradients_are_those_of_the_reference(operation, shapes, plain):
    leaves = draw_leaves(*shapes)
    out = operation(*leaves)
    unit = torch.eye(out.numel())[:9].view(-1, *out.shape)
    ours = torch.autograd.grad(out, leaves, unit, is_grads_batched=True)
    theirs = torch.autograd.grad(plain(operation, *leaves), leaves, unit, is_grads_batched=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@operations
def test_gradients_of_gradients_are_those_of_the_reference(operation, shapes, plain):
    def penalty(function):
        leaves = draw_leaves(*shapes)
        out = function(*leaves).square().sum()
        first = torch.autograd.grad(out, leaves, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), leaves)

    torch.testing.assert_close(penalty(operation), plain(penalty, operation), rtol=1e-3, atol=1e-3)


@operations
def test_forward_derivatives_are_those_of_the_reference(operation, shapes, plain):
    leaves = [leaf.detach() for leaf in draw_leaves(*shapes)]
    tangents = [leaf.detach() for leaf in draw_leaves(*shapes, seed=1)]
    ours = jvp(operation, tuple(leaves), tuple(tangents))
    theirs = plain(jvp, operation, tuple(leaves), tuple(tangents))
    torch.testing.assert_close(ours, theirs)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, tangents, strict=True)]
        moved = forward_ad.unpack_dual(operation(*duals)).tangent
    torch.testing.assert_close(moved, theirs[1])


@operations
def test_reverse_derivatives_by_torch_func_are_those_of_the_reference(operation, shapes, plain):
    leaves = [leaf.detach() for leaf in draw_leaves(*shapes)]
    (ours, pull), (theirs, plain_pull) = vjp(operation, *leaves), plain(vjp, operation, *leaves)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(pull(ours), plain_pull(theirs), rtol=1e-4, atol=1e-4)


def test_a_jacobian_by_vmap_is_that_of_the_reference(plain):
    x, bond, root = (leaf.detach() for leaf in draw_leaves((61, 2), (KINDS, 2), (2,)))
    ours = jacrev(lambda x: convolve(x, bond, root, STAR))(x)
    theirs = plain(jacrev(lambda x: convolve(x, bond, root, STAR)), x)
    torch.testing.assert_close(ours, theirs)
    together = vmap(lambda x: convolve(x, bond, root, STAR))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(together[1], convolve(2 * x, bond, root, STAR))


def test_only_what_is_asked_for_gets_a_gradient():
    x, bond, root = draw_leaves((600, 4), (KINDS, 4), (4,))
    out = convolve(x, bond.detach(), root, RING)
    expected = torch.autograd.grad(convolve(x, bond, root, RING).sum(), [x, root])
    torch.testing.assert_close(torch.autograd.grad(out.sum(), [x, root]), expected)
