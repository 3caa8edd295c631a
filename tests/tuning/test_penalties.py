"""Penalties on features: what they keep, and where they have no meaning."""

from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch

from molhpft.core.beside import Beside
from molhpft.core.data import Task
from molhpft.core.evaluate import take
from molhpft.core.network import Batch, Chain, Network, linear_head
from molhpft.core.objectives import Multiclass
from molhpft.core.standardise import Standardised
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.tuning.distributed import ALONE, Machine
from molhpft.tuning.fit import DivergedError, fit
from molhpft.tuning.penalties import Penalties, mean_squared_distance, smallest_singular_value
from molhpft.tuning.phase import Phase
from molhpft.tuning.transport import masked_transport, routes_of
from tests.toy import Saving, same_weights, seeded, toy_network, toy_task

FT = Phase(trains="all", epochs=6, lr=0.02, batch_size=10)


@dataclass(frozen=True)
class Shared(Machine):
    """A machine of two processes."""

    @property
    def processes(self):
        return 2


def moved_by(**setting):
    """How far each stage's output moved on the training split, in eval mode."""
    task, start, end = toy_task(), toy_network(), toy_network()
    fit(end, replace(FT, batch_norm="frozen", **setting), task, rng=seeded())
    lower = [take(n.cut("layer1"), task.batches("train", size=30)).features for n in (start, end)]
    upper = [take(n, task.batches("train", size=30)).features for n in (start, end)]
    return [(b - a).norm(dim=1).mean().item() for a, b in (lower, upper)]


def test_a_strong_penalty_keeps_what_it_is_on():
    free, delta, hints = (
        moved_by(),
        moved_by(stage_anchor=100.0),
        moved_by(feature_anchor=100.0),
    )
    assert delta[0] < free[0] / 5
    assert delta[1] < free[1] / 5
    assert hints[1] < free[1] / 5
    assert hints[0] > 2 * delta[0]  # the features alone are held


def test_a_strong_transport_keeps_nodes_near_themselves_or_their_neighbours():
    molecules = pack(("CCO", "c1ccccc1N", "CC(=O)OC1CCCC1", "CCCCCC"))
    rows = torch.arange(4)
    examples = Molecules(molecules, torch.tensor([0, 1, 2, 0]), ("",) * 4)
    task = Task("molecules", examples, {"train": rows, "valid": rows}, Multiclass(), outputs=3)
    batch = examples.take(rows)
    routes, costs = routes_of(batch.inputs), []
    for strength in (0.0, 100.0):
        torch.manual_seed(0)
        end = Network(ogb_gcn(layers=2, width=8, dropout=0.0), linear_head(8, 3))
        start = deepcopy(end.eval())
        phase = replace(FT, batch_norm="frozen", node_transport=strength)
        fit(end, replace(phase, epochs=20), task, rng=seeded())
        lower, upper = (n.cut("pool").eval().features(batch).detach() for n in (start, end))
        costs.append(masked_transport(upper, lower, routes))
    assert costs[1] < costs[0] / 3


def pixels(maps):
    """A row for each position of feature maps (n, d, height, width)."""
    return torch.cat([m.flatten(1).T for m in maps])


def test_a_distance_is_that_of_rows_whatever_their_number_and_positions():
    h, start = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
    expected = (pixels(h) - pixels(start)).square().sum(1).mean()
    torch.testing.assert_close(mean_squared_distance(h, start), expected)
    twice = mean_squared_distance(torch.cat([h, h]), torch.cat([start, start]))
    torch.testing.assert_close(twice, expected)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (3, 4, 2, 2)])
def test_the_smallest_singular_value_is_that_of_examples_by_channels(shape):
    z = torch.randn(shape)
    _, s, _ = torch.linalg.svd(z if z.ndim == 2 else pixels(z), full_matrices=False)
    torch.testing.assert_close(smallest_singular_value(z), s.min())


def test_features_that_are_not_finite_shrink_to_nothing_known():
    assert smallest_singular_value(torch.tensor([[1.0, torch.inf], [0.0, 1.0]])).isnan()


def test_a_training_that_diverges_says_so_with_a_penalty_on_singular_values():
    wild = replace(FT, optimizer="sgd", lr=1e30, spectral_shrinkage=0.1)
    with pytest.raises(DivergedError, match="try a learning rate below"):
        fit(toy_network(), wild, toy_task(), rng=seeded())


def on_top(network, stage):
    """The network with a stage that a run adds behind those of the encoder."""
    return Network(network.backbone.followed_by(Chain({"added": stage})), network.head)


def penalty(network, moved, setting, batch):
    """Of a network whose weights have moved since the phase began."""
    penalties = Penalties(network, replace(FT, **{setting: 1.0}), ALONE)
    with torch.no_grad():
        for weight in moved:
            weight.mul_(1.1)
    with penalties.watching():
        network.eval()(batch)
    return penalties.added_to(torch.tensor(0.0), batch, dropout=0).item()


@pytest.mark.parametrize("setting", ["stage_anchor", "feature_anchor", "spectral_shrinkage"])
def test_features_in_standard_units_are_not_penalised_a_second_time(setting):
    batch, found = toy_task().examples.take(torch.arange(4)), []
    for added in (False, True):
        network = toy_network()
        if added:
            network = on_top(network, Standardised(network.backbone.width))
        found.append(penalty(network, network.backbone.parameters(), setting, batch))
    assert found[0] > 0
    assert found[1] == pytest.approx(found[0])


def test_columns_beside_the_features_are_none_whose_singular_values_shrink():
    batch, plain = Batch(torch.randn(4, 6), torch.arange(4) % 3), toy_network()

    class Columns(Beside):
        def forward(self, h, batch):
            return torch.cat([h, torch.full((len(h), 2), 1e-6)], 1)

    width = plain.backbone.width
    beside = Network(
        plain.backbone.followed_by(Chain({"beside": Columns(width, {"a": 2})})),
        linear_head(width + 2, 3),
    )
    own = penalty(toy_network(), [], "spectral_shrinkage", batch)
    assert own > 0
    assert penalty(beside, [], "spectral_shrinkage", batch) == pytest.approx(own)


@pytest.mark.parametrize("setting", ["stage_anchor", "feature_anchor"])
def test_a_resumed_phase_is_compared_with_the_start_of_the_phase(setting):
    phase, saving = replace(FT, **{setting: 5.0}), Saving(every=2)
    whole = toy_network(dropout=0.3)
    fit(whole, phase, toy_task(), rng=seeded(), callbacks=[saving])
    elsewhere = toy_network(dropout=0.3, seed=7)
    fit(elsewhere, phase, toy_task(), rng=seeded(9), callbacks=[Saving(saving.saved[4])])
    assert same_weights(whole, elsewhere)


def test_transport_is_refused_where_there_are_no_nodes():
    phase = replace(FT, node_transport=1.0)
    with pytest.raises(ValueError, match="no stage of the backbone gives nodes"):
        Penalties(toy_network(), phase, ALONE)


@pytest.mark.parametrize("setting", ["stage_anchor", "feature_anchor", "spectral_shrinkage"])
def test_a_penalty_on_features_is_refused_where_it_has_no_meaning(setting):
    phase = replace(FT, **{setting: 1.0})
    with pytest.raises(ValueError, match="needs a backbone, and the cut leaves none"):
        Penalties(toy_network().cut("layer0"), phase, ALONE)
    with pytest.raises(ValueError, match="set devices: 1, got 2 processes"):
        Penalties(toy_network(), phase, Shared())


def test_nothing_is_kept_or_seen_without_a_penalty():
    penalties = Penalties(toy_network(), FT, ALONE)
    loss = torch.tensor(1.0)
    assert penalties.start == {}
    assert penalties.added_to(loss, toy_task().examples.take(torch.arange(3)), dropout=0) is loss
