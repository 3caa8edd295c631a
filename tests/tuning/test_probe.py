"""Probing many heads at once against the one training loop, head by head."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from molhpft.core.data import Rows, Task
from molhpft.core.evaluate import take
from molhpft.core.network import Chain, Network, Plain, cosine_head, linear_head, mlp_head
from molhpft.core.objectives import ClassContrast, Multiclass, Multilabel, Squared
from molhpft.measure.features import energy
from molhpft.tuning.fit import fit
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe, probe_many, with_head
from tests.toy import reading_network, same_weights, seeded, toy_network, toy_task, without_labels

HEAD = Phase(trains="head", epochs=1, lr=0.05, batch_size=8)
OBJECTIVES = [Multiclass(), Multilabel(), Squared()]
HEADS = {
    "linear": linear_head,
    "mlp": lambda width, outputs: mlp_head(width, outputs, hidden=5),
    "cosine": cosine_head,  # which is not stacked
}


def heads_of(kind, count, *, outputs=3, width=6):
    torch.manual_seed(0)
    return [Network(Chain({}), HEADS[kind](width, outputs)) for _ in range(count)]


def by_fit(network, phase, task, tau, seed):
    """Head and rows by the training loop that knows nothing of stacks."""
    network = deepcopy(network)
    rows = fit(network, replace(phase, epochs=tau), task, rng=seeded(seed))
    return network.head.state_dict(), rows


def assert_same_heads(one, other, **tolerance):
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], **tolerance)


@st.composite
def settings_of_phases(draw, objective):
    """Settings of a phase, such as people write for a probe.

    The phase is made of them outside of the draw: its checked tuples are looked at by chance.
    """
    optimizer = draw(st.sampled_from(["adam", "adamw", "sgd"]))
    momentum = {"momentum": draw(st.sampled_from([0.0, 0.5, 0.9]))} if optimizer == "sgd" else {}
    smoothing = 0.0 if isinstance(objective, Squared) else draw(st.sampled_from([0.0, 0.1, 0.5]))
    return {
        "trains": "head",
        "epochs": 1,
        "lr": draw(st.sampled_from([1e-3, 0.01, 0.05])),
        "batch_size": draw(st.sampled_from([7, 30, 99])),
        "optimizer": optimizer,
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "smoothing": smoothing,
        **momentum,
    }


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_probing_many_heads_equals_training_them_one_by_one(data):
    objective = data.draw(st.sampled_from(OBJECTIVES))
    task = without_labels(toy_task(objective), data.draw(st.sampled_from([0.0, 0.4, 0.9])))
    drawn = data.draw(st.lists(settings_of_phases(objective), min_size=1, max_size=4))
    some = [Phase(**each) for each in drawn]
    networks = heads_of(data.draw(st.sampled_from(list(HEADS))), data.draw(st.integers(1, 3)))
    before = deepcopy(networks)
    rngs = [seeded(seed) for seed in range(len(networks))]
    probed = probe_many(networks, some, task, taus=[3, 1], rngs=rngs)
    assert all(same_weights(a, b) for a, b in zip(networks, before, strict=True))
    assert [len(row) for row in probed] == [len(networks)] * len(some)
    for phase, row in zip(some, probed, strict=True):
        for seed, (network, trajectory) in enumerate(zip(networks, row, strict=True)):
            for tau in (1, 3):
                head, rows = by_fit(network, phase, task, tau, seed)
                # adam divides by the root of tiny squares: rounding of the first steps shows
                assert_same_heads(trajectory.heads[tau], head, rtol=1e-3, atol=2e-5)
            assert [r["epoch"] for r in trajectory.rows] == [1, 2, 3]
            losses = [[r["loss"] for r in made] for made in (trajectory.rows, rows)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-4, abs=1e-6)


def by_hand(network, task, epochs, rng):
    """The head after a plain loop of autograd and PyTorch's adam, in the head's own precision."""
    network = deepcopy(network)
    adam = torch.optim.Adam(network.parameters(), lr=HEAD.lr)
    for _ in range(epochs):
        torch.randint(2**62, (), generator=rng)  # the seed that dropout would have
        for batch in task.batches("train", size=HEAD.batch_size, rng=rng):
            adam.zero_grad()
            task.objective.loss(network(batch), batch.targets).backward()
            adam.step()
    return network.head.state_dict()


@pytest.mark.parametrize(("kind", "views"), [("linear", 3), ("mlp", 0)])
def test_in_double_precision_a_plain_loop_gives_the_head_to_twelve_digits(kind, views):
    """Enough digits to tell another formula from another order of sums; 100 epochs of adam."""
    network = heads_of(kind, 1)[0].double()
    task = without_labels(toy_task(Multilabel()), 0.3)
    task = replace(task, examples=Rows(task.examples.inputs.double(), task.examples.targets))
    _, task = on_features(network, task, views=views, rng=seeded())
    trajectory = probe(deepcopy(network), HEAD, task, taus=[100], rng=seeded())
    expected = by_hand(network, task, 100, seeded())
    assert_same_heads(trajectory.heads[100], expected, rtol=1e-12, atol=1e-12)


def test_heads_do_not_depend_on_how_far_the_probe_goes_nor_on_the_order_of_taus():
    (network,), task = heads_of("mlp", 1), toy_task()
    by_taus = {
        taus: probe(deepcopy(network), HEAD, task, taus=taus, rng=seeded()).heads
        for taus in ((0, 2, 5), (5, 2), (2,))
    }
    assert sorted(by_taus[0, 2, 5]) == [0, 2, 5]
    assert all(torch.equal(v, network.head.state_dict()[k]) for k, v in by_taus[0, 2, 5][0].items())
    for heads in by_taus.values():
        for tau, head in heads.items():
            assert all(torch.equal(v, by_taus[0, 2, 5][tau][k]) for k, v in head.items())


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_generators_go_on_as_after_fit(kind):
    (network,), task, rngs = heads_of(kind, 1), toy_task(), [seeded(5), seeded(5)]
    probe_many([network], [HEAD, replace(HEAD, lr=0.1)], task, taus=[3], rngs=rngs[:1])
    fit(deepcopy(network), replace(HEAD, epochs=3), task, rng=rngs[1])
    assert torch.equal(rngs[0].get_state(), rngs[1].get_state())


@pytest.mark.parametrize(
    "setting",
    [{"schedule": "cosine"}, {"warmup": 0.5}, {"schedule": "one_cycle", "warmup": 0.3}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_under_a_schedule_the_head_of_a_tau_is_that_of_a_phase_of_tau_epochs(kind, setting):
    (network,), task, phase = heads_of(kind, 1), toy_task(), replace(HEAD, **setting)
    rng, last = seeded(5), seeded(5)
    trajectory = probe(network, phase, task, taus=[4, 0, 2], rng=rng)
    assert sorted(trajectory.heads) == [0, 2, 4]
    for tau, head in trajectory.heads.items():
        alone, last = deepcopy(network), seeded(5)
        rows = fit(alone, replace(phase, epochs=tau), task, rng=last)
        assert all(torch.equal(v, alone.head.state_dict()[k]) for k, v in head.items()), tau
        if tau == 4:
            assert [row["loss"] for row in trajectory.rows] == [row["loss"] for row in rows]
            assert torch.equal(rng.get_state(), last.get_state())


@pytest.mark.parametrize("setting", [{"head_penalty": 3.0}, {"perturbation": 0.5}], ids=str)
def test_heads_under_what_a_stack_does_not_know_are_those_of_fit(setting):
    networks, task = heads_of("linear", 2), toy_task()
    phases = [replace(HEAD, **setting), HEAD]
    probed = probe_many(networks, phases, task, taus=[3], rngs=[seeded(0), seeded(1)])
    for phase, row in zip(phases, probed, strict=True):
        for seed, (network, trajectory) in enumerate(zip(networks, row, strict=True)):
            head, _ = by_fit(network, phase, task, 3, seed)
            assert_same_heads(trajectory.heads[3], head, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("setting", [{"keep": "best"}, {"patience": 2}], ids=str)
def test_settings_under_which_tau_epochs_may_have_no_head_are_refused(setting):
    with pytest.raises(ValueError, match=r"^a probe that gives the head after tau epochs needs"):
        probe(toy_network(), replace(HEAD, **setting), toy_task(), taus=[1], rng=seeded())


@pytest.mark.parametrize(
    ("networks", "chosen", "taus", "rngs"),
    [(0, [HEAD], [1], 0), (1, [], [1], 1), (1, [HEAD], [], 1), (2, [HEAD], [1], 1)],
)
def test_a_probe_of_nothing_is_refused(networks, chosen, taus, rngs):
    rngs = [seeded() for _ in range(rngs)]
    with pytest.raises(ValueError, match=r"^a probe needs at least one network, phase and tau"):
        probe_many(heads_of("linear", networks), chosen, toy_task(), taus=taus, rngs=rngs)


def test_heads_of_different_architectures_are_refused():
    networks = heads_of("linear", 1) + heads_of("mlp", 1)
    with pytest.raises(ValueError, match="stacked when they have one architecture"):
        probe_many(networks, [HEAD], toy_task(), taus=[1], rngs=[seeded(), seeded()])


CALM = replace(HEAD, optimizer="sgd")


# each step multiplies the weights by -1e30
WILD = replace(CALM, lr=1e30, weight_decay=1.0)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_head_that_diverges_takes_no_other_with_it(kind, objective):
    task, taus = toy_task(objective), [0, 1, 4]
    networks, calm = heads_of(kind, 2), [replace(CALM, lr=0.01), replace(CALM, lr=0.02)]
    together = probe_many(
        networks, [calm[0], WILD, calm[1]], task, taus=taus, rngs=[seeded(0), seeded(1)]
    )
    lost = together.pop(1)
    for trajectory in lost:
        assert trajectory.diverged is not None
        assert "below lr=1e+30" in trajectory.diverged
        assert max(trajectory.heads) < 4
        assert math.isnan(trajectory.rows[-1]["loss"])
        assert len(trajectory.rows) == 4
    others = [[calm[0], replace(CALM, lr=0.03), calm[1]], calm]
    for phases_ in others:
        tame = probe_many(networks, phases_, task, taus=taus, rngs=[seeded(0), seeded(1)])
        for mine, theirs in zip(together, [tame[0], tame[-1]], strict=True):
            for a, b in zip(mine, theirs, strict=True):
                assert a.diverged is None
                if len(phases_) == 3:  # a stack of as many heads rounds alike
                    assert a.rows == b.rows
                    assert all(torch.equal(v, b.heads[4][k]) for k, v in a.heads[4].items())
                else:
                    assert_same_heads(a.heads[4], b.heads[4], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_single_probe_that_diverges_is_an_error_with_its_learning_rate(kind):
    (network,) = heads_of(kind, 1)
    with pytest.raises(ValueError, match=r"diverged: the loss is .* below lr=1e\+30"):
        probe(network, WILD, toy_task(), taus=[20], rng=seeded())


def pixels_task():
    """Classes a pixel, which are not rows of a matrix."""
    torch.manual_seed(0)
    rows = Rows(torch.randn(12, 2, 4, 4), torch.randint(3, (12, 4, 4)))
    return Task("pixels", rows, {"train": torch.arange(12)}, Multiclass(), 3)


def test_what_no_stack_can_serve_is_trained_live():
    """A backbone, a stage that reads the batch, an objective of its own, pixels."""
    conv = Network(Chain({}), Chain({"conv": Plain(nn.Conv2d(2, 3, 1), width=3)}))
    for network, task in (
        (toy_network(dropout=0.5), toy_task()),
        on_features(reading_network(), toy_task()),
        (heads_of("cosine", 1)[0], replace(toy_task(), objective=ClassContrast())),
        (conv, pixels_task()),
    ):
        before = deepcopy(network)
        expected, rows = by_fit(network, HEAD, task, 2, 0)
        trajectory = probe(network, HEAD, task, taus=[2], rng=seeded())
        assert all(torch.equal(v, expected[k]) for k, v in trajectory.heads[2].items())
        assert trajectory.rows == rows
        assert rows[1]["loss"] < rows[0]["loss"]
        assert same_weights(network, before)


TAUS = [0, 1, 4]


def probed(network, task):
    return probe(network, HEAD, task, taus=TAUS, rng=seeded())


@pytest.mark.parametrize("live", [False, True], ids=["features", "live"])
@pytest.mark.parametrize("build", [linear_head, mlp_head, cosine_head])
@pytest.mark.parametrize("objective", [Multiclass(), Multilabel()], ids=str)
def test_snapshots_are_those_of_each_head_in_the_network(build, objective, live):
    torch.manual_seed(0)
    network, task = Network(toy_network(dropout=0.5).backbone, build(8, 3)), toy_task(objective)
    network, task = (network, task) if live else on_features(network, task)
    before, trajectory = deepcopy(network), probed(network, task)
    for split in ("train", "valid"):
        snapshots = trajectory.snapshots(network, task, split)
        assert same_weights(network, before)
        assert list(snapshots) == TAUS
        for tau, snapshot in snapshots.items():
            alone = take(with_head(network, trajectory.heads[tau]), task.batches(split, size=99))
            torch.testing.assert_close(snapshot.logits, alone.logits)
            assert torch.equal(snapshot.features, alone.features)
            assert torch.equal(snapshot.targets, alone.targets)


def test_energy_falls_along_a_probe():
    head, task = on_features(toy_network(), toy_task())
    snapshots = probed(head, task).snapshots(head, task, "train").values()
    energies = [energy(snapshot, task.objective).aie for snapshot in snapshots]
    assert energies == sorted(energies, reverse=True)
