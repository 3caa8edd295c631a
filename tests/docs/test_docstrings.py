"""The `>>>` examples in the package's docstrings give what they show."""

import doctest
import importlib

import pytest

from tests.docs.pages import ROOT

PACKAGE = ROOT / "molhpft"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failed, run = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert run > 0
    assert failed == 0, capsys.readouterr().out
