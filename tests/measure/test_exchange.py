"""Backbones under the heads of others."""

import pytest
import torch

from molhpft.core.data import Task
from molhpft.core.network import Batch, Network
from molhpft.core.objectives import Multilabel
from molhpft.domains.molecules.graphs import pack
from molhpft.measure.exchange import exchange_scores
from molhpft.tuning.fit import fit, score
from molhpft.tuning.phase import Phase
from tests.measure.networks import molecule_network
from tests.toy import toy_network, toy_task


class Molecules:
    def __init__(self):
        self.store = pack(["CCO", "c1ccccc1", "CC=O", "CN"])
        self.targets = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0]])

    def __len__(self):
        return len(self.store)

    def take(self, index, *, rng=None):
        return Batch(self.store.take(index), self.targets[index])

    def to(self, device):
        raise NotImplementedError


@pytest.fixture
def molecules():
    return Task("molecules", Molecules(), {"train": torch.arange(4)}, Multilabel(), outputs=3)


@pytest.fixture(scope="module")
def task():
    return toy_task(Multilabel(), n=180)


@pytest.fixture(scope="module")
def networks(task):
    """Three networks finetuned for 1, 2 and 3 epochs from different heads."""
    tuned = [toy_network(seed=seed) for seed in range(3)]
    for epochs, network in enumerate(tuned, start=1):
        phase = Phase(trains="all", epochs=epochs, lr=1e-2, batch_size=20)
        fit(network, phase, task, rng=torch.Generator().manual_seed(0))
    return tuned


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_diagonal_has_the_networks_as_they_are(split, networks, task):
    scores = exchange_scores(networks, task, split)
    assert scores.diagonal().tolist() == [score(network, task, split) for network in networks]


def test_rows_are_backbones_and_columns_are_heads(networks, task):
    scores = exchange_scores(networks, task, "valid")
    for i, backbone in enumerate(networks):
        for j, head in enumerate(networks):
            pair = Network(backbone.backbone, head.head)
            assert scores[i, j].item() == score(pair, task, "valid")
    assert len(scores.unique()) > 3


def test_scores_do_not_depend_on_the_size_of_batches(networks, task, monkeypatch):
    expected = exchange_scores(networks, task, "valid")
    monkeypatch.setattr("molhpft.core.evaluate.evaluation_size", lambda task: 7)
    assert torch.equal(exchange_scores(networks, task, "valid"), expected)


def test_networks_with_one_head_have_equal_columns(networks, task):
    shared = [Network(n.backbone, networks[0].head) for n in networks]
    scores = exchange_scores(shared, task, "valid")
    assert (scores == scores[:, :1]).all()


def test_a_partial_backbone_takes_its_upper_stages_along_with_the_head(networks, task):
    cut = [network.cut("layer1") for network in networks]
    whole, partial = (exchange_scores(n, task, "valid") for n in (networks, cut))
    assert torch.equal(whole.diagonal(), partial.diagonal())
    assert not torch.equal(whole, partial)


def test_heads_that_read_the_graph_can_be_exchanged(molecules):
    networks = [molecule_network(seed=seed).cut("conv1") for seed in (0, 1)]
    scores = exchange_scores(networks, molecules, "train")
    assert scores.diagonal().tolist() == [score(n, molecules, "train") for n in networks]


def test_an_exchange_needs_networks(task):
    with pytest.raises(ValueError, match="at least one network, got none"):
        exchange_scores([], task, "valid")


def test_networks_cut_at_different_stages_cannot_exchange_heads(networks, task):
    with pytest.raises(ValueError, match="same stages, got 'layer0' and 'layer0 layer1'"):
        exchange_scores([networks[0], networks[1].cut("layer1")], task, "valid")
