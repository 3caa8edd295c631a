"""Flags stand for keys of a config, and offer the words that the code takes."""

import inspect as introspection
import re
from pathlib import Path
from typing import get_args

import pytest

from molhpft.advice import advise, baselines, rank
from molhpft.cli import app as cli
from molhpft.cli import arguments, inspect, models, runs
from molhpft.cli.arguments import with_flags
from molhpft.config.registry import HEADS
from molhpft.config.schema import RunConfig, load_config
from molhpft.core.annotations import Seed as SeedNumber
from molhpft.core.annotations import range_of
from molhpft.domains.molecules.tables import TableSplit, table_task
from molhpft.domains.molecules.target_columns import AnyKind
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator.calibrate import CalibrationName
from molhpft.estimator.finetune import drawn_by, learned_table
from molhpft.estimator.predict import Precision
from molhpft.estimator.settings import HEAD, TAU, Inference
from molhpft.run import probe_grid
from molhpft.run.probe_curve import Expectation
from tests.estimator.builders import RING, SMILES

CONFIG = """
task: {name: pretraining, of: chains.smi}
encoder: {name: gcn, layers: 1, width: 4}
method: METHOD
"""
ALL = {
    "epochs": 3,
    "lr": 1e-05,
    "batch_size": 4,
    "device": "cpu",
    "seed": 7,
    "split": "random",
    "split_seed": 5,
}


def write_config(folder, method="{name: hp_ft, tau: [0, 2]}"):
    path = folder / "config.yaml"
    path.write_text(CONFIG.replace("METHOD", method))
    return path


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (models.KindName, AnyKind),
        (models.SplitName, TableSplit),
        (models.CalibrationName, CalibrationName),
        (models.PrecisionName, Precision),
        (inspect.ExpectationName, Expectation),
        (arguments.DeviceName, RunConfig.__annotations__["device"]),
    ],
)
def test_a_flag_offers_the_words_that_the_code_takes(offered, taken):
    def words(kind):
        parts = get_args(kind)
        return {word for part in parts for word in words(part)} if parts else {kind}

    assert words(offered) == words(taken)


def test_the_defaults_that_help_shows_are_those_of_the_code():
    def shown(name):
        annotation = introspection.signature(models.finetune, eval_str=True).parameters[name]
        return annotation.annotation.__metadata__[0].show_default

    table = introspection.signature(table_task).parameters
    assert (shown("encoder"), shown("head"), shown("tau")) == (DEFAULT_ENCODER, HEAD, TAU)
    for name in ("smiles_column", "kind"):
        assert shown(name) == table[name].default
    split = f"{drawn_by(None, None)} folds; {table['split'].default} without folds"
    assert shown("split") == split
    defaults = introspection.signature(models.finetune).parameters
    for name, value in vars(Inference()).items():
        assert defaults[name].default == value


def test_help_names_the_heads_that_fit_a_table():
    annotation = introspection.signature(models.finetune, eval_str=True).parameters["head"]
    offered = re.findall(r"\w+", annotation.annotation.__metadata__[0].help.partition(": ")[2])
    fitting = {name for name, head in HEADS.items() if head.reads == "vectors"}
    assert set(offered) - {"or"} == fitting


@pytest.mark.parametrize("name", get_args(models.SplitName))
def test_a_split_turns_folds_off_as_help_says(name, tmp_path):
    turn_off = get_args(models.SplitName)[:4]
    help_text = models.Split.__metadata__[0].help
    assert help_text.startswith(", ".join(turn_off))
    assert "The first four turn folds off" in help_text
    parts = ["train", "valid", "test", "calibration"]
    rows = [
        f"{s},{v},{parts[k % 4]},{k}" for k, (s, v) in enumerate(zip(SMILES, RING, strict=True))
    ]
    path = tmp_path / "rings.csv"
    path.write_text("\n".join(["smiles,ring,part,year", *rows]) + "\n")
    column = {"column": "split_column", "group": "group_column", "time": "time_column"}.get(name)
    which = {} if column is None else {column: "part" if name == "column" else "year"}
    table = {"path": str(path), "target_columns": ("ring",), "split": name, **which}
    assert (learned_table(table, None).folds == 0) is (name in turn_off)
    if name != "random_and_scaffold":
        assert learned_table(table, 5).folds == 5


def test_flags_set_the_keys_that_they_stand_for(tmp_path):
    config = load_config(write_config(tmp_path), with_flags([], **ALL))
    assert (config.finetune.epochs, config.finetune.lr, config.finetune.batch_size) == (3, 1e-05, 4)
    assert (config.device, config.seed) == ("cpu", 7)
    assert (config.task.options["split"], config.task.options["split_seed"]) == ("random", 5)
    probed = load_config(
        write_config(tmp_path, "{name: hp_ft, tau: auto}"),
        with_flags([], section="probe", epochs=3, batch_size=4),
        reader=probe_grid.READS,
    )
    assert (probed.probe.epochs, probed.probe.batch_size) == (3, 4)


def test_flags_that_are_not_given_change_nothing():
    assert with_flags(["seed=1"], epochs=None, lr=None) == ["seed=1"]


@pytest.mark.parametrize(
    "change", ["finetune.lr=0.2", "finetune={lr: 0.2, epochs: 2}", "finetune.lr=0.1"]
)
def test_a_flag_beside_a_set_of_its_key_is_one_sentence(change):
    with pytest.raises(ValueError, match=r"finetune\.lr is given twice, by --lr as 0\.1 and by"):
        with_flags([change], lr=0.1)


def test_a_flag_that_would_do_nothing_is_refused_as_its_key_is(tmp_path):
    with pytest.raises(ValueError, match=r"finetune\.lr would do nothing: method lp does not fine"):
        load_config(write_config(tmp_path, "lp"), with_flags([], lr=0.1))


@pytest.mark.parametrize("command", [runs.run, runs.sweep, runs.probe, models.finetune])
def test_the_commands_that_train_have_the_common_flags(command):
    assert ALL.keys() <= introspection.signature(command).parameters.keys()


def test_every_seed_of_every_command_is_refused_out_of_its_range(monkeypatch, capsys):
    seeds = {
        (command.callback, name): parameter.annotation.__metadata__[0]
        for command in cli.app.registered_commands
        for name, parameter in introspection.signature(command.callback).parameters.items()
        if name.endswith("seed")
    }
    assert {runs.study, runs.baselines, inspect.rank} < {command for command, _ in seeds}
    taken = range_of(SeedNumber)
    assert {(option.min, option.max) for option in seeds.values()} == {(taken.ge, taken.lt - 1)}
    monkeypatch.setattr("sys.argv", ["molhpft", "study", "toy", "--seed", "-1"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "Invalid value for '--seed'" in capsys.readouterr().err


def test_the_config_that_help_names_exists():
    words = arguments.ConfigPath.__metadata__[0].help
    assert (Path(__file__).parents[2] / words.split()[-1].rstrip(".")).is_file()


@pytest.mark.parametrize(
    ("changes", "reader"),
    [
        (arguments.ProbeChanges, probe_grid.READS),
        (arguments.AdviseChanges, advise.READS),
        (arguments.RankChanges, rank.READS),
        (arguments.BaselineChanges, baselines.READS),
    ],
)
def test_help_says_which_keys_a_command_lets_set(changes, reader):
    _, option = get_args(changes)
    assert f"read here: {', '.join(reader.keys)};" in option.help
