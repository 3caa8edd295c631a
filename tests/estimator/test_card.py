"""What people read of a model: rows of scores that say something."""

import pytest

from molhpft.estimator.card import member_score, score_rows, sentences

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


@pytest.mark.parametrize(("folds", "where"), [(5, "the folds"), (0, "valid")])
def test_molecules_that_chose_the_members_are_no_test_and_that_is_said(folds, where):
    members = [{"tau": None}, {"tau": 4}]
    about = {"folds": folds, "members": members, "coverage": [], "notes": ["a note"]}
    said, note = sentences(about)
    assert said.startswith(f"Scores on {where} are by members that did not train on the molecule;")
    assert "yet these molecules chose the members and their weights" in said
    assert note == "a note"
    assert sentences({**about, "members": members[:1]}) == ["a note"]


@pytest.mark.parametrize(("folds", "which"), [(5, "those of the first fold"), (0, "these")])
def test_a_lone_network_was_chosen_by_nothing_but_its_tau_was(folds, which):
    about = {"folds": folds, "members": [{"tau": 4}], "coverage": [], "notes": []}
    assert sentences({**about, "tau_is_chosen": False}) == []
    (said,) = sentences({**about, "tau_is_chosen": True})
    assert f"yet {which}" in said
    assert "chose tau, which test molecules do not." in said
    assert "members and" not in said


def test_networks_whose_weights_were_chosen_by_molecules_that_score_say_so():
    members = [{"tau": 4}]
    about = {"folds": 5, "members": members, "coverage": [], "notes": []}
    (said,) = sentences({**about, "weights_are_chosen": True})
    assert "yet those of each fold chose an epoch of its network, or a mixture, which test" in said
    (said,) = sentences({**about, "tau_is_chosen": True, "weights_are_chosen": True})
    assert "yet those of the first fold chose tau, and those of each fold chose an epoch" in said
    (said,) = sentences({**about, "folds": 0, "weights_are_chosen": True})
    assert "yet these molecules chose an epoch" in said


def test_a_calibration_error_that_folds_cannot_test_has_no_row():
    scores = {"valid": {**FOLDS, "ece_before": None, "ece": 0.1}}
    assert "calibration error of the members alone" not in names(scores, folds=5)
    scores["test"] = {**FOLDS, "ece_before": 0.2, "ece": 0.1}
    assert "calibration error of the members alone" in names(scores, folds=5)
