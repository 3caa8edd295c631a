"""No key of a config is ignored: it changes what is run, or is an error in one sentence."""

import math
import re
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.options import checked, keywords
from molhpft.config.registry import METHODS, SECTIONS
from molhpft.config.schema import Reader, load_config, parse_config, resolved
from molhpft.core.annotations import contains, range_of
from molhpft.sweep.spec import load_sweep, parse_sweep
from molhpft.tuning.phase import Phase

BASE = {"task": "nci_alerts", "encoder": {"name": "gcn", "layers": 1, "width": 4}}
NEEDED = {"path": "x.csv", "of": "x.smi", "tau": [0, 3], "pretraining": "nci_descriptors"}
PHASE_KEYS = [field.name for field in fields(Phase) if field.name != "trains"]
# two legal values of every key: one of them is not the default
VALUES = {
    "epochs": (3, 4),
    "lr": (0.1, 0.2),
    "backbone_lr": (0.1, 0.2),
    "batch_size": (8, 9),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("constant", "cosine"),
    "weight_decay": (0.1, 0.2),
    "smoothing": (0.3, 0.4),
    "layer_decay": (0.3, 0.4),
    "momentum": (0.3, 0.9),
    "anchor": (0.3, 0.4),
    "batch_norm": ("train", "frozen"),
    "keep": ("last", "best"),
    "patience": (3, 4),
}


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
@pytest.mark.parametrize("name", METHODS)
def test_a_setting_of_a_phase_changes_what_is_trained_or_is_refused(name, section):
    for tau in [{}, {"tau": [2]}, {"tau": "auto"}]:
        if tau and "tau" not in keywords(METHODS[name]):
            continue
        for key, values in VALUES.items():
            # where the optimizer does nothing, so does momentum
            more = (
                {"optimizer": "sgd"}
                if key == "momentum" and does_something(name, tau, section)
                else {}
            )
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
        ({"method": "lp", "finetune": {"lr": 1}}, "method lp does not finetune"),
        ({"method": "ft", "probe": {"lr": 1}}, "method ft probes no head"),
        ({"method": "l2_sp", "probe": {"lr": 1}}, "method l2_sp with tau 0 probes no head"),
        ({"method": "lp_logistic", "probe": {"lr": 1}}, "method lp_logistic probes no head"),
        ({"finetune": {"momentum": 0.9}}, "optimizer adam has no such momentum"),
        (
            {"finetune": {"epochs": 0, "lr": 1}},
            "finetune.lr would do nothing: finetune.epochs is 0",
        ),
        ({"method": "ft", "views": 3}, "views would do nothing: method ft probes no head"),
        ({"method": "lp", "checkpoint": 5}, "checkpoint would do nothing: nothing is finetuned"),
        (
            {"method": "scratch", "encoder": {"name": "gcn", "weights": "gcn_muv"}},
            "encoder.weights would do nothing: method scratch starts from random weights",
        ),
        (
            {"task": "toy", "encoder": "toy_mlp", "finetune": {"batch_norm": "frozen"}},
            "finetune.batch_norm would do nothing: encoder toy_mlp has no batch norm",
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


def file_with(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


FILE = """
task: nci_alerts
encoder: {name: gcn, layers: 1, width: 4}
method: {name: hp_ft, tau: [0, 3]}
probe: {lr: 0.01}
finetune: {epochs: 2, lr: 0.003}
"""


def test_what_a_change_makes_idle_is_left_out_aloud(tmp_path, caplog):
    config = load_config(file_with(tmp_path, FILE), ["method=lp"])
    assert "finetune" not in resolved(config)
    (message,) = caplog.messages
    assert "finetune.epochs and finetune.lr would do nothing: method lp does not" in message
    assert message.endswith("left out of this run")


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        (FILE, ["method=ft", "probe.lr=0.1"], "probe.lr would do nothing: method ft probes no"),
        (FILE, ["method=ft", "probe={lr: 1.0}"], "probe.lr would do nothing"),
        (FILE.replace("hp_ft", "l2_sp") + "views: 0", ["finetune.anchor=0.5"], "finetune.anchor"),
        (FILE + "checkpoint: 3\nseed: 1\nseed: 2", [], "gives seed twice, again in line 9; keep"),
        (FILE.replace("epochs: 2", "lr: 2"), [], "gives lr twice, again in line 6; keep one"),
        (FILE, ["probe={lr: 1, lr: 2}"], "the value of probe gives lr twice, again in line 1"),
        (FILE, ["seed=1", "seed=2"], "seed is set twice, to 1 and to 2; give one value"),
        (FILE, ["method.tau=[3]", "method=ft"], "unknown key method.tau; valid: none"),
    ],
)
def test_a_key_that_is_given_in_vain_is_refused(tmp_path, text, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        load_config(file_with(tmp_path, text), changes)


def test_a_command_that_reads_a_part_takes_no_change_of_the_rest(tmp_path):
    reader = Reader("molhpft some", ("task", "seed", "finetune.lr"))
    path = file_with(tmp_path, FILE)
    assert load_config(path, ["seed=3", "finetune.lr=0.5"], reader=reader).finetune.lr == 0.5
    words = r"molhpft some does not read finetune\.epochs; it reads task, seed, finetune\.lr"
    with pytest.raises(ValueError, match=words):
        load_config(path, ["finetune.epochs=3"], reader=reader)


SWEEP = {**BASE, "probe": {"epochs": 6}, "finetune": {"epochs": 2}}


def test_a_sweeps_template_serves_some_of_its_methods():
    sweep = {"method": ["lp", "ft"], "finetune.lr": [0.1, 0.2]}
    trials = parse_sweep({**SWEEP, "sweep": sweep})
    found = [(trial.config.method.name, trial.settings.get("finetune.lr")) for trial in trials]
    assert sorted(found, key=str) == [("ft", 0.1), ("ft", 0.2), ("lp", None)]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"sweep": {"method": ["ft", "scratch"]}}, "in every trial, probe.epochs would do nothing"),
        ({"sweep": [{"method": ["lp"], "finetune.lr": [1, 2]}, {"seeds": 2}]}, "finetune.lr would"),
        ({"sweep": {"seeds": 2}, "method": "lp_ft", "finetune": {"momentum": 0.9}}, "momentum"),
    ],
    ids=str,
)
def test_a_key_that_no_trial_reads_is_refused(raw, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_sweep({**SWEEP, **raw})


def test_what_a_narrower_sweep_has_no_use_for_is_left_out_aloud(tmp_path, caplog):
    path = file_with(tmp_path, yaml.safe_dump({**SWEEP, "sweep": {"method": ["lp", "lp_ft"]}}))
    assert len(load_sweep(path)) == 2
    assert not caplog.messages
    (trial,) = load_sweep(path, ["sweep.method=[lp]"])
    assert "finetune" not in resolved(trial.config)
    (message,) = caplog.messages
    assert "in every trial, finetune.epochs would do nothing: method lp does not" in message
    with pytest.raises(ValueError, match=r"in every trial, finetune\.lr would do nothing"):
        load_sweep(path, ["sweep.method=[lp]", "sweep.finetune.lr=[0.1, 0.2]"])
    rates = [0.1, 0.2]
    trials = load_sweep(path, [f"sweep.finetune.lr={rates}"])
    assert [t.settings["finetune.lr"] for t in trials if "finetune.lr" in t.settings] == rates


def test_a_change_of_a_sweep_is_one_of_each_of_its_grids(tmp_path):
    grids = [{"method": ["lp_ft"]}, {"method": ["ft"], "seeds": 3}]
    path = file_with(tmp_path, yaml.safe_dump({**SWEEP, "sweep": grids}))
    trials = load_sweep(path, ["sweep.seeds=2"])
    assert sorted((t.config.method.name, t.config.seed) for t in trials) == [
        *(("ft", seed) for seed in (0, 1)),
        *(("lp_ft", seed) for seed in (0, 1)),
    ]


def numeric(annotation):
    parts = get_args(annotation)
    return annotation in (int, float) or any(numeric(part) for part in parts)


NUMBERS = [
    (section, name, key)
    for section, entries in SECTIONS.items()
    for name, entry in entries.items()
    for key, parameter in keywords(entry).items()
    if numeric(parameter.annotation)
]


@settings(max_examples=150, deadline=None)
@given(
    which=st.sampled_from(NUMBERS),
    value=st.one_of(
        st.integers(-(10**9), 10**9),
        st.floats(-1e12, 1e12),
        st.sampled_from([math.nan, math.inf, -math.inf]),
    ),
)
def test_a_number_of_any_entry_is_in_its_range_or_refused_with_key_and_range(which, value):
    section, name, key = which
    parameters = keywords(SECTIONS[section][name])
    needed = {k: NEEDED[k] for k, p in parameters.items() if p.default is p.empty}
    raw = {**BASE, section: {"name": name, **needed, key: value}}
    interval = range_of(parameters[key].annotation)
    assert interval is not None
    if refused := refusal(raw):
        assert f"{section}.{key} " in refused
        assert "\n" not in refused
        # in range it was at most of the wrong kind, such as half a layer
        assert not contains(interval, value) or value != int(value)
    else:
        taken = getattr(parse_config(raw), section).options[key]
        numbers = taken if isinstance(taken, tuple) else [taken]
        assert all(contains(interval, number) for number in numbers)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"encoder": {"name": "gcn", "width": -5}}, "encoder.width should be at least 1, got -5"),
        ({"encoder": {"name": "gcn", "layers": -2}}, "encoder.layers should be at least 1, got -2"),
        ({"head": {"name": "mlp", "hidden": -1}}, "head.hidden should be at least 1, got -1"),
        ({"encoder": {"name": "gcn", "dropout": 1}}, "encoder.dropout should be in [0, 1), got 1"),
        ({"method": {"name": "hp_ft", "tau": [3, -1]}}, "method.tau should be at least 0, got -1"),
        (
            {"method": {"name": "lp_logistic", "inverse_penalties": 0.0}},
            "method.inverse_penalties should be above 0",
        ),
        (
            {"finetune": {"epochs": True}},
            "finetune.epochs is True, which does not fit: it is no yes",
        ),
        ({"finetune": {"lr": float("inf")}}, "finetune.lr is inf, which does not fit"),
        ({"devices": 0}, "devices should be at least 1, got 0"),
        ({"seed": -1}, "seed should be in [0, 9223372036854775808), got -1"),
    ],
    ids=str,
)
def test_nonsense_is_one_sentence_with_the_key_and_its_range(given, words):
    assert words in refusal({**BASE, **given})


def test_a_lone_number_stands_for_a_list_of_one():
    config = parse_config({**BASE, "method": {"name": "lp_logistic", "inverse_penalties": 0.1}})
    assert config.method.options["inverse_penalties"] == (0.1,)


OPTIONS = {
    "layers": (2, 3),
    "width": (4, 8),
    "dropout": (0.1, 0.2),
    "virtual_node": (False, True),
    "model": ("gin", "gcn"),
    "jump": (None, "cat"),
    "pool": ("mean", "max"),
    "inputs": (4, 5),
    "depth": {"cifar_resnet": (20, 32), "resnet": (18, 34), "segmentation_resnet": (18, 34)},
    "channels": (1, 3),
    "output_stride": (8, 16),
    "hidden": (4, 8),
    "scale": (1.0, 2.0),
    "rates": ((1, 2), (1, 3)),
}


def architecture(chain):
    """Every module with its plain settings, and every weight with its shape."""
    plain = (int, float, str, tuple)
    modules = [
        (name, type(m).__name__, {k: v for k, v in vars(m).items() if isinstance(v, plain)})
        for name, m in chain.named_modules()
    ]
    weights = {
        k: (tuple(v.shape), v.item() if v.ndim == 0 else 0) for k, v in chain.state_dict().items()
    }
    return modules, weights


@pytest.mark.parametrize(
    ("section", "name"), [(s, name) for s in ("encoder", "head") for name in SECTIONS[s]]
)
def test_every_option_of_a_network_changes_the_network(section, name):
    entry, known = SECTIONS[section][name], keywords(SECTIONS[section][name])
    values = {k: OPTIONS[k][name] if isinstance(OPTIONS[k], dict) else OPTIONS[k] for k in known}
    base = {key: pair[0] for key, pair in values.items()}
    sizes = (6, 3) if section == "head" else ()
    first = architecture(entry(*sizes, **base))
    for key, (_, other) in values.items():
        assert architecture(entry(*sizes, **{**base, key: other})) != first, key


RINGS = [f"{'C' * n}O,0,{n},train" for n in range(3, 23)] + [
    f"C1{'C' * n}1N,1,{n},{fold}" for n, fold in enumerate(["train", "valid", "test"] * 7, start=3)
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A table and a set of images, small."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rings.csv").write_text("\n".join(["smiles,ring,size,fold", *RINGS]) + "\n")
    rng = np.random.default_rng(0)
    arrays = {
        f"{what}_{split}": array
        for split, n in (("train", 60), ("test", 30))
        for what, array in (
            ("x", rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)),
            ("y", np.arange(n) % 3),
        )
    }
    np.savez(folder / "images.npz", **arrays)
    return folder


def built(task):
    splits = {name: rows.tolist() for name, rows in task.splits.items()}
    return task.fingerprint, task.objective, task.target_names, splits


@pytest.mark.parametrize(
    ("name", "base", "values"),
    [
        ("shapes", {"images": 12, "size": 16}, {"images": 16, "size": 17, "seed": 1}),
        (
            "toy",
            {"per_class": 4},
            {"classes": [0, 1], "per_class": 5, "degrees": 10.0, "crop": 25, "seed": 1},
        ),
        (
            "csv",
            {"path": "rings.csv", "target_columns": ["ring"], "split": "random"},
            {
                "target_columns": ["size"],
                "kind": "regression",
                "split": "scaffold",
                "split_column": "fold",
                "split_seed": 1,
            },
        ),
        (
            "csv",
            {"path": "rings.csv", "target_columns": ["ring"], "split": "column"}
            | {"split_column": "fold"},
            {"split_seed": 1, "split_column": None},
        ),
        (
            "image_npz",
            {"path": "images.npz", "size": 8},
            {
                **{"size": 9, "train": 20, "valid": 5, "test": 10, "augment": "flip_crop"},
                **{"corruptions": ["noise"], "severity": 2, "normalise": "none", "seed": 1},
            },
        ),
        ("image_npz", {"path": "images.npz", "size": 8, "corruptions": ["noise"]}, {"severity": 2}),
    ],
)
def test_every_option_of_a_task_changes_the_task_or_is_refused(files, name, base, values):
    def task_of(options):
        given = {k: str(files / v) if k == "path" else v for k, v in options.items()}
        return SECTIONS["task"][name](**checked("task", keywords(SECTIONS["task"][name]), given))

    first = built(task_of(base))
    for key, value in values.items():
        try:
            other = built(task_of({**base, key: value}))
        except ValueError as error:
            other = str(error)
        assert other != first, key
        if isinstance(other, str):
            assert key in other


def test_a_seed_for_images_that_nobody_draws_is_refused(tmp_path):
    for split in ("train", "valid", "test"):
        for kind in ("a", "b"):
            (tmp_path / split / kind).mkdir(parents=True)
            for k in range(3):
                pixels = np.full((8, 8, 3), 40 * k, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / kind / f"{k}.png")
    task_of = SECTIONS["task"]["image_folder"]
    with pytest.raises(
        ValueError, match=r"seed would do nothing: .* has its own splits, used whole"
    ):
        task_of(path=tmp_path, size=8, seed=3)
    assert task_of(path=tmp_path, size=8, seed=3, train=4).fingerprint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task": {"name": "toy", "per_class": 4}, "views": 3}, "task toy_.* does not augment its"),
        (
            {"task": {"name": "toy", "per_class": 4}, "encoder": {"name": "toy_mlp", "inputs": 10}},
            "encoder.inputs is 10, and examples of task toy_.* have 784 inputs",
        ),
        (
            {"task": {"name": "shapes", "images": 8, "size": 16}, "head": "aspp"}
            | {"encoder": {"name": "segmentation_resnet", "depth": 18, "channels": 1}},
            "encoder.channels is 1, and examples of task shapes have 3 channels",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_the_examples_is_refused_before_training(given, words):
    config = parse_config({"encoder": "toy_mlp", **given})
    recipe = build_recipes(config)[0]
    with pytest.raises(ValueError, match=words):
        build_network(config, build_task(config, recipe), recipe)
