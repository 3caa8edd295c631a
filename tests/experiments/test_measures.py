"""Measures asked for by a config: present, in range, and without any influence on the run."""

import json

import pytest

from molhpft.experiments.measures import BINS, NAMES
from molhpft.experiments.run import run
from tests.experiments.test_run import SMALL, rows_of, small, table  # noqa: F401 - fixtures

BRIEF = {"probe": {"lr": 0.01, "epochs": 4}, "finetune": {"epochs": 2, "lr": 0.003}}


@pytest.fixture(scope="module")
def plain(small, tmp_path_factory):  # noqa: F811
    return run(small(**BRIEF), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def measured(small, tmp_path_factory):  # noqa: F811
    return run(small(measures=list(NAMES), **BRIEF), tmp_path_factory.mktemp("measured"))


def measures_of(folder):
    return [row["measures"] for row in rows_of(folder)]


def test_measuring_changes_no_weight_and_no_number(plain, measured):
    files = [(folder.path / "model.safetensors").read_bytes() for folder in (plain, measured)]
    weights = [content[-2000:] for content in files]  # the header names the config
    assert weights[0] == weights[1]
    stripped = [{k: v for k, v in row.items() if k != "measures"} for row in rows_of(measured)]
    assert stripped == rows_of(plain)


def test_every_measure_has_its_place(measured):
    for found in measures_of(measured):
        assert set(found) == set(NAMES) - {"exchange"}
    assert set(measured.read_json("summary.json")["measures"]) == {"exchange"}


def test_histograms_count_every_training_label(measured):
    size = measured.read_json("summary.json")["sizes"]["train"]
    for found in measures_of(measured):
        for counts in found["confidence"]["histogram"].values():
            assert len(counts) == BINS
            assert sum(counts) == size


def test_the_kernel_and_the_direction_are_noted_along_finetuning(measured):
    lines = (measured.path / "history.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["phase"] == "finetune"]
    assert all(row["ntk_change"] > 0 and row["direction"] > 0 for row in rows)
    last = {row["tau"]: row["ntk_change"] for row in rows}
    for row in rows_of(measured):
        assert last[row["tau"]] >= 0
        assert row["measures"]["ntk"]["change"] > 0


def test_a_step_is_what_its_decomposition_predicts(measured):
    for found in measures_of(measured):
        assert found["decomposition"]["first_order_error"] < 0.05


def test_the_diagonal_of_the_exchange_has_the_networks_as_they_are(measured):
    exchange = measured.read_json("summary.json")["measures"]["exchange"]
    rows = rows_of(measured)
    for split in ("train", "valid"):
        diagonal = [exchange[split][k][k] for k in range(len(rows))]
        assert diagonal == pytest.approx([row["final"][split] for row in rows])


def test_the_bound_says_that_it_does_not_cover_adam(measured):
    assert not any(found["bound"]["applies"] for found in measures_of(measured))


def test_the_bound_holds_for_plain_gradient_descent(small, tmp_path):  # noqa: F811
    descent = {"epochs": 3, "lr": 0.01, "optimizer": "sgd", "momentum": 0.0, "keep": "last"}
    finetune = {**descent, "batch_norm": "frozen"}
    encoder = {**SMALL["encoder"], "dropout": 0.0}
    changes = {"probe": BRIEF["probe"], "finetune": finetune, "encoder": encoder}
    config = small(measures=["bound"], **changes)
    for found in measures_of(run(config, tmp_path)):
        assert found["bound"]["applies"]
        assert found["bound"]["holds"]


def test_an_unknown_measure_names_the_measures(small):  # noqa: F811
    with pytest.raises(ValueError, match="unknown measure nkt; did you mean ntk"):
        small(measures=["nkt"])
