"""A row of answers for every row of a table, in its order, however the table is written."""

import csv
import gzip

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from molhpft.core.objectives import Squared
from molhpft.domains.molecules import table_files
from molhpft.domains.molecules.featurized import featurized
from molhpft.domains.molecules.graphs import graph_store
from molhpft.domains.parallel import VARIABLE
from molhpft.estimator.predict import embed_table, predict_table
from tests.estimator.builders import SMILES, random_model

ODD = [
    "no molecule",
    "",
    "a,b",
    'say "C"',
    "C\nN",
    "C\rN",
    "CC name",
    "é",
    "C.[Na+]",
    "C" * 110_000,
]
molecules = st.lists(st.sampled_from([*SMILES[:12], *ODD[:-1]]), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def model_of_numbers():
    return random_model(objective=Squared(mean=(100.0,), std=(20.0,)), targets=("size, in Å",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def write_table(path, smiles, *, column="smiles"):
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"id": range(len(smiles)), column: smiles}), path)
        return path
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", column])
        writer.writerows(enumerate(smiles))
    return path


def read_table(path):
    """Columns of text, a cell without a value empty."""
    if path.suffix == ".parquet":
        columns = parquet.read_table(path).to_pydict()
        return {k: ["" if v is None else str(v) for v in column] for k, column in columns.items()}
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return dict(zip(header, zip(*rows, strict=True), strict=True))


def numbers(column):
    return np.array([float(cell) if cell else np.nan for cell in column])


@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.parquet"])
@settings(max_examples=12, deadline=None)
@given(smiles=molecules)
def test_every_row_has_the_answers_of_predict_in_its_place(model, folder, name, out, smiles):
    path = write_table(folder / name, smiles)
    counts = predict_table(model, path, folder / out, smiles_column="smiles")
    found, expected = read_table(folder / out), model.predict(smiles)
    assert list(found["smiles"]) == smiles
    assert list(found["id"]) == [str(k) for k in range(len(smiles))]
    ok = expected.readable.tolist()
    assert list(found["status"]) == ["ok" if one else "unreadable" for one in ok]
    assert counts == {"ok": sum(ok), "invalid valence": 0, "unreadable": len(ok) - sum(ok)}
    for column, tensor in (
        ("ring", expected.values[:, 0]),
        ("ring std", expected.std[:, 0]),
        ("similarity", expected.similarity),
    ):
        np.testing.assert_allclose(numbers(found[column]), tensor, rtol=1e-5, atol=1e-7)
    sets = {(False, False): "", (True, False): "0", (False, True): "1", (True, True): "0 or 1"}
    assert list(found["ring set"]) == [sets[tuple(pair)] for pair in expected.sets[:, 0].tolist()]
    nearest = [model.training_smiles[k] for k in expected.nearest]
    assert list(found["nearest"]) == [s if one else "" for s, one in zip(nearest, ok, strict=True)]
    near = zip(expected.in_domain.tolist(), ok, strict=True)
    assert list(found["in_domain"]) == [str(one) if read else "" for one, read in near]


def test_numbers_far_from_0_keep_what_tells_them_apart(folder):
    far = random_model(objective=Squared(mean=(-1234.5,), std=(0.002,)), targets=("energy",))
    path = write_table(folder / "far.csv", SMILES)
    predict_table(far, path, folder / "predicted.csv", smiles_column="smiles")
    found = numbers(read_table(folder / "predicted.csv")["energy"])
    np.testing.assert_allclose(found, far.predict(SMILES).values[:, 0], rtol=0, atol=2e-8)
    assert len(set(found)) > len(SMILES) / 2


def test_answers_in_bfloat16_are_other_numbers_near_those_in_float32(model, folder):
    path, found = write_table(folder / "in.csv", [*SMILES, "no molecule"]), {}
    for precision in ("32", "bf16-mixed"):
        out = folder / f"{precision}.csv"
        predict_table(model, path, out, smiles_column="smiles", precision=precision)
        found[precision] = read_table(out)
    exact, rounded = (numbers(columns["ring"]) for columns in found.values())
    assert 0 < np.nanmax(np.abs(exact - rounded)) < 0.01
    for column in ("smiles", "status", "similarity", "nearest", "in_domain"):
        assert found["32"][column] == found["bf16-mixed"][column]


@settings(max_examples=15, deadline=None)
@given(smiles=molecules)
def test_numbers_come_with_the_ends_of_their_interval(model_of_numbers, folder, smiles):
    path = write_table(folder / "in.parquet", smiles)
    predict_table(model_of_numbers, path, folder / "out.csv", smiles_column="smiles")
    found, expected = read_table(folder / "out.csv"), model_of_numbers.predict(smiles)
    ok = expected.readable.numpy()
    ends = (" low", "", " high")
    low, value, high = (numbers(found[f"size, in Å{end}"])[ok] for end in ends)
    np.testing.assert_allclose(value, expected.values.numpy()[ok, 0], rtol=1e-5)
    unbounded = expected.sets.isinf().numpy()[ok, 0]
    assert (np.isnan(low) == unbounded[:, 0]).all()
    assert (np.isnan(high) == unbounded[:, 1]).all()
    assert ((low <= value) & (value <= high) | unbounded.any(1)).all()


@settings(max_examples=15, deadline=None)
@given(smiles=molecules)
def test_features_are_those_of_the_members_side_by_side(model, folder, smiles):
    path = write_table(folder / "in.csv", smiles)
    embed_table(model, path, folder / "out.parquet", smiles_column="smiles")
    found = read_table(folder / "out.parquet")
    z = np.stack([numbers(found[f"z{k}"]) for k in range(model.width)], axis=1)
    assert list(found) == ["id", "smiles", "status", *(f"z{k}" for k in range(16))]
    store = graph_store(featurized(smiles).graphs)
    rows = store.readable.nonzero().flatten()
    np.testing.assert_allclose(z[rows.numpy()], model.features(store, rows), rtol=2e-5, atol=1e-6)
    assert np.isnan(z[~store.readable.numpy()]).all()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("work", [predict_table, embed_table])
def test_stretches_and_processes_change_no_byte(model, tmp_path, monkeypatch, ending, work):
    monkeypatch.setattr(table_files, "ROWS", 7)
    smiles = [*ODD[:7] * 2, *SMILES, *ODD]
    path = write_table(tmp_path / "in.csv", smiles)
    for workers in ("1", "2"):
        monkeypatch.setenv(VARIABLE, workers)
        work(model, path, tmp_path / f"out{workers}{ending}", smiles_column="smiles")
    one, two = (tmp_path / f"out{workers}{ending}" for workers in "12")
    assert one.read_bytes() == two.read_bytes()
    assert [text.strip() for text in smiles] == list(read_table(one)["smiles"])


def test_a_first_stretch_without_a_readable_molecule_does_not_decide_what_columns_hold(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(table_files, "ROWS", 2)
    path = write_table(tmp_path / "in.csv", ["?", "", "CCO"])
    predict_table(model, path, tmp_path / "out.parquet", smiles_column="smiles")
    assert [bool(cell) for cell in read_table(tmp_path / "out.parquet")["ring"]] == [0, 0, 1]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wrong_row_in_the_middle_leaves_an_earlier_output_alone(
    model, tmp_path, monkeypatch, ending, workers
):
    monkeypatch.setattr(table_files, "ROWS", 5)
    monkeypatch.setenv(VARIABLE, workers)
    path, out = write_table(tmp_path / "in.csv", SMILES), tmp_path / f"out{ending}"
    path.write_text(path.read_text() + "one cell too many,C,C\n" + path.read_text())
    out.write_text("precious")
    threads = torch.get_num_threads()
    with pytest.raises(ValueError, match=r"line 62 has 3") as caught:
        predict_table(model, path, out, smiles_column="smiles")
    assert "cannot write" not in str(caught.value)
    assert out.read_text() == "precious"
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", out.name}
    assert torch.get_num_threads() == threads


TEXTS = ["", " ", " 1 ", "007", "1.50", "a,b", 'say "x"', "two\nlines", "\r", "é", "NA", "[red]"]
NAMES = ["status", "ring", "ring set", "molhpft ring", "z0", "similarity", "[red]", "a, b", "é"]
tables = st.lists(st.sampled_from(NAMES), unique=True, max_size=4).flatmap(
    lambda names: st.lists(
        st.tuples(st.sampled_from(SMILES), *(st.sampled_from(TEXTS) for _ in names)),
        min_size=1,
        max_size=6,
    ).map(lambda rows: (["smiles", *names], rows))
)


@pytest.mark.parametrize("work", [predict_table, embed_table])
@pytest.mark.parametrize("out", ["out.csv", "out.parquet"])
@settings(max_examples=20, deadline=None)
@given(table=tables)
def test_every_cell_of_the_table_comes_back_as_it_is_under_its_own_name(
    model, folder, out, work, table
):
    names, rows = table
    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    work(model, folder / "in.csv", folder / out, smiles_column="smiles")
    found = read_table(folder / out)
    columns = zip(*rows, strict=True)
    assert list(found)[: len(names)] == names
    assert [tuple(found[name]) for name in names] == list(columns)
    assert list(found["molhpft status" if "status" in names else "status"]) == ["ok"] * len(rows)


def test_columns_of_parquet_keep_their_types_and_are_text_in_csv(model, tmp_path):
    columns = {
        "smiles": pa.array(["CCO", None, "CCN"], pa.large_string()),
        "float": pa.array([0.1, None, 2.5], pa.float32()),
        "whole": pa.array([1, None, 2**62], pa.int64()),
        "flag": pa.array([True, None, False]),
        "bytes": pa.array([b"a\xff", None, "é".encode()]),
        "list": pa.array([[1, 2], None, []], pa.list_(pa.int32())),
        "struct": pa.array([{"a": "x"}, None, {"a": None}]),
        "kind": pa.array(["a", None, "b"]).dictionary_encode(),
        "day": pa.array([0, None, 1], pa.date32()),
        "time": pa.array([0, None, 10**9], pa.timestamp("ns")),
    }
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    for out in ("out.parquet", "out.csv"):
        predict_table(model, tmp_path / "in.parquet", tmp_path / out, smiles_column="smiles")
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.select(list(columns)).equals(parquet.read_table(tmp_path / "in.parquet"))
    first, second, third = zip(*(read_table(tmp_path / "out.csv")[c] for c in columns), strict=True)
    assert first[1:7] == ("0.1", "1", "True", "a\\xff", "[1, 2]", '{"a": "x"}')
    assert first[7:] == ("a", "1970-01-01", "1970-01-01 00:00:00")
    assert second == ("",) * len(columns)
    assert third[1:7] == ("2.5", str(2**62), "False", "é", "[]", '{"a": null}')


def test_a_molecule_of_invalid_valence_is_predicted_and_marked(model, tmp_path):
    smiles = ["C(C)(C)(C)(C)C", "CCO", "?"]
    path = write_table(tmp_path / "in.csv", smiles)
    counts = predict_table(model, path, tmp_path / "out.csv", smiles_column="smiles")
    found = read_table(tmp_path / "out.csv")
    assert list(found["status"]) == ["invalid valence", "ok", "unreadable"]
    assert counts == {"ok": 1, "invalid valence": 1, "unreadable": 1}
    assert [bool(cell) for cell in found["ring"]] == [True, True, False]


def test_what_classes_are_called_stands_in_columns_and_sets(tmp_path):
    classes = (("harmless", "toxic"), ("0", "1"), ("1", "2"))
    model = random_model(targets=("a", "b", "c"), classes=classes)
    path, p = write_table(tmp_path / "in.csv", SMILES), model.predict(SMILES)
    predict_table(model, path, tmp_path / "out.csv", smiles_column="smiles")
    found = read_table(tmp_path / "out.csv")
    for k, (name, (zero, one)) in enumerate(
        zip(("a p(toxic)", "b", "c p(2)"), classes, strict=True)
    ):
        np.testing.assert_allclose(numbers(found[name]), p.values[:, k], rtol=1e-5)
        words = {(0, 0): "", (1, 0): zero, (0, 1): one, (1, 1): f"{zero} or {one}"}
        sets = [words[tuple(pair)] for pair in p.sets[:, k].int().tolist()]
        assert list(found[f"{'abc'[k]} set"]) == sets
        assert any(sets)


def test_no_column_is_lost_to_another_of_its_name(tmp_path):
    names = ("status", "similarity", "a", "a std", "smiles of a")
    model, smiles = random_model(targets=names), SMILES[:4]
    path = write_table(tmp_path / "in.csv", smiles, column="smiles of a")
    predict_table(model, path, tmp_path / "out.csv", smiles_column="smiles of a")
    found, p = read_table(tmp_path / "out.csv"), model.predict(smiles)
    columns = ("molhpft status", "similarity", "a", "molhpft a std", "molhpft smiles of a")
    for k, column in enumerate(columns):
        np.testing.assert_allclose(numbers(found[column]), p.values[:, k], rtol=1e-5)
    np.testing.assert_allclose(numbers(found["molhpft similarity"]), p.similarity, rtol=1e-5)


def test_an_output_that_is_a_link_to_another_file_is_written_through_it(model, tmp_path):
    path, target = write_table(tmp_path / "in.csv", SMILES), tmp_path / "elsewhere" / "x.csv"
    (tmp_path / "out.csv").symlink_to(target)
    predict_table(model, path, tmp_path / "out.csv", smiles_column="smiles")
    assert (tmp_path / "out.csv").is_symlink()
    assert list(read_table(target)["smiles"]) == SMILES
