"""The user guide's rules: each fires on what it is about, and on nothing else."""

import pytest

from molhpft.experiments.advice import (
    DRIFTS,
    GAP,
    RARE,
    SMALL_BATCH,
    backbone_advice,
    balance_advice,
    batch_norm_advice,
    head_advice,
    smoothing_advice,
    tau_advice,
)
from molhpft.experiments.changes import apply, parse_change
from molhpft.experiments.guide import (
    FALLS,
    GONE,
    LEFT,
    POOR,
    SATURATED,
    Trail,
    fits_too_little,
    has_too_little_energy,
)
from molhpft.experiments.tables import SHARES


def trail(*, metric="accuracy", left=0.3, train=0.8, valid=0.7, halfway=1.0):
    """Energy that falls from 1 to `left` and stays there, scores that rise to `train`."""
    energies = {0: 1.0, 1: (1 + left) / 2, 5: halfway * left, 10: left}
    looks = {
        tau: {"aie": energies[tau], "train": share * train, "valid": valid}
        for tau, share in ((0, 0.5), (1, 0.7), (10, 1.0))
    }
    return Trail(metric, energies, looks)


def test_every_share_but_no_loss_has_a_threshold():
    assert set(POOR) == set(SHARES)


@pytest.mark.parametrize("metric", POOR)
def test_a_fitted_training_split_means_too_little_energy(metric):
    assert "by tau 10" in has_too_little_energy(trail(metric=metric, train=SATURATED))
    assert has_too_little_energy(trail(metric=metric, train=SATURATED - 0.01)) is None


def test_energy_nearly_gone_is_too_little():
    assert "leaves 10%" in has_too_little_energy(trail(left=GONE))
    assert has_too_little_energy(trail(left=GONE + 0.01)) is None


@pytest.mark.parametrize(("metric", "poor"), POOR.items())
def test_a_poor_fit_with_energy_left_calls_for_an_mlp_head(metric, poor):
    poorly = {"metric": metric, "train": poor - 0.01}
    assert fits_too_little(trail(left=LEFT + 0.1, **poorly))
    assert fits_too_little(trail(left=LEFT, **poorly)) is None
    assert fits_too_little(trail(metric=metric, train=poor, left=0.9)) is None


def test_numbers_are_not_judged_by_shares():
    seen = trail(metric="neg_rmse", train=-3.0, left=0.0, valid=-5.0)
    assert has_too_little_energy(seen) is None
    assert fits_too_little(seen) is None
    lines = [smoothing_advice(seen, smoothed=False), head_advice(seen, linear=True)]
    lines.append(backbone_advice(seen, -1.0, "conv1", is_cut=False))
    assert not any(line.changes for line in lines)


def test_taus_stop_where_the_training_split_is_fitted():
    seen = trail(train=1.0)
    seen.looks[1]["train"] = 1.0
    line = tau_advice(seen, (0, 1, 10), None, names_tau=True)
    assert line.changes == ("method.tau=[0, 1]",)
    assert "from tau 1 on the training split is fitted" in line.reason


@pytest.mark.parametrize(
    ("base_rate", "words"),
    [(0.5, "from tau 10 on the head knows more"), (0.1, "none of these has learned much more")],
)
def test_taus_are_read_against_a_head_that_knows_the_balance_only(base_rate, words):
    assert words in tau_advice(trail(), (0, 1, 10), base_rate, names_tau=True).reason


def test_a_method_without_tau_gets_one_that_has_it():
    line = tau_advice(trail(), (0, 10), None, names_tau=False)
    assert line.changes == ("method={name: hp_ft, tau: [0, 10]}",)


def test_a_probe_that_does_nothing_is_said():
    line = tau_advice(Trail("ap", {0: 1.0, 5: 1.2}, trail().looks), (0,), None, names_tau=True)
    assert "raise probe.epochs" in line.advice
    assert not line.changes


def test_smoothing_is_advised_once():
    assert smoothing_advice(trail(left=0.01), smoothed=False).changes
    assert not smoothing_advice(trail(left=0.01), smoothed=True).changes
    assert not smoothing_advice(trail(), smoothed=False).changes


def test_an_mlp_head_is_advised_to_a_linear_one():
    poor = trail(left=0.9, train=0.2)
    assert head_advice(poor, linear=True).changes == ("head=mlp",)
    assert not head_advice(poor, linear=False).changes
    assert not head_advice(trail(), linear=True).changes


@pytest.mark.parametrize(
    ("morgan", "upper", "is_cut", "changes"),
    [
        (0.7 + GAP + 0.01, "conv1", False, ("cut=conv1",)),
        (0.7 + GAP - 0.01, "conv1", False, ()),
        (0.9, None, False, ()),
        (0.9, "conv1", True, ()),
        (None, "conv1", False, ()),
    ],
)
def test_a_backbone_is_cut_where_fingerprints_are_better(morgan, upper, is_cut, changes):
    assert backbone_advice(trail(), morgan, upper, is_cut=is_cut).changes == changes


@pytest.mark.parametrize(
    ("drift", "batch_size", "frozen", "changes"),
    [
        (None, 1, False, ()),
        (DRIFTS / 2, SMALL_BATCH, True, ()),
        (DRIFTS / 2, SMALL_BATCH, False, ()),
        (DRIFTS * 2, SMALL_BATCH, True, ("finetune.batch_norm=train",)),
        (DRIFTS * 2, SMALL_BATCH, False, ()),
        (DRIFTS * 2, SMALL_BATCH - 1, False, ("finetune.batch_norm=frozen",)),
        (0.0, SMALL_BATCH - 1, True, ()),
    ],
)
def test_batch_norm_is_frozen_for_small_batches_and_live_for_other_data(
    drift, batch_size, frozen, changes
):
    line = batch_norm_advice(drift, batch_size=batch_size, frozen=frozen)
    assert line.changes == changes


def test_a_probe_that_still_falls_is_no_ground_for_another_network():
    poor = {"left": 0.8, "train": 0.2}
    assert fits_too_little(trail(halfway=1 + FALLS / 2, **poor))
    early = trail(halfway=1 + FALLS * 2, **poor)
    assert fits_too_little(early) is None
    for line in (
        head_advice(early, linear=True),
        backbone_advice(early, 0.9, "conv1", is_cut=False),
    ):
        assert "raise probe.epochs" in line.advice
        assert not line.changes


def test_rare_answers_are_said():
    assert "balanced energy" in balance_advice(RARE / 2).advice
    assert balance_advice(RARE).advice == "nothing to do"
    assert balance_advice(None).advice == "does not apply"


def test_every_change_is_one_that_a_config_takes():
    lines = [
        tau_advice(trail(), (0, 10), None, names_tau=False),
        smoothing_advice(trail(left=0.01), smoothed=False),
        head_advice(trail(left=0.9, train=0.2), linear=True),
        backbone_advice(trail(), 0.9, "conv1", is_cut=False),
        batch_norm_advice(0.0, batch_size=2, frozen=False),
    ]
    raw = {"task": "nci_alerts"}
    for line in lines:
        for change in line.changes:
            apply(raw, *parse_change(change))
    assert raw["head"] == "mlp"
    assert raw["method"]["smoothing"] == 0.1
    assert raw["finetune"] == {"batch_norm": "frozen"}
