"""The training loop: what it must leave alone, what each setting means, and resuming."""

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from math import ceil

import pytest
import torch

from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.snapshot import take
from molhpft.measure.energy import initial_energy
from molhpft.tuning.checkpoints import Checkpoints
from molhpft.tuning.fit import best_epoch, fit, score
from molhpft.tuning.phase import Phase
from tests.toy import same_weights, toy_network, toy_task

FT = Phase(trains="all", epochs=4, lr=0.01, batch_size=10)
HEAD = replace(FT, trains="head", lr=0.1)


def trained(phase, *, seed=0, task=None, network=None, **options):
    network = network or toy_network(dropout=0.3)
    rng = torch.Generator().manual_seed(seed)
    rows = fit(network, phase, task or toy_task(), rng=rng, **options)
    return network, rows


def test_probing_leaves_every_number_of_the_backbone():
    network, _ = trained(HEAD)
    start = toy_network(dropout=0.3)
    assert same_weights(network.backbone, start.backbone)
    assert not same_weights(network.head, start.head)


def test_finetuning_trains_backbone_and_batch_statistics():
    network, _ = trained(FT)
    start = toy_network(dropout=0.3).state_dict()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, start[k])}
    assert changed == set(start)


@pytest.mark.parametrize(
    "neutral", [{"layer_decay": 1.0}, {"anchor": 0.0}, {"smoothing": 0.0}, {"weight_decay": 0.0}]
)
def test_neutral_settings_are_plain_finetuning_bit_for_bit(neutral):
    assert same_weights(trained(replace(FT, **neutral))[0], trained(FT)[0])


@pytest.mark.parametrize(
    "setting",
    [
        {"layer_decay": 0.5},
        {"anchor": 1.0},
        {"smoothing": 0.2},
        {"weight_decay": 0.1},
        {"batch_norm": "frozen"},
        {"schedule": "cosine"},
        {"optimizer": "sgd"},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"batch_size": 20},
    ],
    ids=str,
)
def test_each_setting_changes_the_result(setting):
    assert not same_weights(trained(replace(FT, **setting))[0], trained(FT)[0])


def test_the_generator_decides_order_and_dropout():
    assert same_weights(trained(FT, seed=3)[0], trained(FT, seed=3)[0])
    assert not same_weights(trained(FT, seed=3)[0], trained(FT, seed=4)[0])


def test_training_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    network, task = toy_network(dropout=0.3), toy_task()
    torch.set_rng_state(state)
    trained(FT, network=network, task=task)
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_batch_norm_keeps_running_statistics_and_trains_the_rest():
    network, _ = trained(replace(FT, batch_norm="frozen"))
    start = toy_network(dropout=0.3).state_dict()
    for name, value in network.state_dict().items():
        is_statistic = "running" in name or "num_batches" in name
        assert torch.equal(value, start[name]) == is_statistic, name


def test_a_strong_anchor_keeps_the_backbone_near_its_start():
    def moved(anchor):
        network, start = toy_network(), toy_network()
        trained(replace(FT, optimizer="sgd", anchor=anchor), network=network)
        pairs = zip(network.backbone.parameters(), start.backbone.parameters(), strict=True)
        return sum(float((p - q).square().sum().detach()) for p, q in pairs)

    assert moved(10.0) < 0.5 * moved(0.0)


def test_layer_decay_slows_the_stages_far_from_the_head():
    def step(decay):
        network, start = toy_network(), toy_network()
        phase = replace(FT, epochs=1, optimizer="sgd", batch_size=30, layer_decay=decay)
        trained(phase, network=network)
        names = ("head.stages.linear", "backbone.stages.layer1", "backbone.stages.layer0")
        weights = {k: v - dict(start.named_parameters())[k] for k, v in network.named_parameters()}
        return [next(v for k, v in weights.items() if k.startswith(name)) for name in names]

    for depth, (slow, plain) in enumerate(zip(step(0.5), step(1.0), strict=True)):
        torch.testing.assert_close(slow, plain * 0.5**depth, rtol=1e-4, atol=1e-7)


def test_a_cosine_schedule_ends_with_steps_near_zero():
    rows = []

    def weights(network):
        rows.append(network.head.state_dict()["stages.linear.module.weight"].clone())
        return {}

    trained(replace(FT, epochs=10, optimizer="sgd", schedule="cosine"), observe=weights)
    steps = [(b - a).norm().item() for a, b in pairwise(rows)]
    assert steps[-1] < 0.1 * steps[0]


def test_energy_falls_while_probing():
    task = toy_task()

    def observe(network):
        taken = take(network, task.batches("train", size=50))
        return {"energy": initial_energy(taken, task.objective)}

    _, rows = trained(replace(HEAD, epochs=20, lr=0.01, batch_size=30), observe=observe)
    energies = [row["energy"] for row in rows]
    assert energies == sorted(energies, reverse=True)


def test_observing_does_not_change_training():
    task = toy_task()
    seen, rows = trained(FT, observe=lambda n: {"s": score(n, task, "test")})
    assert same_weights(seen, trained(FT)[0])
    assert all("s" in row for row in rows)


def test_keeping_the_best_ends_with_the_weights_that_validated_best():
    task = toy_task(Squared())
    phase = replace(FT, epochs=12, lr=0.3, keep="best")
    network, rows = trained(phase, task=task)
    assert score(network, task, "valid") == max(row["valid"] for row in rows)
    assert rows[-1]["valid"] < max(row["valid"] for row in rows)  # the last was not the best


def test_keeping_the_best_is_stopping_at_the_best_epoch():
    phase = replace(FT, epochs=12, lr=0.3, keep="best")
    network, rows = trained(phase, task=toy_task(Squared()))
    stopped, _ = trained(replace(FT, epochs=best_epoch(rows), lr=0.3), task=toy_task(Squared()))
    assert same_weights(network, stopped)


def test_patience_stops_after_that_many_epochs_without_a_better_score():
    phase = replace(FT, epochs=60, lr=0.3, patience=3)
    _, rows = trained(phase, task=toy_task(Squared()))
    assert len(rows) < 60
    assert len(rows) - best_epoch(rows) == 3


def test_no_epochs_change_nothing():
    network, rows = trained(replace(FT, epochs=0))
    assert rows == []
    assert same_weights(network, toy_network(dropout=0.3))


def test_a_diverging_run_says_so():
    phase = replace(FT, lr=1e25, epochs=50, optimizer="sgd")
    with pytest.raises(ValueError, match=r"training diverged: the loss is .* learning rate below"):
        trained(phase, task=toy_task(Squared()))


def test_an_epoch_without_any_label_is_finite():
    task = toy_task(Multilabel())
    blank = replace(task.examples, targets=torch.full_like(task.examples.targets, float("nan")))
    network, rows = trained(FT, task=replace(task, examples=blank))
    assert rows[-1]["loss"] == 0
    assert all(p.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 11])
def test_a_resumed_phase_ends_as_an_uninterrupted_one(optimizer, stop):
    phase = replace(
        FT, epochs=6, optimizer=optimizer, schedule="cosine", anchor=0.1, keep="best", patience=4
    )
    saved = []
    keeping = Checkpoints(save=lambda progress: saved.append(deepcopy(progress)), steps=2)
    whole, rows = trained(phase, checkpoints=keeping)
    resumed, resumed_rows = trained(
        phase, seed=99, checkpoints=Checkpoints(load=lambda: saved[stop])
    )
    assert resumed_rows == rows
    assert same_weights(resumed, whole)


def test_saved_progress_does_not_alias_the_live_weights():
    saved = []
    trained(FT, checkpoints=Checkpoints(save=saved.append))
    key = "head.stages.linear.module.weight"
    assert not torch.equal(saved[0].weights[key], saved[-1].weights[key])


def test_score_is_the_objective_on_the_whole_split():
    network, task = toy_network(), toy_task()
    rows = task.examples.take(task.rows("test"))
    logits = network.eval()(rows).detach()
    assert score(network, task, "test", size=7) == task.objective.score(logits, rows.targets)


def test_a_network_of_only_a_head_can_be_finetuned():
    network, task = toy_network(), toy_task()
    headless = Network(network.cut("layer0").backbone, network.cut("layer0").head)
    _, rows = trained(FT, network=headless, task=task)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_each_step_tells_how_many_examples_have_been_seen():
    seen = []
    trained(FT, tick=seen.append)
    examples = len(toy_task().rows("train"))
    assert seen == sorted(set(seen))
    assert seen[-1] == FT.epochs * examples


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_progress_is_kept_after_every_epoch_and_so_many_steps(steps):
    kept = []
    trained(FT, checkpoints=Checkpoints(save=kept.append, steps=steps))
    each = ceil(len(toy_task().rows("train")) / FT.batch_size)
    within = [n for n in range(1, FT.epochs * each + 1) if steps and n % steps == 0]
    assert sum(len(p.losses) == 0 for p in kept) == FT.epochs
    found = [len(p.rows) * each + len(p.losses) for p in kept if len(p.losses)]
    assert found == within
