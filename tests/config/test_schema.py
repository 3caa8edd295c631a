"""Configs: what is written is what is meant, or an error names the key."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from molhpft.config import schema
from molhpft.config.schema import Reader, checked_choice, load_config, parse_config, resolved

MINIMAL = {"task": "nci_alerts"}


def test_a_task_is_all_that_a_config_needs():
    config = parse_config(MINIMAL)
    assert config.task.name == "nci_alerts"
    assert config.probe.trains == "head"
    assert config.finetune.trains == "all"


def test_fewer_training_examples_are_recorded_where_they_are_asked_for_and_only_there():
    assert resolved(parse_config(MINIMAL))["task"] == {"name": "nci_alerts"}
    asked = {"name": "nci_alerts", "shots": 16, "train_seed": 3}
    config = parse_config({"task": asked})
    assert resolved(config)["task"] == asked
    assert parse_config(resolved(config)) == config
    with pytest.raises(ValueError, match=r"task\.shots should be at least 1, got 0"):
        parse_config({"task": {"name": "nci_alerts", "shots": 0}})


def test_a_cut_may_be_given_by_the_name_that_the_paper_has():
    raw = {**MINIMAL, "encoder": {"name": "resnet", "depth": 50}}
    config = parse_config({**raw, "cut": "L4.3"})
    assert config.cut == "layer4.2"
    assert config == parse_config({**raw, "cut": "layer4.2"})
    with pytest.raises(ValueError, match=r"'L5\.1'; .*layer4\.2 \(L4\.3\)"):
        parse_config({**raw, "cut": "L5.1"})


def test_batch_norm_of_a_resnet_may_be_frozen():
    raw = {**MINIMAL, "encoder": "cifar_resnet", "finetune": {"batch_norm": "frozen"}}
    assert parse_config(raw).finetune.batch_norm == "frozen"


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
        ({"finetune": {"epochs": True}}, r"finetune\.epochs is True, which .*: it is no yes or no"),
        ({"finetune": {"lr": float("inf")}}, r"finetune\.lr is inf, which does not fit"),
        ({"finetune": 3}, "finetune must be keys such as epochs and lr, got 3"),
        ({"probe": {"trains": "all"}}, r"unknown key probe\.trains"),
        ({"sweep": {"seeds": 2}}, "sweep lists runs; `molhpft sweep` takes such a config"),
        ({"task": "ogbg-moltox2"}, "unknown task ogbg-moltox2; did you mean ogbg-moltox21"),
        ({"task": {"path": "x"}}, "task must be a name, or keys with a name among them"),
        ({"task": {"name": "csv"}}, r"missing key task\.path"),
        ({"method": {"name": "ft", "tau": [1]}}, r"unknown key method\.tau; valid: method\.name"),
        ({"method": {"name": "hp_ft"}}, r"missing key method\.tau"),
        ({"method": {"name": "hp_ft", "tau": [3, -1]}}, r"method\.tau should be at least 0, got -"),
        ({"encoder": "gnc"}, "unknown encoder gnc; did you mean gcn"),
        ({"head": {"name": "mlp", "nam": 1}}, r"unknown key head\.nam; did you mean head\.name[?]"),
        ({"encoder": {"name": "gcn", "dropout": 1}}, r"encoder\.dropout should be in \[0, 1\), go"),
        ({"measures": ["nkt"]}, "unknown measure nkt; did you mean ntk"),
        ({"device": "gpu"}, "device is 'gpu', which does not fit: input should be 'auto'"),
        ({"seed": "x"}, "seed is 'x', which does not fit"),
        ({"seed": -1}, r"seed should be in \[0, 9223372036854775808\), got -1"),
        *(
            ({name: 0}, f"{name} should be at least 1, got 0")
            for name in ("devices", "nodes", "checkpoint")
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_sentence_with_the_key(change, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        parse_config({**MINIMAL, **change})
    assert "\n" not in str(caught.value)


def test_a_config_without_a_task_says_so():
    with pytest.raises(ValueError, match=r"missing key task; for example task: \{name: "):
        parse_config({})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "task: nci_alerts\n"
        "method: {name: hp_ft, tau: [0, 3]}\n"
        "probe: {lr: 0.01}\n"
        "finetune: {epochs: 2, lr: 0.003}\n"
    )
    return path


def test_a_file_and_its_changes_are_checked_together(path):
    config = load_config(path, ["finetune.lr=1e-4", "method.tau=[5]", "seed=3"])
    assert (config.finetune.lr, config.finetune.epochs) == (1e-4, 2)
    assert config.method.options["tau"] == (5,)
    assert config.seed == 3


def test_what_a_change_leaves_without_effect_is_left_out_with_a_warning(path, caplog):
    config = load_config(path, ["method=lp"])
    assert "finetune" not in resolved(config)
    (message,) = caplog.messages
    assert "finetune.epochs and finetune.lr would do nothing: method lp does not" in message
    assert message.endswith("left out of this run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["method=ft", "probe.lr=0.1"], "probe.lr would do nothing: method ft probes no"),
        (["method=ft", "probe={lr: 1.0}"], "probe.lr would do nothing"),
        (["method={name: l2_sp, tau: [3]}", "finetune.anchor=0.5"], "finetune.anchor"),
        (["method.tau=[3]", "method=ft"], "unknown key method.tau; valid: method.name"),
    ],
)
def test_a_change_without_effect_is_refused(path, changes, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        load_config(path, changes)


def test_a_command_that_reads_a_part_takes_no_change_of_the_rest(path):
    reader = Reader("molhpft some", ("task", "seed", "finetune.lr"))
    assert load_config(path, ["seed=3", "finetune.lr=0.5"], reader=reader).finetune.lr == 0.5
    words = r"molhpft some does not read finetune\.epochs; it reads task, seed, finetune\.lr"
    with pytest.raises(ValueError, match=words):
        load_config(path, ["finetune.epochs=3"], reader=reader)


@pytest.fixture
def weights(tmp_path):
    """Writes a weight file of a gcn run; gives its path as text."""

    def write(**options):
        about = {"encoder": "gcn", "config": {"encoder": {"name": "gcn", **options}}}
        tensors = {"backbone.stages.embed.columns.tables.0": torch.zeros(119, 8)}
        path = tmp_path / "w.safetensors"
        save_file(tensors, path, metadata={"molhpft": json.dumps(about)})
        return str(path)

    return write


def encoder_of(encoder, **keys):
    return parse_config({**MINIMAL, **keys, "encoder": encoder}).encoder


def test_weights_without_a_name_say_which_encoder_is_meant(weights):
    path = weights(layers=2, width=8, virtual_node=True, dropout=0.1)
    found = encoder_of({"weights": path, "dropout": 0.25})
    assert found.name == "gcn"
    assert found.options["weights"] == Path(path)
    assert (found.options["layers"], found.options["width"]) == (2, 8)
    assert found.options["virtual_node"]
    assert found.options["dropout"] == 0.25
    assert encoder_of({"weights": path}).options["dropout"] == 0.1
    assert encoder_of({"weights": path, "layers": 3}).options["layers"] == 3


def test_another_file_in_the_place_of_weights_is_looked_at_again(weights):
    path = weights(layers=2)
    assert encoder_of({"weights": path}).options["layers"] == 2
    weights(layers=4)
    os.utime(path, ns=(0, 0))
    assert encoder_of({"weights": path}).options["layers"] == 4


def test_a_method_from_scratch_has_the_shape_that_the_dropped_weights_have(weights):
    raw = {"encoder": {"weights": weights(layers=2)}, "method": "scratch", **MINIMAL}
    found = parse_config(raw, unused_are="dropped").encoder
    assert (found.options["weights"], found.options["layers"]) == (None, 2)


def test_a_config_without_an_encoder_takes_the_default_in_its_own_shape(weights, monkeypatch):
    path = weights(layers=1, width=8)
    monkeypatch.setitem(schema.DEFAULTS, "encoder", {"weights": path})
    found = parse_config(MINIMAL).encoder
    assert (found.options["weights"], found.options["layers"]) == (Path(path), 1)


def test_keys_of_an_encoder_without_name_or_weights_are_refused():
    with pytest.raises(ValueError, match="encoder must be a name, or keys with a name among them"):
        encoder_of({"layers": 2})


PAPER = {"epochs": 200, "batch_size": 128, "optimizer": "sgd", "momentum": 0.9}


@pytest.mark.parametrize("word", ["paper", {"name": "paper"}])
def test_the_setting_of_the_paper_is_one_word(word):
    config = parse_config({**MINIMAL, "method": "lp_ft", "probe": word, "finetune": word})
    for phase in (config.probe, config.finetune):
        assert {key: getattr(phase, key) for key in PAPER} == PAPER
    # a probe along a cosine would be another one for each tau
    assert config.probe.schedule == "constant"
    assert config.finetune.schedule == "cosine"
    assert config.finetune.keep == "best"
    assert config.finetune.patience


def test_keys_beside_a_preset_go_before_it(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("task: nci_alerts\nfinetune: paper\n")
    phase = load_config(path, ["finetune.lr=0.5"]).finetune
    assert (phase.lr, phase.optimizer) == (0.5, "sgd")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"finetune": "papper"}, "unknown preset of finetune papper; did you mean paper"),
        ({"finetune": "paper", "method": "lp"}, "finetune.name would do nothing: method lp"),
        ({"probe": {"name": "paper"}, "method": "ft"}, "probe.name would do nothing: method ft"),
    ],
)
def test_a_preset_that_is_none_or_does_nothing_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        parse_config({**MINIMAL, **changed})


def test_a_preset_is_dropped_where_a_template_has_no_use_for_it():
    raw = {**MINIMAL, "method": "lp", "finetune": "paper"}
    assert parse_config(raw, unused_are="dropped").finetune.optimizer == "adam"


def test_a_head_that_reads_features_alone_is_recorded_as_it_always_was():
    assert resolved(parse_config({"task": "toy"}))["head"] == {"name": "linear"}
    head = {"name": "mlp", "hidden": 8}
    for one in (head, head | {"beside": []}):
        assert resolved(parse_config({"task": "toy", "head": one}))["head"] == head


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"name": "linear", "beside": ["bits"]}, "head.beside is 'bits'"),
        ({"name": "linear", "beside": ["morgan", "morgan"]}, "once, got .'morgan', 'morgan'"),
        ({"name": "aspp", "beside": ["morgan"]}, "unknown key head.beside"),
    ],
    ids=str,
)
def test_what_a_head_cannot_read_beside_features_is_refused(head, words):
    with pytest.raises(ValueError, match=words):
        checked_choice("head", head)


def test_one_reading_beside_features_may_stand_alone():
    assert checked_choice("head", {"name": "linear", "beside": "morgan"}).options == {
        "beside": ("morgan",)
    }
