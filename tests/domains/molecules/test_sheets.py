import csv
import gzip
import io
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.sheets import read_sheet, stream_column

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("sheets") / "a.csv"


def _read(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return read_sheet(path)


def _sheet_or_error(path):
    try:
        return read_sheet(path)
    except ValueError as error:
        return error


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(st.lists(cells, min_size=k, max_size=k), min_size=1)
    )
)
def test_what_a_csv_writer_writes_is_read_back(path, rows):
    header = [f"c{k}" for k in range(len(rows[0]))]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    sheet = _read(path, text.getvalue())
    assert list(sheet.columns) == header
    assert [*zip(*sheet.columns.values(), strict=True)] == [
        tuple(cell.strip() for cell in row) for row in rows
    ]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.text('a",\n\r1 ', max_size=40).map(str.encode))
def test_any_bytes_are_a_sheet_or_a_value_error(path, content):
    path.write_bytes(content)
    sheet = _sheet_or_error(path)
    if isinstance(sheet, ValueError):
        assert str(path) in str(sheet)
    else:
        assert {len(column) for column in sheet.columns.values()} == {len(sheet.lines)}


def test_a_compressed_file_reads_as_a_plain_one(path, tmp_path):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"smiles,y\nCCO,1\n"))
    assert read_sheet(packed).columns == _read(path, "smiles,y\nCCO,1\n").columns


def test_a_row_has_the_line_where_an_editor_shows_it(path):
    sheet = _read(path, 'a,b\n1,2\n\n"3\n3",4\r\n5,6')
    assert sheet.lines == (2, 4, 6)


def test_a_byte_order_mark_is_no_part_of_a_name(path):
    assert list(_read(path, "\ufeffsmiles,y\nC,1\n").columns) == ["smiles", "y"]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA", "N/A", "null", "None"])
def test_a_missing_cell_is_nan(path, cell):
    sheet = _read(path, f"a,b\n{cell},x\n1,x\n")
    assert math.isnan(sheet.numbers("a")[0])
    assert sheet.has_numbers("a")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=8))
def test_numbers_are_read_exactly(path, values):
    sheet = _read(path, "a,b\n" + "".join(f"{value!r},x\n" for value in values))
    assert sheet.numbers("a") == values


@pytest.mark.parametrize("column", ["x\ny", "1\nx", "\n"])
def test_a_column_with_text_or_nothing_is_no_column_of_numbers(path, column):
    sheet = _read(path, "a,b\n" + "".join(f"{cell},\n" for cell in column.split("\n")))
    assert not sheet.has_numbers("a")


def test_a_cell_that_is_no_number_is_named_by_line_and_value(path):
    with pytest.raises(ValueError, match=r"column 'a' .*; line 4 of .* has '1\.2x'"):
        _read(path, "a,b\n1,x\n\n1.2x,x\n").numbers("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("a,b\n", "it has none"),
        ("a,b,a\n1,2,3\n", "repeated: a"),
        ("a,b\n1,2\n3\n", "line 3 has 1"),
        ("a,b\n1,2,3\n", "line 2 has 3"),
        ('a,b\n1,2\n3,"4\n', "begins in line 3 is not: unexpected end of data"),
        (f"a,b\n1,2\n3,{'C' * 10_000_000}\n", "begins in line 3 is not: field larger"),
    ],
)
def test_a_file_that_is_no_table_says_why(path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        _read(path, text)
    assert str(path) in str(caught.value)


def test_text_in_another_encoding_is_refused(path):
    path.write_bytes("smiles,näme\nC,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="should be text in UTF-8"):
        read_sheet(path)


@pytest.mark.parametrize("keep", [30, 5])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path, keep):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"smiles,y\nCCO,1\nCCN,0\n")[:keep])
    with pytest.raises(ValueError, match="should be a gzip file, whole"):
        read_sheet(packed)


def test_a_plain_file_named_gz_is_refused(tmp_path):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(b"smiles,y\nCCO,1\n")
    with pytest.raises(ValueError, match="should be a gzip file, whole"):
        read_sheet(packed)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.csv should be a file"):
        read_sheet(tmp_path / "b.csv")


def test_an_unknown_column_lists_the_known_ones(path):
    with pytest.raises(ValueError, match="no column 'SMILES'; it has: smiles, y"):
        _read(path, "smiles,y\nC,1\n").column("SMILES")


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda k: st.lists(st.lists(cells, min_size=k, max_size=k), min_size=1, max_size=9)
    ),
    st.data(),
)
def test_a_streamed_column_is_that_of_the_sheet(path, rows, data):
    header = [f"c{k}" for k in range(len(rows[0]))]
    name = data.draw(st.sampled_from(header))
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    assert tuple(_read(path, text.getvalue()).column(name)) == tuple(stream_column(path, name))


def _outcome(read):
    try:
        return tuple(read())
    except ValueError as error:
        return str(error)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | st.text('a",\n\r1 ', max_size=40).map(str.encode))
def test_a_stream_of_any_bytes_has_the_cells_or_the_error_of_the_sheet(path, content):
    path.write_bytes(content)
    whole = _outcome(lambda: read_sheet(path).column("a"))
    streamed = _outcome(lambda: stream_column(path, "a"))
    if isinstance(whole, tuple):
        assert streamed == whole
    elif "it has none" in whole:
        assert streamed == () or "has no column" in streamed
    else:
        assert isinstance(streamed, str)  # of several faults, another may come first


def test_a_stream_gives_the_rows_before_a_wrong_one(path):
    path.write_text("a,b\n1,x\n2,x\n3\n")
    stream = stream_column(path, "a")
    assert [next(stream), next(stream)] == ["1", "2"]
    with pytest.raises(ValueError, match="line 4 has 1"):
        next(stream)


def test_a_stream_of_a_compressed_or_an_absent_file_is_as_its_sheet(tmp_path):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"smiles,y\nCCO,1\n\nC,0\n"))
    assert list(stream_column(packed, "smiles")) == ["CCO", "C"]
    with pytest.raises(FileNotFoundError, match=r"b\.csv should be a file"):
        next(stream_column(tmp_path / "b.csv", "smiles"))
