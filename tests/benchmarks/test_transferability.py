"""How scores are held against finetuning: correlations, choices, and the molecules read."""

from math import isnan

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def benchmark():
    import transferability

    return transferability


@pytest.fixture
def small(benchmark):
    labels = np.array([[0.5, np.nan], [1.5, 2.0], [2.5, 3.0], [3.5, 4.0]])
    data = benchmark.DevelopmentSet("a", "ADMET", ("C", "CC", "CCC", "CO"), labels, False, ())
    rows = {"train": np.array([3, 0]), "valid": np.array([1]), "test": np.array([2])}
    return benchmark.Small(data, rows)


def test_a_score_in_the_order_of_results_has_correlation_1(benchmark):
    assert benchmark.correlation([1.0, 2.0, 9.0], [-3.0, -2.0, 0.5]) == 1
    assert benchmark.correlation([3.0, 2.0, 1.0], [-3.0, -2.0, 0.5]) == -1


@pytest.mark.parametrize("score", [[1.0, None, 2.0], [1.0, 1.0, 1.0]])
def test_a_score_that_not_all_have_or_that_tells_none_apart_has_no_correlation(benchmark, score):
    assert isnan(benchmark.correlation(score, [0.1, 0.2, 0.3]))


def test_the_place_of_a_choice_is_1_where_it_finetunes_best(benchmark):
    assert benchmark.place_of_choice([0.1, 0.9, 0.5], [70.0, 80.0, 75.0]) == 1
    assert benchmark.place_of_choice([0.9, 0.1, 0.5], [70.0, 80.0, 75.0]) == 3


def test_a_line_has_no_mean_where_a_set_has_no_correlation(benchmark):
    results = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    scores = [[1.0, 3.0, 2.0], [None, None, None]]
    line = benchmark.correlation_line("any", scores, results, [True, False])
    assert line == "| any | +0.50 | - | +0.50 | - | - | - |"
    line = benchmark.correlation_line("any", [[1.0, 3.0, 2.0]] * 2, results, [True, False])
    assert line == "| any | +0.50 | +0.50 | +0.50 | +0.50 | +0.50 | 2.0 |"
    line = benchmark.correlation_line("any", [[1.0, 3.0, 2.0]] * 2, results, [True, True])
    assert line == "| any | +0.50 | +0.50 | +0.50 | - | +0.50 | 2.0 |"


def test_rows_are_spaced_evenly_and_few_are_all_kept(benchmark):
    assert benchmark.spaced(np.arange(100), 3).tolist() == [0, 49, 99]
    assert benchmark.spaced(np.arange(4), 9).tolist() == [0, 1, 2, 3]


def test_a_table_has_the_molecules_of_each_split_with_their_labels(small, tmp_path):
    small.write(tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["smiles"].tolist() == ["CO", "C", "CC", "CCC"]
    assert table["split"].tolist() == ["train", "train", "valid", "test"]
    assert table["y0"].tolist() == [3.5, 0.5, 1.5, 2.5]
    assert table["y1"].isna().tolist() == [False, True, False, False]


def test_what_is_stored_depends_on_splits_and_labels(benchmark, small):
    other = benchmark.Small(small.data, {**small.rows, "valid": np.array([2])})
    assert other.content != small.content
    moved = small.data.labels.copy()
    moved[3, 0] = 0
    data = benchmark.DevelopmentSet("a", "ADMET", small.data.smiles, moved, False, ())
    assert benchmark.Small(data, small.rows).content != small.content
