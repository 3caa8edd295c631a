"""Uncertainty of a model: it survives storage, and its sets and scores are right."""

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binned_statistic, spearmanr
from sklearn.metrics import mean_absolute_error, roc_auc_score, root_mean_squared_error

from molhpft.core.objectives import Squared
from molhpft.estimator.calibrate import (
    CalibrationName,
    fit_uncertainty,
    held_out_scores,
    held_out_values,
    uncertainty_from,
)
from molhpft.estimator.held_out import HeldOut, candidate_std
from molhpft.measure.uncertainty import fit_platt, interval_widths
from tests.estimator.calibrated import (
    CLASSES,
    FINGERPRINTS,
    ONE_NUMBER,
    fit,
    near,
    one_target,
    uncertainty_of,
)
from tests.toy import NAN

SEEDS = st.integers(0, 10_000)
COVERAGES = st.floats(0.05, 0.95)
NAMES = get_args(CalibrationName)
NUMBERS = Squared(mean=(100.0, -5.0), std=(20.0, 0.5))
LIKE = torch.rand(60, generator=torch.Generator().manual_seed(0))
BOTH = pytest.mark.parametrize("objective", [CLASSES, NUMBERS], ids=["classes", "numbers"])


def split(seed, *, n=60, objective=CLASSES):
    """Logits of two targets and their labels, a fifth of which is missing."""
    rng = torch.Generator().manual_seed(seed)
    a = 2 * torch.randn(n, 2, generator=rng)
    noise = torch.rand(n, 2, generator=rng)
    y = a + noise if isinstance(objective, Squared) else (noise < a.sigmoid()).float()
    y[:2] = torch.tensor([[0.0], [1.0]])
    return a, y.masked_fill(torch.rand(n, 2, generator=rng) < 0.2, NAN)


def fitted(a, y, objective=CLASSES, **options):
    held = HeldOut(a, y, LIKE[: len(a)])
    return fit(held, held, objective, **options)


def sets_of(uncertainty, a, objective):
    """Sets of molecules that are as near to training as they can be."""
    return uncertainty.sets(a, objective, torch.ones(len(a)))


@BOTH
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, deadline=None)
@given(seed=SEEDS, coverage=COVERAGES)
def test_uncertainty_is_the_same_after_storage(objective, name, seed, coverage):
    a, y = split(seed, objective=objective)
    ours = fitted(a, y, objective, calibration=name, target_coverage=coverage)
    theirs = uncertainty_from(ours.to_tensors(), json.loads(json.dumps(ours.to_json())))
    assert theirs.values(a, objective).equal(ours.values(a, objective))
    assert sets_of(theirs, a, objective).equal(sets_of(ours, a, objective))
    assert theirs.to_json() == ours.to_json()
    assert (theirs.fingerprints == ours.fingerprints).all()
    assert theirs.label_counts.equal(ours.label_counts)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_calibration_gives_probabilities_in_the_order_of_the_logits(name, seed):
    a, y = split(seed)
    p = fitted(a, y, calibration=name).values(a, CLASSES)
    assert ((p >= 0) & (p <= 1)).all()
    for logits, column in zip(a.T, p.T, strict=True):
        assert (column[logits.argsort()].diff() >= 0).all()
    if name == "none":
        torch.testing.assert_close(p, a.double().sigmoid(), rtol=1e-12, atol=0)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, coverage=COVERAGES, name=st.sampled_from(NAMES))
def test_sets_cover_the_labels_that_they_were_fitted_to(seed, coverage, name):
    a, y = split(seed)
    held = sets_of(fitted(a, y, calibration=name, target_coverage=coverage), a, CLASSES)
    for k, label in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert held[y[:, k] == label, k, label].double().mean() >= coverage


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, coverage=COVERAGES)
def test_intervals_surround_the_value_and_cover_the_targets_they_were_fitted_to(seed, coverage):
    a, y = split(seed, n=240, objective=NUMBERS)
    similarity = LIKE.repeat(4)
    held = HeldOut(a, y, similarity)
    uncertainty = fit(held, held, NUMBERS, target_coverage=coverage)
    values = uncertainty.values(a, NUMBERS)
    ends = replace(uncertainty, domain_threshold=0.0).sets(a, NUMBERS, similarity)
    bounded = ends.isfinite().all(2)
    torch.testing.assert_close(ends.mean(2)[bounded], values[bounded])
    expected = a.double() * torch.tensor([20.0, 0.5]) + torch.tensor([100, -5])
    torch.testing.assert_close(values, expected)
    truth = NUMBERS.values(y)
    slack = 1e-9 * truth.abs()
    inside = (ends[..., 0] <= truth + slack) & (truth <= ends[..., 1] + slack)
    for k in (0, 1):
        # not by construction: widths of these molecules are read with them, limits without
        assert inside[~y[:, k].isnan(), k].double().mean() >= coverage - 0.1


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, coverages=st.tuples(COVERAGES, COVERAGES).map(sorted))
def test_a_higher_target_coverage_rules_out_less(seed, coverages):
    a, y = split(seed)
    low, high = (sets_of(fitted(a, y, target_coverage=c), a, CLASSES) for c in coverages)
    assert (high >= low).all()


@BOTH
@pytest.mark.parametrize("n", [5, None])
def test_too_few_calibration_molecules_rule_out_nothing(objective, n):
    a, y = split(0, objective=objective)
    valid = HeldOut(a, y, LIKE)
    uncertainty = fit(valid, n and HeldOut(a[:n], y[:n], LIKE[:n]), objective)
    found = sets_of(uncertainty, a, objective)
    assert found.all() if objective is CLASSES else found.isinf().all()
    assert uncertainty.unbounded.all()
    assert bool(uncertainty.label_counts.any()) is bool(n)


@pytest.mark.parametrize(
    ("objective", "calibration"), [(CLASSES, "platt"), (CLASSES, "isotonic"), (NUMBERS, "none")]
)
def test_validation_molecules_move_no_set(objective, calibration):
    a, y = split(0)
    held = HeldOut(a, y, LIKE)
    ours, theirs = (
        sets_of(
            fit(valid, held, objective, calibration=calibration, target_coverage=0.8), a, objective
        )
        for valid in (held, HeldOut(3 - a, y.flip(0), LIKE))
    )
    assert ours.equal(theirs)


def test_probabilities_are_fitted_to_validation_and_calibration_molecules_together():
    (a, y), (b, z) = one_target(1, n=30), one_target(2, n=20)
    expected = fit_platt(torch.cat([a, b]), torch.cat([y, z]))
    found = fit(near(a, y), near(b, z), calibration="platt").values(b, CLASSES)
    torch.testing.assert_close(found, expected.probabilities(b.double()))


def test_without_any_molecules_there_is_no_uncertainty_to_fit():
    with pytest.raises(ValueError, match="got neither"):
        fit(None, None)


def test_outside_the_applicability_domain_nothing_is_ruled_out():
    a, y = split(0)
    far = torch.where(torch.arange(60) % 2 == 0, 0.0, 1.0)
    uncertainty = fitted(a, y, target_coverage=0.5)
    assert uncertainty.domain_threshold > 0
    found = uncertainty.sets(a, CLASSES, far)
    assert found[::2].all()
    assert not found[1::2].all()
    intervals = fitted(a, y, NUMBERS, target_coverage=0.5).sets(a, NUMBERS, far)
    assert intervals[::2].isinf().all()
    assert intervals[1::2].isfinite().all()


def test_less_similar_molecules_get_wider_intervals_where_the_network_errs_more_on_them():
    rng = torch.Generator().manual_seed(0)
    similarity = torch.rand(2_000, generator=rng)
    y = torch.randn(2_000, 1, generator=rng) * (1.2 - similarity[:, None])
    held = HeldOut(torch.zeros(2_000, 1), y, similarity)
    uncertainty = replace(fit(held, held, Squared(), calibration="none"), domain_threshold=0.0)
    new = torch.rand(20_000, generator=rng)
    truth = torch.randn(20_000, 1, generator=rng) * (1.2 - new[:, None])
    widths = uncertainty.thresholds(torch.zeros_like(truth), new, None)
    plain = interval_widths(held.logits, y, target_coverage=0.9)
    far = new < 0.2
    assert (truth.abs() <= plain)[far].double().mean() < 0.8
    for part in (far, ~far):
        assert 0.86 < (truth.abs() <= widths)[part].double().mean() < 0.94


def test_a_molecule_has_the_thresholds_of_the_nearest_hundredth_of_similarity():
    steps = torch.arange(101.0).reshape(-1, 1, 1).expand(-1, 1, 2)
    uncertainty = replace(uncertainty_of(CLASSES), limits=steps, domain_threshold=0.0)
    similarity = torch.tensor([0.0, 0.004, 0.006, 0.994, 0.996, 1.0])
    found = uncertainty.thresholds(torch.zeros(6, 1), similarity, None)
    assert found[:, 0, 0].tolist() == found[:, 0, 1].tolist() == [0, 0, 1, 99, 100, 100]


def uneven(seed, n):
    """Errors that grow with what members disagree by, from a tenth to one standard deviation."""
    rng = torch.Generator().manual_seed(seed)
    std = torch.rand(n, 1, generator=rng)
    a = torch.randn(n, 1, generator=rng)
    y = a + (0.1 + 0.9 * std) * torch.randn(n, 1, generator=rng)
    return HeldOut(a, y, torch.ones(n), std=std)


def coverages_in_thirds(held, widths):
    """Of the narrow, the middle and the wide intervals."""
    holds = ((held.logits - held.targets).abs() <= widths)[:, 0].double()
    order = held.std[:, 0].argsort()
    return [third.mean().item() for third in holds[order].tensor_split(3)]


@pytest.mark.parametrize("n", [100, 1_000])
def test_intervals_of_uneven_errors_cover_in_every_third_of_their_width(n):
    new = uneven(99, 30_000)
    found, plain, widths = [], [], []
    for seed in range(20):
        held = uneven(seed, n)
        uncertainty = fit(held, held, ONE_NUMBER, calibration="none")
        own = uncertainty.thresholds(new.logits, new.similarity, new.std)
        one = interval_widths(held.logits, held.targets, target_coverage=0.9)
        found.append(coverages_in_thirds(new, own))
        plain.append(coverages_in_thirds(new, one.expand_as(own)))
        widths.append([own.mean(), one.mean()])
    narrow, middle, wide = np.mean(found, axis=0)
    assert 0.89 < np.mean(found) < 0.92
    assert max(narrow, middle, wide) - min(narrow, middle, wide) < 0.06
    assert np.mean(plain, axis=0)[0] > 0.99
    assert np.mean(plain, axis=0)[2] < 0.8
    own, one = np.mean(widths, axis=0)
    assert own < one


def test_intervals_of_even_errors_are_hardly_wider_than_those_of_one_width():
    rng = torch.Generator().manual_seed(0)
    n, new = 200, torch.rand(5_000, 1, generator=rng)
    ratios = []
    for _ in range(10):
        held = HeldOut(
            torch.randn(n, 1, generator=rng),
            torch.randn(n, 1, generator=rng),
            torch.rand(n, generator=rng),
            std=torch.rand(n, 1, generator=rng),
        )
        held = replace(held, targets=held.logits + 0.3 * held.targets)
        uncertainty = fit(held, held, ONE_NUMBER, calibration="none")
        own = uncertainty.limits[-1] * uncertainty.error_scale.of(
            new, torch.rand(5_000, generator=rng), torch.randn(5_000, 1, generator=rng)
        )
        one = interval_widths(held.logits, held.targets, target_coverage=0.9)
        ratios.append((own.mean() / one).item())
    assert 0.97 < np.mean(ratios) < 1.05


def test_members_that_began_alike_count_as_one():
    logits = torch.tensor([[[0.0]], [[2.0]], [[5.0]]])
    weights = torch.tensor([0.25, 0.25, 0.5])
    # means 1 and 5, of half the weight each
    assert candidate_std(logits, weights, [2, 1]).item() == pytest.approx(2.0)
    alone = candidate_std(logits, weights, [1, 1, 1])
    mean = (logits.flatten() * weights).sum()
    assert alone.item() == pytest.approx(
        ((logits.flatten() - mean).square() * weights).sum().sqrt().item()
    )
    assert candidate_std(logits, weights, [3]) is None


def steps(seed, n):
    """Logits whose probabilities are two steps, which no line through logits is."""
    rng = torch.Generator().manual_seed(seed)
    a = 4 * torch.randn(n, 1, generator=rng)
    p = torch.where(a.abs() < 2, 0.1, 0.9)
    return a, (torch.rand(n, 1, generator=rng) < torch.where(a > 2, 0.9, p.clamp(max=0.1))).float()


def test_venn_abers_is_chosen_where_it_is_better_and_platt_elsewhere():
    chosen = []
    for seed in range(5):
        a, y = steps(seed, 2_000)
        stepped = fitted_named(a, y)
        smooth = fitted_named(*one_target(seed, n=200))
        chosen.append((stepped.calibration.name, smooth.calibration.name))
        assert set(stepped.log_losses) == {"platt", "venn_abers"}
        assert stepped.log_losses["venn_abers"] < stepped.log_losses["platt"]
    assert chosen == [("venn_abers", "platt")] * 5


def fitted_named(a, y):
    held = HeldOut(a, y, torch.ones(len(a)))
    return fit(None, held, calibration="auto")


def test_losses_that_choose_are_of_fits_without_the_fold_that_they_judge():
    a, y = one_target(3, n=60)
    fold = torch.arange(60) % 2
    held = HeldOut(a, y, torch.ones(60), fold=fold)
    losses = fit(None, held, calibration="auto").log_losses
    p = torch.empty_like(a).double()
    for k in (0, 1):
        line = fit_platt(a[fold != k], y[fold != k])
        p[fold == k] = line.probabilities(a[fold == k].double())
    expected = torch.nn.functional.binary_cross_entropy(p, y.double()).item()
    assert losses["platt"] == pytest.approx(expected)


def test_without_a_label_auto_is_platt_and_nothing_fails():
    a = torch.randn(20, 1)
    held = near(a, torch.full_like(a, NAN))
    assert fit(held, held, calibration="auto").calibration.name == "platt"


@BOTH
@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.5, NAN])
def test_target_coverage_lies_between_0_and_1(objective, coverage):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        fitted(*split(0), objective, target_coverage=coverage)


def test_a_regression_model_has_no_probabilities():
    with pytest.raises(ValueError, match="regression model has no probabilities"):
        fitted(*split(0, objective=NUMBERS), NUMBERS).values(split(0)[0], CLASSES)


ONE = pytest.mark.parametrize("objective", [CLASSES, ONE_NUMBER], ids=["classes", "numbers"])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_regression_scores_are_those_of_other_libraries_in_the_unit_of_the_target(seed):
    a, y = one_target(seed, objective=ONE_NUMBER)
    uncertainty = uncertainty_of(ONE_NUMBER)
    truth, guess = (100 + 20 * values[:, 0].double().numpy() for values in (y, a))
    low, high = sets_of(uncertainty, a, ONE_NUMBER)[:, 0].T.numpy()
    expected = {
        "rmse": root_mean_squared_error(truth, guess),
        "mae": mean_absolute_error(truth, guess),
        "spearman": spearmanr(truth, guess).statistic,
        "coverage": np.mean((low <= truth) & (truth <= high)),
        "width": np.mean(high - low),
        "in_domain": 1.0,
    }
    assert held_out_scores(near(a, y), ONE_NUMBER, uncertainty) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_classification_scores_are_those_of_other_libraries(seed):
    a, y = one_target(seed)
    uncertainty = uncertainty_of(CLASSES)
    found = held_out_scores(near(a, y), CLASSES, uncertainty)
    sets = sets_of(uncertainty, a, CLASSES)[:, 0].tolist()
    covered = [pair[int(label)] for pair, label in zip(sets, y[:, 0].tolist(), strict=True)]
    assert found["rocauc"] == pytest.approx(roc_auc_score(y, a))
    assert found["coverage"] == pytest.approx(np.mean(covered))
    assert found["set_size"] == pytest.approx(np.mean([sum(pair) for pair in sets]))
    p = uncertainty.values(a, CLASSES)[:, 0].numpy()
    gaps = binned_statistic(p, p - y[:, 0].numpy(), "sum", bins=15, range=(0, 1)).statistic
    assert found["ece"] == pytest.approx(np.abs(gaps).sum() / len(p))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_ranks_are_counted_within_folds_where_members_differ_by_their_fold(seed):
    a, y = one_target(seed)
    fold = torch.arange(len(a)) % 3
    level = 9.0 * fold[:, None]  # what a member of a fold adds to all that it says
    places = [fold == k for k in range(3)]

    def found(y, objective):
        held = replace(near(a + level, y), fold=fold)
        return held_out_scores(held, objective, uncertainty_of(objective))

    labels = y.where(torch.arange(len(y))[:, None] > 5, torch.arange(len(y))[:, None] % 2.0)
    expected = np.mean([roc_auc_score(labels[one], a[one]) for one in places])
    assert found(labels, CLASSES)["rocauc"] == pytest.approx(expected)
    numbers = a + labels
    expected = np.mean([spearmanr(numbers[one], a[one]).statistic for one in places])
    assert found(numbers, ONE_NUMBER)["spearman"] == pytest.approx(expected)
    rmse = root_mean_squared_error(numbers, a + level) * ONE_NUMBER.std[0]
    assert found(numbers, ONE_NUMBER)["rmse"] == pytest.approx(rmse)


def test_calibration_error_is_measured_before_and_after():
    a, y = one_target(1, n=2_000)
    held = near(5 * a, y)
    found = held_out_scores(held, CLASSES, fit(held, held, target_coverage=0.8))
    assert found["ece"] < 0.05 < found["ece_before"]


@ONE
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_molecule_without_a_label_changes_no_score(objective, seed):
    a, y = one_target(seed, objective=objective)
    more = torch.cat([a, torch.full((7, 1), 3.0)]), torch.cat([y, torch.full((7, 1), NAN)])
    uncertainty = uncertainty_of(objective)
    expected = held_out_scores(near(a, y), objective, uncertainty)
    assert held_out_scores(near(*more), objective, uncertainty) == pytest.approx(expected)


def test_a_number_that_cannot_be_computed_is_none_and_json_can_hold_the_rest():
    a, y = one_target(2, objective=ONE_NUMBER)
    found = held_out_scores(
        near(torch.zeros_like(a), y), ONE_NUMBER, uncertainty_of(ONE_NUMBER, n=3)
    )
    assert {name for name, value in found.items() if value is None} == {"spearman", "width"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@ONE
def test_without_a_label_nothing_is_scored_and_nothing_fails(objective):
    a, y = one_target(5)
    found = held_out_scores(near(a, torch.full_like(y, NAN)), objective, uncertainty_of(objective))
    assert {name for name, value in found.items() if value is not None} == {"in_domain"}


def test_one_class_has_no_score_but_has_coverage():
    a, y = one_target(4)
    uncertainty = uncertainty_of(CLASSES)
    found = held_out_scores(near(a, torch.ones_like(y)), CLASSES, uncertainty)
    covered = sets_of(uncertainty, a, CLASSES)[:, 0, 1]
    assert found["rocauc"] is None
    assert found["coverage"] == pytest.approx(covered.double().mean().item())
    assert 0.5 < found["coverage"] < 1  # some, not all: the comparison says something
    assert found["ece"] is not None


def test_coverage_and_set_size_are_those_of_molecules_within_the_domain():
    a, y = one_target(3)
    uncertainty = uncertainty_of(CLASSES)
    inside, outside = near(a, y), HeldOut(a, 1 - y, torch.zeros(len(a)))
    both = HeldOut(
        a.repeat(2, 1), torch.cat([y, 1 - y]), torch.cat([inside.similarity, outside.similarity])
    )
    alone, together, far = (
        held_out_scores(held, CLASSES, uncertainty) for held in (inside, both, outside)
    )
    for name in ("coverage", "set_size"):
        assert together[name] == alone[name]
        assert far[name] is None
    assert (together["in_domain"], far["in_domain"]) == (0.5, 0.0)


@pytest.mark.parametrize("calibration", [name for name in NAMES if name != "auto"])
def test_labels_of_a_part_say_nothing_about_the_probabilities_of_its_molecules(calibration):
    a, y = split(0)
    held = near(a, y)
    out = held.parts == 0

    def values_of(targets):
        one = {"valid": replace(held, targets=targets)}
        model = fit(None, one["valid"], calibration=calibration)
        how = {"fitted_to": ["valid"], "calibration": calibration}
        return held_out_values(one, CLASSES, model, **how)["valid"]

    found, flipped = values_of(y), values_of(torch.where(out[:, None], 1 - y, y))
    assert torch.equal(found[out], flipped[out])
    # what is fitted to all of them is fitted to these
    if calibration == "isotonic":
        assert not torch.equal(found, fit(None, held, calibration=calibration).values(a, CLASSES))


def test_what_was_chosen_automatically_is_fitted_to_the_other_parts_as_if_it_had_been_asked_for():
    held = {"valid": near(*split(0))}
    model = fit(None, held["valid"], calibration="auto")
    by_auto, by_name = (
        held_out_values(held, CLASSES, model, fitted_to=["valid"], calibration=how)["valid"]
        for how in ("auto", model.calibration.name)
    )
    assert torch.equal(by_auto, by_name)
    assert not torch.equal(by_auto, model.values(held["valid"].logits, CLASSES))


def test_values_of_what_calibrated_nothing_are_the_models_own():
    held = {"valid": near(*split(0)), "test": near(*split(1))}
    model = fit(held["valid"], None)
    values = held_out_values(held, CLASSES, model, fitted_to=["valid"], calibration="platt")
    assert torch.equal(values["test"], model.values(held["test"].logits, CLASSES))


def test_a_second_measurement_of_every_molecule_does_not_narrow_the_domain():
    held = near(*split(0))
    given = {"calibration": "platt", "target_coverage": 0.9}
    once, twice = (
        fit_uncertainty(held, CLASSES, **given, fingerprints=prints)
        for prints in (FINGERPRINTS, np.concatenate([FINGERPRINTS, FINGERPRINTS]))
    )
    assert twice.domain_threshold == once.domain_threshold < 1
    one = fit_uncertainty(held, CLASSES, **given, fingerprints=FINGERPRINTS[[0, 0]])
    assert one.domain_threshold == 1
