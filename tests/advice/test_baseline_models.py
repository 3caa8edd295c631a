"""What the baselines learn, against scikit-learn on inputs computed by brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.svm import SVC, SVR

from molhpft.advice import baseline_models as models
from molhpft.advice.baseline_models import BASELINES, Columns, Lesson, predictions
from molhpft.core.determinism import seed_for
from molhpft.domains.molecules.computed_targets import descriptor_targets
from molhpft.domains.molecules.count_fingerprints import count_fingerprints
from molhpft.domains.molecules.fingerprint_kernels import gaussian_kernel
from tests.domains.molecules.test_fingerprint_kernels import brute_force

ENDS = ("O", "N", "c1ccccc1", "C(=O)O", "C1CC1")
SMILES = tuple("C" * n + end for n in range(2, 14) for end in ENDS)
TRAIN, ASKED = np.arange(0, 60, 2), np.arange(1, 60, 2)
SIZES = torch.tensor([[len(text) + 2.0 * ("N" in text)] for text in SMILES])
ACIDS = torch.tensor([[float("O" in text)] for text in SMILES])
COUNTS = count_fingerprints("morgan", SMILES)


def answer(name, targets, value=None, *, classes=False, **changes):
    baseline = replace(BASELINES[name], **changes)
    (result,) = predictions(
        baseline,
        SMILES,
        targets[TRAIN],
        train=TRAIN,
        asked=ASKED,
        classes=classes,
        values=[value],
        seed=3,
    )
    return result.numpy()


def target_seed(what):
    return seed_for(3, what) % 2**32


def minmax():
    counts = COUNTS.toarray()
    return brute_force(counts[TRAIN], counts[TRAIN]), brute_force(counts[ASKED], counts[TRAIN])


def test_a_support_vector_regression_is_that_of_scikit_learn_on_the_minmax_kernel(monkeypatch):
    monkeypatch.setattr(models, "_BLOCK", 7)
    kernel, asked = minmax()
    y = SIZES[TRAIN, 0].double().numpy()
    machine = SVR(C=3.0, kernel="precomputed").fit(kernel, (y - y.mean()) / y.std())
    expected = machine.predict(asked) * y.std() + y.mean()
    assert answer("svm_counts", SIZES, 3.0)[:, 0] == pytest.approx(expected)


def test_a_support_vector_classifier_is_that_of_scikit_learn_on_the_minmax_kernel():
    kernel, asked = minmax()
    machine = SVC(C=3.0, kernel="precomputed").fit(kernel, ACIDS[TRAIN, 0])
    expected = machine.decision_function(asked)
    assert answer("svm_counts", ACIDS, 3.0, classes=True)[:, 0] == pytest.approx(expected)


def test_descriptors_are_compared_in_standard_deviations_of_the_training_molecules():
    x = descriptor_targets(SMILES, torch.from_numpy(TRAIN))[0].double().nan_to_num(0.0).numpy()
    machine = SVC(C=1.0, kernel="precomputed").fit(
        gaussian_kernel(x[TRAIN], x[TRAIN]), ACIDS[TRAIN, 0]
    )
    expected = machine.decision_function(gaussian_kernel(x[ASKED], x[TRAIN]))
    assert answer("svm_descriptors", ACIDS, 1.0, classes=True)[:, 0] == pytest.approx(expected)


def test_a_forest_of_several_targets_learns_them_at_once_and_a_missing_label_as_0():
    targets = torch.cat([ACIDS, (SIZES > 8).float()], 1)
    targets[::3, 1] = torch.nan
    targets[4] = torch.nan  # a molecule without any label is not learned from
    some = np.array([row for row in TRAIN if row != 4])
    forest = RandomForestClassifier(
        20, criterion="entropy", min_samples_split=10, random_state=target_seed("targets")
    ).fit(COUNTS[some], targets[some].nan_to_num(0.0))
    p = np.stack([one[:, 1] for one in forest.predict_proba(COUNTS[ASKED])], 1).clip(1e-6, 1 - 1e-6)
    expected = np.log(p / (1 - p))
    assert answer("forest_counts", targets, 20, classes=True) == pytest.approx(expected)


def test_numbers_have_a_forest_for_each_target_of_the_molecules_that_have_it():
    targets = torch.cat([SIZES, SIZES**2], 1)
    targets[::3, 1] = torch.nan
    result = answer("forest_counts", targets, 20)
    for k in range(2):
        measured = TRAIN[~targets[TRAIN, k].isnan().numpy()]
        seed = target_seed(f"target {k}")
        forest = RandomForestRegressor(20, max_features=0.1, random_state=seed)
        forest.fit(COUNTS[measured], targets[measured, k])
        assert result[:, k] == pytest.approx(forest.predict(COUNTS[ASKED]))


def test_a_forest_too_large_for_memory_is_grown_in_pieces(monkeypatch):
    grown, trees = [], models._trees
    whole = answer("forest_counts", SIZES, 40)[:, 0]

    def counted(count, seed, *, classes):
        grown.append((count, seed))
        return trees(count, seed, classes=classes)

    monkeypatch.setattr(models, "_trees", counted)
    monkeypatch.setattr(models, "_FOREST_BYTES", 16 * len(TRAIN) * 15)
    pieces = answer("forest_counts", SIZES, 40)[:, 0]
    counts, seeds = zip(*grown, strict=True)
    assert sum(counts) == 40
    assert max(counts) <= 15
    assert len(set(seeds)) == len(seeds)
    assert np.corrcoef(whole, pieces)[0, 1] > 0.98


def test_boosting_loses_nothing_by_leaving_out_rare_columns():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.linspace(0.01, 1, 20), (100, 20)).astype(np.float64)
    y = counts @ rng.normal(size=20)
    model = HistGradientBoostingRegressor(
        learning_rate=0.1, min_samples_leaf=8, early_stopping=False
    ).fit(counts[:80], y[:80])
    lesson = Lesson(
        Columns(csr_matrix(counts)),
        np.arange(80),
        y[:80],
        np.arange(80, 100),
        classes=False,
        seed=0,
    )
    (result,) = models.boosting(lesson, [0.1])
    assert 0 < (counts[:80] > 0).sum(0).min() < 8
    assert result == pytest.approx(model.predict(counts[80:]))


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("classes", [True, False])
def test_every_baseline_copes_with_missing_labels_and_targets_without_two_labels(name, classes):
    baseline = BASELINES[name]
    varying = ACIDS if classes else SIZES
    missing, constant = torch.full_like(varying, torch.nan), torch.ones_like(varying)
    targets = torch.cat([varying, missing, constant], 1)
    targets[::3, 0] = torch.nan
    if baseline.refusal(targets, classes=classes):
        pytest.skip("takes no classes")
    value = 20 if baseline.setting == "trees" else baseline.values[0]
    result = answer(name, targets, value, classes=classes)
    assert np.isfinite(result).all()
    assert (result[:, 1:] == [0, 1]).all()
    assert np.corrcoef(result[:, 0], varying[ASKED, 0])[0, 1] > 0.5


@pytest.mark.parametrize("name", BASELINES)
def test_other_molecules_and_what_is_asked_change_no_prediction(name):
    baseline = BASELINES[name]
    value = 20 if baseline.setting == "trees" else baseline.values[0]
    every = answer(name, SIZES, value)
    (some,) = predictions(
        baseline,
        SMILES,
        SIZES[TRAIN],
        train=TRAIN,
        asked=ASKED[5:9],
        classes=False,
        values=[value],
        seed=3,
    )
    assert some.numpy() == pytest.approx(every[5:9])


def test_of_many_molecules_the_rarer_class_is_sampled_first_up_to_a_half():
    learned = []

    def model(lesson, values):
        learned.append(lesson)
        return [np.zeros(len(lesson.asked))]

    rare = torch.zeros(60, 1)
    rare[TRAIN[:4]] = 1
    answer("svm_counts", rare, classes=True, model=model, most_rows=12)
    common = 1 - torch.zeros(60, 1)
    common[TRAIN[:20]] = 0
    answer("svm_counts", common, classes=True, model=model, most_rows=12)
    answer("svm_counts", SIZES, model=model, most_rows=12)
    assert [len(lesson.rows) for lesson in learned] == [12, 12, 12]
    assert set(TRAIN[:4]) <= set(learned[0].rows) <= set(TRAIN)
    assert learned[1].y.sum() == 6


def test_a_gaussian_process_is_refused_for_classes_and_for_too_many_molecules():
    process = replace(BASELINES["gp_counts"], regression_most=50)
    assert process.refusal(SIZES[:50], classes=False) is None
    assert "50 molecules at most, and there are 60" in process.refusal(SIZES, classes=False)
    assert "the targets are classes" in process.refusal(ACIDS, classes=True)
    gaps = SIZES.clone()
    gaps[50:] = torch.nan
    assert process.refusal(gaps, classes=False) is None
