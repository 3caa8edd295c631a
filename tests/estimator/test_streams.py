"""Tables in and out in parts: nothing is lost on the way, and a failure leaves nothing behind."""

import csv
import gzip
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from molhpft.estimator.streams import molecule_stream, table_writer
from molhpft.experiments.folder import UnwritableError

ENDINGS = pytest.mark.parametrize("ending", [".csv", ".parquet"])
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
rows = st.tuples(cells, st.floats(allow_nan=False) | st.none(), st.booleans() | st.none())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("streams")


def write_csv(path, columns):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_parquet(path, columns):
    parquet.write_table(pa.table({k: pa.array(v, pa.string()) for k, v in columns.items()}), path)
    return path


def typed(part):
    kinds = (pa.string(), pa.float64(), pa.bool_())
    columns = zip(*part, strict=True)
    return {f"c{k}": pa.array(column, kinds[k]) for k, column in enumerate(columns)}


def read_back(path):
    if path.suffix == ".parquet":
        return [tuple(row.values()) for row in parquet.read_table(path).to_pylist()]
    with path.open(encoding="utf-8", newline="") as file:
        header, *body = csv.reader(file)
    assert header == ["c0", "c1", "c2"]
    numbers = {"True": True, "False": False, "": None}
    return [(text, float(x) if x else None, numbers[flag]) for text, x, flag in body]


@settings(max_examples=30, deadline=None)
@given(st.lists(cells, min_size=1, max_size=12))
def test_molecules_come_in_the_order_of_the_rows_from_any_kind_of_table(folder, strings):
    columns = {"a, b": ["x"] * len(strings), "smi les": strings}
    for name in ("a.csv", "a.csv.gz"):
        found = list(molecule_stream(write_csv(folder / name, columns), "smi les"))
        assert found == [text.strip() for text in strings]
    path = write_parquet(folder / "a.parquet", columns)
    assert list(molecule_stream(path, "smi les")) == strings


def test_cells_of_parquet_that_are_empty_or_numbers_are_text(folder):
    table = pa.table({"a": pa.array(["C", None, ""]), "n": pa.array([1, 2, None])})
    parquet.write_table(table, folder / "a.parquet")
    assert list(molecule_stream(folder / "a.parquet", "a")) == ["C", "", ""]
    assert list(molecule_stream(folder / "a.parquet", "n")) == ["1", "2", ""]


def test_a_table_of_parquet_is_read_in_parts(folder):
    strings = ["C" * (k % 5) for k in range(10_000)]
    path = write_parquet(folder / "a.parquet", {"smiles": strings})
    assert list(molecule_stream(path, "smiles")) == strings


@ENDINGS
@settings(max_examples=30, deadline=None)
@given(parts=st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_written_in_parts_is_read_back_whole(folder, ending, parts):
    path = folder / f"out{ending}"
    with table_writer(path) as write:
        for part in parts:
            write(typed(part))
    assert read_back(path) == [row for part in parts for row in part]
    assert not list(folder.glob("*.partial"))


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


def a_folder_beside(path):
    path.with_name(f"{path.name}.partial").mkdir()


def a_full_disk(path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this machine")
    path.with_name(f"{path.name}.partial").symlink_to("/dev/full")


def a_read_only_folder(path):
    path.parent.chmod(0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("root may write anywhere")


@ENDINGS
@pytest.mark.parametrize(
    "spoil",
    [a_folder_in_the_way, a_file_above, a_folder_beside, a_full_disk, a_read_only_folder],
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


def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UnwritableError, match="it is a folder"), table_writer(tmp_path / "out.csv"):
        pytest.fail("the work began")


@pytest.mark.parametrize("name", ["out", "out.txt", "out.csv.gz", "out.PARQUET"])
def test_an_ending_that_means_nothing_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"should end in \.csv or \.parquet"):
        table_writer(tmp_path / name)


WRONG = {
    "absent": ("no.parquet", None, FileNotFoundError, "none is there"),
    "absent csv": ("no.csv", None, FileNotFoundError, "none is there"),
    "no parquet": ("x.parquet", b"smiles\nC\n", ValueError, "should be a Parquet file"),
    "empty parquet": ("x.parquet", b"", ValueError, "should be a Parquet file"),
    "empty csv": ("x.csv", b"", ValueError, "it is empty"),
    "latin-1": ("x.csv", "smiles\nCé\n".encode("latin-1"), ValueError, "text in UTF-8"),
    "parquet named csv": ("x.csv", b"PAR1\xff\xfe\x00", ValueError, "UTF-8|comma-separated"),
    "another column": ("x.csv", b"SMILES,y\nC,1\n", ValueError, "no column 'smiles'; it has: SM"),
    "a long row": ("x.csv", b"smiles,y\nC,1\nC\n", ValueError, "line 3 has 1"),
    "no gzip": ("x.csv.gz", b"smiles\nC\n", ValueError, "should be a gzip file"),
}


@pytest.mark.parametrize(("name", "content", "kind", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_table_is_one_sentence(tmp_path, name, content, kind, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(kind, match=says) as caught:
        list(molecule_stream(path, "smiles"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_column_of_parquet_lists_the_known_ones(folder):
    path = write_parquet(folder / "a.parquet", {"SMILES": ["C"], "y": ["1"]})
    with pytest.raises(ValueError, match="no column 'smiles'; it has: SMILES, y"):
        list(molecule_stream(path, "smiles"))


@pytest.mark.parametrize("keep", [20, 200])
def test_a_file_of_parquet_that_is_cut_off_is_refused(folder, keep):
    path = write_parquet(folder / "a.parquet", {"smiles": ["C", "N"]})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="should be a Parquet file"):
        list(molecule_stream(path, "smiles"))
