"""Rows of estimators: what they are fitted to, and what their scores depend on."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from molhpft.core import scale, standardise
from molhpft.domains.molecules import count_fingerprints
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import weight_file
from molhpft.estimator import (
    HPFTClassifier,
    HPFTRegressor,
    blend,
    kernel_models,
    similarities,
    validation,
)
from molhpft.estimator.settings import Inference
from molhpft.kernels import reference
from molhpft.run import probe_curve
from molhpft.tuning import gaussian_process, row_sample

_GENERATORS = count_fingerprints.__dict__["_GENERATORS"]
OF_RADIUS_3 = {**_GENERATORS, "morgan": partial(GetMorganGenerator, radius=3)}


@pytest.fixture
def estimators():
    import estimators

    return estimators


@pytest.fixture
def fitted(estimators, monkeypatch):
    """What a regressor is given, and what it predicts."""
    seen = {}

    class Regressor:
        def __init__(self, **options):
            seen["options"], self.own = options, HPFTRegressor(**options)

        def fit(self, smiles, y):
            seen["train"], seen["y"] = smiles.tolist(), y
            self.own.fit(smiles, y)

        def predict(self, smiles):
            seen["scored"], seen["predicted"] = smiles.tolist(), self.own.predict(smiles)
            return seen["predicted"]

    monkeypatch.setattr(estimators, "HPFTRegressor", Regressor)
    return seen


def data_of(estimators, n):
    """Molecules of which a half trains, a quarter validates, and a quarter is scored."""
    rows = np.arange(n)
    fold = estimators.Fold(rows[: n // 2], rows[3 * n // 4 :], rows[n // 2 : 3 * n // 4])
    smiles = tuple("C" * (k + 1) for k in range(n))
    labels = rows[:, None].astype(float)
    return estimators.DevelopmentSet("a", "ADMET", smiles, labels, classes=False, folds=(fold,))


def test_all_molecules_that_are_not_scored_are_fitted_to(estimators, fitted, tmp_path):
    from encoders import stored_scores
    from result_store import ResultStore

    data, weights = data_of(estimators, 40), weight_file(Path(DEFAULT_ENCODER))
    judged = estimators.judged_estimator("fingerprints", weights, ["finetune.lr=0.1"], 1, tmp_path)
    (found,) = stored_scores(judged, data, ResultStore(tmp_path / "scores.jsonl"))
    errors = fitted["predicted"].ravel() - data.labels[30:, 0]
    assert found == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert fitted["train"] == list(data.smiles[:30])
    assert fitted["y"].tolist() == data.labels[:30].tolist()
    assert fitted["scored"] == list(data.smiles[30:])
    given = {"encoder": str(weights), "runs": tmp_path, "random_state": 0}
    config = {"finetune": {"lr": 0.1}}
    assert fitted["options"] == {**given, "config": config, "members": "fingerprints"}


def test_rows_that_are_learned_from_are_scored_by_members_that_did_not(estimators, tmp_path):
    rows = np.arange(40)
    labels = np.random.default_rng(0).normal(size=(40, 1))
    data = replace(data_of(estimators, 40), labels=labels, folds=(estimators.Fold(rows, rows),))
    judged = estimators.judged_estimator(
        "fingerprints", weight_file(Path(DEFAULT_ENCODER)), [], 1, tmp_path
    )
    found = judged.score(data, data.folds[0], 0)
    model = HPFTRegressor(members="fingerprints", random_state=0).fit(data.smiles, labels)
    errors = model.out_of_fold_ - labels
    assert found == pytest.approx(np.sqrt(np.mean(errors**2)))
    seen = model.predict(data.smiles) - labels
    assert found > 1.1 * np.sqrt(np.mean(seen**2))  # chance cannot be learned, only fitted


def test_baselines_are_not_scored_on_rows_that_they_learn_from(estimators, capsys):
    with pytest.raises(SystemExit):
        estimators.main(["--split", "folds", "--baselines", "forest"])
    assert "--split folds scores rows that baselines learn from" in capsys.readouterr().err


def test_options_of_every_row_are_those_of_the_estimators(estimators):
    for options in estimators.ROWS.values():
        for kind in (HPFTClassifier, HPFTRegressor):
            assert options.items() <= kind(**options).get_params().items()


def test_a_score_depends_on_settings_and_weights_and_not_on_where_they_lie(estimators, tmp_path):
    path = weight_file(Path(DEFAULT_ENCODER))
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    identity = estimators.identity(path, {}, {})
    changed = estimators.changed_keys(["finetune.lr=0.1"])
    assert changed == {"finetune": {"lr": 0.1}}
    assert estimators.identity(copy, {}, {}) == identity
    assert estimators.identity(path, {}, changed) != identity
    assert estimators.identity(path, {"members": "networks"}, {}) != identity


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (validation, "FOLDS", 4),
        (similarities, "WIDTHS", {"features": 1.0, "properties": 1.5}),
        (kernel_models, "MIXED_ROWS", 600),
        (kernel_models, "MIXED_BUDGET", 1e9),
        (kernel_models, "LEAST_WEIGHT", 0.01),
        (kernel_models, "BUDGET", 1e12),
        (row_sample, "MOST_KERNEL_ROWS", 5_000),
        (blend, "MOST", 10),
        (blend, "_FLATTEST", 3.0),
        (gaussian_process, "_PRIOR_STD", 1.0),
        (gaussian_process, "_WEIGHTS", (-9.0, 3.0)),
        (gaussian_process, "_NOISE", (-7.0, 2.0)),
        (gaussian_process, "_STEPS", 26),
        (scale, "_TAIL", 0.02),
        (standardise, "_LEAST", 0.2),
        (probe_curve, "SMOOTHING", 0.2),
        (reference, "DRAWS", 2),
        (count_fingerprints, "_GENERATORS", OF_RADIUS_3),
        (Inference.__init__, "__defaults__", ("all", "platt", 0.9)),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_score_depends_on_what_only_the_package_sets(
    estimators, monkeypatch, module, name, value
):
    path = weight_file(Path(DEFAULT_ENCODER))
    identity = estimators.identity(path, {}, {})
    monkeypatch.setattr(module, name, value)
    assert estimators.identity(path, {}, {}) != identity


@pytest.mark.slow
def test_a_setting_is_the_same_in_every_process_and_says_nothing_of_the_machine():
    command = "import json, package_settings as p; print(json.dumps(p.package_settings()))"
    home = str(Path(__file__).parents[2] / "benchmarks")
    texts = {
        subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONHASHSEED": str(seed), "TOKEN": "caught", "PYTHONPATH": home},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in (1, 2)
    }
    (text,) = texts
    assert "caught" not in text
