"""`tau: auto`: how a probe is read, what is chosen and by what, what it costs and equals."""

from dataclasses import replace

import pytest
import torch

from molhpft.core.data import Task
from molhpft.core.metrics import PERCENTAGES
from molhpft.domains.weights import read_weights
from molhpft.run import resume
from molhpft.run import run as running
from molhpft.run.auto_tau import choice_reading
from molhpft.run.probe_curve import (
    BANDS,
    FALLS,
    GONE,
    HIGH,
    SATURATED,
    SMOOTHING,
    ProbeCurve,
    check_expectation,
    has_too_little_energy,
    plateaus,
    wanted_taus,
)
from molhpft.run.probe_grid import Grid, probe_grid
from molhpft.run.resume import SavedPhase
from molhpft.run.run import run
from molhpft.tuning.halving import CANDIDATES, budget
from tests.kills import killed_at_save
from tests.runs import curve, fast_curve, rows_of


def test_every_fraction_but_no_loss_has_a_threshold():
    assert set(HIGH) == set(PERCENTAGES)


@pytest.mark.parametrize("metric", HIGH)
def test_a_fitted_training_split_means_too_little_energy(metric):
    assert "by tau 10" in has_too_little_energy(curve(metric=metric, train=SATURATED))
    assert has_too_little_energy(curve(metric=metric, train=SATURATED - 0.01)) is None


@pytest.mark.parametrize(("metric", "high"), HIGH.items())
def test_a_high_score_means_too_little_energy_only_if_it_is_reached_fast(metric, high):
    assert "by tau 1 of 10" in has_too_little_energy(fast_curve(metric=metric, train=high))
    assert has_too_little_energy(fast_curve(metric=metric, train=high - 0.01)) is None
    assert has_too_little_energy(curve(metric=metric, train=high)) is None


def test_energy_nearly_gone_is_too_little():
    assert "leaves 10%" in has_too_little_energy(curve(left=GONE))
    assert has_too_little_energy(curve(left=GONE + 0.01)) is None


def test_a_plateau_is_energy_that_stays_beside_a_head_that_does_not_fit():
    assert "energy hardly falls any more" in plateaus(curve())
    assert plateaus(curve(train=SATURATED)) is None
    assert plateaus(curve(left=GONE)) is None
    assert plateaus(curve(halfway=1 + 2 * FALLS)) is None


def test_errors_are_not_judged_by_the_thresholds_of_fractions():
    probed = curve(metric="neg_rmse", train=-3.0, left=0.0, valid=-5.0)
    assert has_too_little_energy(probed) is None
    assert plateaus(probed) is None


def test_bands_of_expectations_lie_end_to_end():
    assert BANDS["tiny"][1] == BANDS["mild"][0]
    assert BANDS["mild"][1] == BANDS["strong"][0]


@pytest.mark.parametrize(
    ("energies", "expects", "taus"),
    [
        ((1.0, 0.6, 0.3, 0.05), None, (0, 1, 5, 10)),
        ((1.0, 0.6, 0.3, 0.05), "strong", (0, 1)),
        ((1.0, 0.6, 0.3, 0.05), "mild", (5,)),
        ((1.0, 0.6, 0.3, 0.05), "tiny", (10,)),
        # where no energy suits the expectation, the tau nearest to it
        ((1.0, 0.05, 0.03, 0.02), "strong", (0,)),
        ((1.0, 0.05, 0.03, 0.02), "mild", (1,)),
        ((1.0, 0.9, 0.85, 0.8), "mild", (10,)),
        ((1.0, 0.9, 0.85, 0.8), "tiny", (10,)),
    ],
)
def test_wanted_taus_are_those_of_the_adaptation_expected(energies, expects, taus):
    candidates = (0, 1, 5, 10)
    probed = ProbeCurve("accuracy", dict(zip(candidates, energies, strict=True)), curve().rows)
    assert wanted_taus(probed, candidates, expects) == taus


def test_another_word_is_no_expectation():
    with pytest.raises(ValueError, match="one of strong, mild, tiny, got 'much'"):
        check_expectation("much")


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


def plain_method(choice):
    best = choice["chosen"]
    if best["smoothing"]:
        return {"name": "ls_hp_ft", "tau": [best["tau"]], "smoothing": best["smoothing"]}
    return {"name": "hp_ft", "tau": [best["tau"]]}


def weights_of(folder):
    return read_weights(folder.path / "model.safetensors").tensors


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
    until = max(row["until"] for row in choice["scores"])
    last = [row for row in choice["scores"] if row["until"] == until]
    best = max(last, key=lambda row: row["valid"])
    assert all(best[name] == choice["chosen"][name] for name in ("tau", "smoothing"))


def test_members_are_kept_of_all_that_were_finetuned_within_the_budget(
    chosen, small, tmp_path, monkeypatch
):
    real, saved = SavedPhase.save, []
    monkeypatch.setattr(resume, "_APART", 0.0)
    monkeypatch.setattr(SavedPhase, "save", lambda *a: saved.append(a[1]) or real(*a))
    folder = run(small(method=AUTO, members=True, **BRIEF), tmp_path)
    choice = folder.read_json("choice.json")
    assert len(saved) == choice["spent"]  # a saving an epoch
    assert choice["spent"] <= choice["budget"] == budget(EPOCHS)
    assert choice["grid"] == CANDIDATES * EPOCHS
    members = [read_weights(path) for path in (folder.path / "members").iterdir()]
    assert len(members) == len(choice["candidates"]) > 1
    (best,) = (m for m in members if m.about["tau"] == choice["chosen"]["tau"])
    model = weights_of(folder)
    assert all(torch.equal(best.tensors[name], model[name]) for name in model)
    assert folder.read_json("summary.json") == chosen.read_json("summary.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        BRIEF,
        {**SCHEDULED, "seed": 3, "head": "mlp", "views": "live"},
        {**BRIEF, "cut": "conv1", "finetune": {**BRIEF["finetune"], "patience": 1}},
    ],
    ids=["best", "cosine, last, live", "cut, patience"],
)
def test_the_result_is_that_of_a_config_that_names_the_chosen_tau(small, tmp_path, changes):
    auto = run(small(method=AUTO, **changes), tmp_path)
    plain = run(small(method=plain_method(auto.read_json("choice.json")), **changes), tmp_path)
    assert auto.path != plain.path
    assert rows_of(auto) == rows_of(plain)
    assert auto.read_lines("history.jsonl") == plain.read_lines("history.jsonl")
    ours, theirs = weights_of(auto), weights_of(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "ls_hp_ft", "tau": "auto", "smoothing": 0.2},
        {"name": "side_tuning", "tau": "auto"},
        {"name": "wise_ft", "tau": "auto", "alphas": [0.5, 1.0]},
    ],
    ids=lambda method: method["name"],
)
def test_methods_that_probe_can_choose(small, tmp_path, method):
    brief = {**BRIEF, "finetune": {**BRIEF["finetune"], "epochs": 2}}
    folder = run(small(method=method, **brief), tmp_path)
    choice = folder.read_json("choice.json")
    assert {c["smoothing"] for c in choice["candidates"]} <= {method.get("smoothing", 0.0), 0.1}
    if not (choice["chosen"]["smoothing"] and method["name"] != "ls_hp_ft"):
        named = small(method={**method, "tau": [choice["chosen"]["tau"]]}, **brief)
        assert rows_of(run(named, tmp_path)) == rows_of(folder)


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
    splits, real, choose = set(), Task.batches, running.choose_tau

    class Done(BaseException):
        pass

    def stop(*arguments, **options):
        choose(*arguments, **options)
        raise Done

    monkeypatch.setattr(running, "choose_tau", stop)
    monkeypatch.setattr(
        Task, "batches", lambda self, split, **k: splits.add(split) or real(self, split, **k)
    )
    with pytest.raises(Done):
        run(small(method=AUTO, **BRIEF), tmp_path)
    assert splits == {"train", "valid"}


@pytest.mark.parametrize("saves", [1, 7, 10])
def test_an_interrupted_choice_resumes_exactly(chosen, small, tmp_path, saves):
    with killed_at_save(saves):
        run(small(method=AUTO, **BRIEF), tmp_path)
    resumed = run(small(method=AUTO, **BRIEF), tmp_path)
    for name in ("choice.json", "summary.json", "history.jsonl", "model.safetensors"):
        assert (resumed.path / name).read_bytes() == (chosen.path / name).read_bytes(), name


def test_the_head_that_validates_best_is_chosen_where_finetuning_changes_nothing(small, tmp_path):
    still = {"epochs": 12, "lr": 1e-12, "batch_norm": "frozen"}
    task, probe = {"name": "csv", "target_columns": ["size"]}, {"lr": 0.1, "epochs": 60}
    config = small(task=task, method=AUTO, probe=probe, finetune=still)
    choice = run(config, tmp_path).read_json("choice.json")
    # numbers have no smoothed candidates
    assert all(not candidate["smoothing"] for candidate in choice["candidates"])
    assert choice["notes"] == []
    taus = [candidate["tau"] for candidate in choice["candidates"]]
    scores = {row["tau"]: row["valid"] for row in probe_grid(config, Grid(taus=taus))["rows"]}
    assert choice["chosen"]["tau"] == max(taus, key=lambda tau: scores[tau])
    assert len(set(scores.values())) == len(taus) > 2


def test_smoothing_is_tried_where_probing_leaves_no_energy(small, tmp_path):
    eager = {**BRIEF, "probe": {"lr": 0.3, "epochs": 300}}
    choice = run(small(method=AUTO, **eager), tmp_path).read_json("choice.json")
    smoothed = choice["candidates"][-1]
    assert (smoothed["tau"], smoothed["smoothing"]) == (300, SMOOTHING)
    assert smoothed["energy"] > min(c["energy"] for c in choice["candidates"])
    assert len(choice["candidates"]) <= CANDIDATES
    assert any("label smoothing" in note for note in choice["notes"])
    assert "300 (smoothing 0.1)" in choice_reading(choice, "rocauc")


def test_the_reading_says_what_was_chosen_from_what_and_for_how_much(chosen):
    choice = chosen.read_json("choice.json")
    text = choice_reading(choice, "rocauc")
    assert f"tau {choice['chosen']['tau']}" in text
    assert f"of the {choice['budget']} epochs budgeted" in text
    assert "test split was not read" in text
    alone = {**choice, "candidates": [choice["chosen"]], "scores": []}
    assert "the only candidate" in choice_reading(alone, "rocauc")
