"""What is said of the coverage of prediction sets is true, and says what to expect."""

from dataclasses import replace

import torch

from molhpft.domains.molecules.examples import ZERO_ONE
from molhpft.estimator.calibrate import held_out_scores
from molhpft.estimator.coverage import coverage_guarantee
from molhpft.estimator.held_out import HeldOut
from tests.estimator.calibrated import (
    CLASSES,
    ONE_NUMBER,
    fit,
    near,
    one_target,
    uncertainty_of,
)


def sentences(objective, *, n, names=("active",), test=None, classes=None):
    """The guarantee of sets that are fitted to n calibration molecules."""
    classes = classes or [ZERO_ONE] * len(names)
    a, y = (x.repeat(1, len(names)) for x in one_target(1, n=n, objective=objective))
    held = {"valid": near(a, y), "calibration": near(a, y)} | ({"test": test} if test else {})
    uncertainty = fit(held["valid"], held["calibration"], objective)
    scores = {split: held_out_scores(one, objective, uncertainty) for split, one in held.items()}
    return coverage_guarantee(uncertainty, names, scores, held, classes=classes)


def test_an_unbounded_interval_is_reported_with_the_number_of_molecules_it_takes():
    assert sentences(ONE_NUMBER, n=8)[1] == (
        "Intervals of active are unbounded: 90 % takes 9 calibration molecules with a label, "
        "there are 8."
    )
    assert len(sentences(ONE_NUMBER, n=9)) == 1


def test_intervals_without_a_mean_width_are_counted():
    uncertainty = replace(uncertainty_of(ONE_NUMBER, n=40), domain_threshold=0.3)
    a, y = one_target(2, n=20, objective=ONE_NUMBER)
    like = torch.ones(20)
    like[:3] = 0.4  # few calibration molecules weigh anything for these
    like[3:5] = 0.0  # outside the domain, where every interval is unbounded
    held = {"calibration": near(a, y), "test": HeldOut(a, y, like)}
    scores = {split: held_out_scores(one, ONE_NUMBER, uncertainty) for split, one in held.items()}
    assert [row["width"] is None for row in scores.values()] == [False, True]
    lines = coverage_guarantee(uncertainty, ("active",), scores, held)
    assert [line for line in lines[1:] if "unbounded" in line] == [
        "3 of 18 intervals of the test split within the domain are unbounded, so that their mean "
        "width is not given: too few calibration molecules are as unlike the training molecules."
    ]


def test_a_label_in_every_set_is_named_and_many_targets_are_summarised():
    lines = sentences(CLASSES, n=10, names=[f"t{k}" for k in range(100)])
    assert len(lines) <= 3
    assert any("of t0, t1, t2, t3, t4 and 95 more is in every set" in line for line in lines)


def test_labels_have_the_names_of_the_table():
    text = " ".join(sentences(CLASSES, n=10, names=("x",), classes=[("Harmless", "Toxic {}")]))
    assert "Label Toxic {} of x is in every set" in text
    assert "calibration molecules with label Toxic {}" in text


def test_targets_whose_labels_have_other_names_are_named_apart():
    classes = [("no", "yes"), ("inactive", "active"), ("no", "yes")]
    lines = sentences(CLASSES, n=10, names=("x", "y", "z"), classes=classes)
    facts = [line.partition(":")[0] for line in lines if "in every set" in line]
    assert "Label yes of x and z is in every set" in facts
    assert "Label active of y is in every set" in facts
    assert not any("Label 1" in fact for fact in facts)


def test_without_calibration_molecules_nothing_is_guaranteed():
    held = {"valid": near(*one_target(1))}
    uncertainty = fit(held["valid"], None)
    scores = {"valid": held_out_scores(held["valid"], CLASSES, uncertainty)}
    assert coverage_guarantee(uncertainty, ("active",), scores, held) == [
        "Prediction sets hold every label: there are no calibration molecules to bound them by."
    ]


def test_coverage_that_chance_does_not_explain_is_reported():
    a, y = one_target(2, n=400)
    good, bad = (sentences(CLASSES, n=400, test=near(a, labels)) for labels in (y, 1 - y))
    assert "Measured on the test split: they hold" in good[-1]
    assert "chance" not in good[-1]
    assert "chance alone hardly explains so many fewer than 90 %" in bad[-1]
