"""Any file with a table: what it is, its own bytes say; every row keeps its place and its line."""

import bz2
import csv
import gzip
import io
import lzma
import os
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rdkit import Chem

from molhpft.domains.extras import MissingExtraError
from molhpft.domains.molecules import table_files
from molhpft.domains.molecules.table_files import (
    ROWS,
    Part,
    is_table,
    read_sheet,
    stream_parts,
    table_name,
    text_of,
)

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
TEXT = "smiles,y\nCCO,1\nCCN,0\n"
MOLECULES = ("CCO", "CCN")


def streamed(path, name):
    """Molecules of a table that is read part by part."""
    for part in stream_parts(path):
        yield from part.molecules(name)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("sheets") / "a.csv"


def _read(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return read_sheet(path)


def _write_parquet(path, **columns):
    parquet.write_table(pa.table(columns), path)
    return path


def _zipped(**files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda k: st.lists(st.lists(cells, min_size=k, max_size=k), min_size=1)
    ),
    st.sampled_from(",;\t"),
)
def test_what_a_csv_writer_writes_is_read_back(path, rows, separator):
    header = [f"c{k}" for k in range(len(rows[0]))]
    text = io.StringIO()
    rows.append(["x"] * len(header))  # blank rows at the end are none
    csv.writer(text, quoting=csv.QUOTE_ALL, delimiter=separator).writerows([header, *rows])
    sheet = _read(path, text.getvalue())
    assert list(sheet.columns) == header
    assert [*zip(*sheet.columns.values(), strict=True)] == [
        tuple(cell.strip() for cell in row) for row in rows
    ]


def _outcome(read):
    try:
        return read()
    except ValueError as error:
        return error


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40) | st.text('a",\n\r;1 ', max_size=40).map(str.encode))
def test_any_bytes_are_a_table_whole_or_streamed_or_a_sentence(path, content):
    path.write_bytes(content)
    sheet = _outcome(lambda: read_sheet(path))
    parts = _outcome(lambda: list(stream_parts(path)))
    if isinstance(sheet, ValueError):
        assert str(path) in str(sheet)
        assert str(parts) == str(sheet)
        return
    assert {len(column) for column in sheet.columns.values()} == {len(sheet.lines)}
    assert sheet.lines == sum((part.lines for part in parts), ())
    for name, column in sheet.columns.items():
        assert column == tuple(cell for part in parts for cell in part.texts(name))


PACKED = {
    "a.csv.gz": gzip.compress(TEXT.encode()),
    "named wrongly.csv": gzip.compress(TEXT.encode()),
    "A.CSV.GZ": gzip.compress(TEXT.encode()),
    "not packed.csv.gz": TEXT.encode(),
    "a.csv.bz2": bz2.compress(TEXT.encode()),
    "a.csv.xz": lzma.compress(TEXT.encode()),
    "a.zip": _zipped(**{"inner/a.csv": TEXT, "__MACOSX/._a.csv": "x"}),
    "twice.csv.gz": gzip.compress(gzip.compress(TEXT.encode())),
    "of Excel.csv": ("sep=;\r\n" + TEXT.replace(",", ";")).encode("utf-8-sig"),
    "of Excel as Unicode text.txt": TEXT.replace(",", "\t").encode("utf-16"),
    "semicolons.csv": TEXT.replace(",", ";").encode(),
    "bars.csv": TEXT.replace(",", "|").encode(),
    "marked.csv": TEXT.encode("utf-8-sig"),
    "no list.txt": TEXT.replace(",", "\t").encode(),
    "tabs.csv": TEXT.replace(",", "\t").encode(),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_table_is_read_however_it_is_packed_separated_and_called(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    assert read_sheet(tmp_path / name).columns == {"smiles": MOLECULES, "y": ("1", "0")}
    assert tuple(streamed(tmp_path / name, "smiles")) == MOLECULES


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "A.PARQUET", "a.parquet.gz"])
def test_parquet_is_read_whatever_its_name(tmp_path, name):
    path = _write_parquet(tmp_path / name, smiles=["CCO", "CCN"], y=[1, 0])
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    sheet = read_sheet(path)
    assert sheet.columns == {"smiles": MOLECULES, "y": ("1", "0")}
    assert (sheet.unit, sheet.lines) == ("row", (1, 2))


def test_parquet_without_its_extra_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    path = _write_parquet(tmp_path / "a.parquet", smiles=["CCO"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "molhpft\[parquet\]"$'):
        read_sheet(path)
    (tmp_path / "a.csv").write_text(TEXT)
    assert tuple(streamed(tmp_path / "a.csv", "smiles")) == MOLECULES


@pytest.mark.parametrize("make", [lambda: TEXT.encode(), lambda: gzip.compress(TEXT.encode())])
def test_a_pipe_is_read_as_a_file_is(tmp_path, make):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(make()))
    writer.start()
    assert read_sheet(pipe).columns == {"smiles": MOLECULES, "y": ("1", "0")}
    writer.join()


def test_a_separator_is_chosen_by_the_rows_and_not_by_the_text_of_a_name(path):
    assert list(_read(path, "smiles,IC50; nM; 24 h; pH\nC,1\n").columns)[1].startswith("IC50")
    assert list(_read(path, 'smiles;"a, b, c"\nC;1\n').columns) == ["smiles", "a, b, c"]
    extended = _read(path, "smiles,y\nCCO |$_R1;;$|,1\n").columns
    assert extended == {"smiles": ("CCO |$_R1;;$|",), "y": ("1",)}


words = st.text("ab1.,; ", max_size=8).map("a{}1".format)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(words, min_size=1, max_size=3, unique=True),
    st.sampled_from(["smiles", "SMILES", " Smiles "]),
    st.sampled_from("|\t"),
    st.data(),
)
def test_marks_inside_names_and_cells_cut_no_column_of_molecules(path, others, name, mark, data):
    header = data.draw(st.permutations([name, *others]))
    row = ["C" if one == name else data.draw(words) for one in header]
    columns = _read(path, f"{mark.join(header)}\n{mark.join(row)}\n").columns
    assert [*columns] == [one.strip() for one in header]
    assert [cells for (cells,) in columns.values()] == row


def test_a_separator_is_known_by_the_column_of_molecules_and_not_by_as_many_commas(path):
    text = "smiles|IC50, nM\nCCO|1,5\n"
    assert _read(path, text).columns == {"smiles": ("CCO",), "IC50, nM": ("1,5",)}
    text = "IC50, nM;Smiles;\n1,5;CCO\n"
    assert _read(path, text).columns == {"IC50, nM": ("1,5",), "Smiles": ("CCO",)}


@pytest.mark.parametrize("name", ["PAR1", "PARE", "BZh9", "PK", "ARROW1", "%PDF"])
def test_a_column_may_be_called_as_a_binary_file_begins(path, name):
    assert list(_read(path, f"{name},smiles\n1,C\n").columns) == [name, "smiles"]


def test_a_row_has_the_line_where_an_editor_shows_it(path):
    assert _read(path, 'a,b\n1,2\n\n"3\n3",4\r\n5,6').lines == (2, 4, 6)
    assert _read(path, 'sep=,\na,b\n1,2\n\n"3\n3",4\r\n5,6').lines == (3, 5, 7)


def test_a_blank_line_is_a_row_where_there_is_one_column_and_none_where_there_are_two(path):
    one = _read(path, 'smiles\nCCO\n\nC\n""\n  \nN\n')
    assert one.columns["smiles"] == ("CCO", "", "C", "", "", "N")
    assert one.lines == (2, 3, 4, 5, 6, 7)
    assert _read(path, "smiles,y\nCCO,1\n\n  \nC,0\n").lines == (2, 5)


def test_a_line_of_separators_alone_is_a_row_however_many_they_are(path):
    for empty in (",", ",,", ",,,,", " , ", '""'):
        sheet = _read(path, f"smiles,y,z\nC,1,2\n{empty}\n\nN,0,3\n")
        expected = (2, 5) if empty == '""' else (2, 3, 5)
        assert sheet.lines == expected, empty
        assert sheet.columns["smiles"] == (("C", "N") if len(expected) == 2 else ("C", "", "N"))


@given(
    st.sampled_from(["smiles", "smiles,y", "smiles,y,z"]),
    st.integers(1, 3),
    st.lists(st.sampled_from(["", "  ", '""', ",", ",,", ",,,,", " , "]), max_size=8),
)
def test_a_table_ends_with_its_last_row_that_is_not_blank(path, header, rows, blank):
    row = "C" + ",1" * header.count(",") + "\n"
    end = "".join(f"{line}\n" for line in blank)
    assert _read(path, f"{header}\n{row * rows}{end}").lines == tuple(range(2, rows + 2))
    inner = _read(path, f"{header}\n{row}{end}{row}")
    assert inner.lines[-1] == len(blank) + 3
    assert {line + 3 for line, text in enumerate(blank) if "," in text} <= {*inner.lines}


def test_a_list_ends_with_its_last_molecule(tmp_path):
    (tmp_path / "mine.smi").write_text("CCO\n\nC\n\n \n")
    assert read_sheet(tmp_path / "mine.smi").lines == (1, 2, 3)


def test_separators_at_the_end_of_lines_make_no_columns(path):
    for text in ("smiles,y,,\nC,1,,\nN,0,,\n", "smiles,y\nC,1,\nN,0,,,\n", "smiles,y,\nC,1\nN,0\n"):
        assert _read(path, text).columns == {"smiles": ("C", "N"), "y": ("1", "0")}


def test_a_column_without_a_name_is_called_by_its_place(path):
    sheet = _read(path, ",smiles,,y\n0,C,x,1\n")
    assert list(sheet.columns) == ["column 1", "smiles", "column 3", "y"]
    assert sheet.nameless == {"column 1", "column 3"}


def test_a_column_of_long_notes_that_nobody_asked_for_is_no_reason_to_refuse_a_table(path):
    sheet = _read(path, f"smiles,notes,y\nC,{'x' * 10_000_000},1\n")
    assert sheet.columns["y"] == ("1",)


def test_a_quote_that_is_not_closed_does_not_take_a_long_file_into_memory(path, monkeypatch):
    monkeypatch.setattr(table_files, "_LONGEST_CELL", 1_000)
    path.write_text('smiles,y\nC,"1\n' + "C,1\n" * 10_000)
    limit = csv.field_size_limit()
    with pytest.raises(ValueError, match=r"begins in line 2 is not: field larger .* not closed"):
        read_sheet(path)
    csv.field_size_limit(limit)


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
    ],
)
def test_a_file_that_is_no_table_says_why(path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        _read(path, text)
    assert str(path) in str(caught.value)


FOREIGN = {
    "a.xlsx": (_zipped(**{"xl/workbook.xml": "", "[Content_Types].xml": ""}), "an Excel workbook"),
    "a.csv": (_zipped(**{"xl/workbook.xml": ""}), "an Excel workbook; save its sheet as CSV"),
    "a.ods": (_zipped(**{"content.xml": "", "mimetype": ""}), "an OpenDocument spreadsheet"),
    "a.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
    "a.feather": (b"ARROW1\0\0", r"an Arrow \(Feather\) file"),
    "a.csv.zst": (b"\x28\xb5\x2f\xfd\x04", "packed by zstandard"),
    "a.bin": (b"abc\0\1\xff", "a binary file of no known kind"),
    "two.zip": (_zipped(a=TEXT, b=TEXT), "zip archive of one file; it holds a and b"),
    "half.parquet": (b"PAR1\0\0\0", "should be a Parquet file, whole"),
    "half.gz": (gzip.compress(TEXT.encode())[:20], "should be a packed file, whole"),
    "half.bz2": (bz2.compress(TEXT.encode())[:20], "should be a packed file, whole"),
    "bad.bz2": (b"BZh91AY&SY" + b"x" * 40, "should be a packed file, whole"),
    "half.xz": (lzma.compress(TEXT.encode())[:30], "should be a packed file, whole"),
    "half.zip": (_zipped(a=TEXT)[:40], "should be a packed file, whole"),
    "latin.csv": ("smiles,näme\nC,1\n".encode("latin-1"), "text in UTF-8: .*; save it as UTF-8"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_table_is_called_what_it_is(tmp_path, name):
    content, says = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        read_sheet(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    if name != "latin.csv":
        assert "UTF-8" not in str(caught.value)


def test_an_absent_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.csv should be a table.*no file is there"):
        read_sheet(tmp_path / "b.csv")
    with pytest.raises(FileNotFoundError, match=r"b\.csv should be a table.*no file is there"):
        next(streamed(tmp_path / "b.csv", "smiles"))
    with pytest.raises(ValueError, match="it is a folder"):
        read_sheet(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_an_unknown_column_lists_the_known_ones(tmp_path, name):
    path = tmp_path / name
    if name == "a.csv":
        path.write_text("smiles,y\nC,1\n")
    else:
        _write_parquet(path, smiles=["C"], y=[1])
    for read in (
        lambda: read_sheet(path).column("structure"),
        lambda: [*streamed(path, "structure")],
    ):
        with pytest.raises(ValueError, match="no column 'structure'; it has: smiles and y"):
            read()


TYPES = {
    "text": (pa.array(["CCO", None]), ["CCO", ""]),
    "large text": (pa.array(["CCO", None], pa.large_string()), ["CCO", ""]),
    "categories": (pa.array(["CCO", None]).dictionary_encode(), ["CCO", ""]),
    "bytes": (pa.array([b"CCO", None]), ["CCO", ""]),
    "bytes of one length": (pa.array([b"CCO", b"CCN"], pa.binary(3)), ["CCO", "CCN"]),
    "bytes that are no UTF-8": (pa.array([b"CC\xff", b"C"]), ["CC\ufffd", "C"]),
    "nothing": (pa.array([None, None]), ["", ""]),
    "an extension": (
        pa.ExtensionArray.from_storage(pa.json_(), pa.array(["CCO", "C"])),
        ["CCO", "C"],
    ),
}


@pytest.mark.parametrize("kind", TYPES)
def test_molecules_of_a_parquet_file_are_text_or_bytes_and_null_is_an_empty_cell(tmp_path, kind):
    values, texts = TYPES[kind]
    path = _write_parquet(tmp_path / "a.parquet", smiles=values)
    assert list(read_sheet(path).molecules("smiles")) == texts
    assert list(streamed(path, "smiles")) == texts


@pytest.mark.parametrize(
    "values",
    [[1, 2], [0.5, None], [True, False], [["C"], ["N"]], [{"a": "C"}, {"a": "N"}]],
    ids=str,
)
def test_molecules_of_a_parquet_file_of_any_other_type_are_refused_by_it(tmp_path, values):
    path = _write_parquet(tmp_path / "a.parquet", smiles=values)
    says = f"'smiles' .* should hold SMILES as text; it is of type {str(pa.array(values).type)[:4]}"
    for read in (lambda: read_sheet(path).molecules("smiles"), lambda: [*streamed(path, "smiles")]):
        with pytest.raises(ValueError, match=says):
            read()


def test_times_in_a_zone_that_is_not_known_have_no_text_and_are_in_nobodys_way(tmp_path):
    times = pa.array([0, None], pa.timestamp("s", "Mars/Olympus"))
    path = _write_parquet(tmp_path / "a.parquet", smiles=["C", "N"], at=times)
    sheet = read_sheet(path)
    assert sheet.column("smiles") == ("C", "N")
    for read in (lambda: sheet.column("at"), lambda: next(stream_parts(path)).texts("at")):
        with pytest.raises(ValueError, match=r"'at' of .*a\.parquet should have a text"):
            read()


def test_numbers_of_a_parquet_file_are_read_as_they_are_and_nan_is_an_empty_cell(tmp_path):
    path = _write_parquet(
        tmp_path / "a.parquet",
        whole=[1, None],
        real=[0.1, float("nan")],
        single=pa.array([0.1, 1e-7], pa.float32()),
        flag=[True, None],
        parts=[["a"], []],
    )
    sheet = read_sheet(path)
    assert sheet.columns["whole"] == ("1", "")
    assert sheet.columns["real"] == ("0.1", "")
    assert [np.float32(cell) for cell in sheet.columns["single"]] == [
        np.float32(0.1),
        np.float32(1e-7),
    ]
    assert sheet.columns["flag"] == ("true", "")
    assert "parts" not in sheet.columns
    with pytest.raises(ValueError, match=r"'parts' .* text or a number .* of type list<"):
        sheet.column("parts")


def test_an_extension_over_a_struct_is_refused_only_where_it_is_asked_for(tmp_path):
    file = tmp_path / "a.parquet"
    odd = pd.arrays.IntervalArray.from_breaks([0, 1, 2])
    pd.DataFrame({"smiles": MOLECULES, "odd": odd}).to_parquet(file)
    sheet = read_sheet(file)
    assert sheet.column("smiles") == MOLECULES
    assert sheet.names == ["smiles", "odd"]
    with pytest.raises(ValueError, match=r"column 'odd' of .* should have a text or a number"):
        sheet.column("odd")
    (part,) = stream_parts(file)
    with pytest.raises(ValueError, match=r"column 'odd' of .*; it is of type"):
        part.texts("odd")


def test_cells_that_arrow_cannot_write_as_text_are_refused_by_their_type(tmp_path):
    odd = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    with pytest.raises(ValueError, match=r"column 'odd' .* it is of type month_day_nano_interval"):
        Part(tmp_path / "a.parquet", (1,), {"odd": odd}).texts("odd")


def test_texts_of_a_part_have_no_spaces_around_whatever_the_file(tmp_path):
    spaced = {"smiles": [" CCO", "CCN \t"], "y": ["1", " 2 "]}
    pd.DataFrame(spaced).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame(spaced).to_csv(tmp_path / "a.csv", index=False)
    for name in ("a.parquet", "a.csv"):
        (part,) = stream_parts(tmp_path / name)
        assert (part.molecules("smiles"), part.texts("y")) == (list(MOLECULES), ["1", "2"])


def test_a_stream_keeps_the_types_of_the_columns_and_all_parts_but_the_last_are_of_one_size(
    tmp_path,
):
    n = 2 * ROWS + 3
    columns = {"smiles": ["C"] * n, "n": [*range(n)], "parts": [["a"]] * n}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=100)
    parts = list(stream_parts(tmp_path / "a.parquet"))
    assert [len(part.lines) for part in parts] == [ROWS, ROWS, 3]
    joined = [value for part in parts for value in part.cells["parts"].to_pylist()]
    assert joined == columns["parts"]
    assert sum((part.lines for part in parts), ()) == tuple(range(1, n + 1))


def test_a_stream_gives_the_parts_before_a_wrong_row(path):
    path.write_text("a,b\n" + "1,x\n" * ROWS + "3\n")
    stream = stream_parts(path)
    assert next(stream).texts("a") == ["1"] * ROWS
    with pytest.raises(ValueError, match=f"line {ROWS + 2} has 1"):
        next(stream)


@pytest.mark.parametrize("name", ["mine.smi", "MINE.SMI", "mine.txt", "mine.smi.gz", "mine.smiles"])
def test_a_list_has_a_molecule_a_line_with_or_without_a_name_and_blank_lines_too(tmp_path, name):
    text = "\ufeffCCO\tethanol\r\n\n  C  \nCC a b\nCCC |$a;b;c$| d\nno molecule\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    sheet = read_sheet(tmp_path / name)
    assert sheet.columns["smiles"] == ("CCO", "", "C", "CC", "CCC |$a;b;c$|", "no")
    assert sheet.columns["name"] == ("ethanol", "", "", "a b", "d", "molecule")
    assert sheet.lines == (1, 2, 3, 4, 5, 6)


def test_names_of_tables_are_told_in_any_case_and_lose_their_endings(tmp_path):
    names = {"a.csv": "a", "A.CSV.GZ": "A", "b.c.parquet": "b.c", "x.smi.bz2": "x", "y.SDF": "y"}
    assert all(map(is_table, names))
    assert not any(map(is_table, ("", "ogbg-moltox21", "x.pth", "a.yaml", str(tmp_path))))
    (tmp_path / "mine").write_text(TEXT)
    assert is_table(str(tmp_path / "mine"))
    assert {name: table_name(Path("/data") / name) for name in names} == names
    assert table_name(Path("/dev/stdin")) == "stdin"


@pytest.mark.parametrize("value", [None, float("nan"), np.float32("nan"), np.nan, pd.NA, pd.NaT])
def test_a_missing_molecule_is_an_empty_text(value):
    assert text_of(value) == ""


@pytest.mark.parametrize("value", [1, 0.5, True, ["C"], {"a": "C"}, np.int64(3)], ids=str)
def test_what_is_neither_text_nor_bytes_nor_missing_is_no_molecule(value):
    assert text_of(value) is None


def test_bytes_are_text_in_utf_8():
    assert (text_of(b"CCO"), text_of(np.str_("C")), text_of(b"C\xff")) == ("CCO", "C", "C\ufffd")


def block(smiles):
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    mol.UpdatePropertyCache(strict=False)
    return Chem.MolToMolBlock(mol, kekulize=False)


def record(structure, *, title="", **items):
    body = title + block(structure)
    return body + "".join(f">  <{k}>  (1)\n{v}\n\n" for k, v in items.items()) + "$$$$\n"


SEVERAL = (
    record("CCO", title="ethanol", y="1")
    + record("CC(=O)[O-]", y="0", note="two\nlines")
    + "broken\n\n\n  no counts\n$$$$\n"
    + record("C[C@H](N)O", y="")
)


@pytest.mark.parametrize("name", ["a.sdf", "A.SDF", "a.sd", "a.txt", "a.sdf.gz"])
def test_a_record_is_a_row_with_its_structure_title_and_items(tmp_path, name):
    content = SEVERAL.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    sheet = read_sheet(tmp_path / name)
    assert list(sheet.columns) == ["smiles", "name", "y", "note"]
    assert sheet.columns["y"] == ("1", "0", "", "")
    assert sheet.columns["note"][1] == "two\nlines"
    assert sheet.columns["name"] == ("ethanol", "", "broken", "")
    assert sheet.columns["smiles"][:3] == ("CCO", "CC(=O)[O-]", "")
    starts = [1 + SEVERAL[:k].count("\n") for k in (0, SEVERAL.index("$$$$") + 5)]
    assert list(sheet.lines[:2]) == starts


def test_stereochemistry_and_odd_valences_are_kept(tmp_path):
    right = Chem.MolFromSmiles("C[C@H](N)O")
    (tmp_path / "a.sdf").write_text(Chem.MolToMolBlock(right) + "$$$$\n" + record("C(C)(C)(C)(C)C"))
    first, second = read_sheet(tmp_path / "a.sdf").columns["smiles"]
    assert first == Chem.MolToSmiles(right)
    assert Chem.MolFromSmiles(second) is None
    assert Chem.MolFromSmiles(second, sanitize=False).GetNumAtoms() == 6


def test_a_last_record_without_its_end_counts_and_an_item_may_be_called_smiles(tmp_path):
    text = record("CC", smiles="given") + record("CCC").removesuffix("$$$$\n")
    (tmp_path / "a.sdf").write_text(text)
    (part,) = stream_parts(tmp_path / "a.sdf")
    assert part.texts("smiles") == ["CC", "CCC"]
    assert part.texts("smiles (item)") == ["given", ""]
