from molhpft.sweep.execute import LocalWorkers, sweep
from molhpft.sweep.grids import run_all
from molhpft.sweep.spec import parse_sweep
from molhpft.sweep.store import Outcome, store_at
from tests.sweeps import raw_sweep, write_table


def test_trials_that_failed_before_run_again_and_results_are_in_the_order_of_the_grid(tmp_path):
    # the probe that two of them share brings the third ahead of the second
    raw = raw_sweep(write_table(tmp_path), sweep={"method": ["lp", "lp_ft", "ft"]})
    out, (trial, *_) = tmp_path / "runs", parse_sweep(raw)
    store = store_at(str(out))
    store.prepare()
    store.write_record(trial, Outcome(trial.name, "failed", error="its process was killed"))
    (settings,) = run_all(raw, out, threads=1)
    assert [setting.seeds[0]["branches"][0]["tau"] for setting in settings] == [6, 6, 0]
    rows = sweep(parse_sweep(raw), str(out), LocalWorkers(threads=1))
    assert {row["status"] for row in rows} == {"done"}
