"""What is written beside its place takes it whole, or leaves no trace."""

import os
import signal
import subprocess
import sys
from time import time

import pytest

from molhpft.domains.files import replacing
from molhpft.estimator.predict import table_writer

KILLED = """
import os, signal, sys
from pathlib import Path
from molhpft.domains.files import replacing

with replacing(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_takes_its_place_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def fail_while_writing(path, write, error):
    with replacing(path) as aside:
        write(aside)
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "write", [lambda p: p.write_text("half"), lambda p: (p / "b").mkdir(parents=True)]
)
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error, write):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error):
        fail_while_writing(path, write, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_its_place_too(tmp_path):
    with replacing(tmp_path / "run") as aside:
        (aside / "deep").mkdir(parents=True)
    assert (tmp_path / "run" / "deep").is_dir()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows kills otherwise")
def test_what_a_killed_writer_left_is_swept_a_day_later_by_the_next_and_no_other_file(tmp_path):
    path = tmp_path / "out [1].csv"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    another = tmp_path / ".other.csv.0a.aside"
    another.write_text("of another file")
    yesterday = time() - 90_000
    os.utime(another, (yesterday, yesterday))

    def write():
        with table_writer(path) as rows:
            rows([("a", ["1"])])

    write()
    assert left.exists()  # it may still be written
    os.utime(left, (yesterday, yesterday))
    write()
    assert sorted(tmp_path.iterdir()) == sorted([another, path])
