"""Whole runs on the embedded molecules, small: what they write, choose, repeat and resume."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import Choice, parse_config, resolved
from molhpft.core.determinism import seed_for
from molhpft.domains.molecules.pretraining import joint_task
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.weights import read_weights
from molhpft.run.branch import predictions, scores
from molhpft.run.device import launch, settled
from molhpft.run.identity import run_name, trial_name
from molhpft.run.run import run
from molhpft.tuning.fit import fit
from tests.kills import killed_at_save
from tests.runs import SMALL, rows_of


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    return run(small(features=True), tmp_path_factory.mktemp("runs"))


def task_of(config):
    return build_task(config, build_recipes(config)[0])


def network_of(config):
    return build_network(config, task_of(config), build_recipes(config)[0])


def test_a_run_folder_holds_what_the_design_says(finished):
    names = sorted(p.name for p in finished.path.iterdir())
    assert names == [
        "config.yaml",
        "features.npz",
        "history.jsonl",
        "manifest.json",
        "model.safetensors",
        "molecules.json",
        "summary.json",
    ]


def test_the_written_config_is_the_config(finished, small):
    written = yaml.safe_load((finished.path / "config.yaml").read_text())
    assert parse_config(written) == small(features=True)


def test_a_run_is_the_same_under_any_name_of_its_file(small, table, tmp_path):
    config, renamed = small(method="ft"), tmp_path / "copy.csv"
    renamed.write_bytes(table.read_bytes())
    task = replace(config.task, options=config.task.options | {"path": renamed})
    first, second = (network_of(c).state_dict() for c in (config, replace(config, task=task)))
    for name in first:
        assert first[name].equal(second[name]), name


def test_the_chosen_tau_is_the_one_that_validates_best(finished):
    summary = finished.read_json("summary.json")
    best = max(summary["branches"], key=lambda row: row["final"]["valid"])
    assert summary["chosen_tau"] == best["tau"]


def test_the_saved_model_has_the_scores_that_were_reported(finished, small):
    config, summary = small(features=True), finished.read_json("summary.json")
    task, network = task_of(config), network_of(config)
    network.load_state_dict(read_weights(finished.path / "model.safetensors").tensors)
    chosen = next(r for r in summary["branches"] if r["tau"] == summary["chosen_tau"])
    assert scores(predictions(network, task), task) == chosen["final"]


def test_history_has_every_epoch_of_every_phase(finished):
    lines = [json.loads(x) for x in (finished.path / "history.jsonl").read_text().splitlines()]
    phases = [(line["phase"], line.get("tau")) for line in lines]
    expected = [("probe", None)] * 5
    expected += [("finetune", tau) for tau in (0, 2, 5) for _ in range(3)]
    assert phases == expected


def test_kept_features_are_those_whose_shift_was_measured(finished):
    summary = finished.read_json("summary.json")
    chosen = next(r for r in summary["branches"] if r["tau"] == summary["chosen_tau"])
    with np.load(finished.path / "features.npz") as arrays:
        moved = arrays["train_after"] - arrays["train_before"]
    distance = np.linalg.norm(moved, axis=1).mean()
    assert distance == pytest.approx(chosen["shift"]["distance"], rel=1e-5)


def test_a_finished_run_is_not_redone(finished, small, monkeypatch):
    monkeypatch.setattr("molhpft.run.run.probe", lambda *a, **k: pytest.fail("redone"))
    again = run(small(features=True), finished.path.parent)
    assert again == finished


def test_a_task_that_is_given_is_the_one_that_is_run(finished, small, tmp_path):
    config = small()
    whole = task_of(config)
    blind = replace(
        whole, splits={s: whole.rows(s) for s in ("train", "valid")}, fingerprint="blind"
    )
    for given, row in zip(
        rows_of(run(config, tmp_path, task=blind)), rows_of(finished), strict=True
    ):
        assert given["final"] == {s: row["final"][s] for s in ("train", "valid")}


def test_a_task_without_a_fingerprint_is_refused_for_its_results_have_no_name(small, tmp_path):
    config = small()
    with pytest.raises(ValueError, match="task rings has no fingerprint, which tells its results"):
        run(config, tmp_path, task=replace(task_of(config), fingerprint=""))
    assert not list(tmp_path.iterdir())


def test_an_edited_table_is_run_anew_and_a_moved_one_is_found_done(small, table, tmp_path):
    moved, edited = tmp_path / "home" / "rings.csv", tmp_path / "new" / "rings.csv"
    for path in (moved, edited):
        path.parent.mkdir()
        path.write_text(table.read_text())
    edited.write_text(table.read_text().replace("\nCCCO,0,", "\nCCCO,1,"))
    config = small(method={"name": "lp"}, probe={"epochs": 2, "lr": 0.01})
    first, same, other = (
        run(replace(config, task=Choice("csv", config.task.options | {"path": path})), tmp_path)
        for path in (table, moved, edited)
    )
    assert same.path == first.path
    assert other.path != first.path
    found = [folder.read_json("summary.json")["fingerprint"] for folder in (first, same, other)]
    assert found[0] == found[1] != found[2]


def test_keeping_a_pretraining_task_leaves_the_data_what_they_are(small):
    config = small()
    task = task_of(config)
    joint = joint_task(task, task, weight=0.5)
    assert joint.fingerprint == task.fingerprint
    assert run_name(config, joint) != run_name(config, task)


def test_a_trial_on_a_folder_of_images_is_another_when_one_of_them_changes(tmp_path):
    raw = {"encoder": "cifar_resnet", "task": {"name": "image_folder", "path": str(tmp_path)}}
    (tmp_path / "train").mkdir()
    image = tmp_path / "train" / "a.png"
    image.write_bytes(b"one")
    before = trial_name(parse_config(raw))
    assert trial_name(parse_config(raw)) == before
    image.write_bytes(b"three")
    assert trial_name(parse_config(raw)) != before


def test_the_same_config_gives_the_same_numbers_elsewhere(finished, small, tmp_path):
    assert rows_of(run(small(features=True), tmp_path)) == rows_of(finished)


def test_another_seed_gives_another_run(small, tmp_path):
    folders = [run(small(seed=seed, method={"name": "ft"}), tmp_path) for seed in (1, 2)]
    assert folders[0].path != folders[1].path
    assert rows_of(folders[0]) != rows_of(folders[1])


@pytest.mark.slow
def test_kernels_change_step_by_step_also_over_an_interruption(small, tmp_path):
    config = small(method={"name": "ft"}, measures=["ntk"])
    whole = run(config, tmp_path / "whole").read_lines("history.jsonl")
    start, step = ([row[key] for row in whole] for key in ("ntk_change", "ntk_step"))
    assert step[0] == start[0] > 0
    assert step[1:] != start[1:]
    with killed_at_save(2):
        run(config, tmp_path / "killed")
    assert run(config, tmp_path / "killed").read_lines("history.jsonl") == whole


@pytest.mark.parametrize("saves", [1, 2, 4, 7, 9])
def test_an_interrupted_run_resumes_exactly(finished, small, tmp_path, saves):
    with killed_at_save(saves):
        run(small(features=True), tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    resumed = run(small(features=True), tmp_path)
    for name in ("summary.json", "history.jsonl", "model.safetensors"):
        assert (resumed.path / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert [p.name for p in tmp_path.iterdir()] == [finished.path.name]


def test_tau_zero_is_plain_finetuning_of_the_network_as_it_is_built(finished, small):
    config = small(method={"name": "ft"})
    task, network, zero = task_of(config), network_of(config), rows_of(finished)[0]
    untouched = scores(predictions(network, task), task)
    assert zero["probe"] == pytest.approx(untouched)
    # no probe, no run: the finetuning phase alone
    rng = torch.Generator().manual_seed(seed_for(config.seed, "finetune"))
    phase, machine = build_recipes(config)[0].after[0], launch(settled(config))
    fit(network, phase, task, rng=rng, machine=machine)
    tuned = scores(predictions(network, task), task)
    assert zero["final"] == pytest.approx(tuned)


def test_a_tau_has_the_same_result_in_any_list(finished, small, tmp_path):
    (alone,) = rows_of(run(small(method={"name": "hp_ft", "tau": [2]}), tmp_path))
    assert alone == rows_of(finished)[1]


def test_linear_probing_leaves_features_where_they_are(small, tmp_path):
    (row,) = rows_of(run(small(method={"name": "lp"}, probe={"epochs": 5, "lr": 0.01}), tmp_path))
    assert row["final"] == row["probe"]
    assert row["shift"]["distance"] == 0


def test_an_encoder_from_a_run_is_used_by_the_next_and_not_by_scratch(finished, small, tmp_path):
    weights = {"weights": str(finished.path / "model.safetensors")}
    encoder = {**SMALL["encoder"], **weights}
    trained, fresh = (network_of(small(encoder=e)) for e in (encoder, SMALL["encoder"]))
    scratch = network_of(small(encoder=encoder, method="scratch"))
    key = "stages.conv0.convolution.linear.weight"
    assert not torch.equal(trained.backbone.state_dict()[key], fresh.backbone.state_dict()[key])
    assert torch.equal(scratch.backbone.state_dict()[key], fresh.backbone.state_dict()[key])
    row = rows_of(run(small(encoder=encoder, method={"name": "scratch"}), tmp_path))
    assert row == rows_of(run(small(method={"name": "scratch"}), tmp_path))


def test_a_regression_is_run_and_scored_by_rmse(small, tmp_path):
    task = {"name": "csv", "target_columns": ["size"]}
    summary = run(small(task=task, method={"name": "ft"}), tmp_path).read_json("summary.json")
    assert summary["metric"] == "neg_rmse"
    assert summary["branches"][0]["final"]["test"] < 0
    assert summary["branches"][0]["energy"]["balanced"] is None


def test_a_regression_learns_the_same_in_any_unit(table, small, tmp_path):
    rescaled = tmp_path / table.name
    header, *lines = table.read_text().splitlines()
    rows = [line.rpartition(",") for line in lines]
    text = [header, *(f"{first},{1000 * float(size) + 4096}" for first, _, size in rows)]
    rescaled.write_text("\n".join(text) + "\n")
    summaries = []
    for path in (table, rescaled):
        config = small(method={"name": "ft"})
        task = csv_task(path=path, target_columns=["size"], split="random", split_seed=1)
        summaries.append(run(config, tmp_path, task=task).read_json("summary.json"))
    (own,), (other,) = (summary["branches"] for summary in summaries)
    assert other["energy"]["aie"] == pytest.approx(own["energy"]["aie"], rel=1e-4)
    assert other["final"]["valid"] == pytest.approx(1000 * own["final"]["valid"], rel=1e-2)


def test_the_name_of_a_run_depends_on_content_and_not_on_place(small, table, tmp_path):
    config = small()
    task = task_of(config)
    moved = tmp_path / table.name
    moved.write_bytes(table.read_bytes())
    raw = resolved(config)
    elsewhere = parse_config({**raw, "task": {**raw["task"], "path": str(moved)}})
    assert run_name(elsewhere, task_of(elsewhere)) == run_name(config, task)
    rarely = parse_config({**raw, "checkpoint": 1000})
    assert run_name(rarely, task) == run_name(config, task)
    changed = parse_config({**raw, "finetune": {**raw["finetune"], "lr": 0.5}})
    assert run_name(changed, task) != run_name(config, task)


def test_each_purpose_has_a_stream_of_its_own():
    streams = {seed_for(seed, purpose) for seed in range(20) for purpose in ("a", "b", "c")}
    assert len(streams) == 60


def test_a_split_that_cannot_be_scored_is_refused_before_training(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("smiles,y,fold\nC,1,train\nCC,0,train\nCCC,1,valid\nCCCC,0,test\n")
    task = {"name": "csv", "path": str(path), "target_columns": "y"}
    config = parse_config({"task": {**task, "split": "column", "split_column": "fold"}})
    with pytest.raises(ValueError, match=r"split 'valid' of few \(1 molecules\) cannot be scored"):
        task_of(config)
