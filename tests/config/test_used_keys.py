"""No key of a config is ignored: it changes what is run, or is an error in one sentence."""

from dataclasses import fields

import pytest
import yaml

from molhpft.config import used_keys
from molhpft.config.build import build_recipes
from molhpft.config.options import keywords
from molhpft.config.registry import METHODS
from molhpft.config.schema import parse_config, resolved
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.tuning.phase import OF_BACKBONE, Phase
from tests.marks import slow

BASE = {"task": "nci_alerts", "encoder": {"name": "gcn", "layers": 1, "width": 4}}
NEEDED = {"tau": [0, 3], "pretraining": "nci_descriptors", "stages": ["conv0"]}
# those that every key of both phases is tried with in fast runs, too
QUICK = ("ft", "lp", "hp_ft")
PHASE_KEYS = [field.name for field in fields(Phase) if field.name != "trains"]


# two legal values of every key: one of them is not the default
VALUES = {
    "epochs": (3, 4),
    "lr": (0.1, 0.2),
    "backbone_lr": (0.1, 0.2),
    "batch_size": (8, 9),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("constant", "cosine"),
    "warmup": (0.1, 0.2),
    "weight_decay": (0.1, 0.2),
    "smoothing": (0.3, 0.4),
    "perturbation": (0.3, 0.4),
    "layer_decay": (0.3, 0.4),
    "momentum": (0.3, 0.9),
    "stages": (["conv0"], ["pool"]),
    "unfreeze_every": (3, 4),
    "anchor": (0.3, 0.4),
    "head_penalty": (0.3, 0.4),
    "stage_anchor": (0.3, 0.4),
    "feature_anchor": (0.3, 0.4),
    "spectral_shrinkage": (0.3, 0.4),
    "node_transport": (0.3, 0.4),
    "running_statistics": (0.3, 0.4),
    "adapter_rank": (3, 4),
    "adapter_scaling": (0.3, 0.4),
    "batch_norm": ("frozen", "train"),
    "keep": ("last", "best"),
    "patience": (3, 4),
}


# what a key needs to mean anything, where something is trained and the method does not say
GOES_WITH = {"momentum": {"optimizer": "sgd"}}


def method(name, **options):
    required = [k for k, p in keywords(METHODS[name]).items() if p.default is p.empty]
    return {"name": name, **{key: NEEDED[key] for key in required}, **options}


def trained(config):
    """Phases that a run goes through, and all else that its recipes say."""
    return [
        (
            r.probe if r.tau or r.chooses else None,
            *r.after,
            r.pretrained,
            r.inverse_penalties,
            r.alphas,
            r.stage_mixing,
            r.soup,
            r.repeat,
        )
        for r in build_recipes(config)
    ]


def does_something(name, tau, section):
    raw = {**BASE, "method": method(name, **tau), section: {"lr": 0.1}}
    return refusal(raw) is None


def refusal(raw):
    """The sentence by which a config is refused; None for one that is taken."""
    try:
        parse_config(raw)
    except ValueError as error:
        return str(error)
    return None


def test_every_setting_of_a_phase_is_tried():
    assert sorted(VALUES) == sorted(PHASE_KEYS)


@pytest.mark.parametrize("section", ["probe", "finetune"])
@pytest.mark.parametrize("name", [name if name in QUICK else slow(name) for name in METHODS])
def test_a_setting_of_a_phase_changes_what_is_trained_or_is_refused(name, section):
    for tau in [{}, {"tau": [2]}, {"tau": "auto"}]:
        if tau and "tau" not in keywords(METHODS[name]):
            continue
        for key, values in VALUES.items():
            needed = GOES_WITH.get(key)
            more = needed if needed and does_something(name, tau, section) else {}
            raws = [
                {**BASE, "method": method(name, **tau), section: {**more, key: v}} for v in values
            ]
            if refused := refusal(raws[0]):
                assert f"{section}.{key} would do nothing: " in refused
                assert "\n" not in refused
                assert refused == refusal(raws[1])
            else:
                one, other = map(parse_config, raws)
                assert trained(one) != trained(other)
                assert resolved(one)[section][key] == values[0]
                assert resolved(other)[section][key] == values[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"method": "l2_sp", "finetune": {"anchor": 0.5}},
            "finetune.anchor would do nothing: method.anchor decides it; leave it out",
        ),
        (
            {"method": "layerwise", "finetune": {"layer_decay": 0.9}},
            "finetune.layer_decay would do nothing: method.layer_decay decides it",
        ),
        (
            {"method": {"name": "ls_hp_ft", "tau": [3]}, "probe": {"smoothing": 0.3}},
            "probe.smoothing would do nothing: method.smoothing decides it",
        ),
        (
            {"method": {"name": "hp_ft", "tau": [3]}, "probe": {"epochs": 50}},
            "probe.epochs would do nothing: method.tau says how long the head is probed",
        ),
        (
            {"method": {"name": "hp_ft", "tau": "auto"}, "probe": {"warmup": 0.1}},
            "probe.warmup would do nothing: heads are chosen along one probe",
        ),
        ({"method": "lp", "finetune": {"lr": 1}}, "method lp does not finetune"),
        ({"method": "ft", "probe": {"lr": 1}}, "method ft probes no head"),
        ({"method": "l2_sp", "probe": {"lr": 1}}, "method l2_sp with tau 0 probes no head"),
        ({"method": "lp_logistic", "probe": {"lr": 1}}, "method lp_logistic probes no head"),
        ({"finetune": {"momentum": 0.9}}, "optimizer adam has no such momentum"),
        (
            {"finetune": {"epochs": 0, "lr": 1}},
            "finetune.lr would do nothing: finetune.epochs is 0",
        ),
        (
            {"method": "ft", "views": 3},
            "views would do nothing: method ft trains no head on features",
        ),
        ({"method": "lp_logistic", "views": 3}, "method lp_logistic trains no head on features"),
        ({"method": "lp", "checkpoint": 5}, "checkpoint would do nothing: nothing is finetuned"),
        (
            {"method": "scratch", "encoder": {"weights": DEFAULT_ENCODER}},
            "encoder.weights would do nothing: method scratch starts from random weights",
        ),
        (
            {"task": "toy", "encoder": "toy_mlp", "finetune": {"batch_norm": "frozen"}},
            "finetune.batch_norm would do nothing: encoder toy_mlp has no batch norm",
        ),
        (
            {"task": "toy", "encoder": "toy_mlp", "finetune": {"running_statistics": 0.5}},
            "finetune.running_statistics would do nothing: encoder toy_mlp has no batch norm",
        ),
        (
            {"method": "stochastic_norm", "finetune": {"batch_norm": "frozen"}},
            "finetune.batch_norm would do nothing: method.running_statistics decides it",
        ),
        (
            {"method": "lora", "finetune": {"batch_norm": "frozen"}},
            "finetune.batch_norm would do nothing: method.adapter_rank decides it",
        ),
        (
            {"method": "lora", "finetune": {"running_statistics": 0.5}},
            "finetune.running_statistics would do nothing: method.adapter_rank decides it",
        ),
        (
            {"method": "lora", "finetune": {"adapter_scaling": 0.5, "adapter_rank": 3}},
            "finetune.adapter_scaling and finetune.adapter_rank would do nothing: method.",
        ),
        (
            {"finetune": {"perturbation": 0.5}},
            "finetune.perturbation would do nothing: it is of a head that is trained alone (probe)",
        ),
        (
            {"finetune": {"adapter_scaling": 0.5}},
            "finetune.adapter_scaling would do nothing: there are no adapters without finetune.ad",
        ),
        (
            {"method": {"name": "lora", "adapter_rank": 0}, "finetune": {"backbone_lr": 0.1}},
            "finetune.backbone_lr would do nothing: method.adapter_rank is 0, so that nothing of",
        ),
        (
            {"method": "l2_sp", "finetune": {"adapter_rank": 0}},
            "method.anchor would do nothing: finetune.adapter_rank is 0, so that nothing of the",
        ),
        (
            {"method": "lp", "precision": "bf16-mixed"},
            "precision would do nothing: nothing is finetuned; leave it out",
        ),
        (
            {"method": "ft", "finetune": {"epochs": 0}, "precision": 32},
            "precision would do nothing: nothing is finetuned",
        ),
        (
            {"encoder": {"name": "gcn", "layers": 2}, "cut": "conv0"}
            | {"finetune": {"batch_norm": "frozen"}},
            "finetune.batch_norm would do nothing: encoder gcn has no batch norm",
        ),
    ],
    ids=str,
)
def test_a_key_that_would_do_nothing_is_refused_with_the_reason(given, words):
    assert words in refusal({**BASE, **given})


@pytest.mark.parametrize("key", sorted({*OF_BACKBONE} - {"adapter_rank"}))
def test_a_setting_of_a_backbone_of_which_nothing_is_trained_is_refused(key):
    rank_0 = {**BASE, "method": "ft", "finetune": {"adapter_rank": 0}}
    assert refusal(rank_0) is None
    refused = refusal({**rank_0, "finetune": {"adapter_rank": 0, key: VALUES[key][0]}})
    assert f"finetune.{key} would do nothing: finetune.adapter_rank is 0" in refused
    assert key not in resolved(parse_config(rank_0))["finetune"]


def test_the_precision_that_is_meant_anyway_is_taken_where_nothing_is_finetuned():
    assert parse_config({**BASE, "method": "lp", "precision": "auto"}).precision == "auto"
    assert refusal({**BASE, "method": "ft", "precision": "bf16-mixed"}) is None


def test_a_written_config_holds_what_was_run_and_nothing_else():
    wanted = {"l2_sp": ("anchor", 0.01), "layerwise": ("layer_decay", 0.7)}
    for name, (key, value) in wanted.items():
        config = parse_config({**BASE, "method": name})
        assert resolved(config)["method"][key] == value
        assert key not in resolved(config)["finetune"]
        (recipe,) = build_recipes(config)
        assert getattr(recipe.after[0], key) == value
    assert "finetune" not in resolved(parse_config({**BASE, "method": "lp"}))
    assert "probe" not in resolved(parse_config({**BASE, "method": "ft"}))
    scratch = parse_config({"task": "nci_alerts", "method": "scratch"})
    assert resolved(scratch)["encoder"]["weights"] is None


@pytest.mark.parametrize("name", METHODS)
def test_a_template_for_every_method_means_what_acts_of_it(name):
    template = {**BASE, "method": method(name), "views": 2, "measures": ["ntk"], "checkpoint": 7}
    template |= {section: {k: v[1] for k, v in VALUES.items()} for section in ("probe", "finetune")}
    config = parse_config(template, unused_are="dropped")
    again = yaml.safe_load(yaml.safe_dump(resolved(config)))
    assert parse_config(again) == config
    assert trained(parse_config(again)) == trained(config)


def test_the_templates_that_methods_are_tried_with_differ_in_every_setting():
    names = {field.name for field in fields(Phase)} - {"trains"}
    assert {*used_keys.PROBE_KEYS, *used_keys.FINETUNE_KEYS} == names
    assert names - {*used_keys.FINETUNE_KEYS} == {"perturbation"}
