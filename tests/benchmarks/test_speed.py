"""The scripts run, on few molecules, and end in a line that programs can read."""

import json
import os
import subprocess
import sys

import pytest

from molhpft.estimator import Model
from tests.benchmarks.conftest import FOLDER
from tests.estimator.builders import SMILES, random_model


def _last_line(script, *options, **variables):
    command = [sys.executable, str(FOLDER / script), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "figures"), [("featurize_speed.py", "x ogb"), ("batch_speed.py", "x PyG")]
)
def test_a_script_ends_in_its_lowest_ratio(tmp_path, script, figures):
    line = _last_line(script, "--molecules", "150", "--repeats", "1", MOLHPFT_DATA=str(tmp_path))
    assert list(line[figures]) == ["NCI"]  # what RDKit ships, where there is nothing else
    assert line["ratio"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("dropout", ["0", "0.5"])
def test_training_is_compared_with_pyg_from_the_same_weights(ogb_root, dropout):
    options = ("--data", "ogbg-moltox21", "--molecules", "200", "--repeats", "2")
    options += ("--dropout", dropout)
    line = _last_line("train_speed.py", *options)
    sides = line["ogbg-moltox21"]
    assert line["ratio"] == next(iter(sides.values()))["training_ratio"]
    assert sides["32-true"]["first_difference"] < 1e-5
    losses = sides["32-true"]["losses"]
    assert losses[0] == pytest.approx(sides["PyG"]["losses"][0], rel=0.1)
    assert len(losses) == 3


@pytest.mark.slow
def test_prediction_is_timed_for_the_model_and_for_one_network(tmp_path):
    random_model(members=2).save_pretrained(tmp_path / "model")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["smiles", *SMILES]) + "\n")
    rates = _last_line("predict_speed.py", str(tmp_path / "model"), str(table))
    n, which = len(SMILES), ("all members", "1 network")
    whole = [f"{who} x {5 * n}, {p}" for who in which for p in ("32", "bf16-mixed")]
    assert list(rates) == [f"all members x {n}, 32", *whole]
    assert min(rates.values()) > 0


def test_the_network_that_is_timed_alone_has_the_card_of_its_own_member(tmp_path):
    from predict_speed import first_network

    model = random_model(members=2)
    members = [(3, 0.0), (None, 0.6), (5, 0.4)]  # as the card has them, unused ones too
    names = ("name", "tau", "weight", "valid", "folds")
    model.about["members"] = [
        dict(zip(names, (f"tau {tau}", tau, weight, None, []), strict=True))
        for tau, weight in members
    ]
    alone = Model.from_pretrained(first_network(model, tmp_path / "alone"))
    (member,) = alone.about["members"]
    assert (member["tau"], member["weight"], len(alone.networks)) == (5, 1.0, 1)


@pytest.mark.slow
def test_data_of_a_true_size_are_packed_loaded_and_trained_on(ogb_root):
    counts = ogb_root.parent / "ogb_partial" / "ogbg_molpcba"
    if not counts.is_dir():
        pytest.skip(f"the sizes of ogbg-molpcba are not at {counts}")
    line = _last_line("scale.py", "--counts", str(counts), "--molecules", "2000")
    assert line["molecules"] == 2000
    assert 0 < line["load_s"] < line["pack_s"]
    assert line["memory_mb"] < line["disk_mb"] + 1
    assert line["ratio"] > 0


@pytest.fixture
def timing():
    import timing

    return timing


def test_works_are_done_in_turn_with_a_round_to_warm_up(timing):
    done = []
    works = {name: lambda name=name: done.append(name) for name in "ab"}
    seconds = timing.in_turn(works, 3)
    assert done == ["a", "b"] * 4
    assert list(seconds) == ["a", "b"]
    assert min(seconds.values()) >= 0


def test_the_median_round_counts(timing, monkeypatch):
    times = iter([9.0, 1.0, 5.0, 2.0])  # the first round does not count
    monkeypatch.setattr(timing, "seconds", lambda work: next(times))
    assert timing.in_turn({"a": None}, 3) == {"a": 2.0}


def test_a_table_shows_every_cell_and_the_last_line_is_json(timing, capsys):
    timing.print_table("Speed", {"ours": {"per second": "12"}, "theirs": {"per second": "7"}})
    timing.print_figures({"ratio": 1.5})
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in ("Speed", "per second", "ours", "12", "theirs", "7"))
    assert json.loads(printed.splitlines()[-1]) == {"ratio": 1.5}
