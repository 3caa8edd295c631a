"""Scores of chemprop: which rows it gets, how it is scored, and what is not computed again."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

STAND_IN = """
import sys
from pathlib import Path
import pandas as pd

given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
table = pd.read_csv(given["--data-path"])
test = table[table["split"] == "test"].drop(columns="split").fillna(0.5)
out = Path(given["--output-dir"]) / "model_0"
out.mkdir(parents=True)
test["y0"] += int(given["--pytorch-seed"])
test.to_csv(out / "test_predictions.csv", index=False)
"""
"""Says the truth, and what its seed adds to that."""


@pytest.fixture
def chemprop():
    import chemprop_scores

    return chemprop_scores


@pytest.fixture
def exported():
    import export_sets

    return export_sets


@pytest.fixture
def stand_in(tmp_path, monkeypatch, chemprop):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(chemprop, "CHEMPROP", (sys.executable, str(script)))
    monkeypatch.setattr(chemprop, "version", lambda _: "2")


def data_of(exported, labels, *, classes=False, validation=(), name="a"):
    """Molecules of which the last four are scored and the first is not used."""
    labels = np.array(labels, dtype=float).reshape(len(labels), -1)
    rows, validation = np.arange(len(labels)), np.array(validation, dtype=np.int64)
    train = np.setdiff1d(rows[1:-4], validation)
    fold = exported.Fold(train, rows[-4:], validation)
    smiles = tuple("C" * (k + 1) for k in rows)
    return exported.DevelopmentSet(name, "ADMET", smiles, labels, classes, (fold,))


def test_a_table_holds_each_row_of_the_fold_under_its_split(exported):
    data = data_of(exported, range(10), validation=(2, 4))
    table = exported.fold_table(data, data.folds[0])
    assert table["split"].tolist() == ["train", "val", "train", "val", "train", *["test"] * 4]
    assert table["smiles"].tolist() == list(data.smiles[1:])
    assert table["y0"].tolist() == list(range(1, 10))


def test_the_digest_of_a_table_changes_with_its_validation_rows(exported):
    data = data_of(exported, range(10), validation=(2, 4))
    (fold,) = data.folds
    others = [replace(fold, validation=np.array(rows)) for rows in ([], [2, 3])]
    assert len({data.split_digest(some) for some in (fold, *others)}) == 3


def test_a_tenth_of_training_rows_validates_where_none_is_published(chemprop):
    table = pd.DataFrame({"split": ["train"] * 40 + ["test"] * 20})
    split = chemprop.with_validation(table, 0)["split"]
    assert split[:40].value_counts().to_dict() == {"train": 36, "val": 4}
    assert (split[40:] == "test").all()
    assert (chemprop.with_validation(table, 0)["split"] == split).all()
    assert (chemprop.with_validation(table, 1)["split"] != split).any()


def test_published_validation_rows_stay_as_they_are(chemprop):
    table = pd.DataFrame({"split": ["train"] * 40 + ["val"] + ["test"] * 20})
    assert chemprop.with_validation(table, 0) is table


@pytest.mark.parametrize("classes", [True, False])
def test_scores_are_those_of_the_set(chemprop, exported, classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 3)).astype(float)
    labels[30:, 2] = 1
    labels[::3, 0] = np.nan
    fold = exported.Fold(np.arange(20), np.arange(20, 40))
    smiles = tuple("C" * (k + 1) for k in range(40))
    data = exported.DevelopmentSet("a", "OGB", smiles, labels, classes, (fold,))
    predicted = rng.random((20, 3))
    told = pd.DataFrame(predicted, columns=["y0", "y1", "y2"]).assign(smiles=smiles[20:])
    score = chemprop.score(exported.fold_table(data, fold), told, data.metric)
    assert score == pytest.approx(data.score(fold, predicted))


def test_predictions_of_other_molecules_are_refused(chemprop, exported, monkeypatch):
    data = data_of(exported, range(10))
    table = exported.fold_table(data, data.folds[0])
    told = table[table["split"] == "test"].iloc[::-1]
    monkeypatch.setattr(chemprop, "chemprop_predictions", lambda *_: told)
    with pytest.raises(ValueError, match="in their order"):
        chemprop.predictions(table, chemprop.unreadable(table), "RMSE", 0)


@pytest.mark.usefixtures("stand_in")
def test_a_molecule_that_chemprop_cannot_read_is_scored_as_the_mean_of_training_labels(
    chemprop, exported
):
    data = data_of(exported, range(20))
    table = exported.fold_table(data, data.folds[0])
    (last_of_train, *_, refused) = table.index[(table["split"] == "test").cumsum() < 3][-3:]
    table.loc[[last_of_train, refused], "smiles"] = "C(C)(C)(C)(C)C"
    predicted = chemprop.predictions(table, chemprop.unreadable(table), "RMSE", 0)
    assert predicted.index.tolist() == table.index[table["split"] == "test"].tolist()
    wrong = (predicted["y0"] - table["y0"][predicted.index]).drop(refused)
    assert (wrong == 0).all()
    assert predicted["y0"][refused] == table["y0"][table["split"] == "train"].mean()
    assert chemprop.unreadable(table).sum() == 2


def written(exported, folder, *sets):
    folder.mkdir(exist_ok=True)
    lines = [line for data in sets for line in exported.write_tables(folder, data)]
    (folder / exported.INDEX).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_each_set_and_seed_has_a_line_and_is_computed_once(
    chemprop, exported, tmp_path, monkeypatch
):
    numbers = data_of(exported, range(20), name="numbers")
    classes = data_of(exported, [0, 1] * 10, classes=True, name="classes")
    folder, out = tmp_path / "sets", tmp_path / "scores.jsonl"
    written(exported, folder, numbers)
    chemprop.main([str(folder), "--out", str(out), "--seeds", "2"])
    first = out.read_text()
    written(exported, folder, numbers, classes)
    chemprop.main([str(folder), "--out", str(out), "--seeds", "2"])
    assert out.read_text().startswith(first)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["set"], line["seed"], line["score"]) for line in lines] == [
        ("numbers", 0, 0.0),
        ("numbers", 1, 1.0),
        ("classes", 0, 100.0),
        ("classes", 1, 100.0),
    ]
    assert lines[0]["rows"] == numbers.split_digest(numbers.folds[0])
    monkeypatch.setattr(chemprop, "CHEMPROP", ("no such command",))
    chemprop.main([str(folder), "--out", str(out), "--seeds", "2"])


def test_an_error_of_chemprop_is_told(chemprop, exported, tmp_path, monkeypatch):
    script = tmp_path / "stops.py"
    script.write_text("raise SystemExit('no such column')")
    monkeypatch.setattr(chemprop, "CHEMPROP", (sys.executable, str(script)))
    data = data_of(exported, range(20))
    table = exported.fold_table(data, data.folds[0])
    with pytest.raises(RuntimeError, match="no such column"):
        chemprop.chemprop_predictions(table, "RMSE", 0)


def test_a_folder_without_tables_is_refused(chemprop, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        chemprop.main([str(tmp_path)])
    assert "export_sets.py first" in capsys.readouterr().err
