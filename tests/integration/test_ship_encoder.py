"""A small pretraining run becomes a shipped encoder with its card, and is used by its name."""

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import load_config, parse_config
from molhpft.domains import shipped as places
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.weights import read_weights
from molhpft.run.identity import run_name
from molhpft.run.run import run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONFIG = """# Small.
# $ molhpft run small.yaml
task: {name: pretraining, of: LIST, split: random, without: [ogbg-molbace]}
encoder: {name: gcn, layers: 1, width: 8}
method: scratch
finetune: {epochs: 2, lr: 0.01, keep: best}
"""


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ship_encoder", BENCHMARKS / "ship_encoder.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # as Python does for a script: its neighbours can be imported
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        patch.setitem(sys.modules, "ship_encoder", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def shipped(script, ogb_root, tmp_path_factory):
    """Folder with a config `small.yaml`, its run and the encoder `small` that came of it."""
    folder = tmp_path_factory.mktemp("ship")
    bace = ogb_task("ogbg-molbace").examples.smiles
    chains = [f"{'C' * n}{end}" for n in range(3, 23) for end in ("", "O", "N")]
    (folder / "list.smi").write_text("\n".join([*chains, *bace[::40]]))
    config = folder / "small.yaml"
    config.write_text(CONFIG.replace("LIST", str(folder / "list.smi")))
    done = run(load_config(config), folder / "runs").path
    options = ["--config", config, "--name", "small", "--against", "ogbg-molbace"]
    folders = ["--probes", folder / "probes", "--out", folder / "encoders"]
    script.main(list(map(str, [done, *options, *folders])))
    return folder


@pytest.fixture
def named(shipped, monkeypatch):
    monkeypatch.setattr(places, "SHIPPED", shipped / "encoders")
    return parse_config(
        {
            "task": "nci_alerts",
            "encoder": {"name": "gcn", "layers": 1, "width": 8, "weights": "small"},
        }
    )


def test_the_file_holds_the_encoder_of_the_run_and_no_head(shipped):
    (model,) = (shipped / "runs").glob("*/model.safetensors")
    whole, encoder = read_weights(model), read_weights(shipped / "encoders" / "small.safetensors")
    assert encoder.about == whole.about
    assert encoder.tensors.keys() == {k for k in whole.tensors if k.startswith("backbone.")}
    assert all(torch.equal(whole.tensors[k], v) for k, v in encoder.tensors.items())


def test_the_card_says_what_the_file_is(shipped):
    text = (shipped / "encoders" / "small.md").read_text()
    digest = hashlib.sha256((shipped / "encoders" / "small.safetensors").read_bytes()).hexdigest()
    assert f"sha256: `{digest}`" in text
    assert "molhpft run small.yaml" in text
    assert "this encoder" in text


def test_no_validated_or_tested_molecule_was_trained_on_and_the_card_counts_those_left_out(shipped):
    text = (shipped / "encoders" / "small.md").read_text()
    rows = re.findall(r"\| ogbg-molbace \| (\w+) \| [\d,]+ \| (\d+) \| (\d+) \|", text)
    counts = {split: (int(used), int(could)) for split, used, could in rows}
    assert counts["valid"][0] == counts["test"][0] == 0
    assert counts["valid"][1] + counts["test"][1] > 0
    assert counts["train"][0] > 0


def test_a_config_finds_the_encoder_by_its_name(shipped, named):
    recipe = build_recipes(named)[0]
    network = build_network(named, build_task(named, recipe), recipe)
    file = read_weights(shipped / "encoders" / "small.safetensors")
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, file.tensors[f"backbone.{name}"])


def test_another_file_of_the_same_name_is_another_run(shipped, named, tmp_path, monkeypatch):
    task = build_task(named, build_recipes(named)[0])
    first = run_name(named, task)
    monkeypatch.setattr(places, "SHIPPED", tmp_path)
    (tmp_path / "small.safetensors").write_bytes(b"another")
    assert run_name(named, task) != first


def test_a_run_of_another_config_is_refused(script, shipped, tmp_path):
    (done,) = (shipped / "runs").iterdir()
    other = tmp_path / "other.yaml"
    other.write_text((shipped / "small.yaml").read_text().replace("0.01", "0.02"))
    with pytest.raises(ValueError, match=r"should be a run of .*other\.yaml"):
        script.read_source(done, other)
    with pytest.raises(ValueError, match="should be a finished run"):
        script.read_source(tmp_path, shipped / "small.yaml")
