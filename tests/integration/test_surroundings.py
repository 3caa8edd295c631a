"""Where and how the command is called: names with brackets, streams of any encoding, pools."""

import io
import multiprocessing
import os
import sys
import warnings
from pathlib import Path

import pytest

from molhpft import __version__
from molhpft.cli import app as cli
from molhpft.estimator.model import Model
from tests.estimator.builders import SMILES, random_model, write_table

RUN = """
task: {name: csv, path: PATH, target_columns: ring, split: random}
encoder: {name: gcn, layers: 1, width: 4}
method: {name: hp_ft, tau: [0, 1]}
finetune: {epochs: 1}
"""


@pytest.fixture
def rings(tmp_path):
    return write_table(tmp_path / "rings.csv")


@pytest.fixture
def config(tmp_path, rings):
    path = tmp_path / "rings.yaml"
    path.write_text(RUN.replace("PATH", str(rings)))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "rings"
    random_model(members=1).save_pretrained(folder)
    return folder


def test_the_version_is_printed(molhpft):
    assert molhpft("--version") == (0, f"molhpft {__version__}\n", "")


def test_a_name_is_printed_as_it_was_written_and_stops_nothing(
    molhpft, config, rings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name = "x[red]y :smile: a[/b]"
    quick = ("baselines", rings, "--only", "linear_bits", "--set", "split=random")
    for words, where in ((("run", config), "Run folder: {}/"), (quick, "Run folders: {}")):
        status, said, _ = molhpft(*words, "--out", name)
        assert status == 0
        assert where.format(name) in said
    status, said, _ = molhpft("report", name, "--out", f"{name}.report")
    assert (status, f"Report: {name}.report/" in said) == (0, True)
    random_model(members=1).save_pretrained(name)
    status, said, _ = molhpft("encoders", name)
    assert (status, said.startswith(f"{name} is ")) == (0, True)


def test_a_column_is_printed_as_it_was_written(molhpft, tmp_path):
    name = "x[red]y :smile: [/b]"
    path = write_table(tmp_path / "x[red]y :smile:.csv", target=name)
    status, said, _ = molhpft("data", path)
    assert status == 0
    assert said.splitlines()[0].strip() == "x[red]y :smile:"
    assert sum(f" {name} " in line for line in said.splitlines()[1:]) == 1


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("ascii", "größe"), ("latin-1", "日本"), ("cp1252", "line\udcff"), ("utf-8", "line\udcff")],
)
def test_a_stream_that_cannot_say_a_name_does_not_undo_what_was_done(
    model, rings, tmp_path, monkeypatch, encoding, name
):
    out, said = tmp_path / f"{name}.csv", io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", said)
    assert (run(monkeypatch, "predict", model, rings, "--out", out), out.is_file()) == (0, True)
    said.seek(0)
    assert said.read().endswith("60 ok, 0 unreadable.\n")


@pytest.fixture
def standard_input():
    """Makes bytes what a command reads from standard input, which is a pipe."""
    kept = os.dup(0)

    def given(content):
        ours, theirs = os.pipe()
        os.write(theirs, content)
        os.close(theirs)
        os.dup2(ours, 0)
        os.close(ours)

    yield given
    os.dup2(kept, 0)
    os.close(kept)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["molhpft", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_a_table_goes_from_standard_input_to_standard_output(
    model, rings, tmp_path, monkeypatch, capfd, standard_input, command
):
    standard_input(rings.read_bytes())
    assert run(monkeypatch, command, model, "/dev/stdin", "--out", "/dev/stdout") == 0
    out, error = capfd.readouterr()
    assert error == "Wrote /dev/stdout: 60 ok, 0 unreadable.\n"
    assert run(monkeypatch, command, model, rings, "--out", tmp_path / "out.csv") == 0
    assert out == (tmp_path / "out.csv").read_text()


def test_a_model_is_made_of_standard_input(monkeypatch, rings, tmp_path, standard_input, capfd):
    standard_input(rings.read_bytes())
    words = ("--split", "random", "--tau", 0, "--set", "encoder={name: gcn, layers: 1, width: 4}")
    brief = ("--set", "finetune.epochs=1", "--target", "ring")
    assert run(monkeypatch, "finetune", "/dev/stdin", "--out", tmp_path / "m", *words, *brief) == 0
    assert f"Model: {tmp_path / 'm'}\n" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["/dev/null", "pipe"])
def test_a_device_or_pipe_is_written_to_and_stays_one(
    molhpft, model, rings, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    status, _, _ = molhpft("predict", model, rings, "--out", name)
    assert (status, Path(name).is_file(), Path(name).exists()) == (0, False, True)
    content = os.read(reader, 1 << 20)
    os.close(reader)
    assert content.count(b"\n") == (61 if name == "pipe" else 0)


def answers_of(model, smiles):
    return Model.from_pretrained(model).predict(smiles).values.tolist()


@pytest.mark.slow
def test_a_worker_of_a_pool_answers_for_many_molecules(model, monkeypatch):
    monkeypatch.setenv("MOLHPFT_WORKERS", "2")
    smiles = SMILES * 45
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons, of forks near threads
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found = pool.apply(answers_of, (model, smiles))
    assert found == answers_of(model, smiles)
