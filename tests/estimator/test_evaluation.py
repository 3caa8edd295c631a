"""Scores of held-out molecules, beside what others compute from the same answers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binned_statistic, spearmanr
from sklearn.metrics import mean_absolute_error, roc_auc_score, root_mean_squared_error

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.fingerprints import fingerprint_rows
from molhpft.domains.molecules.smiles import parse
from molhpft.estimator.confidence import HeldOut, fit_trust
from molhpft.estimator.train import evaluated, promise
from tests.estimator.rings import SMILES
from tests.toy import NAN

SEEDS = st.integers(0, 10_000)
NUMBERS = Squared(mean=(100.0,), std=(20.0,))
CLASSES = Multilabel()
PRINTS = fingerprint_rows([parse(smiles) for smiles in SMILES[:5]])


def split(seed, *, n=50, numbers=False):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 1, generator=rng)
    noise = torch.rand(n, 1, generator=rng)
    y = a + noise if numbers else (noise < a.sigmoid()).float()
    y[:2] = torch.tensor([[0.0], [1.0]])
    return a, y


def trust_in(objective, *, n=50):
    own = near(*split(1, n=n, numbers=objective is NUMBERS))
    return fit_trust(own, own, objective, calibration="platt", level=0.8, prints=PRINTS)


def near(a, y):
    """Molecules that are training molecules, as far as similarity can say."""
    return HeldOut(a, y, torch.ones(len(a)))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_scores_of_numbers_are_those_of_others_in_the_unit_of_the_target(seed):
    a, y = split(seed, numbers=True)
    trust = trust_in(NUMBERS)
    truth, guess = (100 + 20 * values[:, 0].double().numpy() for values in (y, a))
    low, high = trust.sets(a, NUMBERS, torch.ones(len(a)))[:, 0].T.numpy()
    expected = {
        "rmse": root_mean_squared_error(truth, guess),
        "mae": mean_absolute_error(truth, guess),
        "spearman": spearmanr(truth, guess).statistic,
        "coverage": np.mean((low <= truth) & (truth <= high)),
        "width": np.mean(high - low),
        "in_domain": 1.0,
    }
    assert evaluated(near(a, y), NUMBERS, trust) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_scores_of_classes_are_those_of_others(seed):
    a, y = split(seed)
    trust = trust_in(CLASSES)
    found = evaluated(near(a, y), CLASSES, trust)
    sets = trust.sets(a, CLASSES, torch.ones(len(a)))[:, 0].tolist()
    held = [pair[int(label)] for pair, label in zip(sets, y[:, 0].tolist(), strict=True)]
    assert found["rocauc"] == pytest.approx(roc_auc_score(y, a))
    assert found["coverage"] == pytest.approx(np.mean(held))
    assert found["set_size"] == pytest.approx(np.mean([sum(pair) for pair in sets]))
    p = trust.values(a, CLASSES)[:, 0].numpy()
    gaps = binned_statistic(p, p - y[:, 0].numpy(), "sum", bins=15, range=(0, 1)).statistic
    assert found["ece"] == pytest.approx(np.abs(gaps).sum() / len(p))


def test_calibration_is_measured_before_and_after():
    a, y = split(1, n=2_000)
    own = near(5 * a, y)
    trust = fit_trust(own, own, CLASSES, calibration="platt", level=0.8, prints=PRINTS)
    found = evaluated(own, CLASSES, trust)
    assert found["ece"] < 0.05 < found["ece_before"]


@pytest.mark.parametrize("objective", [CLASSES, NUMBERS], ids=["classes", "numbers"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_molecule_without_a_label_changes_no_score(objective, seed):
    a, y = split(seed, numbers=objective is NUMBERS)
    more = torch.cat([a, torch.full((7, 1), 3.0)]), torch.cat([y, torch.full((7, 1), NAN)])
    trust = trust_in(objective)
    expected = evaluated(near(a, y), objective, trust)
    assert evaluated(near(*more), objective, trust) == pytest.approx(expected)


def test_a_number_that_cannot_be_had_is_none_and_json_can_hold_the_rest():
    few, (a, y) = trust_in(NUMBERS, n=3), split(2, numbers=True)
    found = evaluated(near(torch.zeros_like(a), y), NUMBERS, few)
    assert {name for name, value in found.items() if value is None} == {"spearman", "width"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_coverage_and_size_are_those_of_molecules_within_the_domain():
    a, y = split(3)
    trust = trust_in(CLASSES)
    far = HeldOut(a, 1 - y, torch.zeros(len(a)))
    both = HeldOut(*(torch.cat(pair) for pair in zip(*map(parts, (near(a, y), far)), strict=True)))
    inside, found = evaluated(near(a, y), CLASSES, trust), evaluated(both, CLASSES, trust)
    assert (found["coverage"], found["set_size"]) == (inside["coverage"], inside["set_size"])
    assert found["in_domain"] == 0.5
    outside = evaluated(far, CLASSES, trust)
    assert (outside["coverage"], outside["set_size"], outside["in_domain"]) == (None, None, 0.0)


def parts(held):
    return held.logits, held.targets, held.similarity


def test_one_class_has_no_score_but_has_coverage():
    a, y = split(4)
    trust = trust_in(CLASSES)
    found = evaluated(near(a, torch.ones_like(y)), CLASSES, trust)
    held = trust.sets(a, CLASSES, torch.ones(len(a)))[:, 0, 1]
    assert found["rocauc"] is None
    assert found["coverage"] == pytest.approx(held.double().mean().item())
    assert 0.5 < found["coverage"] < 1  # some, not all: the comparison says something
    assert found["ece"] is not None


@pytest.mark.parametrize("objective", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_without_a_label_nothing_is_scored_and_nothing_fails(objective):
    a, y = split(5)
    found = evaluated(near(a, torch.full_like(y, NAN)), objective, trust_in(objective))
    assert {name for name, value in found.items() if value is not None} == {"in_domain"}


def told(objective, *, n, names=("active",), test=None):
    """What is said of sets that n calibration molecules stand behind."""
    own = near(*split(1, n=n, numbers=objective is NUMBERS))
    own = HeldOut(
        own.logits.repeat(1, len(names)), own.targets.repeat(1, len(names)), own.similarity
    )
    trust = fit_trust(own, own, objective, calibration="platt", level=0.9, prints=PRINTS)
    held = {"valid": own, "calibration": own} | ({"test": test} if test else {})
    scores = {split: evaluated(one, objective, trust) for split, one in held.items()}
    return promise(trust, names, scores, held)


def test_an_unbounded_interval_is_said_in_words_and_how_many_molecules_it_takes():
    assert told(NUMBERS, n=8)[1] == (
        "Intervals of active are unbounded: 90 % takes 9 calibration molecules with a label, "
        "there are 8."
    )
    assert len(told(NUMBERS, n=9)) == 1


def test_a_label_that_no_set_rules_out_is_named_and_many_targets_are_a_summary():
    names = [f"t{k}" for k in range(1_000)]
    lines = told(CLASSES, n=10, names=names)
    assert len(lines) <= 3
    assert any("of t0, t1, t2, t3, t4 and 995 more is in every set" in line for line in lines)


def test_labels_are_called_as_the_table_calls_them():
    own = near(*split(1, n=10))
    trust = fit_trust(own, own, CLASSES, calibration="platt", level=0.9, prints=PRINTS)
    held = {"valid": own, "calibration": own}
    scores = {name: evaluated(own, CLASSES, trust) for name in held}
    said = " ".join(promise(trust, ("x",), scores, held, classes=[("Harmless", "Toxic {}")]))
    assert "Label Toxic {} of x is in every set" in said
    assert "calibration molecules with label Toxic {}" in said


def test_sets_that_no_molecules_were_set_aside_for_promise_nothing():
    own = near(*split(1))
    trust = fit_trust(own, None, CLASSES, calibration="platt", level=0.9, prints=PRINTS)
    scores = {"valid": evaluated(own, CLASSES, trust)}
    (line,) = promise(trust, ("active",), scores, {"valid": own})
    assert line == (
        "Prediction sets hold every label: there are no calibration molecules to bound them by."
    )


def test_coverage_that_chance_does_not_explain_is_said():
    a, y = split(2, n=400)
    good, bad = told(CLASSES, n=400, test=near(a, y)), told(CLASSES, n=400, test=near(a, 1 - y))
    assert "Measured on the test split: they hold" in good[-1]
    assert "chance" not in good[-1]
    assert "chance alone hardly explains so many fewer than 90 %" in bad[-1]
