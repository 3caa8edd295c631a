import pytest

from molhpft.sweep.execute import LocalWorkers, run_trial, sweep
from molhpft.sweep.grids import run_all
from molhpft.sweep.spec import parse_sweep
from molhpft.sweep.store import Outcome, store_at
from tests.sweeps import raw_sweep, write_table


def taus(settings):
    return [setting.seeds[0]["branches"][0]["tau"] for setting in settings]


def test_results_are_in_the_order_of_the_grid(tmp_path):
    # the probe that two of them share brings the third ahead of the second
    raw = {
        "task": {"name": "toy", "per_class": 20},
        "encoder": "toy_mlp",
        "probe": {"epochs": 2, "lr": 0.01},
        "finetune": {"epochs": 1, "lr": 0.001},
        "sweep": {"method": ["lp", "lp_ft", "ft"]},
    }
    out, trials = tmp_path / "runs", parse_sweep(raw)
    store = store_at(str(out))
    store.prepare()
    for trial in trials:
        store.write_record(trial, run_trial(trial, out))
    (settings,) = run_all(raw, out)
    assert taus(settings) == [2, 2, 0]


@pytest.mark.slow
def test_trials_that_failed_before_run_again(tmp_path):
    raw = raw_sweep(write_table(tmp_path), sweep={"method": ["lp_ft"]})
    out, (trial,) = tmp_path / "runs", parse_sweep(raw)
    store = store_at(str(out))
    store.prepare()
    store.write_record(trial, Outcome(trial.name, "failed", error="its process was killed"))
    (settings,) = run_all(raw, out, threads=1)
    assert taus(settings) == [6]
    (row,) = sweep(parse_sweep(raw), str(out), LocalWorkers(threads=1))
    assert row["status"] == "done"
