"""Features in standard units."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from molhpft.core.data import Rows
from molhpft.core.evaluate import inference, take
from molhpft.core.network import Batch, Chain, Network, Plain, linear_head
from molhpft.core.objectives import Squared
from molhpft.core.standardise import STAGE, Standardised, ending_standardised, standardised
from molhpft.tuning.fit import fit
from molhpft.tuning.optimizer import make_optimizer
from molhpft.tuning.phase import Phase
from tests.toy import toy_network, toy_task


def features(network, task, split="train"):
    return take(network, task.batches(split, size=7)).features


def as_they_are(inputs):
    """A network whose features are its inputs, and a task of them."""
    rows = Rows(inputs, torch.zeros(len(inputs), 1))
    task = replace(toy_task(Squared()), examples=rows, outputs=1)
    task = replace(task, splits={"train": torch.arange(len(inputs))})
    width = inputs.shape[1]
    return Network(Chain({"same": Plain(nn.Identity(), width=width)}), linear_head(width, 1)), task


def test_features_of_the_training_split_have_mean_0_and_std_1_and_others_the_same_map():
    inputs = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    inputs = inputs * torch.tensor([1.0, 2.0, 3.0, 0.7, 1.5]) + torch.arange(5.0)
    network, task = as_they_are(inputs)
    task = replace(task, splits={"train": torch.arange(40), "valid": torch.arange(40, 60)})
    scaler = StandardScaler().fit(inputs[:40].double().numpy())
    moved = standardised(network, task)
    for split in ("train", "valid"):
        expected = scaler.transform(inputs[task.rows(split)].double().numpy())
        assert features(moved, task, split).numpy() == pytest.approx(expected, abs=1e-5)


def test_features_are_those_of_evaluation_not_of_training():
    network, task = toy_network(), toy_task()
    network.backbone.stages["layer0"].module[1].running_mean.fill_(0.3)
    z = features(network, task)
    stage = standardised(network.train(), task).backbone.stages[STAGE]
    assert stage.mean.numpy() == pytest.approx(z.mean(0).numpy(), abs=1e-6)
    assert network.training


def test_the_old_function_is_among_those_of_a_linear_head_on_standardised_features():
    network, task = toy_network().eval(), toy_task()
    moved = standardised(network, task)
    stage, linear = moved.backbone.stages[STAGE], network.head.stages["linear"].module
    head = linear_head(8, 3)
    with torch.no_grad():
        head.stages["linear"].module.weight.copy_(linear.weight * stage.std)
        head.stages["linear"].module.bias.copy_(linear.bias + linear.weight @ stage.mean)
        batch = task.examples.take(torch.arange(9))
        assert torch.allclose(
            Network(moved.backbone, head).eval()(batch), network(batch), atol=1e-6
        )


def test_columns_far_from_0_are_fitted_exactly():
    inputs = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    inputs = inputs * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([0.0, 2e4, -3e4])
    stage = standardised(*as_they_are(inputs)).backbone.stages[STAGE]
    exact = inputs.double().numpy()
    assert stage.std.numpy() == pytest.approx(exact.std(0), rel=1e-6)
    assert stage.mean.numpy() == pytest.approx(exact.mean(0), rel=1e-6, abs=1e-6)


def test_a_column_that_hardly_varies_is_not_blown_up():
    inputs = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    inputs[:, 0] = 5.0
    inputs[:, 1] = 5.0 + 1e-4 * inputs[:, 1]
    network, task = as_they_are(inputs)
    z = features(standardised(network, task), task)
    assert (z[:, 0] == 0).all()
    assert z[:, 1].std() < 0.005
    assert z[:, 2:].std(0, correction=0).numpy() == pytest.approx(1, abs=1e-5)


def test_features_that_are_all_constant_become_0():
    network, task = as_they_are(torch.full((20, 4), 3.0))
    assert (features(standardised(network, task), task) == 0).all()


def test_maps_are_standardised_by_channel():
    maps = torch.randn(6, 2, 3, 5, generator=torch.Generator().manual_seed(0)) * 4 + 1
    network, task = as_they_are(maps)
    stage = standardised(network, task).backbone.stages[STAGE]
    by_channel = maps.movedim(1, -1).reshape(-1, 2)
    expected = (by_channel - by_channel.mean(0)) / by_channel.std(0, correction=0)
    found = stage(maps, Batch(maps, maps)).movedim(1, -1).reshape(-1, 2)
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("trains", ["head", "all"])
def test_training_moves_neither_mean_nor_std(trains):
    network = standardised(toy_network(), toy_task())
    stage = network.backbone.stages[STAGE]
    before = stage.mean.clone(), stage.std.clone()
    phase = Phase(trains=trains, epochs=2, lr=0.1, weight_decay=0.1, optimizer="adamw")
    fit(network, phase, toy_task(), rng=torch.Generator().manual_seed(0))
    assert torch.equal(stage.mean, before[0])
    assert torch.equal(stage.std, before[1])


def test_rates_by_depth_count_the_stages_of_the_encoder_alone():
    phase = Phase(trains="all", epochs=1, lr=0.1, layer_decay=0.5)
    networks = toy_network(), standardised(toy_network(), toy_task())
    rates = [[g["base_lr"] for g in make_optimizer(n, phase).param_groups] for n in networks]
    assert rates[0] == rates[1]


def test_what_is_read_back_standardises_alike():
    network, task = standardised(toy_network(), toy_task()), toy_task()
    again = Network(ending_standardised(toy_network(seed=1).backbone), toy_network(seed=1).head)
    again.load_state_dict(network.state_dict())
    batch = task.examples.take(torch.arange(9))
    with inference(network), inference(again):
        assert torch.equal(network(batch), again(batch))


def test_a_stage_that_is_not_fitted_changes_nothing():
    h = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(Standardised(4)(h, Batch(h, h)), h)
