"""Baselines: the task's own rows, labels and score, in a folder like a run's."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from molhpft.advice import baselines
from molhpft.advice.baseline_models import BASELINES, INVERSE_PENALTIES
from molhpft.advice.baselines import run_baselines
from molhpft.advice.inventory import chosen_task
from molhpft.cli import app as cli
from molhpft.domains.molecules.fingerprints import morgan_fingerprints
from molhpft.domains.molecules.tables import csv_task
from molhpft.results.table import read_results
from molhpft.results.terminal import baseline_reading, baseline_table, console
from molhpft.run.run import run

SPLIT = ["split=random", "split_seed=1"]
RINGS = [*SPLIT, "target_columns=[ring]"]
SIZES = [*SPLIT, "target_columns=[size]"]


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    for name, baseline in BASELINES.items():
        if baseline.setting == "trees":
            monkeypatch.setitem(BASELINES, name, replace(baseline, values=(5,)))


def fitted(name, table, changes, out, **options):
    (folder,) = run_baselines(str(table), changes, out, only=[name], **options).folders
    return folder


def task_of(table, changes):
    return csv_task(**chosen_task(str(table), changes)[1])


def branch_of(folder):
    (branch,) = folder.read_json("summary.json")["branches"]
    return branch


FEW = ("forest_counts", "linear_bits", "svm_counts")  # one of each kind


def test_rings_are_found(table, tmp_path):
    for folder in run_baselines(str(table), RINGS, tmp_path, only=FEW).folders:
        assert branch_of(folder)["final"]["test"] > 0.9


def test_logistic_regression_is_that_of_scikit_learn_at_the_best_inverse_penalty(table, tmp_path):
    branch = branch_of(fitted("linear_bits", table, RINGS, tmp_path))
    task = task_of(table, RINGS)
    x, y = morgan_fingerprints(task.examples.smiles).numpy().astype(float), task.examples.targets
    valid = {}
    for penalty in INVERSE_PENALTIES:
        rows = task.rows("train")
        model = LogisticRegression(C=penalty, max_iter=5000).fit(x[rows], y[rows, 0])
        logits = task.examples.targets.new_tensor(model.decision_function(x))[:, None]
        valid[penalty] = task.objective.score(logits[task.rows("valid")], y[task.rows("valid")])
    assert branch["final"]["valid"] == pytest.approx(max(valid.values()))
    assert valid[branch["inverse_penalty"]] == pytest.approx(max(valid.values()))


def test_every_baseline_that_fits_a_tiny_table_is_fitted_and_the_others_are_named(tmp_path):
    path = tmp_path / "tiny.csv"
    rows = [row for n in range(3, 18) for row in (f"{'C' * n}O,0", f"C1{'C' * n}1N,1")]
    path.write_text("\n".join(["smiles,ring", *rows]) + "\n")
    runs = run_baselines(str(path), RINGS, tmp_path / "runs")
    written = [folder.read_json("summary.json")["method"] for folder in runs.folders]
    assert written == [name for name in BASELINES if name != "gp_counts"]
    assert runs.left_out == {"gp_counts": "it predicts numbers, and the targets are classes"}


def test_only_the_baselines_that_are_named_are_fitted(table, tmp_path):
    runs = run_baselines(str(table), RINGS, tmp_path, only=["svm_counts", "linear_bits"])
    written = [folder.read_json("summary.json")["method"] for folder in runs.folders]
    assert written == ["svm_counts", "linear_bits"]
    with pytest.raises(ValueError, match="unknown baseline svm_count; did you mean svm_counts"):
        run_baselines(str(table), RINGS, tmp_path, only=["svm_count"])
    with pytest.raises(ValueError, match="gp_counts does not fit task rings: it predicts numbers"):
        run_baselines(str(table), RINGS, tmp_path, only=["gp_counts"])


def test_numbers_are_regressed(table, tmp_path):
    task = task_of(table, SIZES)
    sizes = task.examples.targets[:, 0].numpy()
    train, test = (sizes[task.rows(split)] for split in ("train", "test"))
    # the targets are in standard deviations, the score is in their own unit
    guess = -np.sqrt(np.mean((test - train.mean()) ** 2)) * task.objective.std[0]
    for folder in run_baselines(str(table), SIZES, tmp_path, only=[*FEW, "gp_counts"]).folders:
        assert branch_of(folder)["final"]["test"] > guess


def test_a_finished_baseline_is_not_fitted_again(table, tmp_path, monkeypatch):
    first = fitted("forest_counts", table, RINGS, tmp_path)
    monkeypatch.setattr(baselines, "_best", lambda *a, **k: pytest.fail("fitted again"))
    assert fitted("forest_counts", table, RINGS, tmp_path) == first


def test_the_seed_decides_the_forest(table, tmp_path):
    def scores(place, seed):
        folder = fitted("forest_counts", table, SIZES, tmp_path / place, seed=seed)
        return branch_of(folder)["final"]

    assert scores("a", 1) == scores("b", 1)
    assert len({str(scores("a", seed)) for seed in range(4)}) > 1


def test_the_folder_is_named_by_content_and_not_by_place(table, tmp_path):
    folder = fitted("linear_bits", table, RINGS, tmp_path)
    moved = tmp_path / table.name
    moved.write_bytes(table.read_bytes())
    assert fitted("linear_bits", moved, RINGS, tmp_path) == folder


def test_results_show_baselines_beside_runs(small, table, tmp_path):
    run(small(method="ft"), tmp_path)
    run_baselines(str(table), RINGS, tmp_path, only=["forest_counts", "linear_bits"])
    found = read_results(tmp_path)
    assert found.problems == ()
    assert set(found.table["label"]) == {"ft", "forest-counts", "linear-bits"}
    assert len(set(found.table["task"])) == 1


def test_a_config_lends_its_task_and_seed(table, tmp_path):
    task = {"name": "csv", "path": str(table), "target_columns": ["ring"], "split": "random"}
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"task": task, "seed": 7}))
    only = ["forest_counts", "linear_bits"]
    folders = run_baselines(str(path), ["task.split_seed=1"], tmp_path / "runs", only=only).folders
    written = [yaml.safe_load((f.path / "config.yaml").read_text()) for f in folders]
    assert [config["seed"] for config in written] == [7, 7]
    assert {config["task"]["split_seed"] for config in written} == {1}
    again = run_baselines(str(table), RINGS, tmp_path / "runs", only=only, seed=7)
    assert again.folders == folders


def test_a_split_of_one_class_is_named_before_anything_is_fitted(tmp_path):
    path = tmp_path / "few.csv"
    rows = [f"{'C' * n}O,{n % 2},{('train', 'valid', 'test')[max(n - 8, 0)]}" for n in range(3, 11)]
    path.write_text("\n".join(["smiles,odd,split", *rows]) + "\n")
    changes = ["split=column", "split_column=split", "target_columns=odd"]
    with pytest.raises(ValueError, match=r"^split 'valid' of few \(1 molecules\) cannot be scored"):
        run_baselines(str(path), changes, tmp_path / "runs")


def test_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="baselines read molecules, and task shapes has images"):
        run_baselines("shapes", ["images=20"], tmp_path)


@pytest.fixture
def printed(table, tmp_path, monkeypatch, capsys):
    """What the command prints for some baselines and further words, on both streams."""

    def run_command(*words):
        changes = [part for each in RINGS for part in ("--set", each)]
        only = ["--only", "forest_counts", "--only", "svm_counts"]
        command = ["molhpft", "baselines", str(table), *only, *changes, "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", [*command, *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
        return capsys.readouterr()

    return run_command


def test_the_command_prints_a_line_each_and_the_one_to_beat(printed):
    out = printed().out
    assert "random forest on Morgan counts" in out
    assert "SVM, MinMax of Morgan counts" in out
    assert "ROC-AUC (%)" in out
    assert "The one to beat is " in out
    assert "valid, 6 test (split random)." in out


def test_json_has_a_summary_each_and_nothing_else(printed):
    streams = printed("--json")
    assert [one["method"] for one in json.loads(streams.out)] == ["forest_counts", "svm_counts"]
    assert "The one to beat is " in streams.err


def test_errors_are_printed_without_a_minus(capsys):
    branch = {"final": {"valid": -1.25, "test": None}}
    summary = {
        **{"task": "sizes", "method": "gp", "about": "a GP", "metric": "neg_rmse"},
        **{"rows_per_target": None, "branches": [branch], "sizes": {"train": 1200, "valid": 1}},
    }
    reading = baseline_reading([summary], {})
    assert reading == (
        "The one to beat is gp, which validates best: RMSE 1.2500, test -.\n"
        "Molecules: 1,200 train, 1 valid."
    )
    console().print(baseline_table([summary]))
    printed = capsys.readouterr().out
    assert "score: RMSE" in printed
    assert " 1.2500 " in printed
    assert "-1.25" not in printed


def test_a_sample_is_said_and_so_is_what_is_left_out(table, tmp_path, monkeypatch):
    small = replace(BASELINES["svm_counts"], most_rows=20)
    monkeypatch.setitem(BASELINES, "svm_counts", small)
    summary = fitted("svm_counts", table, RINGS, tmp_path).read_json("summary.json")
    reading = baseline_reading([summary], {"gp_counts": "it predicts numbers"})
    assert "sample of 20 training molecules a target, the rarer class first: svm_counts" in reading
    assert "Left out: gp_counts, as it predicts numbers." in reading
