"""Every example runs at its smallest setting, and writes and prints what it says."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
WEIGHTS = "gcn_supervised_contextpred.pth"


@pytest.fixture
def example(tmp_path):
    """Runs a script in a folder of its own; gives exit status, standard output and error."""

    def run(script, *options, **environment):
        command = [sys.executable, str(EXAMPLES / script), *map(str, options)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def example_here(tmp_path, monkeypatch, capsys):
    """`example` in this process, which has imported all that takes seconds."""

    def run(script, *options, **environment):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, options)])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        status = 0
        try:
            with torch.random.fork_rng():
                runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def notebook():
    """The cells of the notebook that hold code."""
    cells = json.loads((EXAMPLES / "first_model.ipynb").read_text("utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_kept_without_outputs(notebook):
    assert notebook
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in notebook)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(notebook):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    missed = abs(names["kernels"].out_of_fold_ - names["celsius"]).mean()
    assert missed < names["constant"] / 2
    assert "weight" in capsys.readouterr().out
    assert (tmp_path / "first_model" / "model.safetensors").is_file()


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_opens_with_what_it_shows_and_its_command(script):
    text = script.read_text("utf-8")
    assert text.startswith('"""')
    assert f"$ python examples/{script.name}" in text
    assert len(text.splitlines()) < 250


@pytest.mark.slow
def test_a_table_becomes_a_model_with_answers_and_an_explanation(example, tmp_path):
    status, out, error = example("csv_to_model.py", "--quick", "--out", "made")
    assert status == 0, error
    for words in (
        "finetuned after probing for tau",
        "ROC-AUC",
        "in domain",
        "explained in explanation.svg:",
    ):
        assert words in out
    written = {path.name for path in (tmp_path / "made").iterdir()}
    assert written == {"alerts.csv", "predictions.csv", "explanation.svg", "model"}
    assert (tmp_path / "made" / "explanation.svg").read_text().startswith("<svg")
    assert (tmp_path / "made" / "model" / "config.json").is_file()


@pytest.mark.slow
def test_a_table_of_ones_own_may_have_several_targets_and_holes(example, tmp_path):
    rows = [row for n in range(3, 43) for row in (f"{'C' * n}O,0,", f"C1{'C' * n}1N,1,{n % 2}")]
    (tmp_path / "mine.csv").write_text("\n".join(["drug,ring,odd", *rows]) + "\n")
    options = ("--data", "mine.csv", "--smiles-column", "drug", "--quick")
    status, out, error = example("csv_to_model.py", *options)
    assert status == 0, error
    assert "ring: in domain the set holds the label" in out
    assert (tmp_path / "runs" / "csv_to_model" / "predictions.csv").is_file()


@pytest.mark.slow
def test_tox21_as_a_table_becomes_a_model(example, ogb_root, tmp_path):
    table = ogb_root.parent / "csv" / "tox21.csv.gz"
    if not table.is_file():
        pytest.skip("needs csv/tox21.csv.gz beside MOLHPFT_DATA")
    status, out, error = example("csv_to_model.py", "--data", table, "--quick", "--out", "made")
    assert status == 0, error
    assert "NR-AR: in domain the set holds the label" in out
    assert (tmp_path / "made" / "explanation.svg").is_file()


@pytest.mark.parametrize("options", [(), ("--smiles-column", "x")], ids=["no file", "no column"])
def test_a_table_that_cannot_be_read_is_one_sentence(example_here, tmp_path, options):
    if options:
        (tmp_path / "none.csv").write_text("smiles,active\nCC,1\n")
    status, out, error = example_here("csv_to_model.py", "--data", "none.csv", *options)
    assert (status, out) == (2, "")
    assert error.startswith("error: ")
    assert "none.csv" in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("few_nci_molecules")
def test_a_backbone_of_ones_own_is_probed_and_finetuned(example_here):
    status, out, error = example_here("own_backbone.py", "--quick")
    assert status == 0, error
    header, *rows = out.splitlines()
    assert header.split()[:2] == ["tau", "energy"]
    assert [int(row.split()[0]) for row in rows] == [0, 4]
    first, last = (float(row.split()[1]) for row in rows)
    assert last < first


def test_the_example_of_a_backbone_is_short():
    assert len((EXAMPLES / "own_backbone.py").read_text("utf-8").splitlines()) < 80


@pytest.mark.slow
def test_a_resnet_is_pretrained_and_moved(example, tmp_path):
    status, out, error = example("resnet.py", "--quick", "--out", "runs")
    assert status == 0, error
    for words in ("from scratch", "the whole backbone", "head from layer3.2 on"):
        assert words in out
    assert len(list((tmp_path / "runs").glob("*/model.safetensors"))) == 4


def test_tox21_says_what_is_missing(example_here, tmp_path):
    status, out, error = example_here("reproduce_tox21.py", MOLHPFT_DATA=str(tmp_path / "data"))
    assert (status, out) == (2, "")
    assert "ogbg_moltox21 is not there" in error
    assert f"{WEIGHTS} is not there" in error
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_tox21_is_drawn_against_tau(example, ogb_root, tmp_path):
    weights = ogb_root.parent / "weights" / WEIGHTS
    if not (ogb_root / "ogbg_moltox21").is_dir() or not weights.is_file():
        pytest.skip(f"needs ogbg_moltox21 and {WEIGHTS} beside MOLHPFT_DATA")
    status, out, error = example("reproduce_tox21.py", "--quick", "--out", "runs")
    assert status == 0, error
    assert "HP0-FT" in out
    assert (tmp_path / "runs" / "tox21.png").is_file()
