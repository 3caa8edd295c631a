"""`tau: auto` through whole runs: what it chooses by, what it costs, and what it equals."""

import json
from dataclasses import replace

import pytest
import torch

from molhpft.config.schema import parse_config, resolved
from molhpft.core.data import Task
from molhpft.domains.weights import read_weights
from molhpft.run import run as running
from molhpft.run.auto_tau import SMOOTHING, choice_reading
from molhpft.run.probe_grid import Grid, probe_grid
from molhpft.run.resume import SavedPhase
from molhpft.run.run import run
from molhpft.tuning.halving import CANDIDATES, budget
from tests.kills import killed_at_save

AUTO = {"name": "hp_ft", "tau": "auto"}
EPOCHS = 6
BRIEF = {
    "probe": {"lr": 0.01, "epochs": 40},
    "finetune": {"epochs": EPOCHS, "lr": 0.003, "keep": "best", "batch_size": 16},
}
SCHEDULED = {**BRIEF, "finetune": {**BRIEF["finetune"], "schedule": "cosine", "keep": "last"}}


@pytest.fixture(scope="module")
def chosen(small, tmp_path_factory):
    return run(small(method=AUTO, **BRIEF), tmp_path_factory.mktemp("auto"))


def last_round(choice):
    """Scores of those that were finetuned furthest before one was chosen."""
    until = max(row["until"] for row in choice["scores"])
    return [row for row in choice["scores"] if row["until"] == until]


def plain_method(choice):
    best = choice["chosen"]
    if best["smoothing"]:
        return {"name": "ls_hp_ft", "tau": [best["tau"]], "smoothing": best["smoothing"]}
    return {"name": "hp_ft", "tau": [best["tau"]]}


def test_members_are_kept_of_all_that_were_finetuned_from(chosen, small, tmp_path):
    folder = run(small(method=AUTO, members=True, **BRIEF), tmp_path)
    choice = folder.read_json("choice.json")
    members = {path.stem: read_weights(path) for path in (folder.path / "members").iterdir()}
    assert len(members) == len(choice["candidates"]) > 1
    (best,) = (m for m in members.values() if m.about["tau"] == choice["chosen"]["tau"])
    model = read_weights(folder.path / "model.safetensors")
    assert all(torch.equal(best.tensors[name], model.tensors[name]) for name in model.tensors)
    assert folder.read_json("summary.json") == chosen.read_json("summary.json")


def test_the_choice_and_its_evidence_are_in_the_folder(chosen):
    choice, summary = chosen.read_json("choice.json"), chosen.read_json("summary.json")
    assert summary["choice"] == {k: v for k, v in choice.items() if k != "energies"}
    assert summary["chosen_tau"] == choice["chosen"]["tau"]
    assert summary["chosen_by"] == "validation score of short finetunings"
    energies = {row["tau"]: row["energy"] for row in choice["energies"]}
    assert next(iter(energies)) == 0
    assert [*energies][-1] == BRIEF["probe"]["epochs"]
    plain = [c for c in choice["candidates"] if not c["smoothing"]]
    assert plain[0]["tau"] == 0
    assert all(energies[c["tau"]] == c["energy"] for c in plain)
    assert [c["energy"] for c in plain] == sorted((c["energy"] for c in plain), reverse=True)


def test_the_chosen_is_the_best_of_the_last_round(chosen):
    choice = chosen.read_json("choice.json")
    best = max(last_round(choice), key=lambda row: row["valid"])
    assert {k: best[k] for k in ("tau", "smoothing")} == {
        k: choice["chosen"][k] for k in ("tau", "smoothing")
    }


def test_no_more_epochs_are_trained_than_the_budget_has(small, tmp_path, monkeypatch):
    real, seen = SavedPhase.save, []
    monkeypatch.setattr(SavedPhase, "save", lambda *a: seen.append(a[1]) or real(*a))
    choice = run(small(method=AUTO, **BRIEF), tmp_path).read_json("choice.json")
    assert len(seen) == choice["spent"]  # a saving an epoch
    assert choice["spent"] <= choice["budget"] == budget(EPOCHS)
    assert choice["grid"] == CANDIDATES * EPOCHS


@pytest.mark.parametrize(
    "changes",
    [
        BRIEF,
        SCHEDULED,
        {**BRIEF, "seed": 3, "head": "mlp", "views": "live"},
        {**BRIEF, "cut": "conv1", "finetune": {**BRIEF["finetune"], "patience": 1}},
    ],
    ids=["best", "cosine, last", "live", "cut, patience"],
)
def test_the_result_is_that_of_a_config_that_names_the_chosen_tau(small, tmp_path, changes):
    auto = run(small(method=AUTO, **changes), tmp_path)
    plain = run(small(method=plain_method(auto.read_json("choice.json")), **changes), tmp_path)
    assert auto.path != plain.path
    rows = [folder.read_json("summary.json")["branches"] for folder in (auto, plain)]
    assert rows[0] == rows[1]
    lines = [(folder.path / "history.jsonl").read_bytes() for folder in (auto, plain)]
    assert lines[0] == lines[1]
    weights = [read_weights(f.path / "model.safetensors").tensors for f in (auto, plain)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0] | weights[1])


def test_the_test_split_has_no_part_in_the_choice(chosen, small, tmp_path, monkeypatch):
    real = running.build_task

    def other_test(config, recipe):
        """The same task, tested on molecules that are trained on."""
        task = real(config, recipe)
        return replace(task, splits={**task.splits, "test": task.rows("train")[:30]})

    monkeypatch.setattr(running, "build_task", other_test)
    changed = run(small(method=AUTO, **BRIEF), tmp_path)
    assert changed.read_json("choice.json") == chosen.read_json("choice.json")
    tests = [f.read_json("summary.json")["sizes"]["test"] for f in (changed, chosen)]
    assert tests[0] != tests[1]


def test_the_test_split_is_not_read_before_the_choice(small, tmp_path, monkeypatch):
    cut, real, choose = set(), Task.batches, running.choose

    class Done(BaseException):
        pass

    def stop(*arguments, **options):
        choose(*arguments, **options)
        raise Done

    monkeypatch.setattr(running, "choose", stop)
    monkeypatch.setattr(
        Task, "batches", lambda self, split, **k: cut.add(split) or real(self, split, **k)
    )
    with pytest.raises(Done):
        run(small(method=AUTO, **BRIEF), tmp_path)
    assert cut == {"train", "valid"}


@pytest.mark.parametrize("saves", [1, 4, 7, 9, 10])
def test_an_interrupted_choice_resumes_exactly(chosen, small, tmp_path, saves):
    with killed_at_save(saves):
        run(small(method=AUTO, **BRIEF), tmp_path)
    resumed = run(small(method=AUTO, **BRIEF), tmp_path)
    for name in ("choice.json", "summary.json", "history.jsonl", "model.safetensors"):
        assert (resumed.path / name).read_bytes() == (chosen.path / name).read_bytes(), name


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_head_that_validates_best_is_chosen_where_finetuning_changes_nothing(
    small,
    tmp_path,
    seed,
):
    still = {"epochs": 20, "lr": 1e-12, "batch_norm": "frozen"}
    task, probe = {"name": "csv", "target_columns": ["size"]}, {"lr": 0.1, "epochs": 60}
    config = small(task=task, method=AUTO, probe=probe, finetune=still, seed=seed)
    choice = run(config, tmp_path).read_json("choice.json")
    taus = [candidate["tau"] for candidate in choice["candidates"]]
    scores = {row["tau"]: row["valid"] for row in probe_grid(config, Grid(taus=taus))["rows"]}
    assert choice["chosen"]["tau"] == max(taus, key=lambda tau: scores[tau])
    assert len(set(scores.values())) == len(taus) > 2


@pytest.mark.parametrize(
    "method",
    [
        {"name": "ls_hp_ft", "tau": "auto", "smoothing": 0.2},
        {"name": "l2_sp", "tau": "auto"},
        {"name": "side_tuning", "tau": "auto"},
        {"name": "wise_ft", "tau": "auto", "alphas": [0.5, 1.0]},
    ],
    ids=lambda method: method["name"],
)
def test_every_method_that_probes_can_choose(small, tmp_path, method):
    brief = {**BRIEF, "finetune": {**BRIEF["finetune"], "epochs": 2}}
    folder = run(small(method=method, **brief), tmp_path)
    choice = folder.read_json("choice.json")
    given = {**method, "tau": [choice["chosen"]["tau"]]}
    assert {c["smoothing"] for c in choice["candidates"]} <= {method.get("smoothing", 0.0), 0.1}
    if not (choice["chosen"]["smoothing"] and method["name"] != "ls_hp_ft"):
        plain = run(small(method=given, **brief), tmp_path).read_json("summary.json")
        assert plain["branches"] == folder.read_json("summary.json")["branches"]


def test_smoothing_is_tried_where_probing_leaves_no_energy(small, tmp_path):
    eager = {**BRIEF, "probe": {"lr": 0.3, "epochs": 300}}
    choice = run(small(method=AUTO, **eager), tmp_path).read_json("choice.json")
    smoothed = choice["candidates"][-1]
    assert (smoothed["tau"], smoothed["smoothing"]) == (300, SMOOTHING)
    assert smoothed["energy"] > min(c["energy"] for c in choice["candidates"])
    assert len(choice["candidates"]) <= CANDIDATES
    assert any("label smoothing" in note for note in choice["notes"])
    assert "300 (smoothing 0.1)" in choice_reading(choice, "rocauc")


def test_numbers_have_no_smoothed_candidates(small, tmp_path):
    task = {"name": "csv", "target_columns": ["size"]}
    choice = run(small(task=task, method=AUTO, **BRIEF), tmp_path).read_json("choice.json")
    assert all(not candidate["smoothing"] for candidate in choice["candidates"])
    assert choice["notes"] == []


def test_the_reading_says_what_was_chosen_from_what_and_for_how_much(chosen):
    choice = chosen.read_json("choice.json")
    text = choice_reading(choice, "rocauc")
    assert f"tau {choice['chosen']['tau']}" in text
    assert f"budget of {choice['budget']}" in text
    assert "test split was not read" in text
    alone = {**choice, "candidates": [choice["chosen"]], "scores": []}
    assert "the only candidate" in choice_reading(alone, "rocauc")


def test_a_config_that_chooses_is_written_and_read_back(small):
    config = small(method=AUTO)
    assert config.method.options["tau"] == "auto"
    assert parse_config(json.loads(json.dumps(resolved(config)))) == config


@pytest.mark.parametrize("section", ["probe", "finetune"])
def test_nothing_to_choose_by_is_one_sentence(small, tmp_path, section):
    config = small(method=AUTO, **{section: {**BRIEF[section], "epochs": 0}})
    with pytest.raises(ValueError, match=r"tau: auto chooses among 0 to probe\.epochs"):
        run(config, tmp_path)
