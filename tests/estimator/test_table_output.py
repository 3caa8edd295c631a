"""A table that is written in parts is there whole, or not at all."""

import csv
import os
import resource
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from molhpft.domains.files import UnwritableError
from molhpft.estimator.table_output import table_writer

ENDINGS = pytest.mark.parametrize("ending", [".csv", ".parquet"])
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
rows = st.tuples(cells, st.floats(allow_nan=False) | st.none(), st.booleans() | st.none())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def typed(part):
    kinds = (pa.string(), pa.float64(), pa.bool_())
    columns = zip(*part, strict=True)
    return [(f"c{k}", pa.array(column, kinds[k])) for k, column in enumerate(columns)]


def read_back(path):
    if path.suffix == ".parquet":
        return [tuple(row.values()) for row in parquet.read_table(path).to_pylist()]
    with path.open(encoding="utf-8", newline="") as file:
        header, *body = csv.reader(file)
    assert header == ["c0", "c1", "c2"]
    numbers = {"True": True, "False": False, "": None}
    return [(text, float(x) if x else None, numbers[flag]) for text, x, flag in body]


@ENDINGS
@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_written_in_parts_is_read_back_whole(folder, ending, parts):
    path = folder / f"out{ending}"
    with table_writer(path) as write:
        for part in parts:
            write(typed(part))
    assert read_back(path) == [row for part in parts for row in part]
    assert not list(folder.glob("*.aside"))


@ENDINGS
def test_a_file_appears_only_when_all_is_well_and_in_a_folder_that_is_made(tmp_path, ending):
    path = tmp_path / "new" / f"out{ending}"
    with table_writer(path) as write:
        write(typed([("C", 1.0, True)]))
        assert not path.exists()
    assert read_back(path) == [("C", 1.0, True)]


def fail_while_writing(path, error):
    with table_writer(path) as write:
        write(typed([("C", 1.0, True)]))
        raise error


@ENDINGS
@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there_and_stays_what_it_was(tmp_path, ending, error):
    path = tmp_path / f"out{ending}"
    path.write_text("precious")
    with pytest.raises(error, match=r"^of what is read$"):
        fail_while_writing(path, error("of what is read"))
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def write_much(path):
    with table_writer(path) as write:
        for _ in range(100):
            write(typed([("C" * 1_000, 1.0, True)] * 10))


def a_folder_in_the_way(path):
    path.mkdir()


def a_file_above(path):
    path.parent.rmdir()
    path.parent.write_text("a file")


def a_read_only_folder(path):
    path.parent.chmod(0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("root may write anywhere")


@ENDINGS
@pytest.mark.parametrize(
    "spoil",
    [a_folder_in_the_way, a_file_above, a_read_only_folder],
    ids=lambda spoil: spoil.__name__,
)
def test_a_place_that_cannot_be_written_is_one_sentence_about_it(tmp_path, ending, spoil):
    path = tmp_path / "there" / f"out{ending}"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(UnwritableError, match="cannot write") as caught:
        write_much(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not path.is_file()


@pytest.fixture
def little_room():
    """No file may grow beyond 10 kB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@ENDINGS
def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing(tmp_path, little_room, ending):
    path = tmp_path / f"out{ending}"
    with pytest.raises(UnwritableError, match="cannot write") as caught:
        write_much(path)
    assert str(path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_device_that_takes_nothing_is_one_sentence():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    with pytest.raises(UnwritableError, match=r"cannot write /dev/full: .*No space left"):
        write_much(Path("/dev/full"))


def test_a_place_that_cannot_be_written_is_said_before_the_work_begins(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UnwritableError, match="it is a folder"), table_writer(tmp_path / "out.csv"):
        pytest.fail("the work began")


def test_times_in_a_zone_that_is_not_known_are_written_in_utc(tmp_path):
    with table_writer(tmp_path / "out.csv") as write:
        write([("a", pa.array([0, None], pa.timestamp("s", "Mars/Olympus")))])
    assert (tmp_path / "out.csv").read_text() == 'a\n1970-01-01 00:00:00+00:00\n""\n'


def test_columns_of_text_are_written_as_they_are_and_may_share_a_name(tmp_path):
    with table_writer(tmp_path / "out.csv") as write:
        write([("a", ("1", " x ")), ("a", pa.array([1.5, None], pa.float32()))])
    assert (tmp_path / "out.csv").read_text() == "a,a\n1,1.5\n x ,\n"


def test_two_that_write_one_file_do_not_mix_their_rows(tmp_path):
    path = tmp_path / "out.csv"
    with table_writer(path) as one, table_writer(path) as two:
        one([("a", ("1",))])
        two([("a", ("2",))])
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["out", "out.txt", "out.csv.gz", "out.tsv"])
def test_an_ending_that_means_nothing_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"should end in \.csv or \.parquet"):
        table_writer(tmp_path / name)
