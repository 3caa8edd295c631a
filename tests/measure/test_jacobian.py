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
    pull_back,
    push_forward,
    row_gradient,
)
from tests.measure.networks import (
    dense_batch,
    full_jacobian,
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


def test_features_of_the_networks_own_weights_are_its_features(network, batch):
    with differentiable(network):
        z = features(network, backbone_weights(network), batch)
        assert torch.equal(z, network.features(batch))


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


def test_features_that_no_weight_moves_stay_where_they_are(network, batch):
    still = {name: torch.zeros_like(w) for name, w in backbone_weights(network).items()}
    assert (push_forward(network, batch, still) == 0).all()


def test_a_backbone_without_weights_has_no_kernel():
    with pytest.raises(ValueError, match="needs a backbone with weights"):
        backbone_weights(Network(Chain({}), linear_network().head))
