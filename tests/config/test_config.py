"""Configs: what is written is what is meant, or an error names the key."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.config.options import keywords
from molhpft.config.registry import SECTIONS
from molhpft.config.schema import load_config, parse_config, resolved

MINIMAL = {"task": "nci_alerts"}


def written(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_task_is_all_that_a_config_needs():
    config = parse_config(MINIMAL)
    assert config.task.name == "nci_alerts"
    assert config.probe.trains == "head"
    assert config.finetune.trains == "all"


def test_a_resolved_config_means_the_same():
    raw = {
        "task": {"name": "csv", "path": "x.csv", "target_columns": "y"},
        "encoder": {"name": "gcn", "weights": "w.pth", "width": 16},
        "method": {"name": "ls_hp_ft", "tau": 3},
        "finetune": {"lr": 0.5, "patience": 4},
        "seed": 7,
    }
    config = parse_config(raw)
    assert parse_config(yaml.safe_load(yaml.safe_dump(resolved(config)))) == config
    assert config.method.options == {"tau": (3,), "smoothing": 0.1}


@given(
    section=st.sampled_from(["task", "encoder", "head", "method", "probe", "finetune"]),
    key=st.text("abcdefgh_", min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_a_typo_is_an_error_that_names_the_key_and_the_valid_ones(section, key):
    base = resolved(parse_config(MINIMAL))
    base[section] = {**base[section], f"{key}_zz": 1}
    with pytest.raises(ValueError, match=rf"unknown key {section}\.{key}_zz; .*valid: "):
        parse_config(base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fintune": {"lr": 1}}, "unknown key fintune; did you mean finetune"),
        ({"finetune": {"lrate": 1}}, r"unknown key finetune\.lrate; .*valid: finetune\.epochs"),
        ({"finetune": {"epochs": "many"}}, r"finetune\.epochs is 'many', which does not fit"),
        ({"finetune": {"epochs": -1}}, r"finetune\.epochs should be at least 0, got -1"),
        ({"finetune": 3}, "finetune must be keys such as epochs and lr, got 3"),
        ({"probe": {"trains": "all"}}, r"unknown key probe\.trains"),
        ({"sweep": {"seeds": 2}}, "sweep lists runs; `molhpft sweep` takes such a config"),
        (
            {"probe": {"anchor": 1.0}},
            r"probe\.anchor would do nothing: a probe trains the head alone",
        ),
        ({"task": "ogbg-moltox2"}, "unknown task ogbg-moltox2; did you mean ogbg-moltox21"),
        ({"task": {"path": "x"}}, "task must be a name, or keys with a name among them"),
        ({"task": {"name": "csv"}}, r"missing key task\.path"),
        ({"method": {"name": "ft", "tau": [1]}}, r"unknown key method\.tau; valid: none"),
        ({"method": {"name": "hp_ft"}}, r"missing key method\.tau"),
        ({"encoder": "gnc"}, "unknown encoder gnc; did you mean gcn"),
        ({"device": "gpu"}, "device is 'gpu', which does not fit: input should be 'auto'"),
        ({"seed": "x"}, "seed is 'x', which does not fit"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        parse_config({**MINIMAL, **change})


def test_a_config_without_a_task_says_so():
    with pytest.raises(ValueError, match=r"missing key task; for example task: \{name: "):
        parse_config({})


def test_changes_are_applied_to_nested_keys(tmp_path):
    path = written(tmp_path, {**MINIMAL, "encoder": "gcn"})
    changes = ["finetune.lr=1e-4", "encoder.width=32", "method={name: hp_ft, tau: [1, 2]}"]
    config = load_config(path, [*changes, "method.tau=[5]", "seed=3"])
    assert config.finetune.lr == 1e-4
    assert config.encoder.options["width"] == 32
    assert config.method.options["tau"] == (5,)
    assert config.seed == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("finetune.lr", "a change is key=value, such as finetune.lr=0.0003, got 'finetune.lr'"),
        ("seed.x=1", "cannot set seed.x: seed is 0, not a group of keys"),
        ("seed=[1", r"the value of seed=\[1 is not YAML"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_config(written(tmp_path, {**MINIMAL, "seed": 0}), [change])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task: [", "is not YAML"),
        ("", "must hold keys such as task and method, got None"),
        ("- a\n", "must hold keys such as task and method"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load_config(written(tmp_path, content))


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config at .*none\.yaml"):
        load_config(tmp_path / "none.yaml")


NEEDED = {"path": "x.csv", "of": "x.smi", "tau": [1], "pretraining": "nci_descriptors"}


def test_every_entry_of_the_catalog_can_be_named_with_what_it_needs():
    for section, entries in SECTIONS.items():
        for name, entry in entries.items():
            required = [k for k, p in keywords(entry).items() if p.default is p.empty]
            choice = {"name": name, **{key: NEEDED[key] for key in required}}
            config = parse_config({**MINIMAL, section: choice})
            assert getattr(config, section).name == name


CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("pretrain/*.yaml")), ids=lambda path: path.stem
)
def test_a_pretraining_config_loads_and_starts_from_random_weights(path):
    config = load_config(path)
    assert config.method.name == "scratch"
    assert config.encoder.options["weights"] is None


def test_the_recipe_for_pcba_is_that_of_muv():
    muv, pcba = (
        resolved(load_config(CONFIGS / "pretrain" / f"{n}_gcn.yaml")) for n in ("muv", "molpcba")
    )
    assert {**muv, "task": {**muv["task"], "of": "ogbg-molpcba"}} == pcba
