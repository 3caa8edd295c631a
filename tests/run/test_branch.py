"""What a run says of a network before and after finetuning."""

from dataclasses import replace
from math import isnan

import pytest
import torch

from molhpft.core.evaluate import take
from molhpft.core.objectives import ScoredByLoss, Squared
from molhpft.measure.features import RunningCalibration, initial_energy, shift
from molhpft.run.branch import (
    after_finetuning,
    before_finetuning,
    evaluated,
    predictions,
    snapshots,
)
from molhpft.tuning.fit import score
from tests.toy import toy_network, toy_task


def test_energy_scores_and_shift_are_those_of_whole_snapshots(caplog):
    task, start, end = toy_task(Squared()), toy_network(), toy_network(seed=1)
    before, after = (take(n, task.batches("train", size=99)) for n in (start, end))
    probed = before_finetuning(predictions(start, task), task)
    assert probed["energy"]["aie"] == pytest.approx(initial_energy(before, task.objective))
    finetuned = after_finetuning(start, task, end, task)
    assert finetuned["shift"]["distance"] == pytest.approx(
        shift(before.features, after.features).distance
    )
    for network, row in ((start, probed["probe"]), (end, finetuned["final"])):
        assert row == {split: score(network, task, split) for split in task.splits}
    assert list(snapshots(end, task)) == list(task.splits)
    assert not caplog.records


def test_calibration_is_of_every_split_where_labels_are_classes():
    start, end = toy_network(), toy_network(seed=1)
    classes, numbers = toy_task(), toy_task(Squared())
    row = after_finetuning(start, classes, end, classes)
    for split in classes.splits:
        error = RunningCalibration(classes.objective)
        error.add(take(end, classes.batches(split, size=99)))
        assert row["ece"][split] == pytest.approx(error.value())
    assert "ece" not in after_finetuning(start, numbers, end, numbers)


def test_predictions_that_are_not_finite_have_no_score_and_are_warned_of(caplog):
    task, broken = toy_task(Squared()), toy_network()
    with torch.no_grad():
        broken.head.stages["linear"].module.bias.fill_(float("inf"))
    end = after_finetuning(toy_network(), task, broken, task)
    assert all(isnan(score) for score in end["final"].values())
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("predictions on train, valid, test of toy are not all finite after f")


def test_a_pretraining_is_judged_by_an_even_sample_of_what_it_trains_on(monkeypatch):
    task = toy_task()
    train = task.rows("train")
    monkeypatch.setattr("molhpft.run.branch._SAMPLE", 5)
    assert evaluated(task) is task
    pretraining = replace(task, objective=ScoredByLoss(task.objective))
    judged = evaluated(pretraining)
    expected = train[torch.linspace(0, len(train) - 1, 5).long()]
    assert torch.equal(judged.rows("train"), expected)
    assert torch.equal(judged.rows("valid"), task.rows("valid"))
    monkeypatch.setattr("molhpft.run.branch._SAMPLE", len(train))
    assert evaluated(pretraining) is pretraining
