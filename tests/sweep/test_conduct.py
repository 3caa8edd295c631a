"""Sweeps attempted in this process: what is done, failed, redone, recorded and told."""

import json

import pytest
from rich.console import Console

from molhpft.config.schema import without
from molhpft.sweep import trial as attempting
from molhpft.sweep.cluster import elsewhere
from molhpft.sweep.execute import sweep
from molhpft.sweep.progress import sweep_reading, sweep_table
from molhpft.sweep.spec import parse_sweep
from molhpft.sweep.store import store_at
from molhpft.sweep.trial import Started, attempt
from tests.sweeps import raw_sweep, results_of, undisturbed, write_table


class Here:
    """Attempts in this process, one after another."""

    def __init__(self):
        self.attempted = []

    def outcomes(self, jobs, store):
        for job in jobs:
            self.attempted.append(job.name)
            yield Started(job.name)
            yield None
            yield attempt(job, store.local)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return raw_sweep(write_table(tmp_path_factory.mktemp("table")))


@pytest.fixture(scope="module")
def broken(raw):
    """Two methods on a column that is there and on one that is not."""
    columns = {"task.target_columns": ["nothing", "ring"], "method": ["lp", "ft"]}
    return parse_sweep({**raw, "sweep": columns})


def rows_by_name(rows):
    return {row["name"]: row for row in rows}


def test_a_sweep_gives_the_results_of_plain_runs_and_is_not_redone(raw, tmp_path):
    alone = undisturbed(raw, tmp_path / "alone")
    trials, out = parse_sweep(raw), tmp_path / "out"
    rows = sweep(trials, str(out), Here())
    assert results_of(out) == alone
    assert [row["name"] for row in rows] == [trial.name for trial in trials]
    for row in rows:
        summary = json.loads(alone[row["run"]]["summary.json"])
        chosen = next(b for b in summary["branches"] if b["tau"] == summary["chosen_tau"])
        assert (row["status"], row["error"], row["tau"]) == ("done", None, chosen["tau"])
        assert (row["valid"], row["test"]) == (chosen["final"]["valid"], chosen["final"]["test"])
    again = Here()
    assert sweep(trials, str(out), again) == rows
    assert again.attempted == []


class Elsewhere(Here):
    """Attempts in temporary folders, from which complete runs go to the store, as a cluster's."""

    def outcomes(self, jobs, store):
        for job in jobs:
            self.attempted.append(job.name)
            yield elsewhere(job, store.fs.unstrip_protocol(store.root), threads=1)


def test_an_ensemble_at_a_url_is_whole_or_made_again(raw, tmp_path):
    one = without({**raw, "members": True, "sweep": {"method": ["ft"]}}, {"probe"})
    trials, url, alone = parse_sweep(one), f"memory://{tmp_path}/out", undisturbed(one, tmp_path)
    (row,) = sweep(trials, url, Elsewhere())
    store = store_at(url)
    member = f"{store.root}/{row['run']}/members/tau0.safetensors"
    written = (tmp_path / row["run"] / "members" / "tau0.safetensors").read_bytes()
    assert row["run"] in alone
    assert store.fs.cat_file(member) == written
    store.fs.rm(member)
    backend = Elsewhere()
    sweep(trials, url, backend)
    assert backend.attempted == [trial.name for trial in trials]
    assert store.fs.cat_file(member) == written


def test_a_wider_sweep_attempts_what_is_new(raw, tmp_path):
    narrow = parse_sweep({**raw, "sweep": {"method": ["lp"]}}, idle_are="dropped")
    wide = parse_sweep({**raw, "sweep": {"method": ["lp", "ft"]}})
    sweep(narrow, str(tmp_path), Here())
    backend = Here()
    sweep(wide, str(tmp_path), backend)
    assert backend.attempted == [t.name for t in wide if t.name != narrow[0].name]


def test_a_failure_is_recorded_and_the_rest_goes_on(broken, tmp_path):
    rows = sweep(broken, str(tmp_path), Here())
    good = [trial.settings["task.target_columns"] == "ring" for trial in broken]
    assert [row["status"] == "done" for row in rows] == good
    for row in rows:
        record = json.loads((tmp_path / "trials" / f"{row['name']}.json").read_text())
        assert {key: record[key] for key in ("status", "error", "run", "settings")} == {
            key: row[key] for key in ("status", "error", "run", "settings")
        }
        assert (row["status"] == "failed") == ("nothing" in str(row["error"]))
    quiet, loud = Here(), Here()
    assert sweep(broken, str(tmp_path), quiet) == rows
    assert quiet.attempted == []
    sweep(broken, str(tmp_path), loud, retry=True)
    assert loud.attempted == [row["name"] for row in rows if row["status"] == "failed"]


def test_a_failure_of_another_kind_names_it(raw, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(attempting, "run", fail)
    rows = sweep(parse_sweep(raw), str(tmp_path), Here())
    assert {row["error"] for row in rows} == {"ZeroDivisionError: by nothing"}


def test_a_run_without_a_record_is_found_done(raw, tmp_path, monkeypatch):
    trials = parse_sweep({**raw, "sweep": {"method": ["ft"]}}, idle_are="dropped")
    (before,) = sweep(trials, str(tmp_path), Here())
    (tmp_path / "trials" / f"{before['name']}.json").unlink()
    probe = "molhpft.run.run.probe"
    monkeypatch.setattr(probe, lambda *a, **k: pytest.fail("redone"))
    (after,) = sweep(trials, str(tmp_path), Here())
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_a_record_without_its_run_is_redone(raw, tmp_path):
    trials = parse_sweep({**raw, "sweep": {"method": ["lp"]}}, idle_are="dropped")
    (row,) = sweep(trials, str(tmp_path), Here())
    before = results_of(tmp_path)
    (tmp_path / row["run"] / "summary.json").unlink()
    (row,) = sweep(trials, str(tmp_path), Here())
    assert row["status"] == "failed"
    assert "is no complete run (missing, or not in its size: summary.json)" in row["error"]
    (tmp_path / row_folder(before)).rename(tmp_path / "away")
    (row,) = sweep(trials, str(tmp_path), Here(), retry=True)
    assert row["status"] == "done"
    assert results_of(tmp_path) == before


def row_folder(results):
    (name,) = results
    return name


def test_a_damaged_summary_is_one_sentence_and_no_other_row_is_worse(raw, tmp_path):
    trials = parse_sweep({**raw, "sweep": {"method": ["lp", "ft"]}})
    rows = sweep(trials, str(tmp_path), Here())
    damaged = tmp_path / rows[0]["run"] / "summary.json"
    damaged.write_text(damaged.read_text().replace("{", "[", 1))
    found = sweep(trials, str(tmp_path), Here())
    assert found[1] == rows[1]
    assert found[0]["status"] == "failed"
    assert f"{damaged} is damaged" in found[0]["error"]
    assert f"delete {damaged.parent} and sweep again" in found[0]["error"]


def test_a_damaged_record_is_one_sentence(raw, tmp_path):
    trials = parse_sweep({**raw, "sweep": {"method": ["lp"]}}, idle_are="dropped")
    for damage, words in (('{"status', "is damaged"), ("[]", "holds no object")):
        (tmp_path / "trials").mkdir(exist_ok=True)
        (tmp_path / "trials" / f"{trials[0].name}.json").write_text(damage)
        with pytest.raises(ValueError, match=words):
            sweep(trials, str(tmp_path), Here())


def test_an_output_that_takes_nothing_stops_the_sweep(raw, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write .*file.*choose another folder"):
        sweep(parse_sweep(raw), str(file), Here())


def test_a_run_that_cannot_be_written_stops_the_sweep_and_is_no_failure(raw, tmp_path):
    trials, out = parse_sweep(raw), tmp_path / "out"
    done = sweep(trials[:1], str(out), Here())
    reference = undisturbed(raw, tmp_path / "alone")
    left = [name for name in reference if name != done[0]["run"]]
    for name in left:
        # a file where its folder should be: no run can be written there, not even by root
        (out / f"{name}.partial").write_text("in the way")
    backend = Here()
    with pytest.raises(OSError, match=r"cannot write .*run again: it goes on where it was"):
        sweep(trials, str(out), backend)
    assert len(backend.attempted) == 1
    for name in left:
        (out / f"{name}.partial").unlink()
    rows = sweep(trials, str(out), Here())
    assert {row["status"] for row in rows} == {"done"}
    assert results_of(out) == reference


def shown(renderable):
    console = Console(width=150)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_table_has_a_line_a_trial_and_the_reading_every_failure(broken, tmp_path):
    rows = sweep(broken, str(tmp_path), Here())
    text = shown(sweep_table(rows))
    assert "rings, ROC-AUC (%)" in text
    assert text.count("failed") == 2
    for word in ("task.target_columns", "method", "tau", "valid", "test", "nothing"):
        assert word in text
    reading = sweep_reading(rows)
    assert reading.startswith("2 of 4 trials done; failed (--retry attempts them again):")
    assert reading.count("\n") == 2
    done = [row for row in rows if row["status"] == "done"]
    assert sweep_reading(done) == "2 of 2 trials done."
