"""The estimators as users of scikit-learn use them."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from molhpft.estimator import DataWarning, HPFTClassifier, HPFTRegressor, MoleculeEncoder
from molhpft.estimator.model import Model
from tests.estimator.builders import BRIEF, RING, SIZE, SMILES

NAN = float("nan")
SHORT = {"finetune": {"epochs": 1}}
BY_SET = {**BRIEF, "validation": 0.1}
FINGERPRINTS = {"members": "fingerprints", "folds": 2}
ESTIMATORS = [HPFTClassifier(), HPFTRegressor(), MoleculeEncoder()]


# those that hand over no tables of numbers; `check_estimator` itself runs only the first of them
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_mixin_order,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_checks_of_scikit_learn_that_apply_pass(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_scikit_learn_finds_no_further_check_that_applies(estimator):
    with pytest.warns(SkipTestWarning, match="requires input"):
        found = list(estimator_checks.estimator_checks_generator(estimator, mark="skip"))
    assert {check.func for _, check in found} <= set(CHECKS)


@pytest.fixture(scope="module")
def spelled():
    """A classifier of words in several spellings."""
    words = [("chain", "ring")[ring] for ring in RING]
    words[RING.index(1)] = "Ring "
    return HPFTClassifier(**FINGERPRINTS).fit(SMILES, words)


def test_fitting_learns_and_says_how(classifier):
    assert classifier.score(SMILES, RING) > 0.7
    assert classifier.tau_ in classifier.energy_
    assert list(classifier.energy_) == [0, 2, 5]
    assert {row["phase"] for row in classifier.history_} == {"probe", "finetune"}
    assert classifier.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    "container",
    [
        list,
        np.array,
        lambda y: np.array(y, dtype=object),
        lambda y: pd.Series(y, dtype="category"),
        lambda y: pd.Series(y, dtype="string"),
    ],
    ids=["list", "text", "object", "category", "string"],
)
def test_a_score_reads_labels_as_fitting_does(spelled, container):
    predicted = spelled.predict(SMILES)
    assert set(predicted) == {"Ring ", "chain"}
    right = (predicted == "Ring ") == np.array(RING, dtype=bool)
    y = [("CHAIN", " ring")[ring] for ring in RING]
    assert spelled.score(SMILES, container(y)) == pytest.approx(right.mean())
    weights = np.arange(len(SMILES))
    weighted = np.average(right, weights=weights)
    assert spelled.score(SMILES, container(y), weights) == pytest.approx(weighted)
    assert spelled.score(SMILES, predicted) == 1


def test_a_score_is_of_the_molecules_with_a_label_and_of_those_classes(spelled):
    predicted = spelled.predict(SMILES).astype(object)
    y = np.array([{"chain": "ring", "Ring ": "chain"}[word] for word in predicted], dtype=object)
    assert spelled.score(SMILES, y) == 0
    y[1:] = "n/a"
    y[:1] = predicted[:1]
    assert spelled.score(SMILES, y, np.arange(len(y)) + 1) == 1
    with pytest.raises(ValueError, match="a score needs molecules with labels; all"):
        spelled.score(SMILES, [None] * len(y))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        spelled.score(SMILES, y, [1.0])
    with pytest.raises(ValueError, match="should be chain or Ring , got 'tree'"):
        spelled.score(["C"], ["tree"])


def test_an_unreadable_molecule_has_no_answer_and_stops_no_other(classifier):
    p = classifier.predict_proba(["CCO", "no molecule", ""])
    assert np.isnan(p).all(1).tolist() == [False, True, True]
    assert np.isnan(classifier.transform(["CCO", "no molecule"])).all(1).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"row 1, 'no molecule', cannot be read.*gives NaN"):
        classifier.predict(["CCO", "no molecule"])


def test_labels_of_any_two_values_come_back(tmp_path):
    words = np.where(np.array(RING) == 1, "ring", "chain")
    fitted = HPFTClassifier(**BRIEF).fit(pd.Series(SMILES), words)
    assert fitted.classes_.tolist() == ["chain", "ring"]
    assert set(fitted.predict(SMILES)) <= {"chain", "ring"}
    fitted.save_pretrained(tmp_path)
    again = HPFTClassifier.from_pretrained(tmp_path)
    assert (again.predict(SMILES) == fitted.predict(SMILES)).all()
    assert again.model_.spec.value_names == ("target p(ring)",)


def test_what_is_odd_about_molecules_is_noted_and_warned_of_as_on_the_command_line():
    smiles = [s if k % 4 else f"no molecule {k}" for k, s in enumerate(SMILES)]
    labels = ["no", "yes", *(("no", "yes")[ring] for ring in RING[2:]), "no ", "YES"]
    with pytest.warns(DataWarning, match="15 of 62 molecules cannot be read and were left out"):
        fitted = HPFTClassifier(**BRIEF | {"tau": 0}).fit([*smiles, "O.O", "N.N"], labels)
    spelled, calibration, unreadable, mixtures = fitted.notes_
    assert spelled.startswith("target: 'no ' counts as 'no' (row 60) and 'YES' counts as 'yes'")
    assert calibration.endswith(
        "and here they are 47; folds calibrate on all of them (--folds 5 in finetune)."
    )
    assert unreadable.startswith("15 of 62 molecules cannot be read and were left out: 'no mol")
    assert mixtures.startswith("2 of 62 molecules are salts or mixtures")


def test_nothing_is_noted_of_clean_molecules(classifier):
    assert classifier.notes_ == []


def test_several_targets_with_missing_labels_are_learned_together():
    y = pd.DataFrame({"ring": RING, "large": [float(s > 20) for s in SIZE]})
    y.loc[::3, "ring"] = NAN
    fitted = HPFTClassifier(**BRIEF).fit(pd.DataFrame({"smiles": SMILES}), y)
    assert fitted.predict_proba(SMILES).shape == (len(SMILES), 2)
    assert fitted.predict(SMILES).shape == (len(SMILES), 2)
    assert fitted.model_.spec.target_names == ("ring", "large")
    assert [pair.tolist() for pair in fitted.classes_] == [[0, 1], [0, 1]]


def test_numbers_come_back_in_their_unit(regressor):
    guessed = regressor.predict(SMILES)
    assert guessed.shape == (len(SMILES),)
    assert abs(guessed.mean() - np.mean(SIZE)) < 10
    assert np.isnan(regressor.predict(["no molecule"])).all()
    assert regressor.score(SMILES, SIZE) > -1


def test_a_regression_is_scored_on_the_labels_that_there_are(regressor):
    predicted, y = regressor.predict(SMILES), np.array(SIZE, dtype=object)
    y[::4] = None
    some = np.arange(len(y)) % 4 > 0
    weights = np.arange(len(y)) + 1
    expected = r2_score(y[some].astype(float), predicted[some], sample_weight=weights[some])
    assert regressor.score(SMILES, y, weights) == pytest.approx(expected)
    with pytest.raises(ValueError, match="a score needs molecules with labels; all"):
        regressor.score(SMILES, [None] * len(y))
    with pytest.raises(ValueError, match="row 1, 'no molecule', cannot be read as a molecule"):
        regressor.score(["CCO", "no molecule"], [1, 2])


def test_no_molecules_have_no_answers(classifier, regressor):
    assert classifier.predict([]).shape == regressor.predict([]).shape == (0,)
    assert classifier.predict_proba([]).shape == (0, 2)


@pytest.mark.slow
def test_a_seed_gives_the_same_model_again_and_another_seed_another(regressor):
    same = clone(regressor).fit(SMILES, SIZE)
    assert (same.predict(SMILES) == regressor.predict(SMILES)).all()
    other = clone(regressor).set_params(random_state=1).fit(SMILES, SIZE)
    assert (other.predict(SMILES) != regressor.predict(SMILES)).any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [np.int64(1), np.uint8(1)])
def test_a_seed_means_the_same_in_any_type_of_integer(seed, tmp_path):
    one, same = (HPFTRegressor(**BRIEF, random_state=s).fit(SMILES, SIZE) for s in (1, seed))
    assert (one.predict(SMILES) == same.predict(SMILES)).all()
    same.save_pretrained(tmp_path)
    assert HPFTRegressor.from_pretrained(tmp_path).random_state == 1


def drawn_by(**options):
    """The training molecules, which a random split draws."""
    fitted = HPFTRegressor(**{**BRIEF, "tau": 0, "config": SHORT, **options}).fit(SMILES, SIZE)
    return fitted.model_.training_smiles


def test_the_split_has_a_seed_of_its_own_or_that_of_the_model():
    first = drawn_by()
    assert drawn_by(split_seed=0, random_state=7) == first
    second = drawn_by(split_seed=7)
    assert second != first
    assert drawn_by(random_state=7) == drawn_by(config={**SHORT, "seed": 7}) == second
    assert drawn_by(config={**SHORT, "seed": np.int64(7)}) == second


def test_epochs_are_those_for_the_molecules_that_train(monkeypatch):
    monkeypatch.setattr("molhpft.estimator.settings._SEEN", 320)
    given = {**BRIEF, "tau": 0, "config": {"finetune": {"batch_size": 16}}}
    fitted = HPFTRegressor(**given).fit(SMILES, SIZE)
    train = fitted.model_.about["sizes"]["train"]
    assert max(row["epoch"] for row in fitted.history_) == round(320 / train) != 320 / len(SMILES)


@pytest.mark.slow
def test_a_random_state_is_drawn_from_and_can_be_stored(tmp_path):
    drawn = [
        HPFTRegressor(**BRIEF, random_state=np.random.RandomState(3)).fit(SMILES, SIZE)
        for _ in range(2)
    ]
    assert (drawn[0].predict(SMILES) == drawn[1].predict(SMILES)).all()
    drawn[0].save_pretrained(tmp_path)
    again = clone(HPFTRegressor.from_pretrained(tmp_path)).fit(SMILES, SIZE)
    assert (again.predict(SMILES) == drawn[0].predict(SMILES)).all()


def test_an_eval_set_is_what_is_validated_on():
    train, valid = slice(0, 40), slice(40, 60)
    fitted = HPFTClassifier(**BY_SET).fit(
        SMILES[train], RING[train], eval_set=(SMILES[valid], RING[valid])
    )
    assert fitted.model_.about["sizes"] == {"train": 40, "valid": 10, "calibration": 10}
    assert (
        "Of 20 given validation molecules, 10 validate and 10 calibrate prediction sets."
        in fitted.notes_
    )
    assert fitted.model_.training_smiles == tuple(SMILES[train])


def test_a_calibration_of_probabilities_is_refused_for_numbers():
    with pytest.raises(ValueError, match="calibration isotonic is of probabilities, and table is"):
        HPFTRegressor(**BRIEF, calibration="isotonic").fit(SMILES, SIZE)


@pytest.mark.parametrize("columns", ["ba", "a"])
def test_targets_of_an_eval_set_are_those_of_training_in_their_order(columns):
    labels = pd.DataFrame({name: [k % 2 for k in range(len(SMILES))] for name in "ab"})
    with pytest.raises(ValueError, match="targets"):
        HPFTClassifier(**BY_SET).fit(SMILES, labels, eval_set=(SMILES, labels[list(columns)]))


def test_a_calibration_set_leaves_the_eval_set_whole():
    train, valid, calibration = slice(0, 36), slice(36, 50), slice(50, 60)
    sets = {"eval_set": valid, "calibration_set": calibration}
    fitted = HPFTClassifier(**BY_SET | {"tau": 0}).fit(
        SMILES[train], RING[train], **{k: (SMILES[rows], RING[rows]) for k, rows in sets.items()}
    )
    assert fitted.model_.about["sizes"] == {"train": 36, "valid": 14, "calibration": 10}
    with pytest.raises(ValueError, match="comes beside an eval_set; give both or neither"):
        HPFTClassifier().fit(SMILES, RING, calibration_set=(SMILES, RING))


def test_a_class_of_two_molecules_costs_a_warning_and_not_the_model():
    options = BRIEF | {"tau": 0, "validation": 0.1}
    with pytest.warns(DataWarning, match="Never validated: the valid split"):
        fitted = HPFTClassifier(**options | {"split": "scaffold"}).fit(
            SMILES, [0] * 56 + [1, 0] * 2
        )
    assert any(note.startswith("Never validated") for note in fitted.notes_)
    assert "Label 1 of target is in every set" in " ".join(fitted.model_.about["coverage"])
    assert np.isfinite(fitted.predict_proba(SMILES)).all()


def test_saving_and_loading_changes_no_answer(classifier, regressor, tmp_path):
    for fitted in (classifier, regressor):
        fitted.save_pretrained(tmp_path / type(fitted).__name__)
        again = type(fitted).from_pretrained(tmp_path / type(fitted).__name__)
        assert again.get_params() == json.loads(json.dumps(fitted.get_params())) | {
            "tau": [0, 2, 5]
        }
        for answer in ("values", "std", "sets", "similarity", "nearest", "in_domain"):
            a, b = (
                getattr(one.predict_with_uncertainty(SMILES), answer) for one in (fitted, again)
            )
            np.testing.assert_array_equal(a, b, err_msg=answer)
        assert again.energy_ == fitted.energy_
    with pytest.raises(ValueError, match=r"no HPFTRegressor, but a HPFTClassifier; Model\.from_"):
        HPFTRegressor.from_pretrained(tmp_path / "HPFTClassifier")
    with pytest.raises(ValueError, match="no options to load it with, got revision"):
        HPFTClassifier.from_pretrained(tmp_path / "HPFTClassifier", revision="main")


def test_pushing_takes_the_options_of_a_model(classifier, monkeypatch):
    given = {"private": True, "token": "x", "commit_message": "rings"}
    pushed = {}
    monkeypatch.setattr(Model, "push_to_hub", lambda _, *name, **how: pushed.update(how) or name)
    assert classifier.push_to_hub("me/rings", **given) == ("me/rings",)
    assert pushed == given


@pytest.mark.slow
def test_searches_scores_and_pipelines_of_scikit_learn_work():
    estimator = HPFTClassifier(**{**BRIEF, "tau": 2})
    search = GridSearchCV(estimator, {"tau": [0, 2]}, cv=2, scoring="roc_auc")
    search.fit(np.array(SMILES), RING)
    assert search.best_params_["tau"] in (0, 2)
    assert len(cross_val_score(estimator, np.array(SMILES), RING, cv=2)) == 2
    piped = make_pipeline(estimator, LogisticRegression()).fit(SMILES, RING)
    assert piped.predict(SMILES).shape == (len(SMILES),)


def test_what_is_not_fitted_says_so():
    for call in (
        "predict",
        "predict_proba",
        "transform",
        "predict_with_uncertainty",
        "save_pretrained",
    ):
        with pytest.raises(NotFittedError):
            getattr(HPFTClassifier(), call)(SMILES)


WRONG = {
    "labels": ({}, SMILES, [1] * 60, "labels of two classes, got 1 class: 1"),
    "molecules": ({}, [1, 2], [0, 1], "row 0 is 1 "),
    "nothing readable": ({}, ["?", "!"], [0, 1], "leave none to train"),
    "method": ({"config": {"method": "side_tuning"}}, SMILES, RING, "side_tuning trains more than"),
    "config": ({"config": "finetune.yaml"}, SMILES, RING, "a mapping .* got 'finetune.yaml'"),
    "auxiliary task": (
        {"config": {"method": {"name": "flyp", "pretraining": "nci_descriptors"}}},
        SMILES,
        RING,
        "method flyp trains more than",
    ),
    "validation": ({"validation": 1.5}, SMILES, RING, "between 0 and 1, got 1.5"),
    "target coverage": ({"target_coverage": 2.0}, SMILES, RING, "between 0 and 1, got 2"),
    "tau twice": ({"config": {"method": {"tau": 1}}}, SMILES, RING, "tau is given twice"),
    "split": ({"split": "butina"}, SMILES, RING, "be scaffold or random, got 'butina'"),
    "split_seed": (
        {"split": "scaffold", "split_seed": 1},
        SMILES,
        RING,
        "split_seed is for split 'random' without an eval_set, got 1",
    ),
}


@pytest.mark.parametrize(("options", "smiles", "y", "says"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_learned_from_is_one_sentence(options, smiles, y, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        HPFTClassifier(**{**BRIEF, **options}).fit(smiles, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sets", [{}, {"eval_set": (SMILES, RING)}], ids=["folds", "eval_set"])
def test_a_share_of_validation_that_nothing_is_held_out_by_is_refused(sets):
    with pytest.raises(ValueError, match=r"validation 0\.5 is the share of one held-out part, and"):
        HPFTClassifier(validation=0.5).fit(SMILES, RING, **sets)


def test_a_seed_of_what_is_not_drawn_is_refused():
    with pytest.raises(ValueError, match="split_seed is of what is drawn at random, got 1, and"):
        HPFTClassifier(folds=0, split_seed=1).fit(SMILES, RING)


def test_molecules_without_a_label_are_no_neighbours_of_a_prediction():
    size = np.array(SIZE, dtype=float)
    size[::3] = NAN
    fitted = HPFTRegressor(**FINGERPRINTS).fit(SMILES, size)
    labelled = {smiles for smiles, y in zip(SMILES, size, strict=True) if not np.isnan(y)}
    assert set(fitted.model_.training_smiles) == labelled


def test_labels_of_two_types_come_back_as_they_are():
    words = ["yes" if ring else "no" for ring in RING]
    y = pd.DataFrame({"word": words, "number": RING})
    fitted = HPFTClassifier(**FINGERPRINTS).fit(SMILES, y)
    predicted = fitted.predict(SMILES)
    assert set(predicted[:, 0]) == {"yes", "no"}
    assert (predicted[:, 1] == y["number"]).mean() > 0.7
    assert fitted.score(SMILES, y) == (predicted == y).all(axis=1).mean()
    y.loc[::2, "number"] = NAN
    right = (predicted == y) | y.isna()
    assert fitted.score(SMILES, y) == right.all(axis=1).mean()


@pytest.mark.slow
def test_the_unit_of_one_target_is_nothing_to_the_members_of_another():
    weights = []
    for unit in (1e-6, 1e6):
        other = unit * np.random.default_rng(1).normal(size=len(SMILES))
        y = np.stack([SIZE, other], axis=1)
        fitted = HPFTRegressor(members="kernels", folds=2).fit(SMILES, y)
        weights.append([member["weight"] for member in fitted.model_.about["members"]])
    assert weights[0] == weights[1]
