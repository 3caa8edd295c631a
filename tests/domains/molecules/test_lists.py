import gzip
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.lists import is_table, read_list, warn_of_unreadable


def write(path, text):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        file.write(text)
    return path


@pytest.mark.parametrize("name", ["mine.smi", "mine.txt", "mine.smi.gz"])
def test_a_list_has_a_molecule_a_line_with_or_without_a_name(tmp_path, name):
    found = read_list(write(tmp_path / name, "\ufeffCCO\tethanol\r\n\n  C  \nCC a b\n"))
    assert found.smiles == ("CCO", "C", "CC")
    assert found.lines == (1, 3, 4)
    assert found.name == "mine"


@pytest.mark.parametrize("name", ["mine.csv", "mine.csv.gz"])
def test_a_table_has_them_in_a_column(tmp_path, name):
    path = write(tmp_path / name, "id,mol,y\n1,CCO,3\n\n2,C,\n")
    found = read_list(path, smiles_column="mol")
    assert (found.smiles, found.lines, found.name) == (("CCO", "C"), (2, 4), "mine")
    with pytest.raises(ValueError, match="no column 'smiles'; it has: id, mol, y"):
        read_list(path)


_TOKEN = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(_TOKEN, st.sampled_from(["", " name", "\t1 2"])), min_size=1))
def test_any_list_comes_back_as_it_was_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("list") / "x.smi"
    found = read_list(write(path, "\n".join(token + rest for token, rest in rows)))
    assert list(found.smiles) == [token for token, _ in rows]
    assert list(found.lines) == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.smi", b"\n \n", "one SMILES a line; it is empty"),
        ("x.smi", b"CC\n\xff\xfe\n", "text in UTF-8"),
        ("x.smi.gz", b"CC\n", "gzipped list"),
        ("x.sdf", b"CC\n", r"by its ending: \.smi, .*\.csv\.gz"),
        ("x.csv", b"smiles\n", "rows below"),
    ],
)
def test_another_file_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_list(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.smi should be a file"):
        read_list(tmp_path / "none.smi")


def test_a_list_has_no_columns_to_choose_from(tmp_path):
    path = write(tmp_path / "x.smi", "CC\n")
    with pytest.raises(ValueError, match="smiles_column is for tables, got 'mol'"):
        read_list(path, smiles_column="mol")
    assert not is_table(path)
    assert is_table(tmp_path / "x.csv.gz")


def test_unreadable_lines_are_one_warning_and_no_others_are(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_unreadable(tmp_path, [2, 5, 9], torch.tensor([True, True, True]))
        assert not caplog.records
        warn_of_unreadable(tmp_path, [2, 5, 9], torch.tensor([False, True, False]))
    (record,) = caplog.records
    assert "2 of 3 molecules" in record.message
    assert "lines: 2, 9" in record.message
