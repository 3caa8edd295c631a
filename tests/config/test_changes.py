"""Configs before they are checked: what no YAML file or change may be, and where a change goes."""

import re

import pytest

from molhpft.config.changes import apply, parse_changes, read_config


@pytest.fixture
def config(tmp_path):
    def written(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return written


def test_changes_are_applied_to_nested_keys_groups_before_the_keys_in_them(config):
    changes = ["method.tau=[5]", "method={name: hp_ft, tau: [1, 2]}", "encoder.width=32"]
    raw = read_config(config("task: toy\nencoder: gcn\n"), [*changes, "finetune.lr=1e-4"])
    assert raw == {
        "task": "toy",
        "encoder": {"name": "gcn", "width": 32},
        "method": {"name": "hp_ft", "tau": [5]},
        "finetune": {"lr": "1e-4"},  # as YAML 1.1 reads it; the schema makes a number of it
    }


def test_a_change_of_a_sweep_is_one_of_each_of_its_grids():
    raw = {"sweep": [{"method": ["lp_ft"]}, {"method": ["ft"], "seeds": 3}]}
    for key, value in parse_changes(["sweep.seeds=2", "sweep.finetune.lr=[1, 2]"]).items():
        apply(raw, key, value)
    more = {"seeds": 2, "finetune.lr": [1, 2]}
    assert raw["sweep"] == [{"method": ["lp_ft"], **more}, {"method": ["ft"], **more}]


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("task: [", [], "is not YAML: line 1, column 8: expected the node content, but found"),
        ("seed: 1\nhead: a: b", [], "line 2, column 8: mapping values are not allowed here"),
        (
            "task: a\nhead: 'b\nseed: 1\n\n",
            [],
            "line 5, column 1: found unexpected end of stream, in what begins in line 2",
        ),
        (
            "task: a\nmethod: {name: ft,\nseed: 1\nhead: b\n",
            [],
            "line 4, column 5: expected ',' or '}', but got ':', in what begins in line 2",
        ),
        ("seed: \x00", [], "is not YAML: unacceptable character #x0000: special characters"),
        ("", [], "must hold keys such as task and method, got None"),
        ("- a\n", [], "must hold keys such as task and method"),
        ("seed: 1\nseed: 2", [], "gives seed twice, again in line 2; keep one"),
        ("probe:\n  lr: 1\n  lr: 2", [], "gives lr twice, again in line 3; keep one"),
        ("seed: 0", ["probe={lr: 1, lr: 2}"], "the value of probe gives lr twice, again in line 1"),
        ("seed: 0", ["seed=1", "seed=2"], "seed is set twice, to 1 and to 2; give one value"),
        (
            "seed: 0",
            ["probe.lr"],
            "a change is key=value, such as finetune.lr=0.0003, got 'probe.lr",
        ),
        ("seed: 0", ["seed.x=1"], "cannot set seed.x: seed is 0, not a group of keys"),
        ("seed: 0", ["seed=[1"], "of seed=[1 is not YAML: line 1, column 3: expected ',' or ']'"),
    ],
)
def test_what_is_no_config_and_no_change_is_named(config, text, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        read_config(config(text), changes)
    assert "\n" not in str(caught.value)


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config at .*none\.yaml"):
        read_config(tmp_path / "none.yaml")


def test_a_table_in_the_place_of_a_config_is_told_where_it_belongs(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("smiles,active\nCCO,1\n")
    with pytest.raises(ValueError, match=r"a line: task: \{name: csv, path: .*mine\.csv\}$"):
        read_config(table)
