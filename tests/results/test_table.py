"""The tidy table: a row a run and tau, no seed counted twice, names that tell runs apart."""

import json
from pathlib import Path
from typing import get_args

import pytest

from molhpft.config.options import keywords
from molhpft.config.registry import TASKS
from molhpft.results.table import PLACES, read_results
from molhpft.run.identity import FORMAT
from molhpft.run.run import run
from tests.runs import rewrite, write_run

GRID = {0: (0.6, 0.5), 4: (0.7, 0.6)}


def names(root, column):
    return sorted(set(read_results(root).table[column]))


def test_a_real_run_gives_a_row_a_tau_with_its_own_numbers(small, tmp_path):
    folder = run(small(), tmp_path)
    summary, rows = folder.read_json("summary.json"), read_results(tmp_path).table
    assert rows["tau"].tolist() == [0, 2, 5]
    assert rows[rows["chosen"]]["tau"].tolist() == [summary["chosen_tau"]]
    assert rows["epochs"].tolist() == [3, 3, 3]
    for row, branch in zip(rows.to_dict("records"), summary["branches"], strict=True):
        assert row["energy"] == branch["energy"]["aie"]
        assert row["distance"] == branch["shift"]["distance"]
        for split in ("train", "valid", "test"):
            assert row[f"final_{split}"] == branch["final"][split]
            assert row[f"probe_{split}"] == branch["probe"][split]
    assert set(rows["label"]) == set(rows["variant"]) == {"hp-ft"}


def test_probing_alone_costs_no_finetuning(small, tmp_path):
    run(small(method={"name": "lp"}, probe={"epochs": 5, "lr": 0.01}), tmp_path)
    run(small(method={"name": "lp_logistic"}), tmp_path)
    assert read_results(tmp_path).table["epochs"].tolist() == [0, 0]


def test_a_copy_of_a_run_is_no_further_evidence(tmp_path):
    for place in ("a", "b"):
        write_run(tmp_path / place, GRID, seed=1)
    assert len(read_results(tmp_path).table) == 2


def test_runs_of_other_formats_are_counted_in_a_note_and_are_in_no_mean(tmp_path):
    shown, *others = (write_run(tmp_path, GRID, seed=seed) for seed in range(3))
    for path in others:
        summary = json.loads((path / "summary.json").read_text())
        rewrite(path, "summary.json", json.dumps(summary | {"format": FORMAT - 1}))
    results = read_results(tmp_path)
    assert set(results.table["folder"]) == {str(shown)}
    assert results.notes == (
        "2 runs are left out: another version made them, and numbers may mean something else. Run "
        "again what is to be compared.",
    )


def test_of_runs_that_differ_in_measures_the_richer_is_kept(tmp_path):
    write_run(tmp_path, GRID, measures=[])
    richer = write_run(tmp_path, GRID, measures=["ntk"])
    results = read_results(tmp_path)
    assert set(results.table["folder"]) == {str(richer)}
    assert [kept.path for kept in results.runs_of(results.table)] == [richer]


def test_seeds_share_a_variant_and_a_grid_of_tau_is_no_setting(tmp_path):
    for seed in range(3):
        write_run(tmp_path, GRID, seed=seed)
    write_run(tmp_path, {9: (0.8, 0.7)}, seed=1)
    results = read_results(tmp_path)
    assert results.settings == ()
    assert names(tmp_path, "variant") == ["hp-ft"]


def test_a_choice_of_tau_costs_what_its_short_finetunings_took(tmp_path):
    write_run(tmp_path, GRID)
    write_run(tmp_path, {7: (0.7, 0.6)}, spent=6)
    rows = read_results(tmp_path).table
    costs = rows.groupby("variant")["epochs"].sum().to_dict()
    assert costs == {"hp-ft, tau auto": 6, "hp-ft, tau by grid": 3 * len(GRID)}


def test_a_setting_that_differs_is_in_the_variant_and_a_rate_not_in_the_family(tmp_path):
    for lr in (0.1, 0.2):
        for decay in (0.0, 0.5):
            write_run(tmp_path, GRID, finetune={"lr": lr, "weight_decay": decay})
    results = read_results(tmp_path)
    assert set(results.settings) == {"finetune.lr", "finetune.weight_decay"}
    assert names(tmp_path, "label") == ["hp-ft"]
    assert names(tmp_path, "family") == ["hp-ft, weight_decay=0.0", "hp-ft, weight_decay=0.5"]
    assert len(names(tmp_path, "variant")) == 4
    assert sorted(set(results.table["finetune.lr"])) == [0.1, 0.2]


def test_a_setting_of_one_method_does_not_lengthen_the_name_of_another(tmp_path):
    for lr in (0.1, 0.2):
        write_run(tmp_path, {0: (0.6, 0.5)}, method="ft", finetune={"lr": lr})
    write_run(tmp_path, GRID)
    assert names(tmp_path, "variant") == ["ft, lr=0.1", "ft, lr=0.2", "hp-ft"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"encoder": {"weights": "v.pth"}}, ["hp-ft, v.pth", "hp-ft, w.pth"]),
        ({"encoder": {"weights": None}}, ["hp-ft, random", "hp-ft, w.pth"]),
        ({"encoder": {"name": "gin"}}, ["hp-ft, gcn", "hp-ft, gin"]),
        ({"head": {"name": "mlp"}}, ["hp-ft", "hp-ft, mlp head"]),
        ({"cut": "conv3"}, ["hp-ft", "hp-ft, cut at conv3"]),
        (
            {"encoder": {"weights": "runs/nci-1/model.safetensors"}},
            ["hp-ft, nci-1", "hp-ft, w.pth"],
        ),
    ],
)
def test_encoder_head_and_cut_are_named_where_they_differ(tmp_path, changes, expected):
    write_run(tmp_path, GRID)
    write_run(tmp_path, GRID, **changes)
    assert names(tmp_path, "label") == expected
    assert read_results(tmp_path).settings == ()


def test_scratch_does_not_count_as_using_the_weights_it_is_given(tmp_path):
    write_run(tmp_path, GRID)
    write_run(tmp_path, {0: (0.6, 0.5)}, method="scratch", encoder={"weights": "other.pth"})
    assert names(tmp_path, "label") == ["hp-ft", "scratch"]


def test_two_splits_of_a_data_set_are_two_tasks(tmp_path):
    write_run(tmp_path, GRID, task_options={"split": "random"})
    write_run(tmp_path, GRID, task_options={"split": "scaffold"})
    write_run(tmp_path, GRID, task="chains")
    assert names(tmp_path, "task") == [
        "chains",
        "rings (split=random)",
        "rings (split=scaffold)",
    ]


def test_the_same_data_at_two_places_are_one_task(tmp_path):
    for seed, path in enumerate(("/data/mine.csv", "/home/x/mine.csv")):
        write_run(
            tmp_path, GRID, seed=seed, task="mine", task_options={"path": path}, data="f" * 64
        )
    results = read_results(tmp_path)
    assert set(results.table["task"]) == {"mine"}
    assert set(results.table["variant"]) == {"hp-ft"}
    assert sorted(set(results.table["seed"])) == [0, 1]
    assert results.notes == ()


def test_the_same_data_under_two_names_are_one_task(tmp_path):
    for seed, name in enumerate(("mine", "copy")):
        write_run(tmp_path, GRID, seed=seed, task=name, data="f" * 64)
    assert names(tmp_path, "task") == ["copy = mine"]


def test_an_edited_table_is_another_task_with_a_note(tmp_path):
    options = {"path": "/data/mine.csv"}
    write_run(tmp_path, GRID, task="mine", task_options=options, data="a" * 64)
    write_run(tmp_path / "later", {0: (0.9, 0.9)}, task="mine", task_options=options, data="b" * 64)
    results = read_results(tmp_path)
    scores = results.table.groupby("task")["final_test"].max().to_dict()
    assert scores == {"mine (data aaaaaa)": 0.6, "mine (data bbbbbb)": 0.9}
    (note,) = results.notes
    assert note.startswith("mine names 2 tasks, whose rows, labels or splits differ")


def test_two_results_of_one_run_that_contradict_each_other_have_a_note(tmp_path):
    paths = [write_run(tmp_path / k, {0: (0.6, s)}) for k, s in (("a", 0.5), ("b", 0.52))]
    results = read_results(tmp_path)
    assert len(results.table) == 1
    (note,) = results.notes
    assert note.startswith(f"{paths[1]} and {paths[0]} are the same run by their data, settings ")
    assert "(test: 0.52 and 0.5); the second is shown" in note


def test_weights_are_identified_by_what_they_hold(tmp_path):
    for seed, path in enumerate(("/a/gcn.pth", "/b/gcn.pth")):
        write_run(tmp_path / "same", GRID, seed=seed, encoder={"weights": path}, digest="c" * 64)
    assert names(tmp_path / "same", "label") == ["hp-ft"]
    for path, digest in (("/a/gcn.pth", "c" * 64), ("/b/gcn.pth", "d" * 64)):
        write_run(tmp_path / "other", GRID, encoder={"weights": path}, digest=digest)
    results = names(tmp_path / "other", "label")
    assert results == ["hp-ft, gcn.pth cccccc", "hp-ft, gcn.pth dddddd"]


def test_runs_that_serve_different_pretraining_tasks_of_one_name_are_two_results(tmp_path):
    for place, auxiliary in (("a", "1" * 64), ("b", "2" * 64), ("copy", "2" * 64), ("old", None)):
        write_run(tmp_path / place, GRID, method="flyp", auxiliary=auxiliary)
    results = read_results(tmp_path)
    assert len(results.table) == 3 * len(GRID)
    assert set(results.table["variant"]) == {
        f"flyp, pretraining {told}" for told in ("111111", "222222", "not recorded")
    }
    assert results.notes == ()


def test_a_pretraining_task_that_is_served_by_all_lengthens_no_name(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, GRID, method="flyp", seed=seed, auxiliary="1" * 64)
    assert names(tmp_path, "variant") == ["flyp"]
    assert names(tmp_path, "pretraining") == ["1" * 64]


def test_every_option_that_is_a_place_of_data_is_listed_as_one():
    options = {
        f"task.{key}"
        for task in TASKS.values()
        for key, parameter in keywords(task).items()
        if Path in (parameter.annotation, *get_args(parameter.annotation))
    }
    # which molecules are left out is a choice, wherever their table lies
    assert options - {"task.without"} == set(PLACES)


def test_a_score_that_is_not_finite_has_a_note_and_is_missing_in_the_table(tmp_path):
    write_run(tmp_path, GRID, seed=0)
    lost = write_run(tmp_path, {0: (0.6, None), 4: (0.7, 0.6)}, seed=1)
    results = read_results(tmp_path)
    (note,) = results.notes
    assert results.table["final_test"].isna().tolist() == [False, False, True, False]
    assert note.startswith(f"{lost} predicts what is not finite at tau 0 and has no score of test:")


@pytest.mark.parametrize(
    "setting",
    [
        {"device": "cuda"},
        {"devices": 2},
        {"nodes": 2},
        {"checkpoint": 5},
        {"measures": ["ntk"]},
        {"features": True},
        {"members": True},
    ],
    ids=str,
)
def test_hardware_and_further_output_are_no_settings_of_a_method(setting, tmp_path):
    write_run(tmp_path, GRID, seed=0)
    write_run(tmp_path, GRID, seed=1, **setting)
    assert read_results(tmp_path).settings == ()
    assert names(tmp_path, "variant") == ["hp-ft"]
