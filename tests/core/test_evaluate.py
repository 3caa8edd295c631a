import weakref
from math import isnan

import pytest
import torch

from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import (
    Predictions,
    RunningScore,
    evaluation_batches,
    evaluation_size,
    inference,
    predict,
    predictions_in_batches,
    take,
)
from molhpft.core.objectives import ClassContrast, Multiclass, Multilabel, Squared
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
def test_predictions_in_batches_are_those_of_a_snapshot(size):
    network, task = toy_network(dropout=0.5), toy_task()
    snapshot, seen = take(network, task.batches("valid", size=7)), []
    pieces = predictions_in_batches(network, task, "valid", size=size, watch=seen.append)
    logits, targets = zip(*((some.logits, some.targets) for some in pieces), strict=True)
    torch.testing.assert_close(torch.cat(logits), snapshot.logits)
    assert torch.equal(torch.cat(targets), snapshot.targets)
    torch.testing.assert_close(torch.cat(seen), snapshot.features)
    whole = predict(network, task, "valid", size=size)
    assert torch.equal(whole.logits, torch.cat(logits))
    assert torch.equal(whole.targets, torch.cat(targets))


IDS = torch.tensor([0, 1, 2, 2, -100, 1, 0])
MASKS = torch.arange(7 * 4 * 5).reshape(7, 4, 5) % 4 - 1  # of which -1 is no class
MASKS[MASKS < 0] = -100


@pytest.mark.parametrize(
    ("objective", "targets"),
    [
        (Multiclass(), IDS),
        (Multiclass(metric="miou"), MASKS),
        (Multiclass(metric="accuracy"), MASKS),
        (ClassContrast(), IDS),
        (Multilabel(), (IDS[:, None] == torch.arange(3)).float()),
        (Squared(), IDS[:, None] + torch.arange(3.0)),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_score_of_pieces_is_that_of_the_whole(objective, targets, size, rng):
    logits = torch.randn(7, 3, *(targets.shape[1:] if targets.ndim == 3 else ()), generator=rng)
    running = RunningScore(objective, rows=7)
    for some in torch.split(torch.arange(7), size):
        running.add(Predictions(logits[some], targets[some]))
    assert running.value() == objective.score(logits, targets)


def test_a_score_of_pieces_is_nan_where_one_prediction_for_a_label_is_broken():
    running = RunningScore(Multiclass(), rows=3)
    for logits, label in (([1.0, 0.0], 0), ([float("nan"), 0.0], 1), ([0.0, 1.0], 1)):
        running.add(Predictions(torch.tensor([logits]), torch.tensor([label])))
    assert isnan(running.value())


def test_no_logits_of_class_ids_are_kept():
    running, logits = RunningScore(Multiclass(metric="miou"), rows=2), torch.zeros(1, 2, 3, 3)
    kept = weakref.ref(logits)
    running.add(Predictions(logits, torch.zeros(1, 3, 3, dtype=torch.long)))
    del logits
    assert kept() is None


def test_large_examples_come_fewer_at_a_time():
    def size(*shape):
        rows = torch.arange(2)
        images = Rows(torch.zeros(2, *shape), torch.zeros(2, dtype=torch.long))
        return evaluation_size(Task("images", images, {"train": rows}, Multiclass(), outputs=2))

    sizes = [size(16), size(3, 32, 32), size(3, 224, 224), size(3, 256, 256), size(3, 4096, 4096)]
    assert sizes == [256, 256, 13, 10, 1]


@pytest.mark.parametrize(("size", "sizes"), [(None, [6, 6]), (5, [4, 4, 4])])
def test_a_split_is_evaluated_in_its_order_a_few_large_examples_at_a_time(size, sizes):
    images = Rows(torch.zeros(12, 3, 256, 256), torch.arange(12))
    task = Task("images", images, {"train": torch.arange(12).flip(0)}, Multiclass(), outputs=12)
    parts = [batch.targets for batch in evaluation_batches(task, "train", size=size)]
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).tolist() == list(range(11, -1, -1))


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
