"""Stages that a phase does not train are left as they are, to the last number."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from molhpft.core.network import Chain, Network, Plain
from molhpft.measure.features import batch_norm_drift
from molhpft.tuning.callbacks import Measure
from molhpft.tuning.fit import fit
from molhpft.tuning.optimizer import backbone_rate
from molhpft.tuning.phase import Phase
from molhpft.tuning.trained_stages import set_modes, trained_stages
from tests.toy import block, same_weights, seeded, toy_task

FT = Phase(trains="all", epochs=6, lr=0.01, batch_size=10)


def network():
    """Three stages that learn, with one of statistics alone and a pool without numbers."""
    torch.manual_seed(0)
    stages = {
        "low": block(6, 8, dropout=0.3),
        "scale": Plain(nn.BatchNorm1d(8, affine=False), width=8),
        "middle": block(8, 8, dropout=0.3),
        "high": block(8, 8, dropout=0.3),
        "pool": Plain(nn.Identity(), width=8),
    }
    return Network(Chain(stages), Chain({"linear": Plain(nn.Linear(8, 3), width=3)}))


def moved(before, after):
    """Names of the stages of which any number differs."""
    a, b = (n.backbone.named_stages() for n in (before, after))
    return [name for name in a if not same_weights(a[name], b[name])]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ({"stages": ("middle",)}, ["middle"]),
        ({"stages": ("high", "low")}, ["low", "high"]),
        ({"stages": ("scale",)}, ["scale"]),
        ({"stages": ("low",), "weight_decay": 0.1, "anchor": 0.1}, ["low"]),
        ({"unfreeze_every": 6}, ["high"]),
        ({"unfreeze_every": 3}, ["middle", "high"]),
        ({"unfreeze_every": 2}, ["low", "scale", "middle", "high"]),
        ({"unfreeze_every": 3, "stages": ("low", "middle")}, ["low", "middle"]),
        ({"unfreeze_every": 9, "stages": ("low", "middle")}, ["middle"]),
    ],
    ids=str,
)
def test_stages_that_are_trained_move_and_no_others(setting, names):
    after = network()
    fit(after, replace(FT, **setting), toy_task(), rng=seeded())
    assert moved(network(), after) == names
    assert not same_weights(after.head, network().head)


def test_a_stage_begins_to_move_with_the_epoch_that_unfreezes_it():
    start, seen = network(), []
    phase = replace(FT, unfreeze_every=2)
    note = Measure(lambda now: seen.append(moved(start, now)) or {})
    fit(network(), phase, toy_task(), rng=seeded(), callbacks=[note])
    all_stages = ["low", "scale", "middle", "high"]
    upper = ["middle", "high"]
    assert seen == [["high"], ["high"], upper, upper, all_stages, all_stages]


def test_a_stage_that_the_caller_froze_is_not_unfrozen_in_its_turn():
    after = network()
    after.backbone.named_stages()["middle"].requires_grad_(False)
    fit(after, replace(FT, unfreeze_every=1), toy_task(), rng=seeded())
    assert "middle" not in moved(network(), after)


def test_a_frozen_stage_drops_nothing():
    ours, theirs = network(), network()
    set_modes(ours, replace(FT, stages=("high",)))
    modes = {n: s.training for n, s in ours.backbone.named_stages().items()}
    assert modes == dict.fromkeys(modes, False) | {"high": True}
    set_modes(theirs, replace(FT, unfreeze_every=1), epoch=1)
    assert theirs.backbone.named_stages()["middle"].training
    assert not theirs.backbone.named_stages()["low"].training


def test_a_stage_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="stages names 'conv9', and the backbone has: low, scale"):
        fit(network(), replace(FT, stages=("low", "conv9")), toy_task(), rng=seeded())


def test_no_stage_at_all_is_refused():
    with pytest.raises(ValueError, match="stages lists at least one stage of the backbone"):
        replace(FT, stages=())


def test_the_rate_of_the_backbone_is_that_of_what_is_trained():
    phase = replace(FT, layer_decay=0.5)
    # the third of the stages with weights, counted from the head
    assert backbone_rate(network(), replace(phase, stages=("low",))) == pytest.approx(0.01 / 8)
    assert trained_stages(network().backbone, replace(phase, trains="head", layer_decay=1.0)) == []


def test_statistics_of_frozen_stages_do_not_drift():
    def drift(**setting):
        phase = replace(FT, **setting)
        return batch_norm_drift(
            network(),
            toy_task(),
            epochs=2,
            rng=seeded(),
            set_modes=lambda n, epoch: set_modes(n, phase, epoch=epoch),
        ).distance

    assert drift(stages=("pool",)) == 0
    assert 0 < drift(unfreeze_every=2) != drift() > 0
