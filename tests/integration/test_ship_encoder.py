"""A small pretraining run becomes a shipped encoder with its card, and is used by its name."""

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

from molhpft.advice.inventory import overlap, overlap_with, trained_on
from molhpft.config.build import build_network, build_recipes, build_task
from molhpft.config.schema import load_config, parse_config
from molhpft.domains import shipped as places
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.overlap import MoleculeSet, inchikey_blocks
from molhpft.domains.weights import read_weights
from molhpft.estimator import MoleculeEncoder
from molhpft.run.identity import run_name
from molhpft.run.run import run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONFIG = """# Small.
# $ molhpft run small.yaml
task:
  name: pretraining
  of: [HERE/list.smi, HERE/more.smi]
  share: [1, 2]
  targets: [descriptors, morgan]
  weights: [1, 0.5]
  split: random
  without: [ogbg-molbace, HERE/assay.csv]
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
def trained(ogb_root, tmp_path_factory):
    """Folder with a config `small.yaml`, its run, and a table that the config leaves out."""
    folder = tmp_path_factory.mktemp("ship")
    bace = ogb_task("ogbg-molbace").examples.smiles
    chains = [f"{'C' * n}{end}" for n in range(3, 23) for end in ("", "O", "N")]
    (folder / "list.smi").write_text("\n".join([*chains, *bace[::40]]))
    (folder / "more.smi").write_text("\n".join(f"C{'=C' * n}" for n in range(1, 31)))
    others = [f"{k},O{'C' * k}" for k in range(3, 13)]
    (folder / "assay.csv").write_text("\n".join(["y,Drug", *others, "0,not one"]) + "\n")
    for name in ("licences", "probes", "ablation"):
        (folder / f"{name}.md").write_text(f"| what {name} say |\n")
    config = folder / "small.yaml"
    config.write_text(CONFIG.replace("HERE", str(folder)))
    run(load_config(config), folder / "runs")
    return folder


def words(folder, *more, out="encoders"):
    (done,) = (folder / "runs").iterdir()
    files = [w for n in ("licences", "probes") for w in (f"--{n}", folder / f"{n}.md")]
    options = ["--config", folder / "small.yaml", "--name", "small", "--out", folder / out]
    return list(map(str, [done, *options, *files, *more]))


@pytest.fixture(scope="module")
def shipped(script, trained):
    """The same folder with the encoder `small` in its `encoders`."""
    script.main(words(trained, "--ablation", trained / "ablation.md"))
    return trained


@pytest.fixture
def named(shipped, few_nci_molecules, monkeypatch):
    monkeypatch.setattr(places, "SHIPPED", shipped / "encoders")
    return parse_config({"task": "nci_alerts", "encoder": {"weights": "small"}})


def card_of(shipped):
    return (shipped / "encoders" / "small.md").read_text()


def test_the_file_holds_the_encoder_of_the_run_and_no_head(shipped):
    (model,) = (shipped / "runs").glob("*/model.safetensors")
    whole, encoder = read_weights(model), read_weights(shipped / "encoders" / "small.safetensors")
    assert encoder.about == whole.about
    assert encoder.tensors.keys() == {k for k in whole.tensors if k.startswith("backbone.")}
    assert all(torch.equal(whole.tensors[k], v) for k, v in encoder.tensors.items())


def test_the_card_says_what_the_file_is(shipped):
    text = card_of(shipped)
    digest = hashlib.sha256((shipped / "encoders" / "small.safetensors").read_bytes()).hexdigest()
    assert f"sha256: `{digest}`" in text
    assert "molhpft run small.yaml" in text
    assert "parameters, float32)" in text
    assert "encoder: {weights: small}" in text


def test_the_card_has_its_sections_in_order_and_takes_in_what_files_say(shipped):
    text = card_of(shipped)
    titles = re.findall(r"^## (\w+)$", text, re.MULTILINE)
    assert titles == ["Data", "Licences", "Training", "Probes", "Ablation"]
    for name in ("licences", "probes", "ablation"):
        assert f"## {name.title()}\n\n| what {name} say |" in text


def test_no_validated_or_tested_molecule_was_trained_on_and_the_card_counts_those_left_out(shipped):
    rows = re.findall(r"\| ogbg-molbace \| (\w+) \| [\d,]+ \| (\d+) \| (\d+) \|", card_of(shipped))
    counts = {split: (int(used), int(could)) for split, used, could in rows}
    assert counts["valid"][0] == counts["test"][0] == 0
    assert counts["valid"][1] + counts["test"][1] > 0
    assert counts["train"][0] > 0


def test_the_molecules_that_were_trained_on_are_known_without_their_files(named, shipped, ogb_root):
    (run_folder,) = (shipped / "runs").iterdir()
    trained = trained_on(read_weights(run_folder / "model.safetensors"))
    known = MoleculeSet.from_bytes((shipped / "encoders" / "small.molecules").read_bytes())
    assert known.has(inchikey_blocks(trained)).all()
    bace = ogb_task("ogbg-molbace")
    found = overlap(bace, "small")
    expected = overlap_with(bace, trained)
    assert [row["shared"] for row in found] == [row["shared"] for row in expected]
    assert found[0]["shared"] > 0


def test_all_molecules_of_a_table_count_whatever_their_column_is_called(shipped):
    (row,) = (line for line in card_of(shipped).splitlines() if "assay.csv | all" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["11", "0"]
    assert 0 < int(cells[4]) <= 10


def test_the_card_names_every_source_and_target_with_its_weight(shipped):
    text = card_of(shipped)
    for name, share in (("list", 1), ("more", 2)):
        assert re.search(rf"^\| `.*{name}\.smi` \| all \| {share}\.0 \|$", text, re.MULTILINE)
    assert "descriptors (weight 1.0), morgan (weight 0.5)" in text


def test_a_table_without_molecules_is_refused(script, trained):
    table = trained / "numbers.csv"
    table.write_text("a,b\n1,x\n2,y\n")
    with pytest.raises(ValueError, match=r"numbers\.csv should have a column of SMILES"):
        script.tested_blocks(str(table))


def test_what_is_left_out_but_was_trained_on_is_refused(script, trained):
    source = script.read_source(next((trained / "runs").iterdir()), trained / "small.yaml")
    tested = script.tested_blocks("ogbg-molbace")["test"]
    with pytest.raises(ValueError, match=r"1 of 152 molecules of ogbg-molbace \(test\) were train"):
        script.leak_table(source, ["ogbg-molbace"], tested[:1], tested)


def test_data_that_are_not_those_of_the_run_are_refused(script, trained, monkeypatch):
    source = script.read_source(next((trained / "runs").iterdir()), trained / "small.yaml")
    monkeypatch.setattr(script, "molecules_trained_on", lambda **_: ["CCO"])
    with pytest.raises(ValueError, match=r"trained on .* the data at hand give 1"):
        script.trained_on(source)


@pytest.mark.slow
def test_half_precision_is_said_and_rounds_nothing_but_weights(script, trained, monkeypatch):
    script.main(words(trained, "--half", out="halves"))
    whole, half = (
        read_weights(path).tensors
        for path in (
            next((trained / "runs").glob("*/model.safetensors")),
            trained / "halves" / "small.safetensors",
        )
    )
    kinds = {tensor.dtype for tensor in half.values()}
    assert kinds == {torch.float16, torch.int64}  # batches that batch norms have counted
    assert all(torch.equal(value, whole[name].to(value.dtype)) for name, value in half.items())
    text = (trained / "halves" / "small.md").read_text()
    assert "stored in float16, loaded as float32" in text
    monkeypatch.setattr(places, "SHIPPED", trained / "halves")
    config = parse_config({"task": "nci_alerts", "encoder": {"weights": "small"}})
    recipe = build_recipes(config)[0]
    own = build_network(config, build_task(config, recipe), recipe).backbone.state_dict()
    assert {value.dtype for value in own.values()} == {torch.float32, torch.int64}
    assert all(
        torch.equal(value, half[f"backbone.{n}"].to(value.dtype)) for n, value in own.items()
    )


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_card_says_the_losses_that_are_known(script, trained, keep, tmp_path):
    config = tmp_path / "run.yaml"
    text = (trained / "small.yaml").read_text()
    config.write_text(text.replace("keep: best", f"keep: {keep}"))
    folder = run(load_config(config), tmp_path / "runs")
    section = script.training_section(script.Source(folder, load_config(config), config), "run it")
    epochs = [row for row in folder.read_lines("history.jsonl") if row["phase"] == "finetune"]
    final = folder.read_json("summary.json")["branches"][0]["final"]["valid"]
    rows = re.findall(r"\| (\d) \((\w+)\) \| ([\d.]+) \| ([\w .]+) \|", section)
    first, *_, last = rows
    assert [first[2], last[2]] == [f"{epochs[k]['loss']:.4f}" for k in (0, -1)]
    assert first[3] == ("not computed" if keep == "last" else f"{-epochs[0]['valid']:.4f}")
    assert last[3] == f"{-(final if keep == 'last' else epochs[-1]['valid']):.4f}"
    size = folder.read_json("summary.json")["epoch_size"]
    assert f"2 epochs of {size} molecules" in section


def test_a_projection_keeps_the_distances_between_predicted_targets(script, trained, monkeypatch):
    script.main(words(trained, "--projection", "300", out="projected"))
    assert (
        "projection of the targets it predicts to 300"
        in (trained / "projected" / "small.md").read_text()
    )
    monkeypatch.setattr(places, "SHIPPED", trained / "projected")
    smiles = ["CCO", "CCCCO", "CCN", "CCCCCCN", "c1ccccc1O", "CC(C)C(=O)O"]
    z = torch.from_numpy(MoleculeEncoder("small").fit_transform(smiles)).double()
    (model,) = (trained / "runs").glob("*/model.safetensors")
    features = torch.from_numpy(MoleculeEncoder(model).fit_transform(smiles))
    head = read_weights(model).tensors["head.stages.linear.module.weight"]
    expected = torch.pdist((features @ head.T).double())
    torch.testing.assert_close(torch.pdist(z), expected, rtol=0.2, atol=0)


def test_numbers_that_float16_cannot_hold_stay_float32_and_are_named(script):
    tensors = {"weight": torch.tensor([1.0]), "norm.running_var": torch.tensor([1e5, 1.0])}
    halved = {name: script.halved(tensor) for name, tensor in tensors.items()}
    assert [tensor.dtype for tensor in halved.values()] == [torch.float16, torch.float32]
    assert "but for 1 tensors that it cannot hold (norm.running_var)" in script.precision(halved)
    assert script.precision(tensors) == "float32"


def test_a_file_that_is_too_large_is_refused_and_not_written(script, trained, monkeypatch):
    monkeypatch.setattr(script, "MOST", 3_000)
    with pytest.raises(ValueError, match="small should have at most 0 MB to be shipped"):
        script.main(words(trained, out="large"))
    assert not (trained / "large").exists()


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
