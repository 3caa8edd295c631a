"""A phase that pauses and goes on: the training that never stopped."""

import pytest
import torch

from molhpft.tuning.callbacks import PauseAfter
from molhpft.tuning.fit import fit, score
from molhpft.tuning.phase import Phase
from tests.toy import Saving, same_weights, toy_network, toy_task

PHASES = {
    "last": Phase(trains="all", epochs=5, lr=0.02, batch_size=8),
    "best": Phase(trains="all", epochs=5, lr=0.05, batch_size=8, keep="best"),
    "cosine": Phase(trains="all", epochs=5, lr=0.02, batch_size=8, schedule="cosine"),
    "anchor": Phase(trains="all", epochs=5, lr=0.02, batch_size=8, anchor=5.0, optimizer="sgd"),
    "patience": Phase(trains="all", epochs=9, lr=0.3, batch_size=8, patience=2, keep="best"),
}


def trained(phase, *, until=None, kept=None, network=None):
    network = network or toy_network(dropout=0.5)
    rng = torch.Generator().manual_seed(7)
    callbacks = [kept or Saving(), *([] if until is None else [PauseAfter(until)])]
    return network, fit(network, phase, toy_task(), rng=rng, callbacks=callbacks)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
@pytest.mark.parametrize("pauses", [(1,), (0, 2, 3), (5, 5)], ids=str)
def test_a_paused_phase_ends_as_one_that_never_paused(phase, pauses):
    whole, rows = trained(phase)
    kept = Saving()
    for until in pauses:
        _, so_far = trained(phase, until=until, kept=kept)
        assert so_far == rows[:until]
    network, all_rows = trained(phase, kept=kept)
    assert all_rows == rows
    assert same_weights(network, whole)


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_the_network_that_was_paused_can_go_on_itself(phase):
    whole, rows = trained(phase)
    kept, network = Saving(), toy_network(dropout=0.5)
    for until in (1, 2, None):
        _, all_rows = trained(phase, until=until, kept=kept, network=network)
    assert all_rows == rows
    assert same_weights(network, whole)


def test_a_pause_has_the_best_weights_so_far():
    network, rows = trained(PHASES["best"], until=3)
    assert score(network, toy_task(), "valid") == max(row["valid"] for row in rows[:3])


def test_a_pause_beyond_the_end_is_the_end():
    whole, rows = trained(PHASES["last"])
    network, same = trained(PHASES["last"], until=99)
    assert same == rows
    assert same_weights(network, whole)
