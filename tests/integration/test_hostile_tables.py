"""Whatever stands in a file or behind an option, a command ends in answers or in one sentence."""

import csv
import re
import sys
import time

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from molhpft.cli import app as cli
from molhpft.domains.molecules.tables import csv_task
from molhpft.estimator import finetune
from molhpft.estimator.model import Model
from molhpft.estimator.predict import predict_table
from tests.estimator.builders import SMILES, random_model
from tests.integration.commands import one_sentence

MOLECULES = [
    "CCO",
    "c1ccccc1",
    "C1CC1N",
    "no molecule",
    "",
    "C.[Na+]",
    '"C',
    "C,C",
    "C\nC",
    "\0",
    "é",
]
LABELS = ["0", "1", "", "nan", "inf", "-inf", "1e39", "2.5", "high", " 1 ", "1_000", "0x1", "٣"]
cells = st.sampled_from([*MOLECULES, *LABELS]) | st.text(max_size=5)


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    monkeypatch.setattr(finetune, "train", lambda *_, **__: pytest.fail("trained"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a model."""
    folder = tmp_path_factory.mktemp("hostile")
    random_model(members=1).save_pretrained(folder / "model")
    return folder


def table_of(*rows, header="smiles,ring"):
    return "\n".join([header, *rows]) + "\n"


def labelled(labels, smiles=SMILES):
    return table_of(*(f"{s},{label}" for s, label in zip(smiles, labels, strict=True)))


HALF = [k % 2 for k in range(60)]
TABLES = {
    "empty": ("", "it is empty"),
    "one row": (table_of("CCO,1"), "none of its columns is one: ring .always the same, line 2 has"),
    "one class": (labelled([1] * 60), "none of its columns is one: ring .always the same, line 2"),
    "no labels": (labelled([""] * 60), "none of its columns is one: ring .empty"),
    "not a number": (labelled(["nan"] * 60), "none of its columns is one: ring .empty"),
    "a third class": (
        labelled([*HALF[:-1], -1]),
        "has the labels -1, 0, 1, line 61 has '-1': leave",
    ),
    "constant": (labelled([3.5] * 60), "ring .always the same, line 2 has '3.5'"),
    "an index alone": (
        table_of("CCO,1", "CC,2", "C,3", header="smiles,number"),
        "number .counts upwards, line 2 has '1', line 3 has '2'",
    ),
    "nothing readable": (labelled(HALF, ["?"] * 60), "none of its 60 cells can be read"),
    "an open quote": (table_of('"CCO,1'), "look for a quote that is not closed"),
    "too many atoms": (
        table_of("C" * 40_000 + ",1", "C" * 40_000 + ",0"),
        "none of its 2 cells can be read",
    ),
    "ten megabytes": (
        table_of("C" * 10_000_000 + ",1", "C" * 10_000_000 + ",0"),
        "none of its 2 cells can be read, line 2 has 'CCCC",
    ),
    "a line break in a name": (table_of("C,1", header='smiles,"ri\nng"'), "ri ng .always the same"),
}


@pytest.mark.parametrize(("content", "says"), TABLES.values(), ids=TABLES)
def test_a_table_that_cannot_be_learned_from_is_one_sentence_at_once(
    molhpft, tmp_path, content, says
):
    path = tmp_path / "rings.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    words = ("finetune", path, "--out", tmp_path / "model", "--split", "random")
    said = one_sentence(*molhpft(*words))
    assert re.search(says, said)
    assert len(said) < 1_000
    assert time.monotonic() - began < 20
    assert [p.name for p in tmp_path.iterdir()] == ["rings.csv"]


def test_ten_megabytes_in_a_cell_are_one_unreadable_molecule(molhpft, folder, tmp_path):
    table = pa.table({"smiles": ["C" * 10_000_000, "CCO"]})
    parquet.write_table(table, tmp_path / "in.parquet")
    words = ("predict", folder / "model", tmp_path / "in.parquet", "--out", tmp_path / "o.parquet")
    status, said, _ = molhpft(*words)
    assert (status, "1 ok, 1 unreadable" in said) == (0, True)


def status_of(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["molhpft", *map(str, words)])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code or 0


def write_rows(path, rows):
    with path.open("w", encoding="utf-8", newline="", errors="surrogatepass") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    return path


def task_or_sentence(path):
    try:
        return csv_task(path=path, split="random")
    except ValueError as error:
        return str(error)


def without_blank_end(rows):
    """Rows up to the last one that is not blank: those below are no molecules."""
    filled = [k for k, row in enumerate(rows) if any(map(str.strip, row))]
    return rows[: filled[-1] + 1] if filled else []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=12))
@example([["CCO", "0"], ["CCN", "1"]])
@example([["CCO", "0"], ["", ""], ["CCN", "1"], ["", " "]])
def test_any_cells_are_a_task_or_one_sentence(folder, rows):
    path = write_rows(folder / "in.csv", [["smiles", "y"], *rows])
    found = task_or_sentence(path)
    rows = without_blank_end(rows)
    assert "\n" not in found if isinstance(found, str) else len(found.examples) == len(rows)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=12)
    .filter(without_blank_end)
    .map(lambda rows: [["smiles", "y"], *rows])
)
def test_any_cells_have_a_row_of_answers_each(folder, rows):
    path, model = write_rows(folder / "in.csv", rows), Model.from_pretrained(folder / "model")
    counts = predict_table(model, path, folder / "out.csv", smiles_column="smiles")
    with (folder / "out.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["smiles"] for row in found] == [smiles for smiles, _ in without_blank_end(rows[1:])]
    assert sum(counts.values()) == len(found)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text('smiles,"\n\r1C ', max_size=60).map(str.encode)
    | st.binary(max_size=30).map(lambda some: b"smiles\n" + some),
    st.sampled_from(["in.csv", "in.csv.gz", "in.parquet"]),
)
@example(b"PAR1\x15\x04PAR1", "in.parquet")
@example(b'"smi\nles"\nC\n', "in.csv")
def test_any_bytes_end_in_answers_or_a_sentence(folder, content, name):
    (folder / name).write_bytes(content)
    out = folder / "answers.csv"
    out.unlink(missing_ok=True)
    status = status_of("predict", folder / "model", folder / name, "--out", out)
    assert status == (0 if out.exists() else 2)


def test_a_line_break_in_a_name_does_not_break_the_sentence(molhpft, folder, tmp_path):
    path = write_rows(tmp_path / "in.csv", [["smi\nles", "y"], ["C", "1"]])
    status, _, error = molhpft("predict", folder / "model", path, "--out", tmp_path / "o.csv")
    assert (status, error.count("\n")) == (2, 1)
    assert "it has: smi les and y" in error
