"""One process at a time at a place: the second waits, says for whom, and nothing stays locked."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from molhpft.domains.files import UnwritableError
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


@pytest.mark.slow
def test_neither_a_killed_holder_nor_a_process_it_forked_keeps_the_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as first:
        assert [first.stdout.readline() for _ in range(2)] == ["held\n"] * 2
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".a.lock", timeout=0).acquire()
        first.kill()
        first.wait()
        entered = threading.Event()
        second = threading.Thread(target=enter, args=(tmp_path / "a", entered), daemon=True)
        second.start()
        free = entered.wait(timeout=20)
        os.killpg(first.pid, signal.SIGKILL)
        second.join(timeout=1)
    assert free, "the lock has outlived its holder"


def enter(place, entered):
    with locked(place):
        entered.set()


def test_the_second_waits_and_says_for_whom_and_since_when(tmp_path, capsys):
    place, entered, waiting = tmp_path / "runs" / "a", threading.Event(), ""
    second = threading.Thread(target=enter, args=(place, entered), daemon=True)
    with locked(place):
        second.start()
        for _ in range(1000):
            if waiting:
                break
            time.sleep(0.01)
            waiting = capsys.readouterr().err
        assert waiting, "nobody says within ten seconds that it waits"
        assert not entered.is_set()
    assert entered.wait(timeout=20)
    second.join(timeout=20)
    assert waiting.startswith(f"waiting for {place}, on which process {os.getpid()} on ")
    assert " works since 2" in waiting


def test_what_is_let_go_leaves_no_file(tmp_path):
    with locked(tmp_path / "a"):
        assert [path.name for path in tmp_path.iterdir()] == [".a.lock"]
    assert not list(tmp_path.iterdir())


def test_no_two_of_many_are_in_the_block_at_once(tmp_path, monkeypatch):
    """Also while lock files are removed under those who wait."""
    monkeypatch.setattr("molhpft.run.lock._POLL", 0.001)  # so that they take turns
    inside, seen, ready = [], [], threading.Barrier(4)

    def enter_often(number):
        ready.wait(timeout=20)
        for _ in range(5):
            with locked(tmp_path / "a"):
                inside.append(number)
                time.sleep(0.02)  # the others come meanwhile if nothing keeps them out
                seen.append(list(inside))
                inside.remove(number)

    threads = [threading.Thread(target=enter_often, args=(k,), daemon=True) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert sorted(seen) == [[k] for k in range(4) for _ in range(5)]


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


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here refuses files to all")
def test_a_folder_in_which_nobody_can_make_a_file_is_not_waited_for():
    with pytest.raises(UnwritableError, match="cannot write"), locked(Path("/proc/run")):
        pass
