"""A phase takes what can be meant and refuses the rest."""

import pytest

from molhpft.tuning.phase import Phase


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": -1}, "epochs should be at least 0, got -1"),
        ({"lr": 0.0}, r"lr should be above 0, got 0\.0"),
        ({"lr": float("nan")}, "lr should be above 0, got nan"),
        ({"lr": float("inf")}, "lr should be above 0, got inf"),
        ({"backbone_lr": 0.0}, r"backbone_lr should be above 0, got 0\.0"),
        ({"batch_size": 0}, "batch_size should be at least 1"),
        ({"smoothing": 1.0}, r"smoothing should be in \[0, 1\), got 1\.0"),
        ({"layer_decay": 0.0}, r"layer_decay should be in \(0, 1\]"),
        ({"weight_decay": -0.1}, "weight_decay should be at least 0"),
        ({"optimizer": "sgd", "momentum": 1.0}, r"momentum should be in \[0, 1\), got 1\.0"),
        ({"optimizer": "sgd", "momentum": -0.1}, r"momentum should be in \[0, 1\), got -0\.1"),
        ({"warmup": 1.0}, r"warmup should be in \[0, 1\), got 1\.0"),
        ({"patience": 0}, "patience should be at least 1, got 0"),
    ],
)
def test_a_number_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Phase(**{"trains": "all", "epochs": 1, "lr": 0.1, **setting})


@pytest.mark.parametrize(
    "setting",
    [
        {"layer_decay": 0.5},
        {"anchor": 1.0},
        {"backbone_lr": 0.1},
        {"batch_norm": "frozen"},
        {"stages": ("conv0",)},
        {"unfreeze_every": 1},
        {"stage_anchor": 1.0},
        {"feature_anchor": 1.0},
        {"spectral_shrinkage": 1.0},
        {"node_transport": 1.0},
        {"running_statistics": 0.5},
        {"adapter_rank": 4},
        {"adapter_rank": 4, "adapter_scaling": 0.1},
    ],
    ids=str,
)
def test_a_head_phase_takes_no_backbone_option(setting):
    with pytest.raises(ValueError, match="act on the backbone, which a head phase"):
        Phase(trains="head", epochs=1, lr=0.1, **setting)


def test_momentum_is_for_sgd_alone():
    assert Phase(trains="all", epochs=1, lr=0.1, optimizer="sgd", momentum=0.5).momentum == 0.5
    for optimizer in ("adam", "adamw"):
        with pytest.raises(ValueError, match=r"^momentum is for optimizer sgd, got momentum 0\.5"):
            Phase(trains="all", epochs=1, lr=0.1, optimizer=optimizer, momentum=0.5)


def test_one_cycle_without_a_rise_is_refused():
    with pytest.raises(ValueError, match=r"one_cycle rises over warmup.* set warmup: 0\.3"):
        Phase(trains="all", epochs=1, lr=0.1, schedule="one_cycle")


@pytest.mark.parametrize(
    ("setting", "watches"), [({}, False), ({"keep": "best"}, True), ({"patience": 3}, True)]
)
def test_a_phase_watches_validation_only_when_it_decides_something(setting, watches):
    assert Phase(trains="all", epochs=1, lr=0.1, **setting).watches_validation is watches


def test_statistics_that_are_always_used_cannot_be_used_at_times():
    with pytest.raises(ValueError, match=r"batch_norm: frozen uses them always; got .* 0\.5"):
        Phase(trains="all", epochs=1, lr=0.1, batch_norm="frozen", running_statistics=0.5)


def test_a_scaling_needs_adapters_to_scale():
    with pytest.raises(ValueError, match=r"adapter_scaling 0\.1 is of adapters, and adapter_rank"):
        Phase(trains="all", epochs=1, lr=0.1, adapter_scaling=0.1)


def test_a_perturbation_is_of_a_head_phase():
    assert Phase(trains="head", epochs=1, lr=0.1, perturbation=0.5).perturbation == 0.5
    with pytest.raises(ValueError, match=r"this phase trains all; got perturbation 0\.5: leave it"):
        Phase(trains="all", epochs=1, lr=0.1, perturbation=0.5)
