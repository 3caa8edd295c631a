"""Scores of held-out molecules, beside what others compute from the same answers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, roc_auc_score, root_mean_squared_error

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.featurize import parse
from molhpft.domains.molecules.fingerprints import packed_prints
from molhpft.estimator.evaluation import evaluated
from molhpft.estimator.trust import fit_trust
from tests.estimator.rings import SMILES
from tests.toy import NAN

SEEDS = st.integers(0, 10_000)
NUMBERS = Squared(mean=(100.0,), std=(20.0,))
CLASSES = Multilabel()
PRINTS = packed_prints([parse(smiles) for smiles in SMILES[:5]])


def split(seed, *, n=50, numbers=False):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(n, 1, generator=rng)
    noise = torch.rand(n, 1, generator=rng)
    y = a + noise if numbers else (noise < a.sigmoid()).float()
    y[:2] = torch.tensor([[0.0], [1.0]])
    return a, y


def trust_in(objective, *, n=50):
    a, y = split(1, n=n, numbers=objective is NUMBERS)
    return fit_trust(a, y, objective, calibration="platt", level=0.8, prints=PRINTS)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_scores_of_numbers_are_those_of_others_in_the_unit_of_the_target(seed):
    a, y = split(seed, numbers=True)
    trust = trust_in(NUMBERS)
    truth, guess = (100 + 20 * values[:, 0].double().numpy() for values in (y, a))
    low, high = trust.sets(a, NUMBERS)[:, 0].T.numpy()
    expected = {
        "rmse": root_mean_squared_error(truth, guess),
        "mae": mean_absolute_error(truth, guess),
        "spearman": spearmanr(truth, guess).statistic,
        "coverage": np.mean((low <= truth) & (truth <= high)),
        "width": np.mean(high - low),
    }
    assert evaluated(a, y, NUMBERS, trust) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_scores_of_classes_are_those_of_others(seed):
    a, y = split(seed)
    trust = trust_in(CLASSES)
    found = evaluated(a, y, CLASSES, trust)
    sets = trust.sets(a, CLASSES)[:, 0].tolist()
    held = [pair[int(label)] for pair, label in zip(sets, y[:, 0].tolist(), strict=True)]
    assert found["rocauc"] == pytest.approx(roc_auc_score(y, a))
    assert found["coverage"] == pytest.approx(np.mean(held))
    assert found["set_size"] == pytest.approx(np.mean([sum(pair) for pair in sets]))
    assert 0 <= found["ece"] <= 1


def test_calibration_is_measured_before_and_after():
    a, y = split(1, n=2_000)
    trust = fit_trust(5 * a, y, CLASSES, calibration="platt", level=0.8, prints=PRINTS)
    found = evaluated(5 * a, y, CLASSES, trust)
    assert found["ece"] < 0.05 < found["ece_before"]


@pytest.mark.parametrize("objective", [CLASSES, NUMBERS], ids=["classes", "numbers"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_molecule_without_a_label_changes_no_score(objective, seed):
    a, y = split(seed, numbers=objective is NUMBERS)
    more = torch.cat([a, torch.full((7, 1), 3.0)]), torch.cat([y, torch.full((7, 1), NAN)])
    trust = trust_in(objective)
    expected = evaluated(a, y, objective, trust)
    assert evaluated(*more, objective, trust) == pytest.approx(expected)


def test_a_number_that_cannot_be_had_is_none_and_json_can_hold_the_rest():
    few, (a, y) = trust_in(NUMBERS, n=3), split(2, numbers=True)
    found = evaluated(torch.zeros_like(a), y, NUMBERS, few)
    assert {name for name, value in found.items() if value is None} == {"spearman", "width"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
