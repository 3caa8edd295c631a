"""Scores a target, against the score of a task that has nothing else."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from molhpft.config.measures import measure_branch, target_scores
from molhpft.core.data import Task
from molhpft.core.objectives import Multiclass, Multilabel, Squared
from molhpft.run.run import run
from tests.toy import NAN, toy_task


def named(objective, names=("a", "b", "c")) -> Task:
    return replace(toy_task(objective), target_names=names)


@pytest.mark.parametrize("objective", [Multilabel(), Multilabel(metric="ap"), Squared()])
def test_the_mean_over_targets_is_the_score_of_the_task(objective, rng):
    task = named(objective)
    targets = task.examples.targets
    logits = torch.randn(len(targets), 3, generator=rng)
    found = target_scores(task, logits, targets)
    assert list(found) == ["a", "b", "c"]
    assert sum(found.values()) / 3 == pytest.approx(objective.score(logits, targets))


def test_a_target_that_cannot_be_scored_has_none_and_stops_no_other(rng):
    task = named(Multilabel())
    targets = task.examples.targets.clone()
    targets[:, 0], targets[:, 1] = NAN, 1.0
    logits = torch.randn(len(targets), 3, generator=rng)
    found = target_scores(task, logits, targets)
    assert (found["a"], found["b"]) == (None, None)
    assert found["c"] == pytest.approx(roc_auc_score(targets[:, 2], logits[:, 2]))


def test_a_class_is_scored_by_its_own_units(rng):
    task = named(Multiclass(), names=())
    classes = torch.tensor([0, 0, 0, 1, -100])
    logits = torch.eye(3)[torch.tensor([0, 0, 2, 1, 1])]
    found = target_scores(task, logits, classes)
    assert found == {"class 0": pytest.approx(2 / 3), "class 1": 1.0, "class 2": None}


def test_a_scaled_target_is_scored_in_its_own_unit(rng):
    scaled = Squared(mean=(0.0, 5.0, 0.0), std=(1.0, 10.0, 0.5))
    task = named(scaled)
    targets, logits = torch.randn(2, 20, 3, generator=rng)
    found = target_scores(task, logits, targets)
    assert found["b"] == pytest.approx(10 * Squared().score(logits[:, [1]], targets[:, [1]]))
    assert sum(found.values()) / 3 == pytest.approx(scaled.score(logits, targets))


def test_a_run_that_asks_for_it_has_the_score_of_every_target(small, tmp_path):
    config = small(measures=["targets"], method={"name": "hp_ft", "tau": [2]})
    (row,) = run(config, tmp_path).read_json("summary.json")["branches"]
    found = row["measures"]["targets"]
    assert {split: scores["ring"] for split, scores in found.items()} == row["final"]
    assert measure_branch([], None) == {}
