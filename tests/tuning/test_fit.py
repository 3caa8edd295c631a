"""The training loop: what it must leave alone, what each setting means, and resuming."""

import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import accumulate
from math import ceil

import pytest
import torch
from torch.nn import functional as F

from molhpft.core.data import Rows
from molhpft.core.evaluate import take
from molhpft.core.network import Network
from molhpft.core.objectives import Multilabel, ScoredByLoss, Squared
from molhpft.measure.features import initial_energy
from molhpft.tuning.callbacks import Callback, Measure
from molhpft.tuning.fit import best_epoch, fit, score
from molhpft.tuning.phase import Phase
from tests.toy import NAN, Saving, same_weights, scripted, toy_network, toy_task

FT = Phase(trains="all", epochs=4, lr=0.01, batch_size=10)
HEAD = replace(FT, trains="head", lr=0.1)


def trained(phase, *callbacks, seed=0, task=None, network=None):
    network = network or toy_network(dropout=0.3)
    rng = torch.Generator().manual_seed(seed)
    rows = fit(network, phase, task or toy_task(), rng=rng, callbacks=callbacks)
    return network, rows


def test_probing_leaves_every_number_of_the_backbone():
    network, _ = trained(HEAD)
    start = toy_network(dropout=0.3)
    assert same_weights(network.backbone, start.backbone)
    assert not same_weights(network.head, start.head)


def test_training_needs_no_leave_of_a_caller_who_records_no_gradients():
    with torch.no_grad():
        network, rows = trained(FT)
    other, same_rows = trained(FT)
    assert rows == same_rows
    assert same_weights(network, other)


def test_finetuning_trains_backbone_and_batch_statistics():
    network, _ = trained(FT)
    start = toy_network(dropout=0.3).state_dict()
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, start[k])}
    assert changed == set(start)


def without_idle_biases():
    """The toy network without the biases that batch norm takes out again.

    Their gradient is rounding, which Adam would scale to the size of the learning rate.
    """
    network = toy_network(dropout=0.3)
    for stage in network.backbone:
        stage.module[0].bias = None
    return network


def by_hand(phase, task, *, seed=0):
    """The phase as one would write it in plain torch: an independent reference for `fit`."""
    network = without_idle_biases().train()
    start = {name: p.detach().clone() for name, p in network.backbone.named_parameters()}
    layer0, layer1 = network.backbone
    rate = phase.backbone_lr or phase.lr
    groups = [
        {"params": network.head.parameters(), "lr": phase.lr},
        {"params": layer1.parameters(), "lr": rate * phase.layer_decay},
        {"params": layer0.parameters(), "lr": rate * phase.layer_decay**2},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    more = {"momentum": phase.momentum} if phase.optimizer == "sgd" else {}
    optimizer = kind[phase.optimizer](groups, weight_decay=phase.weight_decay, **more)
    rows, rng = task.rows("train"), torch.Generator().manual_seed(seed)
    steps = ceil(len(rows) / phase.batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * phase.epochs)
    if phase.batch_norm == "frozen":
        for stage in network.backbone:
            stage.module[1].eval()
    losses = []
    for _ in range(phase.epochs):
        dropout = int(torch.randint(2**62, (), generator=rng))
        order = rows[torch.randperm(len(rows), generator=rng)]
        for step, some in enumerate(order.tensor_split(steps)):
            torch.manual_seed(dropout + step)
            batch = task.examples.take(some)
            loss = F.cross_entropy(network(batch), batch.targets, label_smoothing=phase.smoothing)
            optimizer.zero_grad()
            loss.backward()
            for name, p in network.backbone.named_parameters():
                # the slope of anchor / 2 |w - w0|^2 (Li et al., 2018)
                p.grad += phase.anchor * (p.detach() - start[name])
            optimizer.step()
            losses.append(loss.item())
            if phase.schedule == "cosine":
                cosine.step()
    return network, torch.tensor(losses).view(phase.epochs, steps).mean(1).tolist()


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"weight_decay": 0.1},
        {"batch_size": 13},
        {"smoothing": 0.2, "optimizer": "sgd"},
        {"schedule": "cosine", "optimizer": "sgd", "lr": 0.1},
        {"backbone_lr": 0.002, "optimizer": "sgd"},
        {"layer_decay": 0.5, "optimizer": "sgd"},
        {"backbone_lr": 0.002, "layer_decay": 0.5, "optimizer": "sgd"},
        {"anchor": 1.0, "optimizer": "sgd"},
        {"batch_norm": "frozen"},
    ],
    ids=str,
)
def test_a_phase_is_what_one_would_write_by_hand_in_torch(setting):
    phase = replace(FT, **setting)
    state = torch.get_rng_state()
    theirs, losses = by_hand(phase, toy_task())
    torch.set_rng_state(state)
    ours, rows = trained(phase, network=without_idle_biases())
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-6)
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)


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


def test_energy_falls_while_probing():
    task = toy_task()

    def observe(network):
        taken = take(network, task.batches("train", size=50))
        return {"energy": initial_energy(taken, task.objective)}

    _, rows = trained(replace(HEAD, epochs=20, lr=0.01, batch_size=30), Measure(observe))
    energies = [row["energy"] for row in rows]
    assert energies == sorted(energies, reverse=True)


def test_observing_does_not_change_training():
    task = toy_task()
    seen, rows = trained(FT, Measure(lambda n: {"s": score(n, task, "test")}))
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


@pytest.mark.parametrize(
    ("scores", "best"), [((NAN, 0.2, 0.5, 0.1), 3), ((0.2, NAN, NAN, 0.1), 1), ((NAN, 0.1), 2)]
)
def test_an_epoch_whose_score_is_nan_is_never_the_best(scores, best):
    phase = replace(FT, epochs=len(scores), keep="best")
    network, rows = trained(phase, task=scripted(*scores))
    assert best_epoch(rows) == best
    stopped, _ = trained(replace(FT, epochs=best), task=toy_task(Squared()))
    assert same_weights(network, stopped)


def test_no_epoch_is_the_best_of_scores_that_are_all_nan():
    assert best_epoch([{"valid": NAN}, {"valid": NAN}]) == best_epoch([]) == 0
    with pytest.raises(ValueError, match="after none of 3 epochs were all predictions on the val"):
        trained(replace(FT, epochs=3, keep="best"), task=scripted(NAN, NAN, NAN))


def test_epochs_whose_score_is_nan_use_up_patience():
    phase = replace(FT, epochs=9, patience=2)
    assert len(trained(phase, task=scripted(0.1, NAN, NAN, 0.9))[1]) == 3
    assert len(trained(phase, task=scripted(NAN, NAN, 0.9))[1]) == 2


def test_predictions_that_are_not_finite_are_said_once(caplog):
    task = toy_task(Squared())
    inputs = task.examples.inputs.clone()
    inputs[task.rows("valid")] = float("inf")
    task = replace(
        task,
        examples=replace(task.examples, inputs=inputs),
        objective=ScoredByLoss(task.objective),
    )
    _, rows = trained(replace(FT, patience=9), task=task)
    assert all(math.isnan(row["valid"]) for row in rows)
    (told,) = (record.getMessage() for record in caplog.records)
    assert told == (
        "predictions on the validation split of toy are not all finite after epoch 1: the score of "
        "that epoch is NaN, and its weights are never kept as the best; try a learning rate below "
        "lr=0.01"
    )


def test_finite_predictions_are_passed_over_in_silence(caplog):
    trained(replace(FT, patience=9))
    assert not caplog.records


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
    with pytest.raises(ValueError, match=r"^training diverged: the loss is .* learning rate below"):
        trained(phase, task=toy_task(Squared()))


def test_a_last_step_to_infinity_is_a_diverging_run():
    # its loss was taken before the step and is finite
    phase = replace(HEAD, epochs=1, lr=3e38, batch_size=99, optimizer="sgd")
    task = toy_task(Squared())
    far = replace(task.examples, targets=1e3 * task.examples.targets)
    with pytest.raises(ValueError, match=r"diverged: weights are not finite after epoch 1; try"):
        trained(phase, task=replace(task, examples=far))


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
    saving = Saving(every=2)
    whole, rows = trained(phase, saving)
    resumed, resumed_rows = trained(phase, Saving(saving.saved[stop]), seed=99)
    assert resumed_rows == rows
    assert same_weights(resumed, whole)


def test_saved_progress_does_not_alias_the_live_weights():
    saving = Saving()
    trained(FT, saving)
    first, *_, last = (p.weights["head.stages.linear.module.weight"] for p in saving.saved)
    assert not torch.equal(first, last)


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


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_progress_is_kept_after_every_epoch_and_so_many_steps(steps):
    saving = Saving(every=steps)
    trained(FT, saving)
    kept = saving.saved
    each = ceil(len(toy_task().rows("train")) / FT.batch_size)
    within = [n for n in range(1, FT.epochs * each + 1) if steps and n % steps == 0]
    assert sum(len(p.losses) == 0 for p in kept) == FT.epochs
    found = [len(p.rows) * each + len(p.losses) for p in kept if len(p.losses)]
    assert found == within


@pytest.mark.parametrize("batch_size", [10, 64, 65, 128])
def test_each_step_tells_how_many_examples_have_been_seen(batch_size):
    class Counting(Rows):
        def take(self, index, *, rng=None):
            taken.append(len(index))
            return super().take(index, rng=rng)

    taken, seen = [], []
    task = toy_task(n=3 * 65)
    counting = replace(task, examples=Counting(task.examples.inputs, task.examples.targets))

    class Seen(Callback):
        def after_step(self, step, examples, progress):
            assert step == len(seen) + 1
            seen.append(examples)

    trained(replace(FT, batch_size=batch_size), Seen(), task=counting)
    assert seen == list(accumulate(taken))
    assert seen[-1] == FT.epochs * 65


@pytest.mark.parametrize("phase", [FT, HEAD, replace(FT, weight_decay=0.1, anchor=0.1)], ids=str)
def test_a_stage_that_the_caller_froze_stays_as_it_is(phase):
    network = toy_network(dropout=0.3)
    network.backbone.stages["layer0"].requires_grad_(False)
    trained(phase, network=network)
    start = toy_network(dropout=0.3)
    assert same_weights(network.backbone.stages["layer0"], start.backbone.stages["layer0"])
    assert not same_weights(network.head, start.head)
    moved = not same_weights(network.backbone.stages["layer1"], start.backbone.stages["layer1"])
    assert moved == (phase.trains == "all")


@pytest.mark.parametrize("phase", [FT, HEAD], ids=lambda phase: phase.trains)
@pytest.mark.parametrize("lr", [0.01, 1e25], ids=["trained", "diverged"])
def test_afterwards_the_same_parameters_are_trainable_as_before(phase, lr):
    network = toy_network()
    network.backbone.stages["layer0"].requires_grad_(False)
    before = [p.requires_grad for p in network.parameters()]
    diverged = lr > 1
    with pytest.raises(ValueError, match="diverged") if diverged else nullcontext():
        phase = replace(phase, lr=lr, optimizer="sgd", epochs=20)
        trained(phase, network=network, task=toy_task(Squared()))
    assert [p.requires_grad for p in network.parameters()] == before


@pytest.mark.parametrize(("phase", "part"), [(FT, "the network"), (HEAD, "the head")])
def test_nothing_to_train_is_refused(phase, part):
    network = toy_network()
    network.requires_grad_(False)
    network.backbone.requires_grad_(phase is HEAD)
    with pytest.raises(ValueError, match=f"nothing to train: no parameter of {part} requires gr"):
        trained(phase, network=network)


def test_progress_in_memory_can_be_gone_on_from_twice():
    saving = Saving()
    whole, _ = trained(FT, saving)
    for _ in range(2):
        resumed, _ = trained(FT, Saving(saving.saved[1]))
        assert same_weights(resumed, whole)


class Counter(Callback):
    """Numbers the epochs, with a memory that only `state` carries over an interruption."""

    def __init__(self):
        self.epochs = torch.zeros(())

    def measure(self, network):
        self.epochs = self.epochs + 1
        return {"counted": self.epochs.item()}

    def state(self):
        return {"epochs": self.epochs}

    def load_state(self, state):
        self.epochs = state["epochs"]


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_what_a_callback_remembers_is_resumed_with_the_phase(stop):
    saving = Saving(every=2)
    _, rows = trained(FT, Counter(), saving, Counter())
    assert [row["counted"] for row in rows] == [1, 2, 3, 4]
    _, resumed = trained(FT, Counter(), Saving(saving.saved[stop]), Counter())
    assert resumed == rows
