"""What members say of molecules that they did not train on is a file, row for row of the table."""

import csv
from math import nan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.estimator import HPFTClassifier, HPFTRegressor
from molhpft.estimator.finetune import finetune_table
from molhpft.estimator.held_out import HeldOutPredictions
from molhpft.estimator.held_out_file import write_held_out
from molhpft.estimator.settings import Inference
from tests.estimator.builders import BRIEF, CHANGES, RING, SIZE, SMILES, random_model

QUICK = Inference(members="fingerprints")
# with a tau that is given nothing is then chosen by the labels of what is held out
LAST = (*CHANGES, "finetune.keep=last", "finetune.epochs=4", "precision=32")


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number(cell):
    return float(cell) if cell else nan


def made(tmp_path, lines, **options):
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(lines) + "\n")
    options = {"inference": QUICK, "changes": CHANGES, **options}
    columns = options.pop("columns", {})
    done = finetune_table({"path": str(table), **columns}, tmp_path / "model", **options)
    return done, rows_of(done.folder / "held_out.csv")


def test_every_row_of_the_table_has_a_row_in_its_order_with_its_fold_and_prediction(tmp_path):
    smiles = [*SMILES[:5], "not a molecule", *SMILES[5:]]
    sizes = [*SIZE[:5], 1.5, *SIZE[5:9], "", *SIZE[10:]]
    lines = ["smiles,size", *(f"{s},{y}" for s, y in zip(smiles, sizes, strict=True))]
    done, rows = made(tmp_path, lines, folds=4)
    assert [row["smiles"] for row in rows] == smiles
    assert [int(row["line"]) for row in rows] == list(range(2, 63))
    labels = [number(row["size label"]) for row in rows]
    np.testing.assert_array_equal(labels, [nan if y == "" else y for y in sizes])
    assert {row["fold"] for row in rows} == {"1", "2", "3", "4", ""}
    assert any("calibrated on 59 molecules" in line for line in done.model.about["coverage"])
    (unread,) = [row for row in rows if not row["fold"]]
    assert unread["smiles"] == "not a molecule"
    assert unread["size"] == unread["size low"] == unread["size high"] == ""
    # the printed score is that of the file
    labels, values = (
        np.array([number(row[name]) for row in rows if row["fold"]])
        for name in ("size label", "size")
    )
    rmse = np.sqrt(np.nanmean(np.square(labels - values)))
    assert done.model.about["scores"]["valid"]["rmse"] == pytest.approx(rmse, rel=1e-4)
    inside = [
        number(row["size low"]) <= number(row["size label"]) <= number(row["size high"])
        for row in rows
        if row["size low"] and row["size label"]
    ]
    assert np.mean(inside) >= 0.9


@pytest.mark.parametrize("how", [{"folds": 3}, {"columns": {"split": "random"}}])
def test_labels_are_those_of_the_table_however_wide_their_range_is(tmp_path, how):
    concentrations = [0.35, 0.123456789012, 4.5e6, *np.linspace(1, 9e6, len(SMILES) - 3)]
    lines = [
        "smiles,nM",
        *(f"{s},{y!r}" for s, y in zip(SMILES, map(float, concentrations), strict=True)),
    ]
    _, rows = made(tmp_path, lines, **how)
    assert [float(row["nM label"]) for row in rows] == concentrations


def test_whole_numbers_stay_without_decimals_unless_one_of_the_column_has_some(tmp_path):
    model = random_model(targets=("count", "size"), objective=Squared())
    labels = torch.tensor([[3, 0.5], [nan, 2], [-1e12, 1]], dtype=torch.float64)
    molecules = Molecules(load_or_pack(["C", "CC", "CCC"]), labels.half(), ("C", "CC", "CCC"))
    predictions = HeldOutPredictions(
        torch.tensor([0]), ("1",), torch.zeros(1, 2), torch.zeros(1, 2, 2), ()
    )
    write_held_out(predictions, molecules, labels, model.spec, tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")
    assert [row["count label"] for row in rows] == ["3", "", "-1000000000000"]
    assert [row["size label"] for row in rows] == ["0.5", "2.0", "1.0"]


@pytest.mark.parametrize("members", ["fingerprints", "networks"])
def test_no_row_is_predicted_by_members_that_trained_on_it(tmp_path, members):
    """Labels of a fold are changed: predictions of the fold stay, those of others move."""
    lines = [f"{s},{y},{k % 3}" for k, (s, y) in enumerate(zip(SMILES, SIZE, strict=True))]
    columns = {"target_columns": ("size",), "group_column": "fold"}
    first, second = tmp_path / "one", tmp_path / "two"
    for folder, factor in ((first, 1), (second, -1)):
        folder.mkdir()
        rows = [
            f"{s},{float(y) * (factor if g == '1' else 1)},{g}"
            for s, y, g in (line.split(",") for line in lines)
        ]
        options = {"inference": Inference(members=members), "changes": LAST, "tau": 2, "folds": 3}
        made(folder, ["smiles,size,fold", *rows], columns=columns, **options)
    ours, theirs = (rows_of(folder / "model" / "held_out.csv") for folder in (first, second))
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if k % 3 == 1:
            # Adam makes whole steps of a rounding where the gradient is 0
            rounding = {"fingerprints": 1e-3, "networks": 0.1}[members]
            assert number(a["size"]) == pytest.approx(number(b["size"]), abs=rounding)
        else:
            assert number(a["size"]) != pytest.approx(number(b["size"]), abs=0.1)


def test_a_target_with_the_name_of_another_column_has_a_name_of_its_own(tmp_path):
    lines = ["smiles,fold", *(f"{s},{y}" for s, y in zip(SMILES, SIZE, strict=True))]
    made(tmp_path, lines, columns={"target_columns": ("fold",)}, folds=3)
    header = (tmp_path / "model" / "held_out.csv").read_text().splitlines()[0].split(",")
    assert header[:5] == ["line", "smiles", "fold", "fold label", "molhpft fold"]
    assert len(set(header)) == len(header)


def test_rows_that_only_trained_are_empty_and_splits_stand_by_their_name(tmp_path):
    words = ["yes" if label else "no" for label in RING]
    parts = ["test" if k % 6 == 0 else "valid" if k % 6 == 1 else "train" for k in range(60)]
    lines = ["smiles,ring,part", *map(",".join, zip(SMILES, words, parts, strict=True))]
    columns = {"split": "column", "split_column": "part"}
    done, rows = made(tmp_path, lines, columns=columns)
    assert [row["fold"] or "train" for row in rows] == [
        part if part != "valid" or row["fold"] == "valid" else "calibration"
        for part, row in zip(parts, rows, strict=True)
    ]
    assert [row["ring label"] for row in rows] == words
    for row in rows:
        assert (row["ring p(yes)"] == "") == (not row["fold"])
        assert row["ring set"] in ("", "no", "yes", "no or yes")
    tested = [k for k, part in enumerate(parts) if part == "test"]
    p = done.model.predict([SMILES[k] for k in tested]).values[:, 0]
    found = torch.tensor([number(rows[k]["ring p(yes)"]) for k in tested])
    torch.testing.assert_close(found.double(), p, rtol=1e-4, atol=1e-6)


def test_a_split_that_is_called_by_a_number_is_no_fold(tmp_path):
    parts = ["1" if k % 6 == 0 else "2.0" if k % 6 == 1 else "train" for k in range(60)]
    lines = [
        "smiles,size,part",
        *(f"{s},{y},{p}" for s, y, p in zip(SMILES, SIZE, parts, strict=True)),
    ]
    columns = {"target_columns": ("size",), "split": "column", "split_column": "part"}
    _, rows = made(tmp_path, lines, columns=columns, folds=2)
    found = {(part, row["fold"]) for part, row in zip(parts, rows, strict=True)}
    assert found == {("1", "split 1"), ("2.0", "split 2.0"), ("train", "1"), ("train", "2")}


def test_the_summary_and_the_card_say_where_the_file_is(tmp_path):
    lines = ["smiles,size", *(f"{s},{y}" for s, y in zip(SMILES, SIZE, strict=True))]
    done, _ = made(tmp_path, lines)
    assert done.model.about["held_out"] == "held_out.csv"
    assert "The folder in which it was made has held_out.csv" in (
        (done.folder / "README.md").read_text()
    )


@settings(max_examples=20, deadline=None)
@given(
    data=st.lists(st.tuples(st.integers(0, 59), st.floats(-1e6, 1e6)), unique_by=lambda x: x[0]),
    n=st.integers(0, 60),
)
def test_predictions_of_some_rows_find_their_places_among_all(data, n):
    rows = torch.tensor([row for row, _ in data], dtype=torch.long)
    values = torch.tensor([value for _, value in data], dtype=torch.float64).reshape(-1, 1)
    parts = tuple(f"part {row}" for row, _ in data)
    whole = HeldOutPredictions(rows, parts, values, torch.stack([values, values], 2)).of_all(n)
    given_ = {row: value for row, value in data if row < n}
    for row in range(n):
        assert whole.parts[row] == (f"part {row}" if row in given_ else "")
        if row in given_:
            assert whole.values[row, 0] == given_[row]
        else:
            assert whole.values[row].isnan().all()
            assert whole.sets[row].isnan().all()


def test_several_targets_stand_side_by_side(tmp_path):
    model = random_model(targets=("a", "b"), classes=(("0", "1"), ("no", "yes")))
    labels = torch.tensor([[0.0, 1.0], [nan, 0.0], [1.0, nan]], dtype=torch.float64)
    molecules = Molecules(load_or_pack(["C", "CC", "CCC"]), labels.half(), ("C", "CC", "CCC"))
    predictions = HeldOutPredictions(
        torch.tensor([2, 0]),
        ("1", "test"),
        torch.tensor([[0.25, 0.5], [0.75, 0.125]], dtype=torch.float64),
        torch.tensor([[[True, True], [False, True]], [[False, False], [True, False]]]),
    )
    write_held_out(predictions, molecules, labels, model.spec, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines() == [
        "line,smiles,fold,a label,a,a set,b label,b p(yes),b set",
        "0,C,test,0,0.75,,yes,0.125,no",
        "1,CC,,,,,no,,",
        "2,CCC,1,1,0.25,0 or 1,,0.5,yes",
    ]


@pytest.mark.parametrize(
    ("kind", "y", "objective"),
    [(HPFTClassifier, RING, Multilabel), (HPFTRegressor, SIZE, Squared)],
)
def test_an_estimator_has_what_members_say_of_molecules_new_to_them(kind, y, objective):
    given_ = {"encoder": BRIEF["encoder"], "members": "fingerprints", "folds": 3}
    fitted = kind(**given_).fit(SMILES, y)
    assert fitted.out_of_fold_.shape == (60,)
    assert np.isfinite(fitted.out_of_fold_).all()
    several = kind(**given_).fit(SMILES, np.stack([y, y[::-1]], 1))
    assert several.out_of_fold_.shape == (60, 2)
    by_time = kind(**given_).fit(SMILES, y, times=range(60))
    assert np.isnan(by_time.out_of_fold_).tolist() == [k < 30 for k in range(60)]
