from dataclasses import replace
from math import isnan

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from molhpft.core.evaluate import take
from molhpft.core.network import Batch, Chain, Network, Plain, Stage, mlp_head
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, Multilabel, Squared
from molhpft.measure.dynamics import (
    alignment,
    descent_directions,
    direction_norms,
    head_change,
    head_gradient,
)
from molhpft.measure.tangent import unit_vectors
from tests.measure.networks import (
    dense_batch,
    linear_network,
    molecule_batch,
    molecule_network,
    rows_of,
)
from tests.toy import NAN

OBJECTIVES = {
    Multiclass(): torch.tensor([0, 2, -100, 1, 1, 2, 0]),
    Multilabel(): torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], *[[0, 1, 1]] * 5]).double(),
    Squared(): torch.tensor([[1, 0.5, NAN], [NAN, NAN, NAN], *[[0, -1, 2]] * 5]).double(),
}
objectives = pytest.mark.parametrize(("objective", "targets"), OBJECTIVES.items(), ids=str)


@pytest.fixture
def network():
    return linear_network()


@pytest.fixture
def batch():
    return dense_batch()


class First(Stage):
    """The first outputs of those that come in."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, h, batch):
        return h[:, : self.width]


def curved_network():
    network = linear_network()
    return Network(network.backbone, mlp_head(4, 3, hidden=6)).double()


def test_the_direction_of_a_linear_head_is_its_weight(network, batch):
    norms = direction_norms(network, [batch])
    weight = network.head.stages["linear"].module.weight
    torch.testing.assert_close(norms, weight.norm().detach().expand(7))


def test_the_direction_of_any_head_is_its_jacobian_at_each_example(batch):
    network = curved_network()
    z = network.features(batch).detach()
    jacobian = vmap(jacrev(lambda row: network.head(row, batch)))(z)
    torch.testing.assert_close(direction_norms(network, [batch]), jacobian.flatten(1).norm(dim=1))


def test_random_vectors_estimate_the_norm(batch, rng):
    network = curved_network()
    estimate = direction_norms(network, [batch], vectors=unit_vectors(500, 3, rng=rng))
    torch.testing.assert_close(estimate, direction_norms(network, [batch]), rtol=0.1, atol=0)


def test_maps_of_logits_have_one_norm_an_image(rng):
    head = Chain({"conv": Plain(nn.Conv2d(2, 3, 1), width=3)})
    network = Network(Chain({}), head)
    images = Batch(torch.randn(4, 2, 2, 2, generator=rng), torch.zeros(4, 2, 2).long())
    # the same 1 x 1 map at each of 4 pixels
    expected = 2 * head.stages["conv"].module.weight.norm()
    torch.testing.assert_close(
        direction_norms(network, [images]).float(), expected.detach().expand(4)
    )


def test_a_head_of_graph_layers_has_a_direction_for_each_atom():
    network = molecule_network().cut("pool")
    norms = direction_norms(network, [molecule_batch(("CCO", "C"))])
    weight = network.head.stages["linear"].module.weight.norm().item()
    assert norms.tolist() == pytest.approx([weight / 3] * 3 + [weight])


@objectives
def test_directions_of_a_linear_head_are_its_weight_times_the_residual(
    objective, targets, network, batch
):
    directions = descent_directions(network, [Batch(batch.inputs, targets)], objective)
    labelled = targets != -100 if targets.ndim == 1 else ~targets.isnan().all(1)
    residual = objective.residual(network(batch).detach(), targets)
    weight = network.head.stages["linear"].module.weight.detach()
    torch.testing.assert_close(directions[labelled], -residual @ weight)
    assert (directions[~labelled] == 0).all()


@objectives
def test_features_that_follow_their_direction_lower_the_loss(objective, targets, batch):
    network = curved_network()
    batch = Batch(batch.inputs, targets)
    z = network.features(batch)
    moved = z + 1e-4 * descent_directions(network, [batch], objective)
    losses = [objective.loss(network.head(h, batch), targets) for h in (z, moved)]
    assert losses[1] < losses[0]


def test_directions_do_not_depend_on_how_examples_are_batched(batch):
    network = curved_network()
    together = descent_directions(network, [batch], Multiclass())
    torch.testing.assert_close(descent_directions(network, rows_of(batch), Multiclass()), together)


def test_a_task_that_is_served_beside_asks_for_nothing(batch):
    network = curved_network()
    y = torch.tensor([[1, NAN, 9.0], [NAN, NAN, -9], *[[0, 1, 5]] * 5]).double()
    objective = Joint(Multilabel(), Squared(), outputs=2, weight=3.0)
    both = descent_directions(network, [Batch(batch.inputs, y)], objective)
    main = Network(network.backbone, Chain({**network.head.named_stages(), "two": First(2)}))
    alone = descent_directions(main, [Batch(batch.inputs, y[:, :2])], Multilabel())
    torch.testing.assert_close(both, alone)
    assert (both[1] == 0).all()


def test_examples_that_are_compared_with_one_another_are_asked_one_by_one(batch):
    network = curved_network()
    contrasted = descent_directions(network, [batch], ClassContrast())
    torch.testing.assert_close(contrasted, descent_directions(network, [batch], Multiclass()))


def test_a_perfect_head_asks_for_nothing(network, batch):
    batch = Batch(batch.inputs, network(batch).detach())
    assert (descent_directions(network, [batch], Squared()) == 0).all()


def test_features_that_went_where_the_head_asked_are_aligned(network, batch, rng):
    directions = descent_directions(network, [batch], Multiclass())
    z = take(network, [batch]).features
    lengths = torch.rand(7, 1, generator=rng) + 0.1
    assert alignment(directions, z, z + lengths * directions) == pytest.approx(1)
    assert alignment(directions, z, z - lengths * directions) == pytest.approx(-1)


def test_examples_that_did_not_move_or_were_asked_nothing_do_not_count():
    directions = torch.tensor([[1.0, 0], [1, 0], [0, 0]])
    before, after = torch.zeros(3, 2), torch.tensor([[0.0, 1], [0, 0], [1, 1]])
    assert alignment(directions, before, after) == pytest.approx(0)
    assert alignment(directions[:1], before[:1], 1e-9 * directions[:1]) == pytest.approx(1)


def test_features_that_stay_have_no_alignment():
    z = torch.ones(3, 2)
    assert alignment(z, z, z) != alignment(z, z, z)  # NaN


def test_directions_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\), \(2, 3\) and \(3, 3\)"):
        alignment(torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 3))


def test_vectors_of_another_space_are_refused(network, batch):
    with pytest.raises(ValueError, match="rows of 3 numbers, one for each logit"):
        direction_norms(network, [batch], vectors=torch.ones(2, 4))


def test_a_direction_needs_examples(network):
    with pytest.raises(ValueError, match=r"^a direction needs at least one batch, got none$"):
        direction_norms(network, [])


@objectives
def test_the_gradient_of_a_linear_head_is_residual_times_features(objective, targets):
    network = linear_network()
    batch = replace(dense_batch(), targets=targets)
    z, q = network.features(batch).detach(), network(batch).detach().requires_grad_()
    (up,) = torch.autograd.grad(objective.loss(q, targets), q)
    of_weight, of_bias = (up.T @ z).norm(), up.sum(0).norm()
    found = head_gradient(network, [batch], objective)
    assert found == pytest.approx((of_weight**2 + of_bias**2).sqrt().item())


def test_the_gradient_does_not_depend_on_the_size_of_batches():
    network, batch = linear_network(), replace(dense_batch(), targets=torch.arange(7) % 3)
    whole = head_gradient(network, [batch], Multiclass())
    cut = [Batch(batch.inputs[k], batch.targets[k]) for k in (slice(0, 2), slice(2, 7))]
    assert head_gradient(network, cut, Multiclass()) == pytest.approx(whole)


def test_a_gradient_leaves_a_network_as_it_was():
    network = linear_network().train()
    head_gradient(network, [replace(dense_batch(), targets=torch.arange(7) % 3)], Multiclass())
    assert network.training
    assert all(weight.grad is None for weight in network.parameters())


def test_a_gradient_needs_examples():
    with pytest.raises(ValueError, match=r"^a direction needs at least one batch, got none$"):
        head_gradient(linear_network(), [], Multiclass())


def test_the_change_of_a_head_is_relative_to_its_length():
    before, after = linear_network().head, linear_network().head
    with torch.no_grad():
        for weight, own in zip(after.parameters(), before.parameters(), strict=True):
            weight.copy_(1.25 * own)
    assert head_change(before, after) == pytest.approx(0.25)
    assert head_change(before, before) == 0


def test_a_head_of_zeros_has_no_relative_change():
    before, after = linear_network().head, linear_network().head
    with torch.no_grad():
        for weight in before.parameters():
            weight.zero_()
    assert isnan(head_change(before, after))


def test_heads_of_different_shape_cannot_be_compared():
    with pytest.raises(ValueError, match="two of one shape"):
        head_change(linear_network().head, curved_network().head)
