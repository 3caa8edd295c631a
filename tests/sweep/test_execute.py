"""Sweeps: what runs, what is left alone, what fails alone, what stops everything."""

import json
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from molhpft.config.schema import resolved, without
from molhpft.domains.extras import MissingExtraError
from molhpft.run.identity import trial_name
from molhpft.sweep import execute
from molhpft.sweep.execute import (
    LocalWorkers,
    run_and_publish,
    run_trial,
    sweep,
    with_absolute_paths,
)
from molhpft.sweep.spec import parse_sweep
from molhpft.sweep.store import store_at
from tests.sweeps import raw_sweep, results_of, undisturbed, write_table


class Here:
    """Executes trials in this process, one after another."""

    has_room = True

    def __init__(self):
        self.started = []

    @contextmanager
    def pool(self, store, trials):
        self.store, self.waiting = store, deque()
        yield self

    def start(self, trial):
        self.started.append(trial.name)
        self.waiting.append(trial)
        self.has_room = False

    def wait(self):
        self.has_room = True
        return [self.execute(self.waiting.popleft())]

    def execute(self, trial):
        return run_trial(trial, self.store.local)


class Elsewhere(Here):
    """Executes trials in temporary folders, from which complete runs go to the store."""

    def execute(self, trial):
        return run_and_publish(trial, self.store.url, threads=1)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return raw_sweep(write_table(tmp_path_factory.mktemp("table")))


@pytest.fixture(scope="module")
def broken(raw):
    """Two methods on a column that is there and on one that is not."""
    columns = {"task.target_columns": ["nothing", "ring"], "method": ["lp", "ft"]}
    return parse_sweep({**raw, "sweep": columns})


def only(raw, *methods):
    return parse_sweep({**raw, "sweep": {"method": [*methods]}}, unused_are="dropped")


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
    assert again.started == []


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
    assert backend.started == [trial.name for trial in trials]
    assert store.fs.cat_file(member) == written


def test_a_wider_sweep_runs_what_is_new(raw, tmp_path):
    narrow, wide, backend = only(raw, "lp"), only(raw, "lp", "ft"), Here()
    sweep(narrow, str(tmp_path), Here())
    sweep(wide, str(tmp_path), backend)
    assert backend.started == [t.name for t in wide if t.name != narrow[0].name]


def test_a_failure_is_recorded_and_the_rest_goes_on(broken, tmp_path):
    rows = sweep(broken, str(tmp_path), Here())
    good = [trial.settings["task.target_columns"] == "ring" for trial in broken]
    assert [row["status"] == "done" for row in rows] == good
    for row in rows:
        record = json.loads((tmp_path / "trials" / f"{row['name']}.json").read_text())
        for key in ("status", "error", "run", "settings"):
            assert record[key] == row[key]
        assert (row["status"] == "failed") == ("nothing" in str(row["error"]))
    quiet, loud = Here(), Here()
    assert sweep(broken, str(tmp_path), quiet) == rows
    assert quiet.started == []
    sweep(broken, str(tmp_path), loud, retry=True)
    assert loud.started == [row["name"] for row in rows if row["status"] == "failed"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("by nothing"), "ZeroDivisionError: by nothing"),
        (MissingExtraError("this needs PIL"), "this needs PIL"),
    ],
)
def test_an_error_of_a_trial_is_its_sentence_and_an_unforeseen_one_is_named(
    raw, tmp_path, monkeypatch, error, text
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(execute, "run", fail)
    rows = sweep(parse_sweep(raw), str(tmp_path), Here())
    assert {row["error"] for row in rows} == {text}


def test_a_run_without_a_record_is_not_redone(raw, tmp_path, monkeypatch):
    trials = only(raw, "ft")
    (before,) = sweep(trials, str(tmp_path), Here())
    (tmp_path / "trials" / f"{before['name']}.json").unlink()
    monkeypatch.setattr("molhpft.run.run.build_network", lambda *a, **k: pytest.fail("redone"))
    (after,) = sweep(trials, str(tmp_path), Here())
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_a_record_without_its_run_is_redone(raw, tmp_path):
    trials = only(raw, "lp")
    (row,) = sweep(trials, str(tmp_path), Here())
    before = results_of(tmp_path)
    (tmp_path / row["run"] / "summary.json").unlink()
    (incomplete,) = sweep(trials, str(tmp_path), Here())
    assert incomplete["status"] == "failed"
    assert "is no complete run (missing, or not in its size: summary.json)" in incomplete["error"]
    (tmp_path / row["run"]).rename(tmp_path / "away")
    (redone,) = sweep(trials, str(tmp_path), Here(), retry=True)
    assert redone["status"] == "done"
    assert results_of(tmp_path) == before


def test_a_damaged_summary_is_one_sentence_and_no_other_row_is_worse(raw, tmp_path):
    trials = only(raw, "lp", "ft")
    rows = sweep(trials, str(tmp_path), Here())
    damaged = tmp_path / rows[0]["run"] / "summary.json"
    damaged.write_text(damaged.read_text().replace("{", "[", 1))
    first, second = sweep(trials, str(tmp_path), Here())
    assert second == rows[1]
    assert first["status"] == "failed"
    assert f"{damaged} is damaged" in first["error"]
    assert f"delete {damaged.parent} and sweep again" in first["error"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [('{"status', "is damaged"), ("[" * 9999, "is damaged"), ("[]", "holds no object")],
)
def test_a_damaged_record_is_one_sentence(raw, tmp_path, damage, words):
    (trial,) = only(raw, "lp")
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / f"{trial.name}.json").write_text(damage)
    with pytest.raises(ValueError, match=words):
        sweep([trial], str(tmp_path), Here())


def test_an_output_that_cannot_be_written_stops_the_sweep(raw, tmp_path):
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
    with pytest.raises(OSError, match=r"cannot write .*run again, which goes on where it was"):
        sweep(trials, str(out), backend)
    assert len(backend.started) == 1
    for name in left:
        (out / f"{name}.partial").unlink()
    rows = sweep(trials, str(out), Here())
    assert {row["status"] for row in rows} == {"done"}
    assert results_of(out) == reference


# stands for a worker, which would import PyTorch: dies at a trial as often as a file says
WORKER = """#!{python} -S
import json, os, sys
out, threads = sys.argv[3], os.environ["OMP_NUM_THREADS"]
for line in sys.stdin:
    name = json.loads(line)["name"]
    with open(out + "/started", "a") as file:
        file.write(name + "\\n")
    starts = open(out + "/started").read().split().count(name)
    if starts <= json.load(open(out + "/deaths")).get(name, 0):
        os.kill(os.getpid(), 9)
    outcome = dict(name=name, status="failed", error=threads + " threads", seconds=1)
    print(json.dumps(outcome), flush=True)
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_a_trial_whose_process_is_killed_runs_once_more_and_then_fails_alone(
    raw, tmp_path, monkeypatch, workers
):
    names = [trial.name for trial in parse_sweep(raw)]
    script = tmp_path / "python"
    script.write_text(WORKER.format(python=execute.sys.executable))
    script.chmod(0o755)
    (tmp_path / "deaths").write_text(json.dumps({names[0]: 1, names[1]: 9}))
    monkeypatch.setattr(execute.sys, "executable", str(script))
    backend = LocalWorkers(workers=workers, threads=5)
    errors = {row["name"]: row["error"] for row in sweep(parse_sweep(raw), str(tmp_path), backend)}
    killed = errors.pop(names[1])
    assert killed.startswith("its process ended 2 times without a result (exit status -9; -9 is a")
    assert killed.endswith(".log may say more")
    assert set(errors.values()) == {"5 threads"}
    started = (tmp_path / "started").read_text().split()
    assert [started.count(name) for name in names] == [2, 2, 1, 1]


def test_local_workers_write_to_local_folders_only(raw, tmp_path):
    with pytest.raises(ValueError, match="is no folder of this machine; local processes write to"):
        sweep(parse_sweep(raw), f"memory://{tmp_path}", LocalWorkers())


def test_a_trial_for_another_machine_has_absolute_paths_of_its_files_and_stays_itself(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    here = {name: str(tmp_path / name) for name in ("rows.csv", "pre.csv", "held.csv", "w.pth")}
    for name in here:
        Path(name).write_text(name)
    served = {"name": "pretraining", "of": ["ogbg-molhiv", "pre.csv"], "without": "held.csv"}
    raw = {
        "task": {"name": "csv", "path": "rows.csv"},
        "encoder": {"name": "gcn", "weights": "w.pth"},
        "sweep": {"method": [{"name": "flyp", "pretraining": served}]},
    }
    (trial,) = parse_sweep(raw)
    moved = with_absolute_paths(trial)
    assert moved.config.task.options["path"] == Path(here["rows.csv"])
    assert moved.config.encoder.options["weights"] == Path(here["w.pth"])
    pretraining = {**served, "of": ["ogbg-molhiv", here["pre.csv"]], "without": [here["held.csv"]]}
    assert moved.config.method.options["pretraining"] == pretraining
    assert trial_name(moved.config) == trial.name == moved.name
    yaml.safe_dump(resolved(moved.config))


def test_lists_of_files_become_absolute_and_names_of_data_sets_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.smi").write_text("C")
    task = {"name": "pretraining", "of": ["ogbg-molhiv", "a.smi"], "without": ["ogbg-molmuv"]}
    raw = {"task": task, "encoder": "gcn", "sweep": {"method": ["scratch"]}}
    (trial,) = parse_sweep(raw)
    options = with_absolute_paths(trial).config.task.options
    assert options["of"] == (Path("ogbg-molhiv"), tmp_path / "a.smi")
    assert options["without"] == (Path("ogbg-molmuv"),)


def test_a_pretraining_without_files_stays_as_it_is_written(raw):
    named = {"method": [{"name": "flyp", "pretraining": "nci_descriptors"}]}
    (trial,) = parse_sweep({**raw, "sweep": named}, unused_are="dropped")
    assert with_absolute_paths(trial).config == trial.config
