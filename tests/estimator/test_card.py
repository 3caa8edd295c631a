"""What people read of a model: rows of scores that say something."""

import pytest

from molhpft.estimator.card import member_score, score_rows

FOLDS = {"rocauc": 0.9, "coverage": None, "in_domain": 1.0}


def names(scores, *, folds):
    return [name for name, *_ in score_rows({"scores": scores, "folds": folds})[1:]]


def test_coverage_of_molecules_that_all_calibrate_has_no_row():
    assert names({"valid": FOLDS}, folds=5) == ["ROC-AUC", "molecules within the domain"]


def test_coverage_of_test_molecules_beside_folds_has_a_row():
    scores = {"valid": FOLDS, "test": {**FOLDS, "coverage": 0.91}}
    header, *rows = score_rows({"scores": scores, "folds": 5})
    assert header == ["folds", "test"]
    assert ["coverage, within the domain", "-", "0.9100"] in rows


@pytest.mark.parametrize("name", ["rocauc", "coverage"])
def test_a_score_that_cannot_be_computed_is_a_dash_without_folds(name):
    (row,) = score_rows({"scores": {"test": {name: None}}, "folds": 0})[1:]
    assert row[1:] == ["-"]


def test_an_error_of_a_member_is_positive_though_higher_scores_are_better():
    member = {"valid": -1.5, "folds": [-1.0, -2.0]}
    assert member_score(member, "neg_rmse") == "1.5000 ± 0.7071"
    assert member_score({"valid": 0.25, "folds": []}, "rocauc") == "25.00"
