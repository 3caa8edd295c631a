"""Grids: every combination once, each checked, and who shares a probe with whom."""

from itertools import product

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from molhpft.config.schema import parse_config, resolved
from molhpft.sweep.spec import load_sweep, parse_sweep, settings_text

BASE = {"task": "toy", "encoder": "toy_mlp"}
VALUES = {
    "finetune.lr": st.sampled_from([0.1, 0.01, 0.001]),
    "finetune": st.sampled_from([{"epochs": 1}, {"epochs": 2}, {"anchor": 0.5}]),
    "method": st.sampled_from(["ft", "lp", "lp_ft", "scratch"]),
    "seed": st.integers(0, 50),
    "cut": st.sampled_from([None, "layer3"]),
}


def grids():
    lists = {
        key: st.lists(values, min_size=1, max_size=3, unique_by=repr)
        for key, values in VALUES.items()
    }
    return st.fixed_dictionaries({}, optional=lists).filter(bool)


def plainly(settings):
    """The config of a combination, its keys set by hand."""
    raw = {**BASE, "finetune": {}}
    for key in ("finetune", "method", "seed", "cut"):
        if key in settings:
            raw[key] = settings[key]
    if "finetune.lr" in settings:
        raw["finetune"] = {**raw["finetune"], "lr": settings["finetune.lr"]}
    return parse_config(raw, unused_are="dropped")


@settings(max_examples=20, deadline=None)
@given(grid=grids())
def test_a_grid_is_every_run_of_its_combinations_once(grid):
    assume(grid.get("method") != ["lp"])
    trials = parse_sweep({**BASE, "sweep": grid})
    combinations = [dict(zip(grid, c, strict=True)) for c in product(*grid.values())]
    expected = [resolved(plainly(settings)) for settings in combinations]
    assert len({trial.name for trial in trials}) == len(trials)
    configs = [resolved(trial.config) for trial in trials]
    assert sorted(map(repr, configs)) == sorted({repr(config) for config in expected})
    for trial in trials:
        tuned = {key for key in grid if key.startswith("finetune")}
        unused = tuned if trial.config.method.name == "lp" else set()
        assert set(trial.settings) == set(grid) - unused
        assert trial.config == plainly(trial.settings)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(grid=grids(), other=grids())
def test_several_grids_are_their_union(grid, other):
    assume(["lp"] not in (grid.get("method"), other.get("method")))
    one, two, both = (
        {trial.name for trial in parse_sweep({**BASE, "sweep": sweep})}
        for sweep in (grid, other, [grid, other])
    )
    assert both == one | two


def test_seeds_are_counted_from_the_configs_own():
    for sweep, seeds in (({"seeds": 3}, [7, 8, 9]), ({"seeds": [5, 1]}, [5, 1])):
        trials = parse_sweep({**BASE, "seed": 7, "sweep": sweep})
        assert [trial.config.seed for trial in trials] == seeds
        assert [trial.settings for trial in trials] == [{"seed": seed} for seed in seeds]


def test_a_group_of_keys_is_set_before_the_keys_in_it():
    sweep = {"method.tau": [[1], [0, 4]], "method": ["hp_ft", "l2_sp"]}
    taus = [t.config.method.options["tau"] for t in parse_sweep({**BASE, "sweep": sweep})]
    assert sorted(taus) == [(0, 4), (0, 4), (1,), (1,)]


def test_a_combination_leaves_the_config_and_the_others_as_they_are():
    raw = {**BASE, "finetune": {"epochs": 3}, "sweep": {"finetune.lr": [0.1, 0.2]}}
    before = repr(raw)
    assert {t.config.finetune.epochs for t in parse_sweep(raw)} == {3}
    assert repr(raw) == before


def trial_of(trials, method):
    return next(trial for trial in trials if trial.config.method.name == method)


def test_trials_that_differ_after_the_probe_alone_share_it():
    methods = ["ft", "lp", {"name": "hp_ft", "tau": [2, 9]}, {"name": "ls_hp_ft", "tau": [3]}]
    sweep = {"method": methods, "finetune.lr": [0.1, 0.2], "seed": [0, 1]}
    trials = parse_sweep({**BASE, "probe": {"epochs": 5}, "sweep": sweep})
    for trial in trials:
        name = trial.config.method.name
        # lp and hp_ft train one head; plain finetuning none; a smoothed probe is another one
        expected = {"ft": (), "lp": (2, 5, 9), "hp_ft": (2, 5, 9), "ls_hp_ft": (3,)}
        assert trial.shared == expected[name]


def test_a_probe_whose_epochs_are_chosen_automatically_is_not_shared():
    sweep = {"finetune.lr": [0.1, 0.2]}
    trials = parse_sweep({**BASE, "method": {"name": "hp_ft", "tau": "auto"}, "sweep": sweep})
    assert [trial.shared for trial in trials] == [(), ()]


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"head": "mlp"}, {"cut": "layer3"}, {"probe": {"lr": 0.5}}, {"views": 2}],
    ids=str,
)
def test_what_decides_a_probe_is_not_shared_across(changes):
    ((key, value),) = changes.items()
    default = {"seed": 0, "head": "linear", "cut": None, "probe": {"lr": 0.1}, "views": 0}[key]
    both = parse_sweep({**BASE, "sweep": {key: [default, value]}})
    assert [trial.shared for trial in both] == [(), ()]


def test_the_first_of_every_group_comes_first():
    sweep = {"seed": [0, 1, 2], "method": ["lp", "lp_ft"]}
    seeds = [trial.config.seed for trial in parse_sweep({**BASE, "sweep": sweep})]
    assert sorted(seeds[:3]) == sorted(seeds[3:]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "sweep must be keys with lists of values, got None; for example"),
        ({"sweep": []}, "sweep must be keys with lists"),
        ({"sweep": ["lr"]}, "a grid of a sweep is keys with lists of values, got 'lr'"),
        ({"sweep": {}}, "a grid of a sweep is keys"),
        ({"sweep": {"finetune.lr": 0.1}}, "sweep.finetune.lr must be a list of values, got 0.1"),
        ({"sweep": {"seed": []}}, "sweep.seed must be a list of values"),
        ({"sweep": {"seeds": 0}}, "sweep.seeds must be a number of seeds or a list"),
        ({"sweep": {"seeds": True}}, "sweep.seeds must be a number of seeds or a list"),
        ({"sweep": {"seed": [0], "seeds": 2}}, "both seed and seeds"),
        (
            {"sweep": {"seed": [0], "finetune.lrr": [1]}},
            "trial with seed=0, finetune.lrr=1: unknown key finetune.lrr; did you mean finetune.lr",
        ),
        ({"sweep": {"method": ["ft", "nope"]}}, "trial with method=nope: unknown method nope"),
        ({"sweep": {"method": [{"name": "hp_ft", "tau": [1, 1]}]}}, "each once"),
        ({"sweep": {"seed.x": [1]}, "seed": 3}, "cannot set seed.x: seed is 3"),
        ({"sweep": {"devices": [1, 2]}}, "trial with devices=2: a trial has one device"),
        ({"sweep": {"seed": [0]}, "taskk": "toy"}, "unknown key taskk"),
    ],
    ids=str,
)
def test_what_is_no_sweep_is_one_sentence(changes, words):
    with pytest.raises(ValueError, match=words):
        parse_sweep({**BASE, **changes})


def test_a_file_is_read_and_changed(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**BASE, "sweep": {"seeds": 2}}))
    trials = load_sweep(path, ["sweep.seeds=3", "finetune.lr=0.5"])
    assert len(trials) == 3
    assert {trial.config.finetune.lr for trial in trials} == {0.5}


def test_settings_are_one_line():
    line = settings_text({"method": {"name": "hp_ft", "tau": [4, 16]}, "finetune.lr": 0.1})
    assert line == "method=hp_ft tau=[4, 16], finetune.lr=0.1"
    assert settings_text({}) == "no settings"


TEMPLATE = {
    "task": "nci_alerts",
    "encoder": {"name": "gcn", "layers": 1, "width": 4},
    "probe": {"epochs": 6},
    "finetune": {"epochs": 2},
}


def test_a_template_serves_some_of_the_methods():
    grid = {"method": ["lp", "ft"], "finetune.lr": [0.1, 0.2]}
    trials = parse_sweep({**TEMPLATE, "sweep": grid})
    chosen = [(trial.config.method.name, trial.settings.get("finetune.lr")) for trial in trials]
    assert sorted(chosen, key=str) == [("ft", 0.1), ("ft", 0.2), ("lp", None)]


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
    with pytest.raises(ValueError, match=words):
        parse_sweep({**TEMPLATE, **raw})


def test_what_a_narrower_sweep_has_no_use_for_is_left_out_with_a_warning(tmp_path, caplog):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**TEMPLATE, "sweep": {"method": ["lp", "lp_ft"]}}))
    assert len(load_sweep(path)) == 2
    assert not caplog.messages
    (trial,) = load_sweep(path, ["sweep.method=[lp]"])
    assert "finetune" not in resolved(trial.config)
    (message,) = caplog.messages
    assert "in every trial, finetune.epochs would do nothing: method lp does not" in message
    with pytest.raises(ValueError, match=r"in every trial, finetune\.lr would do nothing"):
        load_sweep(path, ["sweep.method=[lp]", "sweep.finetune.lr=[0.1, 0.2]"])
