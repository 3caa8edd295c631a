import pytest
import torch

from molhpft.core.network import Batch, Network, linear_head
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.molecules.gcn import pretrain_gnns_gcn
from molhpft.measure.dynamics import decompose, first_order_error, one_step_change
from tests.measure.networks import (
    dense_batch,
    fresh_molecule_network,
    full_kernel,
    molecule_batch,
    molecule_network,
    smooth_network,
)
from tests.toy import NAN, toy_network

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")

CASES = {
    Multiclass(): torch.tensor([0, 2, -100, 1, 1, 2, 0]),
    Multilabel(): torch.tensor([[1, 0, NAN], [NAN, NAN, NAN], *[[0, 1, 1]] * 5]).double(),
    Squared(): torch.tensor([[1, 0.5, NAN], [NAN, NAN, NAN], *[[0, -1, 2]] * 5]).double(),
}
cases = pytest.mark.parametrize(("objective", "targets"), CASES.items(), ids=str)


def error(network, batch, objective, lr):
    predicted = decompose(network, batch, objective, lr=lr).change
    return first_order_error(predicted, one_step_change(network, batch, objective, lr=lr))


@cases
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


@cases
def test_a_small_step_of_a_smooth_network_is_as_predicted(objective, targets):
    batch = Batch(dense_batch().inputs, targets)
    assert error(smooth_network(), batch, objective, 1e-4) < 1e-3


@cases
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


@cases
def test_the_length_of_the_change_is_the_product_of_the_factors(objective, targets):
    batch = Batch(dense_batch().inputs, targets)
    step = decompose(smooth_network(), batch, objective, lr=0.01)
    product = 0.01 * step.kernel * step.direction * step.energy
    assert step.change.norm().item() == pytest.approx(product)


def test_a_head_of_twice_the_weight_doubles_direction_and_energy_but_not_the_kernel():
    network, batch = smooth_network(), dense_batch()
    batch = Batch(batch.inputs, torch.zeros(7, 3).double())
    linear = network.head.stages["linear"].module
    torch.nn.init.zeros_(linear.bias)  # so that the residual is W z
    quiet = decompose(network, batch, Squared(), lr=0.01)
    linear.weight.data *= 2
    loud = decompose(network, batch, Squared(), lr=0.01)
    assert loud.direction == pytest.approx(2 * quiet.direction)
    assert loud.energy == pytest.approx(2 * quiet.energy)
    assert loud.kernel == pytest.approx(quiet.kernel)


def test_a_perfect_head_moves_nothing():
    network, batch = smooth_network().eval(), dense_batch()
    step = decompose(network, Batch(batch.inputs, network(batch).detach()), Squared(), lr=0.1)
    assert step.energy == 0
    assert (step.change == 0).all()


def test_the_step_taken_is_that_of_the_optimizer():
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


def test_a_doubled_prediction_has_error_one(rng):
    change = torch.randn(3, 4, generator=rng)
    assert first_order_error(2 * change, change) == pytest.approx(1)


def test_changes_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 3\)"):
        first_order_error(torch.ones(2, 3), torch.ones(3, 3))
