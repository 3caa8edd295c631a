"""One sweep at a time in a folder; what a killed one leaves locks nothing."""

import os
import subprocess
import sys
import time

import pytest

from molhpft.experiments.sweeping import lock as locking
from molhpft.experiments.sweeping.lock import locked

HOLD = """
import sys, time
from pathlib import Path
from molhpft.experiments.sweeping.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(locking, "PATIENCE", 0.3)


def test_a_folder_is_free_again_after_its_sweep(tmp_path, impatient):
    with locked(tmp_path), pytest.raises(ValueError, match="has a sweep"), locked(tmp_path):
        pass
    with locked(tmp_path) as descriptor:
        assert str(os.getpid()) in os.pread(descriptor, 1000, 0).decode()


def test_a_second_sweep_is_told_who_has_the_folder(tmp_path, impatient):
    words = rf"has a sweep already \(process {os.getpid()} on .*\); wait for it, or choose another"
    with locked(tmp_path), pytest.raises(ValueError, match=words), locked(tmp_path):
        pass


def test_a_killed_holder_leaves_no_lock(tmp_path, impatient):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {process.pid} on"), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path):
        pass


def test_a_process_that_inherits_the_lock_holds_it(tmp_path, impatient):
    with locked(tmp_path) as descriptor:
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor]
        )
    with pytest.raises(ValueError, match="has a sweep already"), locked(tmp_path):
        pass
    child.communicate()
    with locked(tmp_path):
        pass


def test_a_sweep_waits_for_what_is_about_to_end(tmp_path):
    with locked(tmp_path) as descriptor:
        code = "import time; time.sleep(0.5)"
        child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[descriptor])
    begin = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - begin < locking.PATIENCE
    child.wait()


def test_a_place_without_locks_has_none():
    with locked(None) as descriptor:
        assert descriptor is None


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match=r"cannot write .*sweep.lock"), locked(tmp_path / "absent"):
        pass
