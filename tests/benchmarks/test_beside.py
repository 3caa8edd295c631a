"""Columns that are read from a file: of which rows and seeds, and what is refused."""

import json

import numpy as np
import pytest


@pytest.fixture
def beside():
    import beside

    return beside


@pytest.fixture
def encoders(beside):
    import encoders

    return encoders


def data_of(beside, labels=tuple(range(10)), folds=1):
    from development_sets import Fold

    y = np.array(labels, dtype=float)[:, None]
    some = tuple(Fold(np.arange(k, 6), np.arange(6, 10)) for k in range(folds))
    return beside.DevelopmentSet("a", "ADMET", ("C",) * 10, y, classes=False, folds=some)


def line_of(data, score, fold=0, **other):
    rows = data.split_digest(data.folds[fold])
    line = {"model": "m 1", "set": data.name, "rows": rows, "seed": 0, "score": score}
    return line | other


@pytest.fixture
def read(beside, tmp_path):
    def from_lines(*lines):
        path = tmp_path / "scores.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return beside.read_beside(path)

    return from_lines


def test_a_score_is_the_mean_over_folds_of_means_over_seeds(beside, read):
    data = data_of(beside, folds=2)
    lines = [line_of(data, 1.0), line_of(data, 2.0, seed=1), line_of(data, 4.5, fold=1)]
    (one,) = read(*lines)
    assert one.score(data) == 3.0
    assert one.name == "m 1, 1 to 2 seeds"


def test_each_model_of_a_file_is_a_column(beside, read):
    data = data_of(beside)
    columns = read(line_of(data, 1.0), line_of(data, 2.0, model="m 2"))
    assert {one.name: one.score(data) for one in columns} == {
        "m 1, 1 seed": 1.0,
        "m 2, 1 seed": 2.0,
    }


def test_scores_of_other_labels_are_refused(beside, read):
    (one,) = read(line_of(data_of(beside), 1.0))
    with pytest.raises(ValueError, match="split of a that are printed"):
        one.score(data_of(beside, labels=range(1, 11)))


@pytest.mark.parametrize("text", ["half a li", "{}", "[]", ""])
def test_what_is_not_a_score_is_refused_with_its_line(beside, tmp_path, text):
    path = tmp_path / "scores.jsonl"
    path.write_text(f"{json.dumps(line_of(data_of(beside), 1.0))}\n{text}\n")
    with pytest.raises(ValueError, match="line 2 of"):
        beside.read_beside(path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": "0"}, "seed in line 1 of .* should be a whole number, not '0'"),
        ({"seed": True}, "should be a whole number, not True"),
        ({"rows": ["r"]}, r"rows in line 1 of .* should be a text, not \['r'\]"),
        ({"score": "high"}, "should be a number, not 'high'"),
        ({"score": float("nan")}, "should be a number, not nan"),
        ({"score": 10**400}, "should be a number, not 1000"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_line(beside, read, other, message):
    with pytest.raises(ValueError, match=message):
        read(line_of(data_of(beside), 1) | other)


def test_a_seed_that_was_scored_twice_is_refused_with_both_lines(beside, read):
    data = data_of(beside, folds=2)
    others = [
        line_of(data, 1.0, model="m 2"),
        line_of(data, 1.0, fold=1),
        line_of(data, 1.0, seed=1),
    ]
    assert len(read(line_of(data, 1.0), *others)) == 2
    with pytest.raises(ValueError, match=r"^lines 1 and 5 of .* with seed 0, of the same rows"):
        read(line_of(data, 1.0), *others, line_of(data, 2.0))


def test_an_empty_file_is_refused(read):
    with pytest.raises(ValueError, match="is empty"):
        read()


def printed(encoders, monkeypatch, data, columns, capsys):
    """The table of one baseline, whose score is 5, beside columns."""
    monkeypatch.setattr(encoders, "set_names", lambda *_, **__: ["a"])
    monkeypatch.setattr(encoders, "development_set", lambda *_, **__: data)
    ours = encoders.Judged("ours", "ours", lambda *_: 5.0)
    parser = encoders.judging_parser("about", "store")
    given = parser.parse_args(["--sets", "a", "--store", str(columns[0].path) + ".store"])
    encoders.print_tables(parser, given, [ours], columns)
    return capsys.readouterr().out.splitlines()


def test_columns_are_printed_and_ranked_with_those_that_are_computed(
    beside, encoders, monkeypatch, capsys, read
):
    data = data_of(beside)
    columns = read(line_of(data, 1.5))
    lines = printed(encoders, monkeypatch, data, columns, capsys)
    assert "| | ours | m 1, 1 seed |" in lines
    assert "| ADMET, mean rank over 1 | 2.00 | 1.00 |" in lines
    assert "| a (RMSE) | 5.0000 | 1.5000 |" in lines


@pytest.mark.parametrize(
    ("other", "message"), [({"set": "b"}, "has no m 1 of a"), ({"rows": "0"}, "of others")]
)
def test_a_column_that_lacks_a_set_or_its_rows_ends_with_a_sentence(
    beside, encoders, monkeypatch, capsys, read, other, message
):
    data = data_of(beside)
    columns = read(line_of(data, 1.5, **other))
    with pytest.raises(SystemExit, match="2"):
        printed(encoders, monkeypatch, data, columns, capsys)
    assert message in capsys.readouterr().err
