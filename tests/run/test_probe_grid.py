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


@pytest.fixture(scope="module")
def encoders(small, tmp_path_factory):
    """Weights from a file, which every seed then has, and random ones."""
    brief = {"epochs": 1, "lr": 0.003}
    folder = run(small(method="scratch", finetune=brief), tmp_path_factory.mktemp("weights"))
    return {**SMALL["encoder"], "weights": str(folder.path / "model.safetensors")}, SMALL["encoder"]


@pytest.mark.parametrize(
    ("own", "changes"), [(0, {}), (1, {"head": "mlp"}), (1, {"cut": "conv1"})], ids=str
)
def test_rows_are_what_runs_report_of_their_probed_heads(small, tmp_path, encoders, own, changes):
    config = small(encoder=encoders[own], **changes)
    rows = probe_grid(config, Grid(seeds=2))["rows"]
    still = replace(config, finetune=replace(config.finetune, epochs=0))
    runs = [rows_of(run(replace(still, seed=seed), tmp_path)) for seed in (0, 1)]
    assert [row["tau"] for row in rows] == [0, 2, 5]
    for row, one, two in zip(rows, *runs, strict=True):
        energies = [branch["energy"]["aie"] for branch in (one, two)]
        assert row["aie"] == pytest.approx(sum(energies) / 2, rel=1e-4)
        std = abs(energies[0] - energies[1]) / 2**0.5
        assert row["std"]["aie"] == pytest.approx(std, rel=1e-2, abs=1e-4)
        for split in ("train", "valid"):
            scores = [branch["probe"][split] for branch in (one, two)]
            assert row[split] == pytest.approx(sum(scores) / 2, abs=0.02)


def test_seeds_do_not_depend_on_their_company(small, encoders):
    for encoder in encoders:
        both = probe_grid(small(encoder=encoder), Grid(seeds=2))["rows"]
        alone = [probe_grid(small(encoder=encoder, seed=s), Grid())["rows"] for s in (0, 1)]
        for row, one, two in zip(both, *alone, strict=True):
            assert row["aie"] == pytest.approx((one["aie"] + two["aie"]) / 2, rel=1e-5)


def test_a_grid_has_a_row_for_each_of_its_points(small):
    grid = Grid(lrs=[0.1, 0.01, 0.1], smoothings=[0.0, 0.5], taus=[60, 1])
    result = probe_grid(small(), grid)
    points = [(row["lr"], row["smoothing"], row["tau"]) for row in result["rows"]]
    assert points == [(lr, s, tau) for lr in (0.1, 0.01) for s in (0.0, 0.5) for tau in (1, 60)]
    (alone,) = probe_grid(small(), Grid(lrs=[0.01], smoothings=[0.5], taus=[60]))["rows"]
    assert result["rows"][-1] == pytest.approx(alone, rel=1e-4)
    assert "std" not in alone
    assert json.loads(json.dumps(result)) == result
    energies = {point: row["aie"] for point, row in zip(points, result["rows"], strict=True)}
    assert energies[0.1, 0.5, 60] > energies[0.1, 0.0, 60]  # smoothing keeps energy


def test_neither_the_test_split_nor_the_global_generator_is_used(small, monkeypatch):
    splits, real, before = set(), Task.batches, torch.get_rng_state()
    monkeypatch.setattr(
        Task, "batches", lambda self, split, **k: splits.add(split) or real(self, split, **k)
    )
    result = probe_grid(small(), Grid())
    assert splits == {"train", "valid"}
    assert "test" not in result["rows"][0]
    assert torch.equal(before, torch.get_rng_state())


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
    result = probe_grid(config, Grid(lrs=[0.1, 1e30], taus=taus, seeds=2))
    rows = {(row["lr"], row["tau"]): row for row in result["rows"]}
    assert len(rows) == 6
    for tau in (0, 4):
        lost = tau == 4
        assert rows[1e30, tau]["diverged"] == 2 * lost
        assert math.isnan(rows[1e30, tau]["aie"]) is lost
        assert math.isnan(rows[1e30, tau]["std"]["valid"]) is lost
    for alone in probe_grid(config, Grid(lrs=[0.1], taus=taus, seeds=2))["rows"]:
        for name in MEASURES:
            assert rows[0.1, alone["tau"]][name] == pytest.approx(alone[name], rel=1e-4)
    assert "diverged (2 of 2 seeds)" in " ".join(shown(probe_table(result)).split())
    reading = probe_reading(result)
    assert reading.startswith("Training diverged with lr 1e+30, smoothing 0 (tau ")
    assert "The head validates best with lr 0.1" in reading


def row(lr, tau, valid, **more):
    numbers = {"aie": 0.5, "train": 0.9, "valid": valid, "diverged": 0}
    return {"lr": lr, "smoothing": 0.0, "tau": tau, **numbers, **more}


def shown(renderable):
    console = Console(width=120, record=True, file=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def grid_of(rows, seeds=(0,)):
    about = {"task": "a [b]", "encoder": "gcn", "method": "hp_ft", "metric": "rocauc"}
    return about | {"seeds": list(seeds), "rows": rows}


def test_where_every_head_diverges_the_reading_says_only_that():
    lost = grid_of([row(1e9, 4, math.nan, diverged=1)])
    assert "try rates below 1e+09" in probe_reading(lost)
    assert "validates best" not in probe_reading(lost)
    assert "diverged" in shown(probe_table(lost))


def test_the_table_names_each_setting_once_and_marks_the_best_which_the_reading_gives():
    result = grid_of([row(0.1, 1, 0.6), row(0.1, 4, 0.71234), row(0.01, 1, 0.5)])
    text = shown(probe_table(result))
    assert "a [b]" in text
    assert text.count("0.1 ") == 1
    assert "71.23" in text
    assert [line.style for line in probe_table(result).rows] == ["", "bold green", ""]
    reading = probe_reading(result)
    assert "lr 0.1, smoothing 0 and tau 4: ROC-AUC (%) 71.23" in reading
    assert "--set probe.lr=0.1 --set probe.smoothing=0" in reading


def test_several_seeds_show_their_std():
    std = {"aie": 0.01, "train": 0.02, "valid": 0.03}
    text = shown(probe_table(grid_of([row(0.1, 1, 0.6, std=std)], seeds=(0, 1))))
    assert "60.00 ± 3.00" in text
    assert "0.500 ± 0.010" in text
    assert "2 seeds" in " ".join(text.split())
