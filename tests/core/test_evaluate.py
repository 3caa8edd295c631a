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
    predictions = predict(network, task, "valid", size=size, watch=seen.append)
    torch.testing.assert_close(predictions.logits, snapshot.logits)
    assert torch.equal(predictions.targets, snapshot.targets)
    torch.testing.assert_close(torch.cat(seen), snapshot.features)


def test_a_snapshot_changes_no_mode_no_weight_and_no_random_number():
    network, task = toy_network(dropout=0.5), toy_task()
    network.train()
    network.backbone.eval()
    state = torch.get_rng_state()
    take(network, task.batches("train", size=9))
    assert torch.equal(state, torch.get_rng_state())
    assert (network.head.training, network.backbone.training) == (True, False)
    assert same_weights(network, toy_network(dropout=0.5))


def test_a_snapshot_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"^a snapshot needs at least one batch, got none$"):
        take(toy_network(), [])


def test_modes_come_back_after_an_error():
    network = toy_network().train()
    with pytest.raises(KeyError), inference(network):
        raise KeyError
    assert network.backbone.training
