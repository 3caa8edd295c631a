"""Baselines on fingerprints: the task's own rows, labels and score, in a folder like a run's."""

import sys

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from molhpft.advice import baselines
from molhpft.advice.baselines import BASELINES, INVERSE_PENALTIES, run_baseline, run_baselines
from molhpft.advice.inventory import chosen_task
from molhpft.cli import app as cli
from molhpft.config.schema import Choice
from molhpft.domains.molecules.fingerprints import morgan_fingerprints
from molhpft.domains.molecules.tables import csv_task
from molhpft.results.table import read_results
from molhpft.run.run import run

SPLIT = ["split=random", "split_seed=1"]


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    monkeypatch.setitem(
        BASELINES,
        "morgan_rf",
        baselines.Baseline({"trees": 5}, "trees", (5,), baselines._forest),
    )


@pytest.fixture
def rings(table):
    return Choice(*chosen_task(str(table), [*SPLIT, "target_columns=[ring]"]))


def branch_of(folder):
    (branch,) = folder.read_json("summary.json")["branches"]
    return branch


def test_rings_are_found_by_both(rings, tmp_path):
    for name in BASELINES:
        assert branch_of(run_baseline(name, rings, tmp_path))["final"]["test"] > 0.9


def test_logistic_regression_is_that_of_scikit_learn_at_the_best_inverse_penalty(rings, tmp_path):
    branch = branch_of(run_baseline("morgan_lr", rings, tmp_path))
    task = csv_task(**rings.options)
    x, y = morgan_fingerprints(task.examples.smiles).numpy().astype(float), task.examples.targets
    valid = {}
    for penalty in INVERSE_PENALTIES:
        rows = task.rows("train")
        model = LogisticRegression(C=penalty, max_iter=5000).fit(x[rows], y[rows, 0])
        logits = task.examples.targets.new_tensor(model.decision_function(x))[:, None]
        valid[penalty] = task.objective.score(logits[task.rows("valid")], y[task.rows("valid")])
    assert branch["final"]["valid"] == pytest.approx(max(valid.values()))
    assert valid[branch["inverse_penalty"]] == pytest.approx(max(valid.values()))


def test_missing_labels_and_a_lost_class_are_no_obstacle(tmp_path):
    path = tmp_path / "gaps.csv"
    rows = ["smiles,ring,rare,fold"]
    for n in range(3, 33):
        fold = ("train", "train", "valid", "test")[n % 4]
        # of `rare` the training split has one class only
        rare = "" if fold == "train" and n % 3 else int(fold != "train" and n % 8 > 3)
        rows += [f"{'C' * n}O,0,{rare},{fold}", f"C1{'C' * n}1N,{'' if n % 5 == 0 else 1},0,{fold}"]
    path.write_text("\n".join(rows) + "\n")
    options = ["target_columns=[ring, rare]", "split=column", "split_column=fold"]
    choice = Choice(*chosen_task(str(path), options))
    for name in BASELINES:
        scores = branch_of(run_baseline(name, choice, tmp_path))["measures"]["targets"]
        assert scores["train"]["rare"] is None
        assert scores["test"]["rare"] == 0.5
        assert scores["test"]["ring"] > 0.9


def test_numbers_are_regressed(table, tmp_path):
    choice = Choice(*chosen_task(str(table), [*SPLIT, "target_columns=[size]"]))
    task = csv_task(**choice.options)
    sizes = task.examples.targets[:, 0].numpy()
    train, test = (sizes[task.rows(split)] for split in ("train", "test"))
    # the targets are in standard deviations, the score is in their own unit
    guess = -np.sqrt(np.mean((test - train.mean()) ** 2)) * task.objective.std[0]
    for name in BASELINES:
        assert branch_of(run_baseline(name, choice, tmp_path))["final"]["test"] > guess


def test_a_finished_baseline_is_not_fitted_again(rings, tmp_path, monkeypatch):
    first = run_baseline("morgan_rf", rings, tmp_path)
    monkeypatch.setattr(baselines, "_best", lambda *a, **k: pytest.fail("fitted again"))
    assert run_baseline("morgan_rf", rings, tmp_path) == first


def test_the_seed_decides_the_forest(table, tmp_path):
    sizes = Choice(*chosen_task(str(table), [*SPLIT, "target_columns=[size]"]))

    def scores(place, seed):
        return branch_of(run_baseline("morgan_rf", sizes, tmp_path / place, seed=seed))["final"]

    assert scores("a", 1) == scores("b", 1)
    assert len({str(scores("a", seed)) for seed in range(4)}) > 1


def test_the_folder_is_named_by_content_and_not_by_place(rings, tmp_path):
    folder = run_baseline("morgan_lr", rings, tmp_path)
    moved = tmp_path / rings.options["path"].name
    moved.write_bytes(rings.options["path"].read_bytes())
    elsewhere = Choice(rings.name, {**rings.options, "path": moved})
    assert run_baseline("morgan_lr", elsewhere, tmp_path) == folder


def test_results_show_baselines_beside_runs(small, rings, tmp_path):
    run(small(method="ft"), tmp_path)
    for name in BASELINES:
        run_baseline(name, rings, tmp_path)
    found = read_results(tmp_path)
    assert found.problems == ()
    assert set(found.table["label"]) == {"ft", "morgan-rf", "morgan-lr"}
    assert len(set(found.table["task"])) == 1


def test_a_config_lends_its_task_and_seed(table, tmp_path):
    task = {"name": "csv", "path": str(table), "target_columns": ["ring"], "split": "random"}
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"task": task, "seed": 7}))
    folders = run_baselines(str(path), ["task.split_seed=1"], tmp_path / "runs")
    written = [yaml.safe_load((f.path / "config.yaml").read_text()) for f in folders]
    assert [config["seed"] for config in written] == [7, 7]
    assert {config["task"]["split_seed"] for config in written} == {1}
    again = run_baselines(str(table), [*SPLIT, "target_columns=[ring]"], tmp_path / "runs", seed=7)
    assert again == folders


def test_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="baselines read molecules, and task shapes has images"):
        run_baselines("shapes", ["images=20"], tmp_path)


def test_the_command_prints_a_line_each(table, tmp_path, monkeypatch, capsys):
    changes = [part for change in (*SPLIT, "target_columns=[ring]") for part in ("--set", change)]
    command = ["molhpft", "baselines", str(table), *changes, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr().out
    assert not stop.value.code
    assert "morgan_rf" in out
    assert "morgan_lr" in out
    assert "ROC-AUC (%)" in out
