"""What a branch says of itself when finetuning has ended."""

from math import isnan

import torch

from molhpft.core.objectives import Squared
from molhpft.run.branch import after_finetuning
from tests.toy import toy_network, toy_task


def test_predictions_that_are_not_finite_have_no_score_and_are_warned_of(caplog):
    task, broken = toy_task(Squared()), toy_network()
    with torch.no_grad():
        broken.head.stages["linear"].module.bias.fill_(float("inf"))
    end = after_finetuning(toy_network(), task, broken, task)
    assert all(isnan(score) for score in end["final"].values())
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("predictions on train, valid, test of toy are not all finite after fine")


def test_a_branch_that_is_sound_is_passed_over_in_silence(caplog):
    task = toy_task(Squared())
    end = after_finetuning(toy_network(), task, toy_network(seed=1), task)
    assert not any(isnan(score) for score in end["final"].values())
    assert end["shift"]["distance"] > 0
    assert not caplog.records
