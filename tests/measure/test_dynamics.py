"""Directions, one-step decomposition and bound, against closed forms and full kernels."""

from copy import deepcopy
from dataclasses import replace
from math import isclose, isnan

import pytest
import torch
from torch import nn
from torch.func import jacrev, vmap

from molhpft.core.evaluate import take
from molhpft.core.network import Batch, Chain, Network, Plain, Stage, linear_head, mlp_head
from molhpft.core.objectives import ClassContrast, Joint, Multiclass, Multilabel, Part, Squared
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.molecules.pretrain_gnns import pretrain_gnns_gcn
from molhpft.measure.dynamics import (
    alignment,
    decompose,
    descent_directions,
    direction_norms,
    first_order_error,
    head_bound,
    head_change,
    head_gradient,
    kernel_bound,
    one_step_change,
    proposition_1,
)
from molhpft.measure.features import initial_energy, shift
from molhpft.measure.tangent import unit_vectors
from tests.measure.networks import (
    dense_batch,
    fresh_molecule_network,
    full_kernel,
    linear_network,
    molecule_batch,
    molecule_network,
    rows_of,
    smooth_network,
)
from tests.toy import NAN, toy_network

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


def test_an_auxiliary_task_asks_for_nothing(batch):
    network = curved_network()
    y = torch.tensor([[1, NAN, 9.0], [NAN, NAN, -9], *[[0, 1, 5]] * 5]).double()
    objective = Joint(Multilabel(), 2, (Part(Squared(), 1, 3.0),))
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


@objectives
def test_the_gradient_of_a_linear_head_is_residual_times_features(objective, targets):
    network = linear_network()
    batch = replace(dense_batch(), targets=targets)
    z, q = network.features(batch).detach(), network(batch).detach().requires_grad_()
    (up,) = torch.autograd.grad(objective.loss(q, targets), q)
    of_weight, of_bias = (up.T @ z).norm(), up.sum(0).norm()
    length = head_gradient(network, [batch], objective)
    assert length == pytest.approx((of_weight**2 + of_bias**2).sqrt().item())


def test_the_gradient_does_not_depend_on_the_size_of_batches():
    network, batch = linear_network(), replace(dense_batch(), targets=torch.arange(7) % 3)
    whole = head_gradient(network, [batch], Multiclass())
    cut = [Batch(batch.inputs[k], batch.targets[k]) for k in (slice(0, 2), slice(2, 7))]
    assert head_gradient(network, cut, Multiclass()) == pytest.approx(whole)


def test_a_direction_and_a_gradient_need_examples(network):
    message = r"^a direction needs at least one batch, got none$"
    with pytest.raises(ValueError, match=message):
        direction_norms(network, [])
    with pytest.raises(ValueError, match=message):
        head_gradient(network, [], Multiclass())


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


pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


def error(network, batch, objective, lr):
    predicted = decompose(network, batch, objective, lr=lr).change
    return first_order_error(predicted, one_step_change(network, batch, objective, lr=lr))


@objectives
def test_the_change_is_kernel_times_direction_times_residual(objective, targets):
    network, x = smooth_network(), dense_batch().inputs
    batch = Batch(x, targets)
    kernel = full_kernel(network, batch)
    classes = targets.ndim == 1
    labelled = targets != -100 if classes else ~targets.isnan().all(1)
    residual = objective.residual(network(batch).detach(), targets)
    averaged = labelled.sum() if classes else (~targets.isnan()).sum()
    weight = network.head.stages["linear"].module.weight.detach()
    expected = torch.einsum("idje,jc,ce->id", kernel[:, :, labelled], residual, weight) * (
        -0.3 / averaged
    )
    torch.testing.assert_close(decompose(network, batch, objective, lr=0.3).change, expected)


@objectives
def test_the_error_of_the_prediction_falls_in_proportion_to_the_step(objective, targets):
    batch = Batch(dense_batch().inputs, targets)
    errors = [error(smooth_network(), batch, objective, lr) for lr in (1e-2, 1e-3, 1e-4)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.1)


def test_a_small_step_of_a_rectified_network_is_as_predicted():
    network, batch = toy_network().double(), dense_batch(inputs=6)
    errors = [error(network, batch, Multiclass(), lr) for lr in (1e-4, 1e-5)]
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_a_small_step_on_molecules_is_as_predicted():
    network, batch = molecule_network(), molecule_batch()
    errors = [error(network, batch, Multilabel(), lr) for lr in (1e-4, 1e-5)]
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.1)


def test_a_small_step_of_a_pretrained_encoder_is_as_predicted(ogb_root):
    weights = ogb_root.parent / "weights" / "gcn_contextpred.pth"
    if not weights.is_file():
        pytest.skip(
            "pretrained encoder absent: put gcn_contextpred.pth into MOLHPFT_DATA/../weights"
        )
    torch.manual_seed(0)
    backbone = pretrain_gnns_gcn()
    load_encoder(backbone, weights)
    network, batch = (
        Network(backbone, linear_head(300, 3)).double(),
        molecule_batch(("CCO", "CC=O")),
    )
    assert error(network, batch, Multilabel(), 1e-4) < 1e-4


def test_rectifiers_fed_exactly_zero_have_no_first_order():
    # atoms whose messages are all cut to 0, and fresh statistics that leave them there
    network, batch = fresh_molecule_network(), molecule_batch()
    errors = [error(network, batch, Multilabel(), lr) for lr in (1e-4, 1e-6)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


@objectives
def test_the_lengths_of_the_changes_are_products_of_the_factors(objective, targets):
    batch = Batch(dense_batch().inputs, targets)
    step = decompose(smooth_network(), batch, objective, lr=0.01)
    assert step.change.norm().item() == pytest.approx(0.01 * step.K_z * step.W * step.G)
    assert step.log_change.norm().item() == pytest.approx(0.01 * step.A * step.K * step.G)


def jacobian_of_logits(network, batch):
    """Gradient of every logit in all weights, (n c, weights)."""
    weights = list(network.parameters())
    return torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(one, weights, retain_graph=True)])
            for one in network(batch).flatten()
        ]
    )


def test_log_probabilities_of_classes_change_by_a_k_g_written_out():
    network, batch = smooth_network().eval(), dense_batch()
    batch = Batch(batch.inputs, torch.arange(7) % 3)
    p = network(batch).detach().softmax(1)
    every = jacobian_of_logits(network, batch)
    g = (p - torch.eye(3)[batch.targets]).flatten() / 7
    a = torch.block_diag(*(torch.eye(3) - row.expand(3, 3) for row in p))  # I - 1 p^T
    k = every @ every.T
    step = decompose(network, batch, Multiclass(), lr=0.3)
    torch.testing.assert_close(step.log_change.flatten(), -0.3 * a @ k @ g)
    moved, changed = k @ g, a @ k @ g
    ratios = (changed.norm() / moved.norm(), moved.norm() / g.norm(), g.norm())
    factors = torch.tensor([step.A, step.K, step.G], dtype=g.dtype)
    torch.testing.assert_close(factors, torch.stack(ratios))


@objectives
def test_log_probabilities_change_as_predicted_in_a_small_step(objective, targets):
    network, batch = smooth_network().eval(), Batch(dense_batch().inputs, targets)
    before = objective.log_probabilities(network(batch)).detach()
    predicted = decompose(network, batch, objective, lr=1e-5).log_change
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-5)
    objective.loss(network(batch), targets).backward()
    optimizer.step()
    actual = objective.log_probabilities(network(batch)).detach() - before
    assert first_order_error(predicted, actual) < 1e-3


def test_a_head_of_twice_the_weight_doubles_w_and_g_but_not_k_z():
    network, batch = smooth_network(), dense_batch()
    batch = Batch(batch.inputs, torch.zeros(7, 3).double())
    linear = network.head.stages["linear"].module
    torch.nn.init.zeros_(linear.bias)  # so that the residual is W z
    quiet = decompose(network, batch, Squared(), lr=0.01)
    linear.weight.data *= 2
    loud = decompose(network, batch, Squared(), lr=0.01)
    expected = (2 * quiet.W, 2 * quiet.G, quiet.K_z)
    assert (loud.W, loud.G, loud.K_z) == pytest.approx(expected)


def test_what_changes_of_numbers_are_the_predictions():
    batch = Batch(dense_batch().inputs, torch.zeros(7, 3).double())
    step = decompose(smooth_network(), batch, Squared(), lr=0.01)
    assert isclose(step.A, 1)


def test_a_perfect_head_moves_nothing():
    network, batch = smooth_network().eval(), dense_batch()
    step = decompose(network, Batch(batch.inputs, network(batch).detach()), Squared(), lr=0.1)
    assert step.G == 0
    assert (step.change == 0).all()
    assert (step.log_change == 0).all()


def test_the_step_is_that_of_the_optimizer():
    network, batch = smooth_network().eval(), dense_batch()
    before = network.features(batch).detach()
    changed = one_step_change(network, batch, Multiclass(), lr=0.1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    Multiclass().loss(network(batch), batch.targets).backward()
    optimizer.step()
    torch.testing.assert_close(changed, network.features(batch).detach() - before)


def test_a_frozen_backbone_is_measured_as_if_it_were_not():
    network, batch = smooth_network(), dense_batch()
    expected = one_step_change(network, batch, Multiclass(), lr=0.1)
    network.backbone.requires_grad_(False)
    torch.testing.assert_close(one_step_change(network, batch, Multiclass(), lr=0.1), expected)
    assert error(network, batch, Multiclass(), 1e-4) < 1e-3


def test_an_exact_prediction_has_no_error(rng):
    change = torch.randn(3, 4, generator=rng)
    assert first_order_error(change, change) == 0


def test_changes_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 3\)"):
        first_order_error(torch.ones(2, 3), torch.ones(3, 3))


def descend(network, batch, objective, *, lr, steps):
    """Plain gradient descent in eval mode; the networks at the start, half way and at the end."""
    network, path = network.eval(), [deepcopy(network)]
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        objective.loss(network(batch), batch.targets).backward()
        optimizer.step()
        if step in (steps // 2, steps):
            path.append(deepcopy(network))
    return path


def test_beta_of_a_linear_backbone_is_the_longest_input_squared(batch):
    longest = batch.inputs.square().sum(1).max().item()
    assert kernel_bound([linear_network()], [batch]) == pytest.approx(longest * 4**0.5)


def test_no_pair_of_examples_has_a_larger_block_than_an_example_with_itself(batch):
    blocks = full_kernel(smooth_network(), batch).transpose(1, 2).flatten(2).norm(dim=2)
    assert kernel_bound([smooth_network()], [batch]) == pytest.approx(blocks.max().item())


def test_beta_does_not_depend_on_how_examples_are_batched(batch):
    together, alone = (kernel_bound([smooth_network()], b) for b in ([batch], rows_of(batch)))
    assert together == pytest.approx(alone)


def test_gamma_of_a_linear_head_is_the_norm_of_its_weight(batch):
    network = linear_network()
    norm = network.head.stages["linear"].module.weight.norm().item()
    assert head_bound([network], [batch]) == pytest.approx(norm)


def test_bounds_of_two_networks_are_the_larger_of_each(batch):
    networks = [smooth_network(seed=seed) for seed in (0, 1)]
    for bound in (kernel_bound, head_bound):
        assert bound(networks, [batch]) == max(bound([n], [batch]) for n in networks)


def sides(before, after, objective):
    return shift(before.features, after.features).distance, initial_energy(before, objective)


@pytest.mark.parametrize(("objective", "targets"), OBJECTIVES.items(), ids=str)
@pytest.mark.parametrize("make", [linear_network, smooth_network])
def test_features_move_no_farther_than_proposition_1_allows(make, objective, targets, batch):
    batch = Batch(batch.inputs, targets)
    path = descend(make(), batch, objective, lr=0.01, steps=20)
    before, after = take(path[0], [batch]), take(path[-1], [batch])
    beta, gamma = kernel_bound(path, [batch]), head_bound(path, [batch])
    bound = proposition_1(
        *sides(before, after, objective), lr=0.01, steps=20, beta=beta, gamma=gamma
    )
    assert bound.holds
    assert 0 < bound.distance < bound.most


def test_both_sides_are_the_means_that_proposition_1_names(batch):
    before, after = (take(smooth_network(seed=seed), [batch]) for seed in (0, 1))
    bound = proposition_1(*sides(before, after, Multiclass()), lr=0.1, steps=5, beta=2.0, gamma=3.0)
    moved = [(z - z0).norm() for z0, z in zip(before.features, after.features, strict=True)]
    assert bound.distance == pytest.approx(sum(moved).item() / len(moved))
    p = before.logits.exp() / before.logits.exp().sum(1, keepdim=True)
    residuals = [
        (row - e).norm() for row, e in zip(p, torch.eye(p.shape[1])[before.targets], strict=True)
    ]
    assert bound.energy == pytest.approx(sum(residuals).item() / len(residuals))
    assert bound.most == pytest.approx(0.1 * 5 * 2 * 3 * bound.energy)


def test_features_that_move_farther_break_the_bound(batch):
    before, after = (take(smooth_network(seed=seed), [batch]) for seed in (0, 1))
    bound = proposition_1(
        *sides(before, after, Multiclass()), lr=1e-6, steps=1, beta=1.0, gamma=1.0
    )
    assert not bound.holds


@pytest.mark.parametrize("bound", [kernel_bound, head_bound])
def test_a_bound_needs_networks_and_examples(bound, batch):
    with pytest.raises(ValueError, match="one batch of probe examples, got 0 and 1"):
        bound([], [batch])
    with pytest.raises(ValueError, match="one batch of probe examples, got 1 and 0"):
        bound([linear_network()], [])


def test_one_vector_is_no_estimate(batch, rng):
    with pytest.raises(ValueError, match="at least 2 vectors, got 1"):
        kernel_bound([linear_network()], [batch], vectors=unit_vectors(1, 4, rng=rng))


def test_an_estimate_from_two_vectors_is_right_on_average(batch, rng):
    network = smooth_network()
    exact = kernel_bound([network], [batch])
    pairs = (unit_vectors(2, 4, rng=rng) for _ in range(150))
    squares = [kernel_bound([network], [batch], vectors=pair) ** 2 for pair in pairs]
    assert sum(squares) / len(squares) == pytest.approx(exact**2, rel=0.25)
