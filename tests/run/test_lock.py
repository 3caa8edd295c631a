"""One process at a time at a place: the second waits, says for whom, and nothing stays locked."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock, Timeout

from molhpft.run.lock import locked

# locks a place, forks, says so, and lets go when its standard input ends
HOLD = """
import os, sys
from pathlib import Path
from molhpft.run.lock import locked
with locked(Path(sys.argv[1])):
    os.fork()
    os.write(1, b"held\\n")
    sys.stdin.readline()
"""


def test_neither_a_killed_holder_nor_a_process_it_forked_keeps_the_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as first:
        assert [first.stdout.readline() for _ in range(2)] == ["held\n"] * 2
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".a.lock", timeout=0).acquire()
        first.kill()
        first.wait()
        with locked(tmp_path / "a"):  # would wait for ever
            pass
        os.killpg(first.pid, signal.SIGKILL)


def test_the_second_waits_and_says_for_whom_and_since_when(tmp_path, capsys):
    place, entered, waiting = tmp_path / "runs" / "a", [], ""

    def enter():
        with locked(place):
            entered.append(True)

    second = threading.Thread(target=enter)
    with locked(place):
        second.start()
        while not waiting:
            time.sleep(0.01)
            waiting = capsys.readouterr().err
        assert not entered
    second.join()
    assert entered
    assert waiting.startswith(f"waiting for {place}, on which process {os.getpid()} on ")
    assert " works since 2" in waiting


def test_what_is_let_go_leaves_no_file(tmp_path):
    with locked(tmp_path / "a"):
        assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
    assert not list(tmp_path.iterdir())


def test_no_two_of_many_are_in_the_block_at_once(tmp_path):
    """Also while lock files are removed under those who wait."""
    inside, most, lock = [], [], threading.Lock()

    def enter(number):
        for _ in range(5):
            with locked(tmp_path / "a"):
                inside.append(number)
                with lock:
                    most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=enter, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


def test_another_place_is_free(tmp_path, capsys):
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert {path.name for path in tmp_path.iterdir()} == {".a.lock", ".b.lock"}
    assert capsys.readouterr().err == ""  # nobody has waited


def test_a_file_system_without_locks_is_said_and_does_not_stop_the_work(
    tmp_path, monkeypatch, capsys
):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)  # no such file system is at hand
    with locked(tmp_path / "a"):
        pass
    assert "is on a file system without locks (no locks available)" in capsys.readouterr().err


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*/a: "), locked(tmp_path / "file" / "a"):
        pass
