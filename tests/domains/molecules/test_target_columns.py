"""Which columns are targets is asked where it is not plain, and every decision is said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.splits import SPELLINGS
from molhpft.domains.molecules.table_files import read_sheet
from molhpft.domains.molecules.target_columns import (
    MISSING,
    is_censored,
    is_missing,
    is_numeric,
    number,
    oddity,
    ordered_words,
    read_targets,
)

REAL = ("0.5", "-1.25", "3.5", "0.5", "2.25", "7")
YES_NO = ("0", "1", "1", "0", "", "1")
WORDS = ("active", "inactive", "inactive", "active", "active", "inactive")
SMILES = ("C", "CC", "CCC", "CCO", "CCN", "CO")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("targets") / "mine.csv"


def targets(path, wanted=None, kind="auto", **columns):
    rows = zip(SMILES, *columns.values(), strict=True)
    lines = [("smiles", *columns), *rows]
    path.write_text("\n".join(",".join(f'"{cell}"' for cell in line) for line in lines))
    return read_targets(read_sheet(path), wanted, kind, besides={"smiles"})


NEVER = {
    "id": ("5", "3", "9", "1", "2", "8"),
    "mol_id": ("5", "3", "9", "1", "2", "8"),
    "PUBCHEM_CID": ("5", "3", "9", "1", "2", "8"),
    "CompoundID": ("5", "3", "9", "1", "2", "8"),
    "__index_level_0__": ("5", "3", "9", "1", "2", "8"),
    "fold": ("train", "test", "Train", "train", "test", "valid"),
    "Unnamed: 0": ("0", "1", "2", "3", "4", "5"),
    "": ("5", "3", "9", "1", "2", "8"),
    "anything": ("10", "11", "12", "20", "21", "22"),
    "sample": ("2024_1", "2024_2", "2024_3", "2024_4", "2024_5", "2024_6"),
    "measured on": ("2024-01-05",) * 3 + ("2024-02-05",) * 3,
    "name": ("a", "b", "c", "d", "e", "f"),
    "nothing": ("", "NA", "", "", "-", ""),
    "always": ("3",) * 6,
    "one word": ("x",) * 6,
}


@pytest.mark.parametrize("name", NEVER)
def test_a_column_that_nobody_would_predict_is_left_out_and_said_with_its_cell(path, name):
    found = targets(path, **{name: NEVER[name], "active": YES_NO})
    assert (found.names, found.kind) == (("active",), "classification")
    assert found.notes[0] == "Target: active, the only column that can be one."
    assert found.notes[1].startswith(f"Columns left out: {name or 'column 2'} (")
    if name != "nothing":
        assert f"line 2 has {NEVER[name][0]!r}" in found.notes[1]


@pytest.mark.parametrize("name", SPELLINGS)
def test_whatever_a_split_column_may_say_a_column_of_it_is_no_target(path, name):
    folds = (name.upper(), "train", "train", name, name, "train")
    assert targets(path, fold=folds, active=YES_NO).names == ("active",)


@pytest.mark.parametrize(
    "others",
    [
        {"y": YES_NO},
        {"logS": ("0.5", "-1.25", ">3.5", "0.5", "2.25", "7")},
        {"logS": ("0.5", "-1,25", "3.5", "0.5", "2.25", "7")},
        {"purity": ("98%", "97%", "99%", "91%", "94%", "90%")},
        {"outcome": WORDS},
        {"flag": ("True", "False", "False", "True", "True", "True")},
    ],
    ids=str,
)
def test_with_more_than_one_candidate_the_user_is_asked_and_none_is_taken(path, others):
    with pytest.raises(ValueError, match=r"say which columns of .* by --target") as caught:
        targets(path, weight=REAL, **others)
    (name,) = others
    assert "there are 2 that can be: weight (numbers)" in str(caught.value)
    assert f"{name} (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_candidates_are_taken_where_that_is_asked_for(path):
    columns = {"id": NEVER["id"], "a": YES_NO, "b": WORDS}
    assert targets(path, ("a",), **columns).notes == ("Columns not asked for: id and b.",)
    found = targets(path, ("all",), **columns)
    assert found.names == ("a", "b")
    assert found.classes == (("0", "1"), ("inactive", "active"))
    assert targets(path, ("all",), all=YES_NO, b=WORDS).names == ("all",)


PAIRS = {
    "words": (WORDS, ("inactive", "active"), [1, 0, 0, 1, 1, 0]),
    "booleans": (
        ("True", "FALSE", "false", "TRUE", "true", "False"),
        ("FALSE", "True"),
        [1, 0, 0, 1, 1, 0],
    ),
    "plus and minus": (("+", "-", "-", "+", "+", "-"), ("-", "+"), [1, 0, 0, 1, 1, 0]),
    "minus one and one": (("-1", "1", "1", "-1", "-1", "1"), ("-1", "1"), [0, 1, 1, 0, 0, 1]),
    "one and two": (("1", "2", "2.0", "1", "1", "2"), ("1", "2"), [0, 1, 1, 0, 0, 1]),
    "dates": (
        ("20230101", "20230102", "20230102", "20230101", "20230101", "20230102"),
        ("20230101", "20230102"),
        [0, 1, 1, 0, 0, 1],
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_two_values_are_classes_and_which_is_one_is_said(path, kind):
    cells, pair, values = PAIRS[kind]
    found = targets(path, y=cells)
    assert (found.kind, found.classes) == ("classification", (pair,))
    assert found.values[:, 0].tolist() == values
    assert f"y: 1 is {pair[1]!r} (3 of 6 labels), 0 is {pair[0]!r}." in found.notes


def test_two_names_of_classes_that_look_like_quantities_are_words_and_that_is_said(path):
    found = targets(path, strain=("3M", "5K", "5K", "3M", "", "5K"))
    assert found.kind == "classification"
    assert found.classes == (("3M", "5K"),)
    assert found.notes[-1] == "strain: '3M' and '5K' are two words, no quantities."
    with pytest.raises(ValueError, match="'3M', a number with its unit"):
        targets(path, strain=("3M", "5K", "5K", "7", "", "5K"))


def test_a_censored_label_is_none_of_the_labels_that_are_counted(path):
    found = targets(path, ("y",), y=("1", "2", ">2", "2", "", "1"))
    assert found.notes[0] == "y: 1 is '2' (2 of 4 labels), 0 is '1'."
    assert targets(path, ("y",), y=("1", "2", ">2", "", "", "")).kind == "regression"


@pytest.mark.parametrize("name", ["NO", "nr", "Row"])
def test_a_column_called_no_is_an_index_only_where_it_numbers_the_rows(path, name):
    assert targets(path, **{name: ("0.5", "1.25", "3", "8", "2", "9")}).names == (name,)
    assert targets(path, **{name: ("5", "3", "5", "1", "2", "8")}).names == (name,)
    numbered = {name: ("5", "3", "9", "1", "2", "8"), "y": REAL}
    assert targets(path, **numbered).names == ("y",)


@pytest.mark.parametrize("values", ["-1 0 1 0 1 0", "-1 0 0 -1 0 0", "0 1 9 0 1 9", "0 1 2 0 1 1"])
def test_a_third_number_beside_zero_and_one_is_asked_about(path, values):
    cells = values.split()
    with pytest.raises(ValueError, match=r"leave such cells empty .* say --kind regression in f"):
        targets(path, y=cells)
    found = targets(path, kind="regression", y=cells)
    assert found.values[:, 0].tolist() == [float(cell) for cell in cells]


def test_numbers_of_many_values_and_fractions_of_two_are_a_regression(path):
    assert targets(path, y=REAL).kind == "regression"
    assert targets(path, y=("0.5", "1.5") * 3).kind == "regression"
    alone = targets(path, y=("5", "", "7", "", "", ""))
    assert (alone.kind, alone.classes) == ("regression", ())


def test_targets_of_two_kinds_are_asked_about(path):
    for wanted in (("a", "b"), ("all",)):
        with pytest.raises(ValueError, match=r"two kinds, classes \(a\) and numbers \(b\)"):
            targets(path, wanted, a=YES_NO, b=REAL)
    found = targets(path, ("a", "b"), "regression", a=YES_NO, b=REAL)
    assert found.kind == "regression"
    assert found.values[:, 0].nan_to_num(9).tolist() == [0, 1, 1, 0, 9, 1]


def test_censored_labels_of_a_column_that_was_named_count_as_missing_and_that_is_said(path):
    cells = ("0.5", ">1.5", "3.5", "<0.5", "2.25", "7")
    found = targets(path, ("y",), y=cells)
    assert found.values[:, 0].isnan().tolist() == [False, True, False, True, False, False]
    assert "y: 2 censored labels count as missing, line 3 has '>1.5'." in found.notes


@settings(deadline=None)
@given(st.sampled_from(["", "NA", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "None", "-"]))
def test_a_missing_mark_is_a_missing_label_and_one_that_is_written_is_said(path, mark):
    found = targets(path, y=("0.5", "1.5", mark, "0.25", mark, "7"))
    assert found.values[:, 0].isnan().tolist() == [False, False, True, False, True, False]
    said = [note for note in found.notes if "missing" in note]
    assert said == ([f"y: 2 labels count as missing, line 4 has {mark!r}."] if mark else [])


WRONG = {
    "three words": (("y",), "auto", ("a", "b", "c") * 2, "3 words, line 4 has 'c'"),
    "three numbers": (
        *(("y",), "classification", ("0", "1", "2") * 2),
        "3 numbers, line 4 has '2'; write more than two classes as a column of 0 and 1 for each",
    ),
    "dates": (("y",), "auto", NEVER["measured on"], "line 2 has '2024-01-05', a date"),
    "one word": (("y",), "auto", ("a",) * 6, "1 word, line 2 has 'a'; name another column by --t"),
    "as many words": (("y",), "auto", NEVER["name"], "6 words, line 4 has 'c'; name another col"),
    "one number": (
        *(("y",), "classification", ("5",) * 6),
        "1 number, line 2 has '5'; name another column by --target",
    ),
    "words for numbers": (("y",), "regression", WORDS, "numbers; line 2 has 'active', no number"),
    "numbers for classes": (("y",), "classification", REAL, "two classes, .* has 5 numbers"),
    "too large": (("y",), "auto", ("1e39", *REAL[1:]), "numbers up to 3e38; line 2 has '1e39'"),
    "infinite": (("y",), "auto", ("inf", *REAL[1:]), "line 2 has 'inf', infinity"),
    "unknown": (
        ("z",),
        "auto",
        REAL,
        "no column 'z'; it has: smiles and y; name one of these by --target NAME in finetune, e",
    ),
    "twice": (("y", "y"), "auto", REAL, "each named once; got y, y"),
    "none": ((), "auto", REAL, "got none of the columns: smiles and y"),
    "names": (
        None,
        "auto",
        NEVER["name"],
        r"it has|none of its columns is one: y \(line 2 has 'a'",
    ),
    "censored": (
        None,
        "auto",
        (">5", *REAL[1:]),
        "name the column by --target .* count as missing",
    ),
}


@pytest.mark.parametrize(("wanted", "kind", "cells", "says"), WRONG.values(), ids=WRONG)
def test_cells_that_are_no_labels_are_named_in_one_sentence(path, wanted, kind, cells, says):
    with pytest.raises(ValueError, match=says) as caught:
        targets(path, wanted, kind, y=cells)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "cells", "are_classes"),
    [
        ("colour", ("red", "red", "green", "green", "blue", ""), True),
        ("colour", ("red", "red", "red", "red", "green", "blue"), False),
        ("fold", ("train", "train", "valid", "valid", "test", "test"), False),
        ("mol_id", ("a", "a", "b", "b", "c", "c"), False),
        ("measured on", NEVER["measured on"], False),
    ],
)
def test_classes_in_words_have_a_remedy_and_what_is_no_label_has_none(
    path, name, cells, are_classes
):
    with pytest.raises(ValueError, match="should have a column of labels") as caught:
        targets(path, **{name: cells})
    assert str(caught.value).endswith("or as numbers") == are_classes


def test_many_columns_are_counted_and_not_all_listed(path):
    columns = {f"c{k}": REAL for k in range(1_000)}
    with pytest.raises(ValueError, match=r"1,000 that can be: c0 .* and 980 more$"):
        targets(path, **columns)


ODD = {
    "a percent sign": "45%|4.5 %",
    "a censored value": ">1.5|< 3|<=0.1|≥10|~4",
    "a decimal comma or thousands separator": "1,5|-0,244|1,234.5|1 234|1'234|1,234,567",
    "a minus sign other than -": "\u22120.5|\u20133",
    "infinity": "inf|-inf|Infinity",
    "a number with its unit": "5 nM|1.2mg/mL|3 µM|310 K",
    "a date": "2024-01-05|5.1.2024|01/05/24|2024-01-05 10:00",
    "an underscore": "2024_1|2024_0001|1_000.5",
    "": "high|CPD-0001|50-00-0|5HT2A|1ABC|1e|0x1F|+|.|1.2.3|1 -2|\u0661",
}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_for_a_number_is_read_exactly(value):
    assert number(repr(value)) == value


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("-1", -1), ("+2.5", 2.5), (".5", 0.5), ("5.", 5), ("1e-3", 0.001), ("1.5E+2", 150)],
)
def test_numbers_of_spreadsheets_are_read(cell, value):
    assert number(cell) == value
    assert is_numeric(cell)


@pytest.mark.parametrize(
    ("what", "cells"), ODD.items(), ids=lambda x: x if isinstance(x, str) else ""
)
def test_anything_else_is_no_number_and_is_called_what_it_is(what, cells):
    for cell in cells.split("|"):
        assert number(cell) is None, cell
        assert oddity(cell) == what, cell
        assert is_numeric(cell) == (what not in ("", "a date", "an underscore")), cell
        assert is_censored(cell) == (what == "a censored value"), cell


@pytest.mark.parametrize("mark", [*MISSING, *map(str.lower, MISSING), *map(str.upper, MISSING)])
def test_marks_of_missing_labels_are_known_in_any_case_and_no_others(mark):
    assert is_missing(mark)
    assert not is_missing(f"{mark}x")
    assert not is_missing("0")


def test_numbers_over_many_orders_of_magnitude_are_better_learned_as_logarithms(path):
    said = "y: line 4 has '0.5', line 3 has '2e3': nearly all of the error is that"
    (note,) = [
        n for n in targets(path, y=["7", "2e3", "0.5", "7", "", "9.5"]).notes if "log10" in n
    ]
    assert note.startswith(said)
    for others in (["2e3", "0"], ["2e3", "-0.5"], ["500.5", "0.501"]):
        assert not [
            n for n in targets(path, y=["7", *others, "", "7", "9.5"]).notes if "log10" in n
        ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("True", "False"), ("False", "True")),
        (("no", "Yes"), ("no", "Yes")),
        (("active", "inactive"), ("inactive", "active")),
        (("toxic", "harmless"), ("harmless", "toxic")),
        (("toxic", "non-toxic"), ("non-toxic", "toxic")),
        (("blue", "red"), ("blue", "red")),
        (("Low", "high"), ("high", "Low")),
    ],
)
def test_of_two_words_the_affirmative_is_one_and_else_the_later(words, expected):
    assert ordered_words(*words) == ordered_words(*reversed(words)) == expected
