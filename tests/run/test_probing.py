"""Probing over a grid: the same heads as a run's, never the test split, and a table of it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from molhpft.core.data import Task
from molhpft.results.terminal import probe_reading, probe_table
from molhpft.run.probe_grid import MEASURES, Grid, probe_grid
from molhpft.run.run import run
from tests.runs import SMALL, rows_of


@pytest.fixture
def weights(small, tmp_path):
    """A file of weights, which every seed then has."""
    brief = {"epochs": 1, "lr": 0.003}
    return str(run(small(method="scratch", finetune=brief), tmp_path).path / "model.safetensors")


def without_finetuning(config, seed):
    return replace(config, seed=seed, finetune=replace(config.finetune, epochs=0))


@pytest.mark.parametrize("changes", [{}, {"head": "mlp"}, {"cut": "conv1"}], ids=str)
def test_rows_are_what_runs_say_of_their_probed_heads(small, tmp_path, weights, changes):
    encoder = {**SMALL["encoder"], "weights": weights}
    for given in (encoder, SMALL["encoder"]):
        config = small(encoder=given, **changes)
        found = probe_grid(config, Grid(seeds=2))
        runs = [rows_of(run(without_finetuning(config, s), tmp_path / str(s))) for s in (0, 1)]
        assert [row["tau"] for row in found["rows"]] == [0, 2, 5]
        for row, one, two in zip(found["rows"], *runs, strict=True):
            energies = [branch["energy"]["aie"] for branch in (one, two)]
            assert row["aie"] == pytest.approx(sum(energies) / 2, rel=1e-4)
            spread = abs(energies[0] - energies[1]) / 2**0.5
            assert row["std"]["aie"] == pytest.approx(spread, rel=1e-2, abs=1e-4)
            for split in ("train", "valid"):
                scores = [branch["probe"][split] for branch in (one, two)]
                assert row[split] == pytest.approx(sum(scores) / 2, abs=0.02)


def test_a_grid_has_a_row_for_each_of_its_points(small):
    grid = Grid(lrs=[0.1, 0.01, 0.1], smoothings=[0.0, 0.3], taus=[7, 1])
    found = probe_grid(small(), grid)
    points = [(row["lr"], row["smoothing"], row["tau"]) for row in found["rows"]]
    assert points == [(lr, s, tau) for lr in (0.1, 0.01) for s in (0.0, 0.3) for tau in (1, 7)]
    (alone,) = probe_grid(small(), replace(grid, lrs=[0.01], smoothings=[0.3], taus=[7]))["rows"]
    assert found["rows"][-1] == pytest.approx(alone, rel=1e-4)
    assert "std" not in alone
    assert json.loads(json.dumps(found)) == found


def test_smoothing_keeps_energy(small):
    grid = Grid(lrs=[0.1], smoothings=[0.0, 0.5], taus=[60])
    plain, smoothed = probe_grid(small(), grid)["rows"]
    assert smoothed["aie"] > plain["aie"]


def test_the_test_split_is_never_cut_into_batches(small, monkeypatch):
    cut, real = set(), Task.batches
    monkeypatch.setattr(
        Task, "batches", lambda self, split, **k: cut.add(split) or real(self, split, **k)
    )
    found = probe_grid(small(), Grid())
    assert cut == {"train", "valid"}
    assert "test" not in found["rows"][0]


def test_seeds_do_not_depend_on_their_company(small, weights):
    for given in ({**SMALL["encoder"], "weights": weights}, SMALL["encoder"]):
        both = probe_grid(small(encoder=given), Grid(seeds=2))["rows"]
        alone = [probe_grid(small(encoder=given, seed=s), Grid())["rows"] for s in (0, 1)]
        for row, one, two in zip(both, *alone, strict=True):
            assert row["aie"] == pytest.approx((one["aie"] + two["aie"]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "grid", "words"),
    [
        ({"method": "ft"}, Grid(), "method ft does not train a head by itself"),
        ({"method": "lp_logistic"}, Grid(taus=[4]), "method lp_logistic does not train"),
        ({}, Grid(taus=[-1]), "at least 0, got -1"),
        ({}, Grid(lrs=[-0.1]), "lr should be above 0, got -0.1"),
        ({}, Grid(smoothings=[1.0]), "smoothing should be in"),
    ],
)
def test_what_cannot_be_probed_is_one_sentence(small, changes, grid, words):
    with pytest.raises(ValueError, match=words):
        probe_grid(small(**changes), grid)


def test_a_rate_that_diverges_costs_its_own_rows_alone(small):
    config, taus = small(probe={"lr": 0.01, "optimizer": "sgd", "weight_decay": 1.0}), [0, 1, 4]
    found = probe_grid(config, Grid(lrs=[0.1, 1e30, 0.01], taus=taus, seeds=2))
    rows = {(row["lr"], row["tau"]): row for row in found["rows"]}
    assert len(rows) == 9
    for tau in (0, 4):
        lost = tau == 4
        assert rows[1e30, tau]["diverged"] == 2 * lost
        assert math.isnan(rows[1e30, tau]["aie"]) is lost
        assert math.isnan(rows[1e30, tau]["std"]["valid"]) is lost
    for tame in (0.1, 0.01):
        alone = probe_grid(config, Grid(lrs=[tame], taus=taus, seeds=2))["rows"]
        for own in alone:
            for name in MEASURES:
                assert rows[tame, own["tau"]][name] == pytest.approx(own[name], rel=1e-4)
    text = " ".join(shown(probe_table(found)).split())
    assert "diverged (2 of 2 seeds)" in text
    reading = probe_reading(found)
    assert reading.startswith("Training diverged with lr 1e+30, smoothing 0 (tau ")
    assert "The head validates best with lr 0." in reading


def test_where_every_head_diverges_the_reading_says_only_that():
    lost = row(1e9, 4, math.nan, diverged=1)
    text = probe_reading(found_with([lost]))
    assert "try rates below 1e+09" in text
    assert "validates best" not in text
    assert "diverged" in shown(probe_table(found_with([lost])))


def row(lr, tau, valid, **more):
    numbers = {"aie": 0.5, "train": 0.9, "valid": valid, "diverged": 0}
    return {"lr": lr, "smoothing": 0.0, "tau": tau, **numbers, **more}


def shown(renderable):
    console = Console(width=120, record=True, file=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def found_with(rows, seeds=(0,)):
    about = {"task": "a [b]", "encoder": "gcn", "method": "hp_ft", "metric": "rocauc"}
    return about | {"seeds": list(seeds), "rows": rows}


def test_the_table_names_each_setting_once_and_marks_the_best():
    found = found_with([row(0.1, 1, 0.6), row(0.1, 4, 0.71234), row(0.01, 1, 0.5)])
    text = shown(probe_table(found))
    assert "a [b]" in text
    assert text.count("0.1 ") == 1
    assert "71.23" in text
    styles = [line.style for line in probe_table(found).rows]
    assert styles == ["", "bold green", ""]


def test_several_seeds_show_their_std():
    std = {"aie": 0.01, "train": 0.02, "valid": 0.03}
    text = shown(probe_table(found_with([row(0.1, 1, 0.6, std=std)], seeds=(0, 1))))
    assert "60.00 ± 3.00" in text
    assert "0.500 ± 0.010" in text
    assert "2 seeds" in " ".join(text.split())


def test_the_reading_gives_settings_that_a_run_takes():
    text = probe_reading(found_with([row(0.1, 1, 0.6), row(0.1, 4, 0.7)]))
    assert "lr 0.1, smoothing 0 and tau 4: ROC-AUC (%) 70.00" in text
    assert "--set probe.lr=0.1 --set probe.smoothing=0" in text


def test_a_grid_leaves_the_global_generator_alone(small):
    before = torch.get_rng_state()
    probe_grid(small(), Grid())
    assert torch.equal(torch.get_rng_state(), before)
