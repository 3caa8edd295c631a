"""Molecules and targets in any container, with any of the ways to say missing."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.tables import read_table
from molhpft.estimator.labels import class_labels, class_name, groups_of, number_labels, smiles_of
from tests.toy import NAN

PAIRS = {
    "integers": (0, 1),
    "floats": (-1.5, 2.0),
    "booleans": (False, True),
    "words": ("ring", "ring?"),
    "numbers in words": ("1", "2"),
}
NULLABLE = {bool: "boolean", int: "Int64", float: "Float64", str: "string"}
MISSING = (None, NAN, np.nan, pd.NA, pd.NaT)


def in_containers(values):
    """The same column, None where missing, in everything that people keep columns in."""
    kind = type(next(value for value in values if value is not None))
    yield from (list(values), tuple(values), np.array(values, dtype=object))
    yield pd.Series(values, dtype=object, index=range(7, 7 + len(values)))
    yield pd.Series(values, dtype=NULLABLE[kind])
    yield pd.Series(values, dtype="category")
    yield pd.array(values, dtype=NULLABLE[kind])
    if None not in values:
        yield np.array(values)
    elif kind in (int, float):
        yield np.array(values, dtype=float)


def columns(draw, values, *, first=()):
    others = draw(st.lists(st.sampled_from(values), max_size=12))
    return draw(st.permutations([*first, *others]))


@st.composite
def labelled(draw, name):
    pair = PAIRS[name]
    return columns(draw, (*pair, None), first=pair)


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_greater_of_two_labels_is_1_in_any_container(name, data):
    values = data.draw(labelled(name))
    expected = [[NAN] if v is None else [float(v == PAIRS[name][1])] for v in values]
    for y in in_containers(values):
        found = class_labels(y, len(values))
        torch.testing.assert_close(found.targets, torch.tensor(expected), equal_nan=True)
        assert found.classes == (PAIRS[name],)
        assert (found.names, found.flat) == (("target",), True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=12))
def test_numbers_are_the_same_in_any_container(values):
    values = [*values, 1.5]
    numbers = [[NAN if v is None else v] for v in values]
    expected = torch.tensor(numbers, dtype=torch.float64)
    for y in in_containers(values):
        found = number_labels(y, len(values)).targets
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 6), st.integers(1, 4)),
    gap=st.sampled_from(MISSING),
    data=st.data(),
)
def test_columns_keep_their_order_names_and_gaps(shape, gap, data):
    n, t = shape
    cells = st.sampled_from([0, 1, gap])
    rows = [[data.draw(cells) for _ in range(t)] for _ in range(n - 2)] + [[0] * t, [1] * t]
    names = [f"a {k}, b" for k in range(t)]
    expected = torch.tensor([[NAN if v is gap else float(v) for v in row] for row in rows])
    for y in (rows, np.array(rows, dtype=object), pd.DataFrame(rows, columns=names, dtype=object)):
        for found in (class_labels(y, n), number_labels(y, n)):
            torch.testing.assert_close(found.targets.float(), expected, equal_nan=True)
            assert not found.flat
    assert found.names == tuple(names)
    assert class_labels(rows, n).names == tuple(f"target {k}" for k in range(t))


def test_a_series_gives_its_name():
    assert number_labels(pd.Series([1.0, 2.0], name="log P, exp"), 2).names == ("log P, exp",)
    assert number_labels(pd.Series([1.0, 2.0]), 2).names == ("target",)


def test_known_classes_need_not_both_occur_and_admit_no_third():
    pair = (("no", "yes"),)
    assert class_labels(["yes", None], 2, classes=pair).targets[0].item() == 1
    with pytest.raises(ValueError, match="'target' should be no or yes, got 'maybe'"):
        class_labels(["yes", "maybe"], 2, classes=pair)
    with pytest.raises(ValueError, match="there should be 1 targets, got 2"):
        class_labels([["yes", "no"]], 1, classes=pair)


WRONG = {
    "too short": (number_labels, [1.0], r"for each of 2 molecules, got \(1,\)"),
    "three axes": (number_labels, np.zeros((2, 1, 1)), r"got \(2, 1, 1\)"),
    "no columns": (class_labels, np.zeros((2, 0)), r"got \(2, 0\)"),
    "a number": (number_labels, 3.0, r"got \(\)"),
    "ragged": (number_labels, [[1.0], [1.0, 2.0]], r"row 0 is \[1.0\] \(list\)"),
    "deep": (class_labels, [[[1], 2], [[1], 2]], r"of one length each|row 0 is \[1\] \(list\)"),
    "words": (number_labels, ["1", "b"], r"should be numbers; row 1 is 'b' \(str\)"),
    "underscores": (number_labels, ["1", "2024_1"], "row 1 is '2024_1'"),
    "infinity in words": (number_labels, ["1", "inf"], "row 1 is 'inf'"),
    "a date": (number_labels, [1.0, pd.Timestamp(0)], "row 1 is Timestamp"),
    "imaginary": (number_labels, [1.0, 1j], r"row 1 is 1j \(complex\)"),
    "dictionaries": (class_labels, [{}, {}], r"row 0 is {} \(dict\)"),
    "infinite": (number_labels, [1.0, -np.inf], "finite numbers; row 1 is infinite"),
    "too large": (number_labels, [1e39, 1.0], "finite numbers; row 0 is infinite"),
    "one class": (class_labels, ["a", "a"], "two classes, got 1 class: a"),
    "none": (class_labels, [None, NAN], "two classes, got 0 classes"),
    "several types": (
        class_labels,
        [1, "a"],
        r"labels of several types, 'a' \(str\) and 1 \(int\); give numbers or words alone",
    ),
    "neither": (class_labels, [object(), object()], "a number or a word a molecule; row 0 is"),
}


@pytest.mark.parametrize(("learned", "y", "says"), WRONG.values(), ids=WRONG)
def test_targets_that_cannot_be_learned_are_one_sentence(learned, y, says):
    with pytest.raises(ValueError, match=says) as caught:
        learned(y, 2)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=6))
def test_molecules_are_the_same_strings_in_any_container(strings):
    for molecules in (
        strings,
        np.array(strings, dtype=object),
        np.array(strings, dtype=object)[:, None],
        pd.Series(strings, dtype=object, index=range(3, 3 + len(strings))),
        pd.Series(strings, dtype="string"),
        pd.DataFrame({"of any name": strings}, dtype=object),
        pd.DataFrame({"id": range(len(strings)), "smiles": strings}, dtype=object),
    ):
        assert smiles_of(molecules) == tuple(strings)
        assert all(type(text) is str for text in smiles_of(molecules))


@pytest.mark.parametrize(
    ("molecules", "says"),
    [
        (["C", 1], r"row 1 is 1 \(int\)"),
        (["C", 1.5], r"row 1 is 1.5 \(float\)"),
        (["C", ["C", "N"]], r"row 1 is \['C', 'N'\] \(list\)"),
        ([{"smiles": "C"}], r"\(dict\)"),
        (np.array([1, 2]), r"row 0 is 1 \(int\)"),
        ("CCO", r"shape \(\)"),
        ([["C", "N"]], r"shape \(1, 2\)"),
        (pd.DataFrame({"a": ["C"], "b": ["N"]}), r"a table with a column named smiles; got .*1, 2"),
    ],
)
def test_what_are_no_molecules_is_said_with_the_row(molecules, says):
    with pytest.raises(ValueError, match=says):
        smiles_of(molecules)


@pytest.mark.parametrize("gap", [None, NAN, np.float32("nan"), pd.NA, pd.NaT, "", b""])
def test_bytes_are_text_and_what_is_missing_is_an_empty_molecule(gap):
    assert smiles_of(["C", gap, b"CC", np.str_("N"), np.bytes_(b"O")]) == ("C", "", "CC", "N", "O")


def test_arrays_of_bytes_and_of_arrow_are_texts():
    assert smiles_of(np.array([b"C", b"CC"])) == ("C", "CC")
    assert smiles_of(pd.DataFrame({"y": [1, 2], "SMILES": ["C", "CC"]})) == ("C", "CC")
    assert smiles_of(pa.array(["C", None])) == ("C", "")
    assert smiles_of(pd.Series(["C", pd.NA], dtype="string")) == ("C", "")


@pytest.mark.parametrize("mark", [None, NAN, "", " ", "NA", "n/a", "-", "#N/A", "null"])
def test_a_missing_mark_of_a_file_is_a_missing_label(mark):
    for y in (["toxic", mark, "harmless", "toxic"], ["1", mark, "0", "1"]):
        found = class_labels(y, 4)
        torch.testing.assert_close(
            found.targets.flatten(), torch.tensor([1, NAN, 0, 1]), equal_nan=True
        )
    found = number_labels(["1.5", mark, " -2e3 ", True], 4).targets.flatten().float()
    torch.testing.assert_close(found, torch.tensor([1.5, NAN, -2000, 1]), equal_nan=True)


def test_words_are_read_as_in_a_file_and_what_was_spelled_otherwise_is_said():
    y = ["active", "Inactive", "active ", "ACTIVE", None, "inactive"]
    found = class_labels(y, 6)
    assert found.classes == (("active", "Inactive"),)
    expected = torch.tensor([0, 1, 0, 0, NAN, 1])
    torch.testing.assert_close(found.targets.flatten(), expected, equal_nan=True)
    assert found.notes == (
        "target: 'active ' counts as 'active' (row 2), 'ACTIVE' counts as 'active' (row 3) "
        "and 'inactive' counts as 'Inactive' (row 5).",
    )
    later = class_labels(["INACTIVE", "Active"], 2, classes=found.classes)
    assert later.targets.flatten().tolist() == [1, 0]


SPELLINGS = {
    "low": ["low", " low", "LOW ", "Low"],
    "high": ["high", "\thigh", "High", "HIGH  "],
    "9": ["9", "+9", " 9.0"],
    "10": ["10", "10 ", "+10", "1e1"],
}


@pytest.mark.parametrize("pair", [("high", "low"), ("9", "10")])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_which_class_is_1_does_not_depend_on_how_the_first_labels_are_spelled(pair, data):
    words = data.draw(st.lists(st.sampled_from(pair), min_size=4, max_size=12))
    words = [*pair, *pair, *words]
    y = [data.draw(st.sampled_from(SPELLINGS[word])) for word in words]
    assume(len(set(y)) > 2)
    for container in in_containers(y):
        targets = class_labels(container, len(y)).targets.flatten().tolist()
        assert targets == [float(word == pair[1]) for word in words]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("aB ", min_size=1, max_size=3), min_size=2, max_size=2, unique=True))
def test_labels_of_one_spelling_each_are_in_the_order_that_scores_of_scikit_learn_take(pair):
    assume(len({word.strip().lower() for word in pair} - {""}) == 2)
    assert class_labels(pair, 2).classes == (tuple(sorted(pair)),)


@pytest.mark.parametrize("read", [class_labels, number_labels])
@pytest.mark.parametrize("container", [list, np.array, pd.Series, pd.Categorical])
def test_bytes_are_no_labels_for_they_would_come_back_as_text(read, container):
    says = r"no bytes; row 0 is b'1' \(bytes.*\); decode them, by y\.astype\(str\) of an array"
    with pytest.raises(ValueError, match=says):
        read(container([b"1", b"0", b"1"]), 3)


def test_classes_are_the_values_that_were_given_spaces_included():
    assert class_labels(["toxic ", "safe", "toxic ", None], 4).classes == (("safe", "toxic "),)
    assert class_labels(["0 ", "1", "1", "0", None], 5).classes == (("0 ", "1"),)
    assert class_name("toxic ") == "toxic"


def test_a_minus_is_a_class_beside_a_plus_and_also_where_the_classes_are_known():
    found = class_labels(["+", "-", "+", "-"], 4)
    assert found.classes == (("+", "-"),)
    assert found.targets.flatten().tolist() == [0, 1, 0, 1]
    assert class_labels(["-", "-"], 2, classes=found.classes).targets.flatten().tolist() == [1, 1]


def test_one_number_in_several_spellings_is_one_class():
    assert class_labels(["1", "0", "1.0", "+1"], 4).targets.flatten().tolist() == [1, 0, 1, 1]


def test_a_censored_number_is_a_missing_label_of_a_regression_and_that_is_said():
    found = number_labels(["1.5", " >2", "<=3", 4.0], 4)
    expected = torch.tensor([1.5, NAN, NAN, 4.0])
    torch.testing.assert_close(found.targets.flatten().float(), expected, equal_nan=True)
    assert found.notes == ("target: 2 censored labels count as missing, row 1 has ' >2'.",)
    with pytest.raises(ValueError, match="should be numbers; row 0 is '>1'"):
        number_labels([">1", ">2"], 2)


def test_numbers_over_many_orders_of_magnitude_are_noted_as_those_of_a_file_are():
    note = (
        "IC50: row 3 has 0.5, row 2 has 2000: nearly all of the error is that of the greatest "
        "numbers; learn the log10 of concentrations and the like."
    )
    y = [30.0, NAN, 2e3, 0.5]
    for own in (pd.Series(y, name="IC50"), pd.Series(list(map(str, y)), name="IC50")):
        assert number_labels(own, 4).notes[-1] == note
    several = pd.DataFrame({"IC50": y, "logD": [-1.0, 2e6, 1.0, 2.0], "gap": [NAN] * 4})
    assert number_labels(several, 4).notes == (note,)
    assert number_labels([30.0, 500.0, 0.5], 3).notes == ()


def test_words_of_numpy_are_of_the_same_type_as_others():
    assert class_labels([np.str_("a"), "b"], 2).targets.flatten().tolist() == [0, 1]


def test_labels_of_one_value_in_several_types_are_one_class():
    found = class_labels([1, 1.0, True, 0, np.int8(0), np.True_], 6)
    assert found.targets.flatten().tolist() == [1, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("label", "name"),
    [(1, "1"), (1.0, "1"), (np.float32(-1), "-1"), (0.5, "0.5"), (True, "True"), ("a b", "a b")],
)
def test_a_label_is_called_as_it_is_written(label, name):
    assert class_name(label) == name


HOSTILE_CLASSES = {
    "a minus beside a plus": ["+", "-", "+ ", "-", "NA", ""],
    "words in several cases": ["active", " Active", "ACTIVE ", "inactive", "n/a", "Inactive"],
    "numbers in several spellings": ["1", "0", "1.0", "+1", "0.0", "null"],
    "a question": ["yes", "No", "YES", "no ", "-", "<NA>"],
    "words that look like units": ["3M", "5K", "3m", "5K", "", "None"],
    "truth values": ["True", "false", "TRUE", "False", "#N/A", "nan"],
}
HOSTILE_NUMBERS = {
    "a bound": ["1.5", ">2.5", "<= 3", "4.25", "NA", "-"],
    "exponents and signs": ["1e3", "+2.5", "-.5", "7.", " 3 ", "null"],
}


def in_a_file(tmp_path, cells, kind):
    rows = "".join(f'{"C" * k},"{cell}"\n' for k, cell in enumerate(cells, 1))
    (tmp_path / "mine.csv").write_text(f"smiles,y\n{rows}")
    return read_table(tmp_path / "mine.csv", target_columns=["y"], kind=kind).targets


@pytest.mark.parametrize("cells", HOSTILE_CLASSES.values(), ids=HOSTILE_CLASSES)
def test_classes_of_one_column_are_those_of_a_file_whichever_is_called_1(tmp_path, cells):
    def words(targets, classes):
        return [None if x.isnan() else class_name(classes[0][int(x)]) for x in targets.flatten()]

    table, ours = in_a_file(tmp_path, cells, "classification"), class_labels(cells, len(cells))
    read = words(table.values, table.classes)
    assert words(ours.targets, ours.classes) == read
    assert len({word for word in read if word}) == 2


@pytest.mark.parametrize("cells", HOSTILE_NUMBERS.values(), ids=HOSTILE_NUMBERS)
def test_numbers_of_one_column_are_those_of_a_file(tmp_path, cells):
    table, ours = in_a_file(tmp_path, cells, "regression"), number_labels(cells, len(cells))
    torch.testing.assert_close(ours.targets, table.values, equal_nan=True)
    assert len(set(table.values.flatten().tolist())) > 2


@pytest.mark.parametrize("read", [class_labels, number_labels])
def test_what_numpy_masks_is_a_missing_label(read):
    y = np.ma.masked_array([0, 1, 1, 0], mask=[False, False, True, False])
    assert read(y, 4).targets[:, 0].tolist() == pytest.approx([0, 1, np.nan, 0], nan_ok=True)


def test_a_decimal_is_a_number():
    assert number_labels([Decimal("1.5"), Decimal(2)], 2).targets[:, 0].tolist() == [1.5, 2]


@pytest.mark.parametrize(
    "odd", [np.datetime64("2024-01-01"), pd.Timestamp("2024-01-01"), pd.Interval(0, 1), object()]
)
def test_what_is_neither_number_nor_word_is_no_label(odd):
    with pytest.raises(ValueError, match="a target should be a number or a word a molecule; row 1"):
        class_labels(["a", odd, "a"], 3)


@pytest.mark.parametrize("container", [list, tuple, lambda cells: pd.Series(cells, dtype=object)])
def test_a_pair_of_values_names_a_group_as_one_value_does(container):
    pairs = [("a", 1), ("a", 2), ("b", 1)]
    assert groups_of(container(pairs), 3) == tuple(pairs)
    assert groups_of(container(["a", 2, 3.5]), 3) == ("a", 2, 3.5)


def test_a_list_names_no_group():
    with pytest.raises(ValueError, match=r"a group should be a name or a number; row 0 is \[1\]"):
        groups_of([[1], [1], [2]], 3)


@pytest.mark.parametrize("read", [class_labels, number_labels])
def test_words_that_count_as_missing_are_said(read):
    values = {class_labels: ["low", "high"], number_labels: ["1.5", "2.5"]}[read]
    labels = read(["None", *values, "n/a", ""], 5)
    assert labels.targets.isnan().flatten().tolist() == [True, False, False, True, True]
    assert labels.notes == ("target: 2 labels count as missing, row 0 has 'None'.",)
