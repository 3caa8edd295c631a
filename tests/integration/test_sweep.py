"""Sweeps as processes: killed at any moment, starved of disk, started twice on one folder."""

import json
import os
import resource
import signal
import time
from collections import Counter
from glob import glob
from pathlib import Path

import pytest

from molhpft.config.schema import without
from molhpft.sweep.spec import parse_sweep
from tests.sweeps import finish, raw_sweep, results_of, start, undisturbed, write_table

pytestmark = pytest.mark.slow

LONGER = {"epochs": 40, "lr": 0.003, "keep": "best", "batch_size": 8}
DEADLINE = 300


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return raw_sweep(write_table(tmp_path_factory.mktemp("table")), finetune=LONGER)


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    return undisturbed(raw, tmp_path_factory.mktemp("alone"))


@pytest.fixture(autouse=True)
def _one_cache(tmp_path, monkeypatch):
    """The probe is shared within a test, not between tests."""
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / "cache"))


def until(claim, process=None):
    end = time.monotonic() + DEADLINE
    while not (found := claim()):
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.005)
    return found


def workers_of(out):
    """Process ids of a sweep's workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if b"molhpft.sweep.execute" in command and str(out).encode() in command:
            found.append(int(folder.name))
    return found


def under_way(out):
    """Checkpoints of trials in the middle of finetuning."""
    # not Path.glob, which fails where a folder ends while it looks
    return glob(f"{out}/**/*.partial/resume/phase-*.safetensors", recursive=True)


def attempts(out):
    """Trial name to how often a worker began it."""
    logs = [path.read_text() for path in (out / "logs").glob("*.log")]
    lines = [line for log in logs for line in log.splitlines() if line.startswith("--- ")]
    return Counter(line.removeprefix("--- ") for line in lines)


def clean(out):
    """Nothing half-done is left."""
    return not [p for p in out.rglob("*") if "partial" in p.name or "aside" in p.name]


def test_a_sweep_by_two_workers_gives_the_results_of_plain_runs(raw, whole, tmp_path):
    out = tmp_path / "out"
    said = finish(start(raw, out, "--workers", 2))
    assert "4 of 4 trials done." in said
    assert results_of(out) == whole
    assert clean(out)
    assert sum(attempts(out).values()) == 4
    assert "4 of 4 trials done." in finish(start(raw, out))
    assert sum(attempts(out).values()) == 4
    assert workers_of(out) == []


def test_a_killed_sweep_goes_on_where_it_was(raw, whole, tmp_path):
    out = tmp_path / "out"
    process = start(raw, out, "--workers", 2)
    until(lambda: len(list(out.glob("trials/*.json"))) >= 1 and under_way(out), process)
    process.kill()
    process.communicate()
    until(lambda: not workers_of(out))  # they notice by themselves
    for folder in results_of(out).values():
        json.loads(folder["summary.json"])
    finish(start(raw, out, "--workers", 2))
    assert results_of(out) == whole
    assert clean(out)


def test_a_killed_worker_costs_nothing_but_time(raw, whole, tmp_path):
    out = tmp_path / "out"
    process = start(raw, out, "--workers", 2)
    until(lambda: under_way(out), process)
    os.kill(workers_of(out)[0], signal.SIGKILL)
    assert "4 of 4 trials done." in finish(process)
    assert results_of(out) == whole
    assert clean(out)


def test_a_trial_whose_process_is_killed_twice_fails_alone(raw, tmp_path):
    out = tmp_path / "out"
    process = start(raw, out, "--workers", 1)
    first, *rest = [trial.name for trial in parse_sweep(raw)]
    for time_ in (1, 2):
        until(lambda n=time_: (out / "logs").is_dir() and attempts(out)[first] == n, process)
        (worker,) = workers_of(out)
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: worker not in workers_of(out))
    said = finish(process, status=1)
    assert "3 of 4 trials done" in said
    assert "its process ended 2 times without a result (exit status -9" in said
    assert attempts(out) == {first: 2, **dict.fromkeys(rest, 1)}


def test_a_second_sweep_of_a_folder_waits_and_finds_everything_done(raw, whole, tmp_path):
    out = tmp_path / "out"
    first = start(raw, out, "--workers", 1)
    until(lambda: under_way(out), first)
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end before the other one waits
    second = start(raw, out)
    waiting = second.stdout.readline()
    os.kill(first.pid, signal.SIGCONT)
    assert f"waiting for {out / 'sweep'}, on which process {first.pid} on " in waiting
    assert "4 of 4 trials done." in finish(first)
    assert "4 of 4 trials done." in finish(second)
    assert results_of(out) == whole
    assert sum(attempts(out).values()) == 4


def starved():
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))


def test_a_disk_that_takes_no_more_stops_the_sweep_and_loses_nothing(raw, whole, tmp_path):
    out = tmp_path / "out"
    short = without({**raw, "sweep": {"method": ["lp"]}}, {"finetune"})
    finish(start(short, out))
    kept = results_of(out)
    said = finish(start(raw, out, "--workers", 1, preexec_fn=starved), status=2)
    assert "error: cannot write" in said
    assert "make room and run again, which goes on where it was" in " ".join(said.split())
    assert results_of(out) == kept
    assert not list(out.glob("trials/*-ft-*.json"))
    finish(start(raw, out))
    assert results_of(out) == whole


def test_options_of_ray_are_refused_elsewhere(raw, tmp_path):
    for option in (("--address", "auto"), ("--gpus-per-trial", "0.5")):
        said = finish(start(raw, tmp_path / "out", *option), status=2)
        assert "--address and --gpus-per-trial are for --backend ray" in said
    said = finish(start(raw, tmp_path / "out", "--out", "memory://x"), status=2)
    assert "is no folder of this machine" in said
