import csv
import io
import logging
import re

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.splits import scaffold_split
from molhpft.domains.molecules.tables import csv_task, divided_task, pooled_task, read_table

POOL = ["CCO", "CCN", "c1ccccc1", "Cc1ccccc1", "C1CC1C", "O=C1CCCC1", "c1ccc2ccccc2c1", "C1CCNCC1"]
labels = st.sampled_from([0.0, 1.0, None])
numbers = st.floats(-1e6, 1e6) | st.none()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "mine.csv"


@pytest.fixture
def ten(path):
    """Ten molecules with a real and a yes/no target, a name and a split."""
    rows = [
        f"mol{k},{smiles},{k / 4},{k % 2},{('train', 'valid', 'test')[max(k - 7, 0)]}"
        for k, smiles in enumerate([*POOL, "CO", "CN"])
    ]
    return _write(path, "\n".join(["name,smiles,logp,active,fold", *rows]))


def _write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return path


def _written(path, header, rows):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return _write(path, text.getvalue())


@pytest.mark.slow
def test_a_users_tox21_is_the_task_that_ogb_makes_of_it(ogb_root, monkeypatch):
    file = ogb_root.parent / "csv" / "tox21.csv.gz"
    if not file.is_file():
        pytest.skip(f"real data absent: {file.name}")
    monkeypatch.setenv("MOLHPFT_DATA", str(ogb_root))
    ours, theirs = csv_task(path=file, target_columns=("all",)), ogb_task("ogbg-moltox21")
    assert (ours.name, len(ours.examples), ours.outputs) == ("tox21", 7831, 12)
    assert ours.target_names == theirs.target_names
    torch.testing.assert_close(ours.examples.targets, theirs.examples.targets, equal_nan=True)
    assert all(torch.equal(ours.splits[name], theirs.splits[name]) for name in theirs.splits)
    assert ours.fingerprint == theirs.fingerprint


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(POOL), numbers, numbers), min_size=1, max_size=12))
def test_what_is_written_is_read_back(path, rows):
    table = read_table(
        _written(path, ["smiles", "a", "b"], rows), target_columns=["a", "b"], kind="regression"
    )
    values = pd.DataFrame([row[1:] for row in rows], dtype="float64")
    assert table.smiles == tuple(row[0] for row in rows)
    torch.testing.assert_close(
        table.targets.values, torch.tensor(values.to_numpy()), equal_nan=True, rtol=0, atol=0
    )
    assert table.sheet.lines == tuple(range(2, len(rows) + 2))


cells = st.sampled_from([*POOL, "x", "", "0", "1", "2.5", "inf", "nan", "1e999"])
sensible = st.tuples(st.sampled_from([*POOL, "x"]), st.sampled_from(["0", "1", "", "2.5"]), cells)


@settings(max_examples=80, deadline=None)
@given(
    st.just(["smiles", "a", "b"]) | st.lists(st.sampled_from(["smiles", "a", ""]), max_size=3),
    st.lists(sensible, min_size=1, max_size=9) | st.lists(st.lists(cells, max_size=3), max_size=9),
    st.sampled_from(["auto", "classification", "regression"]),
    st.sampled_from(["scaffold", "random", "random_and_scaffold"]),
)
def test_any_table_is_a_task_or_a_value_error(path, header, rows, kind, split):
    outcome = _task_or_error(_written(path, header, rows), kind=kind, split=split)
    if isinstance(outcome, ValueError):
        assert str(path) in str(outcome) or "mine" in str(outcome)
        assert "\n" not in str(outcome)
    else:
        assert len(outcome.splits["train"])
        while not any(rows[-1]):
            rows.pop()
        dropped = 0 if len(header) == 1 else sum(row in ([], [""]) for row in rows)
        assert len(outcome.examples) == len(rows) - dropped


def _task_or_error(path, **options):
    try:
        return csv_task(path=path, **options)
    except ValueError as error:
        return error


@settings(max_examples=20, deadline=None)
@given(st.lists(labels, min_size=4, max_size=12).filter(lambda column: {0.0, 1.0} <= {*column}))
def test_labels_of_zero_one_or_nothing_are_a_classification(path, column):
    rows = [(POOL[k % len(POOL)], label) for k, label in enumerate(column)]
    task = csv_task(path=_written(path, ["smiles", "y"], rows), split="random")
    assert task.objective == Multilabel(metric="rocauc")


def test_any_other_number_makes_a_regression(ten):
    assert isinstance(csv_task(path=ten, target_columns=["logp"]).objective, Squared)
    assert csv_task(path=ten, target_columns=["active"]).objective == Multilabel()
    one = csv_task(path=ten, target_columns=["active"], kind="regression").objective
    assert isinstance(one, Squared)


def test_numbers_far_from_0_keep_what_tells_them_apart(path):
    numbers = [1e9 + k / 4 for k in range(len(POOL))]  # float32 would make them one number
    rows = list(zip(POOL, numbers, strict=True))
    task = csv_task(path=_written(path, ["smiles", "y"], rows), split="random")
    learned = task.examples.targets
    assert learned.dtype == torch.float32
    expected = torch.tensor(numbers, dtype=torch.float64)[:, None]
    torch.testing.assert_close(task.objective.values(learned), expected, rtol=0, atol=1e-5)


def test_what_was_left_out_and_which_class_is_one_is_warned_of_and_kept_with_the_molecules(
    path, caplog
):
    rows = [(f"m{k}", smiles, "toxic" if k % 2 else "harmless") for k, smiles in enumerate(POOL)]
    file = _written(path, ["name", "smiles", "outcome"], rows)
    with caplog.at_level(logging.WARNING):
        task = csv_task(path=file, split="random")
    assert task.examples.classes == (("harmless", "toxic"),)
    notes = (
        "Target: outcome, the only column that can be one.",
        "Columns left out: name (line 2 has 'm0', no number).",
        "outcome: 1 is 'toxic' (4 of 8 labels), 0 is 'harmless'.",
    )
    assert task.examples.notes == task.to("cpu").examples.notes == notes
    assert all(note in caplog.text for note in notes)


def test_other_words_for_the_same_classes_make_another_task(path):
    def task(no, yes):
        rows = [(smiles, yes if k % 2 else no) for k, smiles in enumerate(POOL)]
        return csv_task(path=_written(path, ["smiles", "y"], rows), split="random")

    assert task("no", "yes").fingerprint == task("no", "yes").fingerprint
    assert len({task(*pair).fingerprint for pair in (("no", "yes"), (0, 1), ("a", "b"))}) == 3
    assert task(0, 1).examples.classes == (("0", "1"),)


@pytest.mark.parametrize("target", ["y", None])
def test_a_parquet_table_is_the_task_of_the_same_csv(path, target):
    rows = [(smiles, k / 3) for k, smiles in enumerate(POOL)]
    theirs = csv_task(path=_written(path, ["smiles", "y"], rows), split="random")
    file = path.with_suffix(".PARQUET")
    pd.DataFrame(rows, columns=["smiles", "y"]).to_parquet(file)
    ours = csv_task(path=file, split="random", target_columns=target and (target,))
    assert (ours.name, ours.fingerprint) == (theirs.name, theirs.fingerprint)


def test_a_huge_molecule_is_one_unreadable_row_with_its_line(path, caplog):
    rows = [(smiles, k / 3) for k, smiles in enumerate([*POOL, "C" * 33_000, *POOL])]
    with caplog.at_level(logging.WARNING):
        task = csv_task(path=_written(path, ["smiles", "y"], rows), split="random")
    assert sorted(torch.cat(list(task.splits.values())).tolist()) == [*range(8), *range(9, 17)]
    assert "1 of 17 molecules cannot be read" in caplog.text
    assert "(line 10)" in caplog.text


def test_targets_come_in_the_order_asked_for_and_molecules_from_a_column_of_any_name(ten):
    file = _write(ten, ten.read_text().replace("smiles", "Drug", 1))
    table = read_table(
        file, smiles_column="Drug", target_columns=["active", "logp"], kind="regression"
    )
    assert table.targets.names == ("active", "logp")
    assert table.targets.values[3].tolist() == [1, 0.75]


def test_the_scaffold_split_is_the_default(ten):
    task = csv_task(path=ten, target_columns=["logp"])
    ours = scaffold_split(task.examples.smiles)
    assert all(torch.equal(task.splits[name], ours[name]) for name in ours)


def test_the_random_split_follows_its_seed(ten):
    options = {"path": ten, "target_columns": ["logp"], "split": "random"}
    once, again, other = (csv_task(**options, split_seed=seed) for seed in (1, 1, 2))
    assert once.fingerprint == again.fingerprint != other.fingerprint
    assert [len(once.splits[name]) for name in ("train", "valid", "test")] == [8, 1, 1]


def test_molecules_with_rare_scaffolds_may_be_a_split_of_their_own(path):
    smiles = [f"{'C' * (1 + k // 2)}{'c1ccccc1' if k % 2 else 'C1CC1'}" for k in range(40)]
    rows = [(text, k / 3) for k, text in enumerate(["C1CCCC1", *smiles, "not a molecule"])]
    task = csv_task(path=_written(path, ["smiles", "y"], rows), split="random_and_scaffold")
    ood = scaffold_split(task.examples.smiles)["test"]
    assert torch.equal(task.splits["ood"], ood)
    assert len(task.splits["train"]) == round(0.8 * (41 - len(ood)))


def test_a_column_may_name_the_splits(ten):
    task = csv_task(path=ten, split="column", split_column="fold", target_columns=["logp"])
    assert task.splits["train"].tolist() == list(range(8))
    assert (task.splits["valid"].tolist(), task.splits["test"].tolist()) == ([8], [9])


@pytest.mark.parametrize("split", ["scaffold", "random", "random_and_scaffold"])
def test_unreadable_molecules_keep_their_rows_and_enter_no_split(path, caplog, split):
    rows = [(smiles, k / 3) for k, smiles in enumerate([*POOL, "not a molecule", "", *POOL])]
    with caplog.at_level(logging.WARNING):
        task = csv_task(path=_written(path, ["smiles", "y"], rows), split=split)
    everywhere = torch.cat(list(task.splits.values())).sort().values.tolist()
    assert len(task.examples) == 18
    assert everywhere == [*range(8), *range(10, 18)]
    assert caplog.text.count("cannot be read") == 1
    assert "2 of 18 molecules" in caplog.text
    assert "'not a molecule' (line 10) and '' (line 11)." in caplog.text


def test_many_unreadable_lines_are_counted_and_the_first_ones_named(path, caplog):
    rows = [(f"{'C' * k}O", k / 2) for k in range(1, 31)] + [("?", 3.5)] * 30
    csv_task(path=_written(path, ["smiles", "y"], rows), split="random")
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert record.getMessage().endswith("'?' (line 35), '?' (line 36) and 25 more.")


def test_empty_cells_do_not_make_a_column_one_of_no_molecules(path):
    rows = [(f"{'C' * k}O", k / 2) for k in range(1, 11)]
    task = csv_task(
        path=_written(path, ["smiles", "y"], [*rows, *[("", 1.0)] * 30]), split="random"
    )
    assert sum(map(len, task.splits.values())) == 10


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("train test", "no row of valid, found: test and train; call some of its rows valid, or "),
        ("train valid", "no row of test, .* call some of its rows test, or let another split"),
        ("valid test", "no row of train, .* call what learns train"),
        ("train", "no row of valid or test, .* some of its rows valid and some test"),
    ],
)
def test_a_column_that_names_too_few_splits_says_what_would_do(path, names, says):
    rows = [(f"{'C' * k}O", k, names.split()[k % len(names.split())]) for k in range(1, 31)]
    _written(path, ["smiles", "y", "part"], rows)
    with pytest.raises(ValueError, match=says) as refused:
        csv_task(path=path, target_columns=("y",), split="column", split_column="part")
    assert ("--folds 5 in finetune" in str(refused.value)) == (names == "train test")


def test_a_column_of_molecules_is_found_in_any_case_and_that_is_said(path):
    table = read_table(_write(path, "SMILES,y\nC,1.5\nCC,2.5\n"))
    assert table.smiles == ("C", "CC")
    assert table.targets.names == ("y",)
    said = "Molecules are those of column 'SMILES': there is no 'smiles'."
    assert table.targets.notes[0] == said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SMILES,Smiles,y\nC,C,1\n", "; did you mean 'SMILES' or 'Smiles'? it has: SMILES, Smiles"),
        ("Smiles,SMILES,y\nC,C,1\n", "; did you mean 'Smiles' or 'SMILES'? it has: Smiles, SMILES"),
        ("smile,y\nC,1\n", "did you mean 'smile'? it has: smile and y; name one of these by"),
    ],
)
def test_a_column_that_is_nearly_meant_is_named(path, text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        read_table(_write(path, text))


def test_three_classes_in_words_are_told_how_to_be_columns(path):
    with pytest.raises(ValueError, match=r"kind .3 words, line 2 has 'a'.; write more than"):
        read_table(_write(path, "smiles,kind\n" + "C,a\nC,b\nC,c\n" * 3))
    names = "".join(f"C,name {k}\n" for k in "abcdefgh")
    with pytest.raises(ValueError, match=r"line 2 has 'name a', no number.$"):
        read_table(_write(path, "smiles,name\n" + names))


@pytest.mark.parametrize("calibration", [0.0, "auto"])
def test_names_that_are_no_usual_splits_are_listed_with_their_rows(path, calibration):
    names = [*["train"] * 20, *["Val"] * 5, *["test"] * 3, "tets", "tets", "late", "ood"]
    rows = [(f"{'C' * k}O", k, name) for k, name in enumerate(names, start=1)]
    _written(path, ["smiles", "y", "part"], rows)
    said = "Column 'part' names further splits, which nothing learns from: late (1 row) and tets"
    table = read_table(path, target_columns=("y",), besides={"split_column": "part"})
    divided = divided_task(table, "column", split_column="part", calibration=calibration)
    for task in (divided, pooled_task(table, split_column="part")):
        (found,) = [note for note in task.examples.notes if note.startswith(said)]
        assert found.endswith("known names are train, valid, test, calibration and ood.")
    assert not any("further" in note for note in pooled_task(table).examples.notes)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,y\nC,1\n", {}, "no column 'smiles'; it has: a and y"),
        ("smiles,y\nC,1\n", {"kind": "ranking"}, "classification or regression, got 'ranking'"),
        ("smiles,y\nx y z,1\n,0\n", {}, "'smiles' of .* none of its 2 .* line 2 has 'x y z'"),
        ("smiles,y\nC,1\nx,0\n1,0\n", {}, "only 1 of its 3 cells can be read, line 3 has 'x'; g"),
        ("a,y\nC,1\n", {}, "a and y; name one of these by --smiles-column NAME in .* embed, else"),
        ("smiles,y\nC,1\n", {"besides": {"time_column": "s"}}, "no column 's'; .* by --time NAME"),
    ],
)
def test_a_table_that_cannot_be_used_says_where_and_why(path, text, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_table(_write(path, text), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "column"}, "needs a column of splits; name it by --split-column NAME in finetu"),
        (
            {"split": "group"},
            "needs a column of groups; name it by --groups NAME in finetune, else",
        ),
        (
            {"split": "time"},
            "needs a column of times; name it by --time NAME .* task.time_column=N",
        ),
        (
            {"split_column": "fold"},
            "'fold', is read by split 'column' alone, .* is 'scaffold'; say",
        ),
        (
            {"time_column": "t", "split": "random"},
            r"\(time_column\), 't', is read by split 'time'",
        ),
        ({"split": "stratified"}, "scaffold, random, .* column, group or time, got 'stratified'"),
        ({"split_seed": 3}, "split_seed is for split random .* got split 'scaffold'"),
        ({"split": "column", "split_column": "fold", "split_seed": 0}, "got split 'column'"),
        ({"split": "column", "split_column": "name"}, "no row of train or valid or test, found"),
    ],
)
def test_options_that_contradict_each_other_are_refused(ten, options, message):
    with pytest.raises(ValueError, match=message):
        csv_task(path=ten, target_columns=["logp"], **options)


def test_a_row_without_a_split_is_named_by_its_line(path):
    rows = [("C", 1, "train"), ("N", 0, "valid"), ("O", 1, ""), ("S", 0, "test")]
    file = _written(path, ["smiles", "y", "fold"], rows)
    with pytest.raises(ValueError, match="should name its split; line 4 names none"):
        csv_task(path=file, split="column", split_column="fold")


CHAINS = ["C" * k for k in range(1, 101)]


def _column_of(path, splits):
    rows = [
        (chain, 0.5 + k % 7, split)
        for k, (chain, split) in enumerate(zip(CHAINS, splits, strict=True))
    ]
    return _written(path, ["smiles", "y", "s"], rows)


@pytest.mark.parametrize(("share", "taken"), [(0.0, 0), (0.1, 17), (0.18, 18), (0.4, 20)])
def test_calibration_takes_its_share_from_the_validation_rows_of_a_column(path, share, taken):
    file = _column_of(path, ["train"] * 50 + ["valid"] * 40 + ["test"] * 10)
    task = csv_task(path=file, split="column", split_column="s", calibration=share)
    sizes = {name: len(rows) for name, rows in task.splits.items()}
    aside = {"calibration": taken} if taken else {}
    assert sizes == {"train": 50, "valid": 40 - taken, "test": 10, **aside}


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        (["train"] * 50 + ["valid"] * 40 + ["test"] * 10, "23 validate and 17 calibrate"),
        (["train"] * 70 + ["valid"] * 10 + ["test"] * 20, "20 or more, and here they are 10"),
    ],
)
def test_where_calibration_comes_from_in_a_column_is_said(path, splits, said, caplog):
    file = _column_of(path, splits)
    task = csv_task(path=file, split="column", split_column="s", calibration=0.1)
    assert said in task.examples.notes[-1]
    assert said in caplog.text


def test_a_scaffold_split_that_cannot_calibrate_says_so_and_validates(path):
    rings = [f"C1{'C' * k}C1" for k, n in enumerate((120, 15, 15), 1) for _ in range(n)]
    file = _written(path, ["smiles", "y"], [(ring, 0.5 + k) for k, ring in enumerate(rings)])
    task = csv_task(path=file, calibration=0.1)
    assert {s: len(rows) for s, rows in task.splits.items()} == {
        "train": 120,
        "valid": 15,
        "test": 15,
    }
    assert "would leave another split empty" in task.examples.notes[-1]


def test_a_column_with_calibration_keeps_its_own_and_refuses_a_share_beside_it(path):
    file = _column_of(path, ["train"] * 40 + ["valid"] * 30 + ["cal"] * 20 + ["test"] * 10)
    options = {"path": file, "split": "column", "split_column": "s"}
    sizes = {"train": 40, "valid": 30, "test": 10, "calibration": 20}
    for calibration in (0.0, "auto"):
        splits = csv_task(**options, calibration=calibration).splits
        assert {name: len(rows) for name, rows in splits.items()} == sizes
    options_at_random = {"path": file, "target_columns": ["y"], "split": "random"}
    auto, tenth = (csv_task(**options_at_random, calibration=c).fingerprint for c in ("auto", 0.1))
    assert auto == tenth
    with pytest.raises(ValueError, match=r"beside which calibration 0\.37 would do nothing"):
        csv_task(**options, calibration=0.37)


@pytest.fixture
def series(path):
    """Thirty molecules of ten series, the later the longer."""
    rows = [f"{'C' * (k + 1)}O,{k / 2},s{k % 10},{1990 + k}" for k in range(30)]
    return _write(path, "\n".join(["smiles,size,series,year", *rows]))


def test_a_column_of_groups_or_of_times_splits_a_table_and_is_no_target(series):
    by_group = csv_task(path=series, split="group", group_column="series", target_columns=("size",))
    own = [{row % 10 for row in rows.tolist()} for rows in by_group.splits.values()]
    assert sum(map(len, own)) == 10
    by_time = csv_task(path=series, split="time", time_column="year", target_columns=("size",))
    assert by_time.rows("train").tolist() == list(range(24))
    assert by_time.rows("test").tolist() == [27, 28, 29]
    whole = read_table(series, besides={"time_column": "year"})
    assert whole.targets.names == ("size",)


def test_groups_stay_together_in_the_order_of_time(series):
    columns = {"group_column": "series", "time_column": "year"}
    task = csv_task(path=series, split="time", target_columns=("size",), **columns)
    own = [{row % 10 for row in rows.tolist()} for rows in task.splits.values()]
    assert own == [set(range(8)), {8}, {9}]
