"""Cached features and views of them; probing on them against live probing."""

from dataclasses import dataclass, replace

import pytest
import torch

from molhpft.core.data import Rows
from molhpft.core.objectives import Multiclass, Multilabel
from molhpft.tuning.fit import fit
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe, with_head
from tests.toy import reading_network, same_weights, seeded, toy_network, toy_task

HEAD = Phase(trains="head", epochs=1, lr=0.05, batch_size=8)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
def test_cached_probing_equals_live_probing(objective, smoothing):
    task, phase = toy_task(objective), replace(HEAD, epochs=7, smoothing=smoothing)
    live = toy_network(dropout=0.5)
    head, cached = on_features(live, task)
    trajectory = probe(head, phase, cached, taus=[7], rng=seeded())
    fit(live, phase, task, rng=seeded())
    for name, value in live.head.state_dict().items():
        torch.testing.assert_close(trajectory.heads[7][name], value)


def test_features_of_every_split_keep_their_rows():
    network, task = toy_network(dropout=0.5), toy_task()
    head, cached = on_features(network, task)
    for split in task.splits:
        rows = task.examples.take(task.rows(split))
        stored = cached.examples.take(cached.rows(split))
        torch.testing.assert_close(stored.inputs, network.eval().features(rows).detach())
        assert torch.equal(stored.targets, rows.targets)
        torch.testing.assert_close(head(stored), network(rows))


def test_training_a_head_on_features_changes_no_network():
    network, task = toy_network(), toy_task()
    head, cached = on_features(network, task)
    fit(head, HEAD, cached, rng=seeded())
    assert not same_weights(head.head, network.head)
    assert same_weights(network, toy_network())


def test_a_head_that_reads_the_batch_keeps_its_network_and_task():
    network, task = reading_network(), toy_task()
    live, same_task = on_features(network, task)
    assert live is network
    assert same_task is task
    with pytest.raises(ValueError, match="stages reads, linear read the batch: probe live"):
        on_features(network, task, views=2, rng=seeded())


@dataclass(frozen=True)
class Shaken:
    """Rows to which each draw adds its own noise: a stand-in for augmented images."""

    rows: Rows

    @property
    def targets(self):
        return self.rows.targets

    def __len__(self):
        return len(self.rows)

    def take(self, index, *, rng=None):
        batch = self.rows.take(index)
        if rng is None:
            return batch
        return replace(batch, inputs=batch.inputs + torch.randn(batch.inputs.shape, generator=rng))

    def to(self, device):
        return Shaken(self.rows.to(device))


def shaken_task():
    task = toy_task()
    rng = torch.Generator().manual_seed(2)
    order = torch.randperm(30, generator=rng)  # a split need not be in order
    splits = {**task.splits, "train": task.splits["train"][order]}
    return replace(task, examples=Shaken(task.examples), splits=splits)


def test_without_a_generator_views_are_the_examples_as_they_are():
    network, task = toy_network(), shaken_task()
    plain, viewed = (on_features(network, task, views=k, rng=seeded())[1] for k in (0, 3))
    assert len(viewed.examples) == len(plain.examples)
    for split in task.splits:
        a, b = (next(t.batches(split, size=99)) for t in (plain, viewed))
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)


def test_a_view_is_what_the_examples_give_when_they_are_augmented():
    network, task = toy_network(), shaken_task()
    _, viewed = on_features(network, task, views=1, rng=seeded(7))
    raw = task.examples.take(task.rows("train"), rng=seeded(7))
    cached = viewed.examples.take(viewed.rows("train"), rng=seeded())
    torch.testing.assert_close(cached.inputs, network.eval().features(raw).detach())
    assert torch.equal(cached.targets, raw.targets)


def test_each_epoch_draws_one_of_the_views_of_each_training_example_and_of_no_other():
    _, viewed = on_features(toy_network(), shaken_task(), views=3, rng=seeded())
    rng = seeded()
    for split in viewed.splits:
        rows = viewed.rows(split)
        plain = viewed.examples.take(rows).inputs
        epochs = torch.stack([viewed.examples.take(rows, rng=rng).inputs for _ in range(40)], 1)
        for example, drawn in zip(plain, epochs, strict=True):
            assert len(drawn.unique(dim=0)) == (3 if split == "train" else 1)
            assert (drawn == example).all(1).any() == (split != "train")


def test_a_generator_decides_views_and_their_order():
    def weights(seed):
        network = toy_network()
        head, task = on_features(network, shaken_task(), views=2, rng=seeded(seed))
        heads = probe(head, HEAD, task, taus=[2], rng=seeded()).heads
        return heads[2]["stages.linear.module.weight"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_probing_on_many_views_comes_close_to_live_probing():
    """In the limit each epoch sees fresh noise; the loss on noise it has not seen says so."""
    fresh = shaken_task().examples.take(torch.arange(30), rng=seeded(99))

    def loss(views):
        network, task = toy_network(), shaken_task()
        phase = replace(HEAD, epochs=60)
        if views is None:
            fit(network, phase, task, rng=seeded())
        else:
            head, cached = on_features(network, task, views=views, rng=seeded(1))
            network = with_head(
                network, probe(head, phase, cached, taus=[60], rng=seeded()).heads[60]
            )
        return task.objective.loss(network.eval()(fresh), fresh.targets).item()

    live, many, none = loss(None), loss(40), loss(0)
    assert abs(many - live) < 0.3 * abs(none - live)


@pytest.mark.parametrize(("views", "rng"), [(-1, seeded()), (2, None)])
def test_views_need_a_number_and_a_generator(views, rng):
    with pytest.raises(ValueError, match=f"above 0 needs rng to draw them; got {views}"):
        on_features(toy_network(), toy_task(), views=views, rng=rng)


def test_views_move_with_their_task():
    _, viewed = on_features(toy_network(), shaken_task(), views=2, rng=seeded())
    moved = viewed.to("meta").examples.take(torch.arange(3), rng=seeded())
    assert moved.inputs.device.type == moved.targets.device.type == "meta"
