"""What a caller does beside training: measure, keep progress, pause, resume to the last bit."""

from dataclasses import replace
from itertools import accumulate
from math import ceil

import pytest
import torch

from molhpft.core.data import Portion, Rows
from molhpft.tuning.callbacks import Callback, Measure, PauseAfter
from molhpft.tuning.fit import fit, score
from molhpft.tuning.phase import Phase
from tests.toy import Counter, Saving, same_weights, seeded, toy_network, toy_task

FT = Phase(trains="all", epochs=4, lr=0.01, batch_size=10)
PHASES = {
    "plain": FT,
    "best": replace(FT, lr=0.05, keep="best"),
    "cosine": replace(FT, schedule="cosine"),
    "warmup": replace(FT, warmup=0.4),
    "one_cycle": replace(FT, schedule="one_cycle", warmup=0.3, optimizer="sgd"),
    "anchor": replace(FT, anchor=5.0, optimizer="sgd"),
    "patience": replace(FT, epochs=9, lr=0.3, patience=2, keep="best"),
}


def trained(phase, *callbacks, seed=0, task=None, network=None):
    network = network or toy_network(dropout=0.3)
    rows = fit(network, phase, task or toy_task(), rng=seeded(seed), callbacks=callbacks)
    return network, rows


def test_measuring_adds_to_each_row_and_changes_no_weight():
    task = toy_task()
    measured, rows = trained(FT, Measure(lambda n: {"s": score(n, task, "test")}))
    assert same_weights(measured, trained(FT)[0])
    assert rows[-1]["s"] == score(measured, task, "test") != rows[0]["s"]


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_progress_is_kept_after_every_epoch_and_so_many_steps(steps):
    saving = Saving(every=steps)
    trained(FT, saving)
    each = ceil(len(toy_task().rows("train")) / FT.batch_size)
    within = [n for n in range(1, FT.epochs * each + 1) if steps and n % steps == 0]
    assert sum(len(p.losses) == 0 for p in saving.saved) == FT.epochs
    begun = [p for p in saving.saved if len(p.losses)]
    assert [len(p.rows) * each + len(p.losses) for p in begun] == within


@pytest.mark.parametrize("batch_size", [10, 64, 65, 128])
def test_each_step_tells_how_many_examples_have_been_seen(batch_size):
    class Counting(Rows):
        def take(self, index, *, rng=None):
            sizes.append(len(index))
            return super().take(index, rng=rng)

    sizes, counts = [], []
    task = toy_task(n=3 * 65)
    counting = replace(task, examples=Counting(task.examples.inputs, task.examples.targets))

    class Seen(Callback):
        def after_step(self, step, examples, progress):
            assert step == len(counts) + 1
            counts.append(examples)

    trained(replace(FT, batch_size=batch_size), Seen(), task=counting)
    assert counts == list(accumulate(sizes))
    assert counts[-1] == FT.epochs * 65


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("stop", [0, 1, 4, 11])
@pytest.mark.parametrize("portioned", [False, True])
def test_a_resumed_phase_ends_as_an_uninterrupted_one(optimizer, stop, portioned):
    n = len(toy_task().rows("train"))
    portions = Portion(torch.arange(n // 3), n // 2), Portion(torch.arange(n // 3, n), n // 2)
    task = replace(toy_task(), portions=portions if portioned else ())
    phase = replace(
        FT, epochs=6, optimizer=optimizer, schedule="cosine", anchor=0.1, keep="best", patience=4
    )
    saving = Saving(every=2)
    whole, rows = trained(phase, saving, task=task)
    resumed, resumed_rows = trained(phase, Saving(saving.saved[stop]), seed=99, task=task)
    assert resumed_rows == rows
    assert same_weights(resumed, whole)


def test_progress_in_memory_is_a_copy_that_can_be_gone_on_from_twice():
    saving = Saving()
    whole, _ = trained(FT, saving)
    first, *_, last = (p.weights["head.stages.linear.module.weight"] for p in saving.saved)
    assert not torch.equal(first, last)
    for _ in range(2):
        assert same_weights(trained(FT, Saving(saving.saved[1]))[0], whole)


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_what_a_callback_remembers_is_resumed_with_the_phase(stop):
    saving = Saving(every=2)
    _, rows = trained(FT, Counter(), saving, Counter())
    assert [row["counted"] for row in rows] == [1, 2, 3, 4]
    _, resumed = trained(FT, Counter(), Saving(saving.saved[stop]), Counter())
    assert resumed == rows


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("same", [False, True], ids=["another network", "the paused network"])
def test_a_paused_phase_ends_as_one_that_never_paused(phase, same):
    whole, rows = trained(phase)
    saving, network = Saving(), toy_network(dropout=0.3) if same else None
    for epochs in (0, 1, 3, 3):
        paused, so_far = trained(phase, saving, PauseAfter(epochs), network=network)
        assert so_far == rows[:epochs]
        if phase.keep == "best" and epochs:
            best = max(row["valid"] for row in so_far)
            assert score(paused, toy_task(), "valid") == best
    network, all_rows = trained(phase, saving, PauseAfter(99), network=network)
    assert all_rows == rows
    assert same_weights(network, whole)
