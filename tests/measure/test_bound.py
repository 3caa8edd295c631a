from copy import deepcopy

import pytest
import torch

from molhpft.core.evaluate import take
from molhpft.core.network import Batch
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.measure.dynamics import head_bound, kernel_bound, proposition_1
from molhpft.measure.tangent import unit_vectors
from tests.measure.networks import (
    dense_batch,
    full_kernel,
    linear_network,
    molecule_batch,
    molecule_network,
    rows_of,
    smooth_network,
)
from tests.toy import NAN

TARGETS = {
    Multiclass(): torch.arange(7) % 3,
    Multilabel(): torch.tensor([[1, 0, NAN], [NAN, NAN, 1], *[[0, 1, 1]] * 5]).double(),
    Squared(): torch.tensor([[1, 0.5, NAN], [NAN, NAN, 1], *[[0, -1, 2]] * 5]).double(),
}


@pytest.fixture
def batch():
    return dense_batch()


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


def test_random_vectors_estimate_beta(batch, rng):
    exact = kernel_bound([smooth_network()], [batch])
    estimate = kernel_bound([smooth_network()], [batch], vectors=unit_vectors(150, 4, rng=rng))
    assert estimate == pytest.approx(exact, rel=0.1)


def test_beta_does_not_depend_on_how_examples_are_batched(batch):
    together, alone = (kernel_bound([smooth_network()], b) for b in ([batch], rows_of(batch)))
    assert together == pytest.approx(alone)


def test_beta_of_molecules_can_be_measured():
    assert kernel_bound([molecule_network()], [molecule_batch(("CCO", "C"))]) > 0


def test_gamma_of_a_linear_head_is_the_norm_of_its_weight(batch):
    network = linear_network()
    norm = network.head.stages["linear"].module.weight.norm().item()
    assert head_bound([network], [batch]) == pytest.approx(norm)


def test_bounds_of_two_networks_are_the_larger_of_each(batch):
    networks = [smooth_network(seed=seed) for seed in (0, 1)]
    for bound in (kernel_bound, head_bound):
        assert bound(networks, [batch]) == max(bound([n], [batch]) for n in networks)


@pytest.mark.parametrize(("objective", "targets"), TARGETS.items(), ids=str)
@pytest.mark.parametrize("make", [linear_network, smooth_network])
def test_features_move_no_farther_than_proposition_1_allows(make, objective, targets, batch):
    batch = Batch(batch.inputs, targets)
    path = descend(make(), batch, objective, lr=0.01, steps=20)
    before, after = take(path[0], [batch]), take(path[-1], [batch])
    beta, gamma = kernel_bound(path, [batch]), head_bound(path, [batch])
    bound = proposition_1(before, after, objective, lr=0.01, steps=20, beta=beta, gamma=gamma)
    assert bound.holds
    assert 0 < bound.distance < bound.most


def test_both_sides_are_the_means_that_proposition_1_names(batch):
    before, after = (take(smooth_network(seed=seed), [batch]) for seed in (0, 1))
    bound = proposition_1(before, after, Multiclass(), lr=0.1, steps=5, beta=2.0, gamma=3.0)
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
    bound = proposition_1(before, after, Multiclass(), lr=1e-6, steps=1, beta=1.0, gamma=1.0)
    assert not bound.holds


def test_a_perfect_head_allows_no_movement(batch):
    network = linear_network()
    perfect = Batch(batch.inputs, network(batch).detach())
    taken = take(network, [perfect])
    bound = proposition_1(taken, taken, Squared(), lr=1.0, steps=9, beta=5.0, gamma=5.0)
    assert bound.most == bound.distance == 0
    assert bound.holds


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
