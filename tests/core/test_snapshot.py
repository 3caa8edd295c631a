import pytest
import torch

from molhpft.core.evaluate import inference, predict, take
from tests.toy import same_weights, toy_network, toy_task


def test_a_snapshot_has_every_row_in_order():
    network, task = toy_network(dropout=0.5), toy_task()
    snapshot = take(network, task.batches("valid", size=7))
    rows = task.examples.take(task.rows("valid"))
    network.eval()
    torch.testing.assert_close(snapshot.logits, network(rows))
    torch.testing.assert_close(snapshot.features, network.features(rows))
    assert torch.equal(snapshot.targets, rows.targets)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_predictions_are_those_of_a_snapshot(size):
    network, task = toy_network(dropout=0.5), toy_task()
    snapshot, seen = take(network, task.batches("valid", size=7)), []
    found = predict(network, task, "valid", size=size, watch=seen.append)
    torch.testing.assert_close(found.logits, snapshot.logits)
    assert torch.equal(found.targets, snapshot.targets)
    torch.testing.assert_close(torch.cat(seen), snapshot.features)


def test_a_snapshot_leaves_every_mode_and_weight_as_it_was():
    network, task = toy_network(), toy_task()
    network.train()
    network.backbone.eval()
    before = toy_network()
    take(network, task.batches("train", size=9))
    assert network.head.training
    assert not network.backbone.training
    assert same_weights(network, before)


def test_a_snapshot_draws_no_random_number():
    network, task = toy_network(dropout=0.5), toy_task()
    state = torch.get_rng_state()
    take(network, task.batches("train", size=9))
    assert torch.equal(state, torch.get_rng_state())


def test_a_snapshot_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"^a snapshot needs at least one batch, got none$"):
        take(toy_network(), [])


def test_modes_come_back_after_an_error():
    network = toy_network().train()
    with pytest.raises(KeyError), inference(network):
        raise KeyError
    assert network.backbone.training
