"""The command line as a user meets it: what it prints, and one sentence for each error."""

import json
import logging
import sys

import pytest
import torch
from safetensors.torch import save_file

from molhpft.advice import inventory
from molhpft.cli import app as cli
from molhpft.domains import shipped
from molhpft.domains.shipped import shipped_file
from tests.integration.commands import one_sentence

SMALL = """
task: {name: csv, path: PATH, target_columns: ring, split: random, split_seed: 1}
encoder: {name: gcn, layers: 2, width: 8}
method: {name: hp_ft, tau: [0, 2]}
finetune: {epochs: 1, lr: 0.003, keep: best}
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rings.csv"
    rows = [row for n in range(3, 33) for row in (f"{'C' * n}O,0", f"C1{'C' * n}1N,1")]
    path.write_text("\n".join(["smiles,ring", *rows]) + "\n")
    return path


@pytest.fixture
def config(tmp_path, table):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.replace("PATH", str(table)))
    return path


def test_a_run_prints_a_table_a_reading_and_its_folder(molhpft, config, tmp_path):
    status, out, _ = molhpft("run", config, "--out", tmp_path / "runs")
    assert status == 0
    for words in ("AIE", "HP", "FT", "distance", "cosine", "dot", "norm", "head", "ECE"):
        assert words in out
    assert "Validation chooses tau" in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(folder) in out
    assert (folder / "summary.json").is_file()


def test_json_is_all_that_a_run_prints_when_asked_for(molhpft, config, tmp_path):
    status, out, _ = molhpft("run", config, "--out", tmp_path, "--json", "--seed", 5)
    summary = json.loads(out)
    assert status == 0
    assert summary["seed"] == 5
    assert [row["tau"] for row in summary["branches"]] == [0, 2]


def test_settings_change_a_run(molhpft, config, tmp_path):
    changes = ("--set", "method.tau=[1]", "--set", "head=mlp")
    _, out, _ = molhpft("run", config, "--out", tmp_path, "--json", *changes)
    assert [row["tau"] for row in json.loads(out)["branches"]] == [1]


def test_a_probe_prints_a_table_without_test_scores(molhpft, config):
    options = ("--lr", 0.01, "--lr", 0.1, "--tau", 3, "--seeds", 2)
    status, out, _ = molhpft("probe", config, *options)
    assert status == 0
    for words in ("AIE", "HP train", "HP valid", "over 2 seeds", "The head validates best with lr"):
        assert words in " ".join(out.split())
    assert "HP test" not in out
    _, out, _ = molhpft("probe", config, *options, "--json")
    assert [(row["lr"], row["tau"]) for row in json.loads(out)["rows"]] == [(0.01, 3), (0.1, 3)]


def test_a_run_that_chooses_tau_says_how(molhpft, config, tmp_path):
    options = ("--set", "method.tau=auto", "--set", "probe.epochs=9", "--set", "seed=1")
    status, out, _ = molhpft("run", config, *options, "--out", tmp_path)
    assert status == 0
    for words in ("Validation chooses tau", "evenly spaced in energy", "of the 2 epochs budgeted"):
        assert words in " ".join(out.split())


def test_advice_is_printed_without_test_scores(molhpft, config):
    options = ("--set", "probe.epochs=9", "--set", "seed=1")
    status, out, _ = molhpft("advise", config, *options)
    assert status == 0
    for words in ("HP valid", "partial backbone", "--set 'method.tau=[0, ", "Morgan"):
        assert words in out
    assert "HP test" not in out
    _, out, _ = molhpft("advise", config, *options, "--json")
    assert json.loads(out)["probe"][0]["tau"] == 0


def test_advice_on_nothing_is_one_sentence(molhpft, config):
    line = one_sentence(*molhpft("advise", config, "--set", "method=scratch"))
    assert "method scratch" in line


def test_encoders_are_ranked_best_first(molhpft, config):
    given = ("gcn_structure", str(shipped_file("gcn_structure")))
    options = ("--encoders", *given, "--set", "seed=1")
    status, out, _ = molhpft("rank", config, *options)
    assert status == 0
    for words in ("best first", "LogME", "Start from", "No LEEP of gcn_structure"):
        assert words in out
    _, out, _ = molhpft("rank", config, *options, "--json")
    assert [row["weights"] for row in json.loads(out)["encoders"]] == list(given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "encoders to rank are missing"),
        (("gcn_structure",), "encoders to compare stand after --encoders, got gcn_structure"),
        (("--encoders", "absent.pth"), "no weight file at absent.pth"),
        (("--encoders", "gcn_structure", "--set", "head=mlp"), "does not read head"),
    ],
)
def test_encoders_that_cannot_be_ranked_are_one_sentence(molhpft, config, words, message):
    assert message in one_sentence(*molhpft("rank", config, *words))


def test_data_describes_a_table(molhpft, table):
    status, out, _ = molhpft("data", table, "--json")
    description = json.loads(out)
    assert status == 0
    assert description["molecules"] == 60
    assert description["targets"] == [{"name": "ring", "labels": 60, "missing": 0, "positive": 0.5}]
    _, shown, _ = molhpft("data", table)
    assert "split train" in shown
    assert "0.500" in shown


def test_data_of_a_table_with_targets_of_two_kinds_names_options_that_it_has(molhpft, tmp_path):
    path = tmp_path / "mixed.csv"
    rows = [f"{'C' * (k + 1)}O,{k % 2},{k / 7}" for k in range(40)]
    path.write_text("\n".join(["smiles,active,pic50", *rows]) + "\n")
    status, _, said = molhpft("data", path)
    said = " ".join(said.split())
    assert status == 2
    assert "of two kinds, classes (active) and numbers (pic50)" in said
    for named in ("task.target_columns=[NAME]", "task.kind=regression"):
        assert named in said
        change = named.replace("NAME", "active")
        assert molhpft("data", path, "--set", change, "--set", "split=random")[0] == 0


@pytest.mark.usefixtures("few_nci_molecules")
def test_data_describes_the_embedded_molecules(molhpft):
    _, out, _ = molhpft("data", "nci_alerts", "--json")
    description = json.loads(out)
    assert 250 < description["molecules"] == sum(description["sizes"].values()) <= 300
    assert description["place"] == "comes with the installation"


def test_data_describes_drawn_images(molhpft):
    _, out, _ = molhpft("data", "shapes", "--set", "images=20", "--json")
    description = json.loads(out)
    assert description["shape"] == "3 x 64 x 64"
    assert sum(target["share"] for target in description["targets"]) == pytest.approx(1)
    status, shown, _ = molhpft("data", "shapes", "--set", "images=20")
    assert status == 0
    assert "share" in shown


def test_data_describes_an_ogb_set(molhpft, ogb_root):
    _, out, _ = molhpft("data", "ogbg-molbace", "--json")
    description = json.loads(out)
    assert description["sizes"] == {"train": 1210, "valid": 151, "test": 152}
    assert description["place"] == str(ogb_root / "ogbg_molbace")


def test_encoders_lists_every_encoder_and_identifies_files(molhpft, tmp_path):
    status, out, _ = molhpft("encoders")
    assert status == 0
    assert "gcn_pretrain_gnns" in out
    torch.save(
        {"x_embedding1.weight": torch.zeros(1), "gnns.0.linear.weight": torch.zeros(1)},
        tmp_path / "w.pth",
    )
    _, out, _ = molhpft("encoders", tmp_path / "w.pth")
    assert "which fits gcn_pretrain_gnns" in out


def test_encoders_are_listed_before_the_hub_is_asked(molhpft, monkeypatch):
    def unreachable():
        raise FileNotFoundError("the model hub cannot be reached: no network")

    monkeypatch.setattr(inventory, "hub_names", unreachable)
    status, out, err = molhpft("encoders", "--hub")
    assert (status, err) == (2, "error: the model hub cannot be reached: no network\n")
    assert "gcn_pretrain_gnns" in out


def test_encoders_lists_what_is_shipped_and_identifies_it_by_name(molhpft, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path)
    tensors = {"backbone.stages.embed.columns.tables.0": torch.zeros(119, 8)}
    save_file(tensors, tmp_path / "tiny.safetensors", metadata={"molhpft": '{"encoder": "gcn"}'})
    _, out, _ = molhpft("encoders")
    assert "tiny" in out
    assert "0.0 MB" in out
    _, out, _ = molhpft("encoders", "tiny")
    assert out.startswith("tiny is a molhpft model trained as encoder gcn")


def test_data_describes_a_list_to_pretrain_on(molhpft, tmp_path):
    path = tmp_path / "chains.smi"
    path.write_text("\n".join("C" * n for n in range(1, 31)))
    changes = ("--set", f"of={path}", "--set", "split=random")
    _, out, _ = molhpft("data", "pretraining", *changes, "--json")
    description = json.loads(out)
    assert description["metric"] == "neg_loss"
    assert description["place"] == str(path)
    assert description["sizes"] == {"train": 24, "valid": 3, "test": 3}


def test_a_report_answers_and_says_where_it_lies(molhpft, config, tmp_path):
    for seed in (0, 1):
        molhpft("run", config, "--out", tmp_path / "runs", "--seed", seed)
    (tmp_path / "runs" / "stopped.partial").mkdir()
    status, out, _ = molhpft("report", tmp_path / "runs", "--out", tmp_path / "report")
    assert status == 0
    assert "rings: hp-ft validates best: test ROC-AUC (%)" in " ".join(out.split())
    assert "Left out: stopped.partial: the run has not ended" in out
    page = tmp_path / "report" / "report.html"
    assert f"Report: {page}" in out
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("finetune.lrr=1", ["unknown key finetune.lrr", "finetune.lr"]),
        ("finetune.epochs=many", ["finetune.epochs", "'many'", "integer"]),
        ("encoder.weights=none.pth", ["no weight file at none.pth"]),
        ("probe.anchor=1", ["probe.anchor would do nothing", "the head alone"]),
    ],
)
def test_a_wrong_setting_is_one_sentence(molhpft, config, tmp_path, monkeypatch, change, words):
    monkeypatch.setenv("MOLHPFT_DATA", str(tmp_path))
    line = one_sentence(*molhpft("run", config, "--set", change, "--out", tmp_path / "runs"))
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "smiles,ring\n" + "\n".join(f"{'C' * n},1" for n in range(1, 30)),
            ["'ring'", "both classes"],
        ),
        ("smiles,ring\nC,1\nCC,high\n", ["'ring'", "line 3", "'high'"]),
    ],
    ids=["one class", "no number"],
)
def test_a_wrong_table_is_one_sentence(molhpft, config, table, content, words):
    table.write_text(content)
    line = one_sentence(*molhpft("run", config))
    for word in words:
        assert word in line


def test_a_wrong_weight_file_is_one_sentence(molhpft, config, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    line = one_sentence(*molhpft("run", config, "--set", f"encoder.weights={tmp_path / 'w.pth'}"))
    for word in ("w.pth", "unpickling", "refused"):
        assert word in line


def test_an_output_that_cannot_be_written_is_one_sentence(molhpft, config, table):
    assert "rings.csv" in one_sentence(*molhpft("run", config, "--out", table))


def test_an_unknown_data_set_is_one_sentence(molhpft):
    line = one_sentence(*molhpft("data", "ogbg-moltox"))
    assert "did you mean ogbg-moltox21" in line


def test_unreadable_molecules_are_reported_by_line(molhpft, config, table, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's, beside which the command has none
    rows = table.read_text().splitlines()
    rows[3] = "not a molecule,1"
    table.write_text("\n".join(rows) + "\n")
    status, _, error = molhpft("run", config, "--out", tmp_path)
    assert status == 0
    assert "1 of 60 molecules" in error
    assert "(line 4)" in error


def test_the_traceback_is_there_for_those_who_ask(molhpft, monkeypatch):
    monkeypatch.setenv("MOLHPFT_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["molhpft", "data", "nothing"])
    with pytest.raises(ValueError, match="unknown data set nothing"):
        cli.main()
