"""Products with the Jacobian, and the tangent kernel made of them, against full Jacobians."""

from math import isnan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.network import Batch, Chain, Network, Plain
from molhpft.measure import tangent
from molhpft.measure.tangent import (
    backbone_weights,
    differentiable,
    features,
    ntk_change,
    ntk_distance,
    pull_back,
    push_forward,
    row_gradient,
    tangent_kernel,
    unit_vectors,
)
from tests.measure.networks import (
    dense_batch,
    full_jacobian,
    full_kernel,
    linear_network,
    molecule_batch,
    molecule_network,
    smooth_network,
)

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


def random_change(weights, rng):
    return {n: torch.randn(w.shape, generator=rng, dtype=w.dtype) for n, w in weights.items()}


def flat(change):
    return torch.cat([t.flatten() for t in change.values()])


@pytest.fixture
def network():
    return smooth_network()


@pytest.fixture
def batch():
    return dense_batch()


def test_pulling_back_is_the_transposed_jacobian(network, batch, rng):
    weights, v = backbone_weights(network), torch.randn(7, 4, generator=rng).double()
    with differentiable(network):
        result = pull_back(features(network, weights, batch), weights, v)
    expected = torch.einsum("ndp,nd->p", full_jacobian(network, batch), v)
    torch.testing.assert_close(flat(result), expected)


def test_pushing_forward_is_the_jacobian(network, batch, rng):
    change = random_change(backbone_weights(network), rng)
    expected = full_jacobian(network, batch) @ flat(change)
    torch.testing.assert_close(push_forward(network, batch, change), expected)


def test_a_row_gradient_is_a_row_of_the_jacobian(network, batch, rng):
    weights, u = backbone_weights(network), torch.randn(4, generator=rng).double()
    with differentiable(network):
        result = row_gradient(features(network, weights, batch), weights, 2, u)
    torch.testing.assert_close(result, u @ full_jacobian(network, batch)[2])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_both_products_belong_to_one_jacobian_of_molecules(seed):
    network, batch = molecule_network(), molecule_batch(("CCO", "C#N"))
    rng = torch.Generator().manual_seed(seed)
    weights, v = backbone_weights(network), torch.randn(2, 16, generator=rng).double()
    change = random_change(weights, rng)
    with differentiable(network):
        back = pull_back(features(network, weights, batch), weights, v)
    forward = push_forward(network, batch, change)
    torch.testing.assert_close((forward * v).sum(), flat(back) @ flat(change))


def test_an_operation_without_forward_derivative_gives_the_same_numbers(
    network, batch, rng, monkeypatch
):
    change = random_change(backbone_weights(network), rng)
    at_once = push_forward(network, batch, change)

    def unsupported(*_):
        raise NotImplementedError("no forward derivative")

    monkeypatch.setattr(tangent.forward_ad, "make_dual", unsupported)
    torch.testing.assert_close(push_forward(network, batch, change), at_once)


def test_maps_in_any_memory_layout_can_be_pushed_forward(rng, monkeypatch):
    convolution = torch.nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last).double()
    network = Network(Chain({"conv": Plain(convolution, width=3)}), Chain({}))
    images = torch.randn(2, 2, 3, 3, generator=rng).double()
    batch = Batch(images.contiguous(memory_format=torch.channels_last), torch.zeros(2))
    change = random_change(backbone_weights(network), rng)
    at_once = push_forward(network, batch, change)
    monkeypatch.setattr(tangent, "_by_dual_numbers", tangent._by_two_backward_passes)
    torch.testing.assert_close(push_forward(network, batch, change), at_once)


def test_frozen_weights_count_as_weights(network, batch):
    before = full_jacobian(network, batch)
    network.backbone.requires_grad_(False)
    weights = backbone_weights(network)
    with differentiable(network):
        row = row_gradient(features(network, weights, batch), weights, 0, torch.eye(4)[1].double())
    torch.testing.assert_close(row, before[0, 1])
    assert not any(p.requires_grad for p in network.backbone.parameters())


def test_a_weight_that_features_do_not_depend_on_has_gradient_zero(batch):
    network = linear_network()
    network.backbone.register_parameter("idle", torch.nn.Parameter(torch.ones(2).double()))
    weights = backbone_weights(network)
    with differentiable(network):
        z = features(network, weights, batch)
        assert (pull_back(z, weights, torch.ones_like(z))["idle"] == 0).all()


def test_a_backbone_without_weights_has_no_kernel():
    with pytest.raises(ValueError, match="needs a backbone with weights"):
        backbone_weights(Network(Chain({}), linear_network().head))


def trace_kernel(network, batch):
    return torch.einsum("idjd->ij", full_kernel(network, batch)) / 4


def test_the_kernel_of_a_linear_backbone_is_the_gram_matrix_of_its_inputs(batch, rng):
    vectors = unit_vectors(3, 4, rng=rng)
    kernel = tangent_kernel(linear_network(), [batch], vectors)
    expected = batch.inputs @ batch.inputs.T
    torch.testing.assert_close(kernel, expected, rtol=1e-6, atol=1e-6)  # float32 vectors


def test_the_unit_basis_gives_the_trace_kernel(batch):
    kernel = tangent_kernel(smooth_network(), [batch], torch.eye(4))
    torch.testing.assert_close(kernel, trace_kernel(smooth_network(), batch))


def test_a_contraction_is_the_kernel_between_two_projections(batch, rng):
    u = unit_vectors(1, 4, rng=rng)
    kernel = tangent_kernel(smooth_network(), [batch], u)
    u = u[0].double()
    expected = torch.einsum("d,idje,e->ij", u, full_kernel(smooth_network(), batch), u)
    torch.testing.assert_close(kernel, expected)


def test_the_kernel_does_not_depend_on_how_examples_are_batched(rng):
    network, vectors = molecule_network(), unit_vectors(2, 16, rng=rng)
    together = tangent_kernel(network, [molecule_batch(("CCO", "CC=O"))], vectors)
    alone = tangent_kernel(network, [molecule_batch((s,)) for s in ("CCO", "CC=O")], vectors)
    torch.testing.assert_close(together, alone)


def test_a_cut_that_leaves_atoms_gives_a_row_for_each_atom(rng):
    network = molecule_network().cut("conv1")
    kernel = tangent_kernel(network, [molecule_batch(("CCO",))], unit_vectors(2, 16, rng=rng))
    assert kernel.shape == (3, 3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_a_kernel_is_symmetric_without_negative_eigenvalues(seed):
    rng = torch.Generator().manual_seed(seed)
    batch = dense_batch(n=4, seed=seed)
    kernel = tangent_kernel(smooth_network(seed=seed), [batch], unit_vectors(2, 4, rng=rng))
    torch.testing.assert_close(kernel, kernel.T)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-9


def test_dropout_and_batch_statistics_do_not_enter_the_kernel(batch):
    training = smooth_network().train()
    expected = tangent_kernel(smooth_network().eval(), [batch], torch.eye(4))
    torch.testing.assert_close(tangent_kernel(training, [batch], torch.eye(4)), expected)


def test_unit_vectors_have_length_one_and_the_generator_decides_them():
    a, b = (unit_vectors(5, 300, rng=torch.Generator().manual_seed(7)) for _ in range(2))
    torch.testing.assert_close(a.norm(dim=1), torch.ones(5))
    assert torch.equal(a, b)


def test_the_same_kernel_has_changed_by_nothing(batch):
    kernel = tangent_kernel(linear_network(), [batch], torch.eye(4))
    assert ntk_change(kernel, kernel) == 0
    assert ntk_distance(kernel, kernel) == pytest.approx(0)


def test_a_scaled_kernel_has_changed_but_has_no_distance():
    kernel = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    assert ntk_change(kernel, 3 * kernel) == pytest.approx(2)
    assert ntk_distance(kernel, 3 * kernel) == pytest.approx(0)


def test_kernels_without_a_common_direction_have_distance_one():
    assert ntk_distance(torch.diag(torch.tensor([1.0, 0])), torch.diag(torch.tensor([0, 1.0]))) == 1


def test_kernels_of_different_examples_cannot_be_compared():
    with pytest.raises(
        ValueError, match=r"same examples must have one shape, got \(2, 2\) and \(3, 3\)"
    ):
        ntk_change(torch.eye(2), torch.eye(3))


def test_nothing_is_relative_to_a_kernel_of_zeros():
    assert isnan(ntk_change(torch.zeros(2, 2), torch.eye(2)))
    assert isnan(ntk_distance(torch.eye(2), torch.zeros(2, 2)))
    assert isnan(ntk_distance(torch.zeros(2, 2), torch.eye(2)))


def test_weights_that_do_not_fit_in_memory_together_give_the_same_kernel(batch, rng, monkeypatch):
    vectors = unit_vectors(3, 4, rng=rng)
    at_once = tangent_kernel(smooth_network(), [batch], vectors)
    monkeypatch.setattr("molhpft.measure.tangent._MOST_NUMBERS", 7 * 8)
    torch.testing.assert_close(tangent_kernel(smooth_network(), [batch], vectors), at_once)


@pytest.mark.parametrize("vectors", [torch.ones(2, 3), torch.ones(4), torch.ones(0, 4)])
def test_vectors_of_another_space_are_refused(vectors, batch):
    with pytest.raises(
        ValueError, match="rows of 4 numbers, one for each feature of an example, got shape"
    ):
        tangent_kernel(linear_network(), [batch], vectors)


def test_a_kernel_of_no_examples_is_refused():
    with pytest.raises(ValueError, match=r"^a tangent kernel needs at least one batch, got none$"):
        tangent_kernel(linear_network(), [], torch.eye(4))
