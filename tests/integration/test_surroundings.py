"""Where and how the command is called: names with brackets, streams of any encoding, pools."""

import io
import sys

import pytest

from molhpft import __version__
from molhpft.cli import main as cli
from tests.estimator.models import random_model
from tests.estimator.rings import write_table

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
    for words in (("run", config), ("baselines", rings, "--set", "split=random")):
        status, said, _ = molhpft(*words, "--out", name)
        assert status == 0
        assert f"Run folder: {name}/" in said
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


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["größe", "日本", "line\udcff"])
def test_a_stream_that_cannot_say_a_name_does_not_undo_what_was_done(
    model, rings, tmp_path, monkeypatch, encoding, name
):
    out, said = tmp_path / f"{name}.csv", io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(
        sys, "argv", ["molhpft", "predict", str(model), str(rings), "--out", str(out)]
    )
    monkeypatch.setattr(sys, "stdout", said)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert (stop.value.code or 0, out.is_file()) == (0, True)
    said.seek(0)
    assert said.read().endswith("60 ok, 0 unreadable.\n")
