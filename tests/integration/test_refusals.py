"""An option or a place that cannot be meant is one sentence, before anything is trained."""

import os
import re
from pathlib import Path

import pytest

from molhpft.estimator import finetune
from molhpft.estimator.model import Model
from tests.estimator.builders import RING, SIZE, SMILES, random_model, write_table
from tests.integration.commands import one_sentence


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "rings"
    random_model(members=1).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    monkeypatch.setattr(finetune, "train", lambda *_, **__: pytest.fail("trained"))


@pytest.fixture
def rings(tmp_path):
    return write_table(tmp_path / "rings.csv", values=RING)


@pytest.fixture
def series(tmp_path):
    """A table with groups, of which one is missing, and times, of which one is a word."""
    rows = [
        f"{smiles},{label},s{k % 7},{2000 + k},{'s1' if k != 8 else 'NaN'},{k if k != 9 else 'May'}"
        for k, (smiles, label) in enumerate(zip(SMILES, RING, strict=True))
    ]
    path = tmp_path / "series.csv"
    path.write_text("\n".join(["smiles,ring,series,year,gaps,words", *rows]) + "\n")
    return path


HELD_TOGETHER = {
    "no such groups": (("--groups", "batch"), "no column 'batch'; it has: .* by --groups NAME"),
    "no such times": (("--time", "date"), "no column 'date'; it has: .* by --time NAME"),
    "a group is missing": (
        ("--groups", "gaps"),
        "should have its group in column 'gaps'; line 10 has 'NaN'",
    ),
    "no time": (("--time", "words"), "column 'words' .* the year .*; line 11 has 'May'"),
    "one group": (("--groups", "ring"), "5 folds need at least 5 groups, and series has 2"),
    "groups and a split": (
        ("--groups", "series", "--split", "scaffold"),
        "leave out the split, or the",
    ),
    "groups without their column": (
        ("--split", "group"),
        "needs a column of groups; .* --groups N",
    ),
    "times without their column": (("--split", "time"), "needs a column of times; .* --time NAME"),
    "a seed of groups": (("--groups", "series", "--split-seed", "1"), "leave split_seed out"),
    "a seed of times": (("--time", "year", "--split-seed", "1"), "split_seed is for split random"),
}


@pytest.mark.parametrize(("more", "says"), HELD_TOGETHER.values(), ids=HELD_TOGETHER)
def test_groups_and_times_that_cannot_be_meant_are_one_sentence(
    molhpft, series, tmp_path, more, says
):
    words = ("finetune", series, "--out", tmp_path / "model", "--target", "ring", *more)
    assert re.search(says, one_sentence(*molhpft(*words)))
    assert list(tmp_path.iterdir()) == [series]


OPTIONS = {
    "tau in words": (("--tau", "long"), "--tau is a number of epochs"),
    "tau below 0": (("--tau", "-1"), "--tau is a number of epochs"),
    "tau auto among others": (("--tau", "auto", "--tau", "3"), "or auto alone; got 'auto'"),
    "no such target": (("--target", "rng"), "no column 'rng'; did you mean 'ring'[?] it has: "),
    "words as target": (("--target", "smiles"), "'smiles' of .* two words; it has 60 words"),
    "no such molecules": (("--smiles-column", "S"), "no column 'S'"),
    "split without a column": (("--split", "column"), "needs a column of splits"),
    "column without a split": (("--split-column", "ring"), "read by split 'column' alone"),
    "coverage above 1": (("--target-coverage", "1.5"), "should lie between 0 and 1, got 1.5"),
    "coverage of 0": (("--target-coverage", "0"), "should lie between 0 and 1, got 0"),
    "no such head": (("--head", "deep"), "unknown head deep"),
    "no such encoder": (("--encoder", "nope"), "no weight file at nope"),
    "no such key": (("--set", "finetune.epoch=3"), "did you mean finetune.epochs"),
    "a split twice": (("--set", "task.split=scaffold"), "task.split is given twice, by an option"),
    "another table": (("--set", "task.path=b.csv"), "task.path is given twice, by an option as /"),
    "another task": (("--set", "task.name=toy"), "task.name is csv, which reads tables, got 'toy'"),
    "a task": (("--set", "task=toy"), "task is the table; its options are set one by one"),
    "a seed for scaffolds": (("--split-seed", "1", "--split", "column"), "split"),
    "not a change": (("--set", "finetune"), "finetune"),
}


@pytest.mark.parametrize(("more", "says"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_cannot_be_meant_is_one_sentence(molhpft, rings, tmp_path, more, says):
    words = ("finetune", rings, "--out", tmp_path / "model", "--split", "random", *more)
    assert re.search(says, one_sentence(*molhpft(*words)))
    assert list(tmp_path.iterdir()) == [rings]


def test_numbers_cannot_be_learned_as_classes(molhpft, rings, tmp_path):
    write_table(rings, values=SIZE)
    words = ("finetune", rings, "--out", tmp_path / "model", "--kind", "classification")
    assert "should hold two classes, 0 and 1 or any other two" in one_sentence(*molhpft(*words))


@pytest.mark.parametrize(
    "words", [("--kind", "both"), ("--calibration", "best"), ("--target-coverage", "x")]
)
def test_a_choice_that_there_is_not_lists_those_there_are(molhpft, rings, words):
    status, _, error = molhpft("finetune", rings, "--out", "model", *words)
    assert status == 2
    assert words[0] in error
    assert "Traceback" not in error


def a_file(path):
    path.write_text("precious")
    return path


def below_a_file(path):
    return a_file(path) / "model"


def a_folder_of_others(path):
    path.mkdir()
    a_file(path / "thesis.tex")
    return path


def not_writable(path):
    path.mkdir(mode=0o500)
    if os.access(path, os.W_OK):
        pytest.skip("root may write anywhere")
    return path / "model"


def of_the_kernel(path):
    if not Path("/proc/self").exists():
        pytest.skip("no /proc on this machine")
    return Path("/proc/molhpft/model")


@pytest.mark.parametrize(
    "place", [a_file, below_a_file, a_folder_of_others, not_writable, of_the_kernel]
)
def test_a_place_that_takes_no_model_is_one_sentence_before_notes_and_training(
    molhpft, rings, tmp_path, monkeypatch, place
):
    monkeypatch.setattr(finetune, "notes_on", lambda *_: pytest.fail("looked at the molecules"))
    out = place(tmp_path / "there")
    before = {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    line = one_sentence(*molhpft("finetune", rings, "--out", out, "--split", "random"))
    assert str(out) in line
    assert {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == before


ASKED = {
    "no model": (("MODEL/none", "RINGS"), "no folder at .*; a model on the hub is called"),
    "a table as model": (("RINGS", "RINGS"), "is a file and no model; give the folder"),
    "no table": (("MODEL", "none.csv"), "none.csv should be a table .* no file is there"),
    "another column": (
        ("MODEL", "RINGS", "--smiles-column", "S"),
        "no column 'S'; .* --smiles-column",
    ),
}


@pytest.mark.parametrize("command", ["predict", "embed"])
@pytest.mark.parametrize(("words", "says"), ASKED.values(), ids=ASKED)
def test_a_question_that_cannot_be_answered_is_one_sentence(
    molhpft, model, rings, tmp_path, monkeypatch, command, words, says
):
    monkeypatch.chdir(tmp_path)
    for name, place in {"MODEL": model, "RINGS": rings}.items():
        words = [word.replace(name, str(place)) for word in words]
    assert re.search(says, one_sentence(*molhpft(command, *words, "--out", "out.csv")))
    assert not (tmp_path / "out.csv").exists()


OVER = {
    "predict": ("MODEL", "rings.csv", "--out", "same.csv"),
    "embed": ("MODEL", "rings.csv", "--out", "same.csv"),
    "finetune": ("rings.csv", "--out", "same.csv"),
    "baselines": ("rings.csv", "--out", "same.csv"),
    "run": ("rings.csv", "--out", "same.csv"),
    "sweep": ("rings.csv", "--out", "same.csv"),
}


@pytest.mark.parametrize(("command", "words"), OVER.items(), ids=OVER)
def test_nothing_is_written_over_what_is_read(
    molhpft, model, rings, tmp_path, monkeypatch, command, words
):
    monkeypatch.chdir(tmp_path)
    # by another path or by a second name of the same file
    same = Path.symlink_to if command in ("predict", "run", "sweep") else Path.hardlink_to
    same(tmp_path / "same.csv", rings)
    line = one_sentence(*molhpft(command, *(word.replace("MODEL", str(model)) for word in words)))
    said = "same.csv would be written over rings.csv, which is read; choose another place (--out)"
    assert line == f"error: {said}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rings.csv", "same.csv"]


@pytest.mark.parametrize(("command", "name"), [("predict", "x.csv"), ("explain", "x.svg")])
def test_no_file_of_a_model_is_written_over(molhpft, rings, tmp_path, command, name):
    folder, out = tmp_path / "model", tmp_path / name
    random_model(members=1).save_pretrained(folder)
    out.symlink_to(folder / "model.safetensors")
    asked = {"predict": rings, "explain": "CCO"}[command]
    line = one_sentence(*molhpft(command, folder, asked, "--out", out))
    assert f"would be written over {folder / 'model.safetensors'}" in line
    assert len(Model.from_pretrained(folder).networks) == 1


@pytest.mark.parametrize("command", ["predict", "embed", "explain"])
def test_a_model_on_a_hub_that_cannot_be_reached_is_one_sentence(
    molhpft, rings, tmp_path, monkeypatch, command
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    out = tmp_path / ("out.svg" if command == "explain" else "out.csv")
    line = one_sentence(*molhpft(command, "nobody/no-such-model", rings, "--out", out))
    assert "no folder at 'nobody/no-such-model', and none from the model hub" in line
    assert not out.exists()


FOLDERS = {
    "report": ("report", "runs"),
    "study": ("study", "linear"),
    "paper": ("paper", "fig3"),
    "quickstart": ("quickstart",),
    "baselines": ("baselines", "rings.csv"),
    "finetune": ("finetune", "absent.csv"),
    "run": ("run", "a.yaml"),
    "sweep": ("sweep", "a.yaml"),
}


@pytest.mark.parametrize("words", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.parametrize("below", [False, True])
@pytest.mark.usefixtures("rings")
def test_a_file_in_the_place_of_a_folder_is_said_before_any_work(
    molhpft, tmp_path, monkeypatch, words, below
):
    monkeypatch.chdir(tmp_path)
    a_file(tmp_path / "notes")
    out = "notes/below" if below else "notes"
    line = one_sentence(*molhpft(*words, "--out", out))
    assert line == f"error: notes is a file, and {out} is to be a folder; choose another (--out)"


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_model_is_read(molhpft, tmp_path):
    words = ("explain", tmp_path / "none", "CCO", "--out", tmp_path / "a.gif")
    assert one_sentence(*molhpft(*words)) == f"error: {tmp_path}/a.gif should end in .svg or .png"
