"""From a table to a model to answers, by the commands that a user types."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pyarrow import parquet
from typer.testing import CliRunner

from molhpft.cli.app import app
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator import MoleculeEncoder
from molhpft.estimator.model import Model
from molhpft.run import run
from tests.estimator.builders import CHANGES, SMILES, random_model, write_table
from tests.integration.commands import one_sentence

BRIEF = [word for change in CHANGES for word in ("--set", change)]
TAUS = ("--tau", "0", "--tau", "2")
FILES = ("README.md", "config.json", "held_out.csv", "model.safetensors")
ASKED = [*SMILES[:9], "no molecule", "NC(C)C(=O)" * 400, "", "CC(=O)[O-].[Na+]"]


def finetune_words(table, out, *more, split="random"):
    kinds = ("--members", "networks")
    words = ["finetune", table, "--out", out, "--split", split, *kinds, *TAUS, *BRIEF, *more]
    return list(map(str, words))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("data") / "rings.csv")


@pytest.fixture(scope="module")
def model(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "rings"
    done = CliRunner().invoke(app, finetune_words(table, folder), catch_exceptions=False)
    assert done.exit_code == 0
    return folder


@pytest.fixture
def asked(tmp_path):
    path = tmp_path / "asked.csv"
    path.write_text("id,smiles\n" + "".join(f"{k},{s}\n" for k, s in enumerate(ASKED)))
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_finetune_says_what_it_made_and_where(molhpft, table, tmp_path):
    status, out, _ = molhpft(*finetune_words(table, tmp_path / "a b"))
    assert status == 0
    for words in (
        "classification",
        "38",
        "calibrated on 10",
        "ROC-AUC",
        "coverage",
        "members",
        "gcn, none (random)",
    ):
        assert words in out
    assert f"Model: {tmp_path / 'a b'}\n" in out
    _, found, _ = molhpft(*finetune_words(table, tmp_path / "a b", "--json"))
    about = json.loads(found, parse_constant=lambda constant: pytest.fail(constant))
    assert about["folder"] == str(tmp_path / "a b")
    assert about["scores"].keys() == {"valid", "test", "calibration"}
    assert {member["tau"] for member in about["members"]} <= {0, 2, None}


def test_predict_answers_row_by_row_as_the_model_does(molhpft, model, asked, tmp_path):
    status, out, _ = molhpft("predict", model, asked, "--out", tmp_path / "out.csv")
    assert status == 0
    assert f"Wrote {tmp_path / 'out.csv'}: 11 ok, 2 unreadable." in out
    rows, expected = rows_of(tmp_path / "out.csv"), Model.from_pretrained(model).predict(ASKED)
    assert [row["smiles"] for row in rows] == ASKED
    found = [float(row["ring"] or "nan") for row in rows]
    np.testing.assert_allclose(found, expected.values[:, 0], rtol=1e-5)
    assert [row["status"] == "ok" for row in rows] == expected.readable.tolist()


def test_a_column_without_any_molecule_is_asked_about(molhpft, model, tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("smiles,structure\nmug,CCO\npot,CCN\n")
    status, out, _ = molhpft("predict", model, path, "--out", tmp_path / "out.csv")
    assert status == 0
    assert "0 ok, 2 unreadable" in out
    assert "No row holds a molecule in 'smiles'; another column? (--smiles-column)" in out
    asked = ("predict", model, path, "--out", tmp_path / "right.csv", "--smiles-column")
    _, out, _ = molhpft(*asked, "structure")
    assert "2 ok" in out
    assert "another column" not in out


def test_embed_writes_the_features_of_all_members(molhpft, model, asked, tmp_path):
    status, out, _ = molhpft("embed", model, asked, "--out", tmp_path / "z.parquet")
    assert status == 0
    assert "11 ok, 2 unreadable" in out
    found = parquet.read_table(tmp_path / "z.parquet").to_pydict()
    width = Model.from_pretrained(model).width
    assert list(found) == ["id", "smiles", "status", *(f"z{k}" for k in range(width))]
    assert [cell is None for cell in found["z0"]] == [text in ("no molecule", "") for text in ASKED]


def test_embed_takes_an_encoder_in_place_of_a_model(molhpft, model, asked, tmp_path):
    status, out, _ = molhpft("embed", asked, "--encoder", model, "--out", tmp_path / "z.csv")
    assert status == 0
    assert f"Wrote {tmp_path / 'z.csv'}: 11 ok, 2 unreadable." in out
    rows, z = rows_of(tmp_path / "z.csv"), MoleculeEncoder(model).fit_transform(ASKED)
    assert [row["smiles"] for row in rows] == ASKED
    found = [[float(row[f"z{k}"] or "nan") for k in range(z.shape[1])] for row in rows]
    np.testing.assert_allclose(found, z, rtol=1e-5)
    assert f"z{z.shape[1]}" not in rows[0]


def test_embed_knows_a_shipped_encoder_by_its_name(molhpft, asked, tmp_path):
    words = ("embed", asked, "--encoder", DEFAULT_ENCODER, "--out", tmp_path / "z.parquet")
    assert molhpft(*words)[0] == 0
    found = parquet.read_table(tmp_path / "z.parquet").to_pandas().filter(regex=r"^z\d+$")
    expected = MoleculeEncoder().fit_transform(ASKED)
    np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "got"),
    [
        (("MODEL", "TABLE", "--encoder", "gcn_x"), "got MODEL, TABLE and --encoder gcn_x"),
        (("TABLE",), "got TABLE"),
        ((), "got no table"),
        (("--encoder", "gcn_x"), "got --encoder gcn_x"),
    ],
)
def test_embed_takes_either_a_model_or_an_encoder(molhpft, tmp_path, words, got):
    line = one_sentence(*molhpft("embed", *words, "--out", tmp_path / "z.csv"))
    says = "embed takes a model and a table, or a table alone beside --encoder"
    assert line == f"error: {says}; {got}"


def test_embed_writes_over_no_weight_file(molhpft, model, asked, tmp_path):
    copy = tmp_path / "w.csv"
    copy.write_bytes((model / "model.safetensors").read_bytes())
    line = one_sentence(*molhpft("embed", asked, "--encoder", copy, "--out", copy))
    assert "would be written over" in line


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_explain_draws_contributions_that_add_up(molhpft, model, tmp_path, ending):
    out = tmp_path / "new" / f"why{ending}"
    status, said, _ = molhpft("explain", model, "C1CCC1N", "--out", out)
    assert status == 0
    assert f"Wrote {out}: orange atoms raise ring, blue ones lower it." in said
    assert out.stat().st_size > 500
    _, said, _ = molhpft("explain", model, "C1CCC1N", "--out", out, "--json")
    found = json.loads(said)
    assert len(found["atoms"]) == 5
    missed = found["logit"] - found["baseline"] - sum(found["atoms"])
    assert abs(missed) == pytest.approx(abs(found["gap"]), abs=1e-5)


def test_the_same_command_again_trains_nothing_and_says_so(molhpft, model, table, monkeypatch):
    monkeypatch.setattr(run, "finetune", lambda *_, **__: pytest.fail("trained"))
    before = files_of(model)
    status, out, _ = molhpft(*finetune_words(table, model))
    assert status == 0
    assert f"{model} holds this very model already; nothing was trained." in out
    assert files_of(model) == before


@pytest.mark.parametrize(
    "more",
    [
        ("--seed", 1),
        ("--members", "fingerprints"),
        ("--folds", 3),
        ("--target-coverage", 0.5),
        ("--calibration", "none"),
    ],
    ids=lambda more: more[0],
)
def test_other_settings_into_the_same_folder_are_refused(molhpft, model, table, more):
    before = files_of(model)
    line = one_sentence(*molhpft(*finetune_words(table, model, *more)))
    assert f"{model} holds a model of other data or settings; choose another folder (--out)" in line
    assert files_of(model) == before


def training_molecules(molhpft, table, out, *more):
    words = ["finetune", table, "--out", out, "--tau", 0, *BRIEF]
    status, _, error = molhpft(*words, *more)
    assert status == 0, error
    return Model.from_pretrained(out).training_smiles


@pytest.mark.slow
def test_a_random_split_is_chosen_and_drawn_by_options_or_by_keys(molhpft, table, tmp_path):
    ways = (
        ("--split", "random", "--split-seed", 3),
        ("--set", "task.split=random", "--set", "task.split_seed=3"),
        ("--split", "random", "--set", "task.split_seed=3"),
        ("--split", "random"),
    )
    first, second, third, other = (
        training_molecules(molhpft, table, tmp_path / str(k), *way) for k, way in enumerate(ways)
    )
    assert first == second == third != other


@pytest.mark.slow
def test_two_finetunings_into_one_folder_at_once_both_end_with_its_model(model, table, tmp_path):
    out = tmp_path / "rings"
    command = [sys.executable, "-m", "molhpft.cli", *finetune_words(table, out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    pipes["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the model that it is held against
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    (second,) = [text for text in said if "nothing was trained" in text]
    (first,) = [text for text in said if text != second]
    assert first.splitlines()[-1] == second.splitlines()[-1] == f"Model: {out}"
    assert files_of(out) == files_of(model)
    assert [path.name for path in tmp_path.iterdir()] == ["rings"]


def test_what_is_odd_about_a_table_is_said_and_kept(molhpft, tmp_path, caplog):
    path, out = tmp_path / "odd.csv", tmp_path / "model"
    random_model().save_pretrained(tmp_path / "encoder")
    kept = [
        (smiles, k % 2, ("train", "valid", "test")[k // 2 % 3]) for k, smiles in enumerate(SMILES)
    ]
    odd = [
        ("no molecule", 1, "train"),
        ("CC(=O)[O-].[Na+]", 0, "train"),
        (SMILES[0], 1, "train"),
        (SMILES[0], 1, "valid"),
    ]
    rows = ["smiles,ring,fold", *(f"{s},{label},{fold}" for s, label, fold in [*odd, *kept])]
    path.write_text("\n".join(rows) + "\n")
    more = ("--split-column", "fold", "--encoder", tmp_path / "encoder", "--members", "networks")
    words = ["finetune", path, "--out", out, "--split", "column", *TAUS, *BRIEF[2:], *more]
    status, said, _ = molhpft(*words)
    assert status == 0
    for text in (" ".join(said.split()), " ".join((out / "README.md").read_text().split())):
        lost = "1 of 64 molecules cannot be read and was left out: 'no molecule' (line 2)."
        assert text.count("cannot be read") == text.count(lost) == 1
        assert "1 of 64 molecules is a salt or mixture (line " in text
        assert "more than once" in text
        assert ": 1, with different labels: 1 (lines 4, 5 and 6);" in text
        assert "Also among the training molecules: 1 of valid." in text
        assert "Whether the encoder was pretrained on these molecules is not known" in text
    assert len(json.loads((out / "config.json").read_text())["about"]["notes"]) == 6
    assert not caplog.messages  # what was said is not said again
    _, again, _ = molhpft(*words)
    assert "Also among the training molecules: 1 of valid." in " ".join(again.split())


def test_names_of_columns_and_folders_may_be_odd(molhpft, tmp_path):
    path, out = tmp_path / "odd [red]names.csv", tmp_path / "my [b]model, 1"
    names = ["smi, les", "a, b", 'say "x"', "[red]c"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows((s, k % 2, 1 - k % 2, k // 3 % 2) for k, s in enumerate(SMILES))
    more = ("--smiles-column", "smi, les", "--target", "all")
    status, said, _ = molhpft(*finetune_words(path, out, *more))
    assert status == 0
    assert 'a, b, say "x" and [red]c' in said
    assert f"Model: {out}\n" in said
    again = molhpft(*finetune_words(path, out, *more))
    assert f"{out} holds this very model already" in again[1]
    options = ("--out", tmp_path / "out, 1.csv", "--smiles-column", "smi, les")
    status, _, error = molhpft("predict", out, path, *options)
    assert (status, error) == (0, "")
    (first, *_) = rows_of(tmp_path / "out, 1.csv")
    assert [name for name in names if name in first] == names
    status, said, _ = molhpft(
        "explain", out, "CCO", "--target", "[red]c", "--out", tmp_path / "e.svg"
    )
    assert (status, said.startswith("[red]c: logit ")) == (0, True)


def test_a_regression_with_missing_numbers_is_made_into_a_model(molhpft, tmp_path):
    sizes = [len(s) * 10.0 if k % 7 else "" for k, s in enumerate(SMILES)]
    path = write_table(tmp_path / "sizes.csv", target="size", values=sizes)
    status, said, _ = molhpft(*finetune_words(path, tmp_path / "model"))
    assert status == 0
    for words in ("regression", "RMSE", "width of the intervals"):
        assert words in said
    # of so few molecules none were set aside to calibrate intervals by
    assert "unbounded" in said
    table = write_table(tmp_path / "large.csv", smiles=["NC(C)C(=O)" * 400], values=[1])
    status, _, _ = molhpft("predict", tmp_path / "model", table, "--out", tmp_path / "o.csv")
    (row,) = rows_of(tmp_path / "o.csv")
    assert np.isfinite(float(row["size"]))
    assert (row["size low"], row["size high"], row["in_domain"]) == ("", "", "False")


@pytest.mark.slow
def test_a_large_molecule_may_be_trained_on(molhpft, tmp_path):
    smiles = ["NC(C)C(=O)" * 400, *SMILES[1:]]
    path = write_table(tmp_path / "large.csv", smiles=smiles)
    status, _, error = molhpft(*finetune_words(path, tmp_path / "model"))
    assert status == 0, error
    assert torch.isfinite(Model.from_pretrained(tmp_path / "model").predict(smiles).values).all()
