"""What held-out molecules say of a model's answers: it survives storage and keeps its promises."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.fingerprints import fingerprint_rows
from molhpft.domains.molecules.smiles import parse
from molhpft.estimator.confidence import CalibrationName, HeldOut, fit_trust, trust_from
from tests.estimator.rings import SMILES
from tests.toy import NAN

SEEDS = st.integers(0, 10_000)
LEVELS = st.floats(0.05, 0.95)
NUMBERS = Squared(mean=(100.0, -5.0), std=(20.0, 0.5))
NAMES = get_args(CalibrationName)
CLASSES = Multilabel()
LIKE = torch.rand(60, generator=torch.Generator().manual_seed(0))
PRINTS = fingerprint_rows([parse(smiles) for smiles in SMILES])


def split(seed, *, n=60, numbers=False):
    """Logits of two targets and their labels, a fifth of which is missing."""
    rng = torch.Generator().manual_seed(seed)
    a = 2 * torch.randn(n, 2, generator=rng)
    noise = torch.rand(n, 2, generator=rng)
    y = a + noise if numbers else (noise < a.sigmoid()).float()
    y[:2] = torch.tensor([[0.0], [1.0]])
    return a, y.masked_fill(torch.rand(n, 2, generator=rng) < 0.2, NAN)


def fitted(a, y, objective=CLASSES, *, calibration="platt", level=0.9):
    held = HeldOut(a, y, LIKE[: len(a)])
    return fit_trust(held, held, objective, calibration=calibration, level=level, prints=PRINTS)


def sets_of(trust, a, objective):
    """Sets for molecules that are as near to training as they can be."""
    return trust.sets(a, objective, torch.ones(len(a)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, level=LEVELS)
def test_trust_in_classes_is_the_same_after_storage(name, seed, level):
    a, y = split(seed)
    ours = fitted(a, y, calibration=name, level=level)
    theirs = trust_from(ours.tensors(), ours.about())
    assert theirs.values(a, CLASSES).equal(ours.values(a, CLASSES))
    assert sets_of(theirs, a, CLASSES).equal(sets_of(ours, a, CLASSES))
    assert (theirs.level, theirs.near) == (ours.level, ours.near)
    assert (theirs.prints == ours.prints).all()
    assert theirs.counts.equal(ours.counts)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, level=LEVELS)
def test_trust_in_numbers_is_the_same_after_storage(seed, level):
    a, y = split(seed, numbers=True)
    ours = fitted(a, y, NUMBERS, level=level)
    theirs = trust_from(ours.tensors(), ours.about())
    assert sets_of(theirs, a, NUMBERS).equal(sets_of(ours, a, NUMBERS))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_calibration_gives_probabilities_and_turns_no_ranking_around(name, seed):
    a, y = split(seed)
    p = fitted(a, y, calibration=name).values(a, CLASSES)
    assert ((p >= 0) & (p <= 1)).all()
    for logits, column in zip(a.T, p.T, strict=True):
        assert (column[logits.argsort()].diff() >= 0).all()


def test_without_calibration_probabilities_are_those_of_the_network():
    a, y = split(0)
    p = fitted(a, y, calibration="none").values(a, CLASSES)
    torch.testing.assert_close(p, a.double().sigmoid(), rtol=1e-12, atol=0)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, level=LEVELS, name=st.sampled_from(NAMES))
def test_sets_hold_the_labels_that_they_were_fitted_to_as_often_as_promised(seed, level, name):
    a, y = split(seed)
    held = sets_of(fitted(a, y, calibration=name, level=level), a, CLASSES)
    for k, label in ((0, 0), (0, 1), (1, 0), (1, 1)):
        own = y[:, k] == label
        assert held[own, k, label].double().mean() >= level


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, level=LEVELS)
def test_intervals_lie_around_the_value_and_hold_the_targets_they_were_fitted_to(seed, level):
    a, y = split(seed, numbers=True)
    trust = fitted(a, y, NUMBERS, level=level)
    q, ends = trust.values(a, NUMBERS), sets_of(trust, a, NUMBERS)
    torch.testing.assert_close(ends.mean(2), q)
    torch.testing.assert_close(q, a.double() * torch.tensor([20.0, 0.5]) + torch.tensor([100, -5]))
    measured, truth = ~y.isnan(), NUMBERS.values(y)
    slack = 1e-9 * truth.abs()
    inside = (ends[..., 0] <= truth + slack) & (truth <= ends[..., 1] + slack)
    for k in (0, 1):
        assert inside[measured[:, k], k].double().mean() >= level


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, levels=st.tuples(LEVELS, LEVELS).map(sorted))
def test_a_higher_level_rules_out_less(seed, levels):
    a, y = split(seed)
    low, high = (sets_of(fitted(a, y, level=level), a, CLASSES) for level in levels)
    assert (high >= low).all()


def test_too_few_molecules_rule_out_nothing():
    a, y = split(0, n=5)
    trusts = [fitted(a, y, objective, level=0.9) for objective in (CLASSES, NUMBERS)]
    assert sets_of(trusts[0], a, CLASSES).all()
    assert sets_of(trusts[1], a, NUMBERS).isinf().all()
    assert all(trust.unbounded.all() for trust in trusts)


def test_what_validation_says_moves_no_set():
    a, y = split(0)
    aside, prints = HeldOut(a, y, LIKE), {"level": 0.8, "prints": PRINTS}
    for objective, calibration in ((CLASSES, "platt"), (CLASSES, "isotonic"), (NUMBERS, "none")):
        found = [
            fit_trust(valid, aside, objective, calibration=calibration, **prints)
            for valid in (aside, HeldOut(3 - a, y.flip(0), LIKE))
        ]
        ours, theirs = (sets_of(trust, a, objective) for trust in found)
        assert ours.equal(theirs)


@pytest.mark.parametrize("objective", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_without_calibration_molecules_nothing_is_ruled_out(objective):
    a, y = split(0)
    valid = HeldOut(a, y, LIKE)
    trust = fit_trust(valid, None, objective, calibration="platt", level=0.8, prints=PRINTS)
    found = sets_of(trust, a, objective)
    assert found.all() if objective is CLASSES else found.isinf().all()
    assert trust.unbounded.all()
    assert not trust.counts.any()


def test_outside_the_applicability_domain_nothing_is_ruled_out():
    a, y = split(0)
    far = torch.where(torch.arange(60) % 2 == 0, 0.0, 1.0)
    trust = fitted(a, y, level=0.5)
    assert trust.near > 0
    found = trust.sets(a, CLASSES, far)
    assert found[::2].all()
    assert not found[1::2].all()
    numbers = fitted(a, y, NUMBERS, level=0.5).sets(a, NUMBERS, far)
    assert numbers[::2].isinf().all()
    assert numbers[1::2].isfinite().all()


def test_the_least_similar_get_wider_intervals_where_the_network_errs_more_on_them():
    rng = torch.Generator().manual_seed(0)
    similarity = torch.rand(2_000, generator=rng)
    y = torch.randn(2_000, 1, generator=rng) * (1.2 - similarity[:, None])
    held = HeldOut(torch.zeros(2_000, 1), y, similarity)
    trust = fit_trust(held, held, Squared(), calibration="none", level=0.9, prints=PRINTS)
    new = torch.rand(20_000, generator=rng)
    truth = torch.randn(20_000, 1, generator=rng) * (1.2 - new[:, None])
    limits = trust.limits[(new * 100).round().long()]
    own, plain = ((truth.abs() <= limit)[:, 0].double() for limit in (limits, trust.limits[-1]))
    far = new < 0.2
    assert plain[far].mean() < 0.8
    assert own[far].mean() > 0.84
    assert own[~far].mean() > 0.9


def test_training_molecules_are_their_own_neighbours_and_nearly_all_are_near():
    trust = fitted(*split(0))
    similarity, row = trust.neighbours.nearest(torch.from_numpy(_bits(trust.prints)))
    assert (similarity == 1).all()
    assert (trust.prints[row] == trust.prints).all()
    assert 0 < trust.near <= 1


def _bits(prints):
    return ((prints[:, :, None] >> range(7, -1, -1)) & 1).reshape(len(prints), -1).astype(bool)


@pytest.mark.parametrize("objective", [CLASSES, NUMBERS], ids=["classes", "numbers"])
@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, NAN])
def test_a_level_lies_between_0_and_1(objective, level):
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        fitted(*split(0), objective, level=level)


def test_a_model_of_numbers_has_no_probabilities():
    a, y = split(0, numbers=True)
    with pytest.raises(ValueError, match="numbers has no probabilities"):
        fitted(a, y, NUMBERS).values(a, CLASSES)
