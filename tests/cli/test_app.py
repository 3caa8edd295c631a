"""The command itself: version, completion, help that is there at once, optional packages."""

import subprocess
import sys

import pytest
import typer

from molhpft import __version__
from molhpft.cli import app as cli
from tests.estimator.builders import random_model, write_table


def molhpft(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "molhpft.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "", **environment},
    )


def test_the_version_is_printed():
    assert molhpft("--version").stdout == f"molhpft {__version__}\n"


def test_a_shell_can_complete_commands():
    script = molhpft(_MOLHPFT_COMPLETE="source_bash").stdout
    assert "complete -o default -F _molhpft_completion molhpft" in script
    found = molhpft(_MOLHPFT_COMPLETE="complete_bash", COMP_WORDS="molhpft fin", COMP_CWORD="1")
    assert found.stdout.split() == ["finetune"]


def test_help_does_not_wait_for_anything_to_be_imported():
    code = (
        "import sys, molhpft.cli.app\n"
        "heavy = {'torch', 'rdkit', 'numpy', 'pandas', 'sklearn', 'scipy', 'pydantic', 'yaml'}\n"
        "sys.exit(f'imports {heavy & sys.modules.keys()}' if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# the command, the package that is missing, and the extra that has it
MISSING = {
    "report": (("report", "TMP"), "plotly", "report"),
    "page": (("report", "TMP"), "jinja2", "report"),
    "study": (("study", "toy", "--out", "TMP/study"), "matplotlib", "report"),
    "explain": (("explain", "MODEL", "CCO", "--out", "TMP/a.svg"), "captum", "explain"),
    "to Parquet": (("predict", "MODEL", "TABLE", "--out", "TMP/a.parquet"), "pyarrow", "parquet"),
    "from Parquet": (("finetune", "TMP/a.parquet", "--out", "TMP/b"), "pyarrow", "parquet"),
    "hub": (("predict", "models/tox12", "TABLE", "--out", "TMP/a.csv"), "huggingface_hub", "hub"),
    "encoders of the hub": (("encoders", "--hub"), "huggingface_hub", "hub"),
    "images": (("data", "image_folder", "--set", "path=IMAGES"), "PIL", "vision"),
    "processes": (("run", "CONFIG", "--set", "devices=2"), "lightning_fabric", "parallel"),
}
CONFIG = """
task: {name: csv, path: TABLE, split: random}
encoder: {name: gcn, layers: 1, width: 4}
method: {name: hp_ft, tau: [1]}
"""


@pytest.mark.parametrize(("words", "package", "extra"), MISSING.values(), ids=MISSING)
def test_a_missing_package_is_one_sentence_with_the_command(
    monkeypatch, capsys, tmp_path, words, package, extra
):
    random_model(members=1).save_pretrained(tmp_path / "model")
    table = write_table(tmp_path / "rings.csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for split, name in (("train", "a"), ("valid", "a"), ("test", "b")):
        (tmp_path / "images" / split / name).mkdir(parents=True)
        (tmp_path / "images" / split / name / "x.png").write_bytes(b"\x89PNG")
    places = {
        "MODEL": tmp_path / "model",
        "TABLE": table,
        "IMAGES": tmp_path / "images",
        "CONFIG": tmp_path / "config.yaml",
        "TMP": tmp_path,
    }
    (tmp_path / "config.yaml").write_text(CONFIG.replace("TABLE", str(table)))
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["molhpft", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    sentence = f'this needs {package}, which is not installed: pip install "molhpft[{extra}]"'
    if "models/tox12" in words:  # which may be a folder, mistyped
        sentence = f"no folder at 'models/tox12'; to look for it on the model hub, {sentence}"
    assert capsys.readouterr().err == f"error: {sentence}\n"


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        ("finetune", "the same command goes on from what it has kept"),
        ("predict", "nothing is kept"),
    ],
)
def test_only_what_goes_on_says_so_when_interrupted(monkeypatch, capsys, command, rest):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", typer.Typer())
    for name in ("finetune", "predict"):
        cli.app.command(name)(lambda: interrupted())
    monkeypatch.setattr(sys, "argv", ["molhpft", command])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted; {rest}"


def test_the_commands_that_go_on_are_commands():
    names = {command.callback.__name__ for command in cli.app.registered_commands}
    assert set(cli.GO_ON) < names
