import ast
import re
import sys
from pathlib import Path

import pytest

from molhpft.domains.extras import MissingExtraError, require


def test_an_installed_package_is_imported_whole():
    assert require("xml.dom.minidom", extra="report") is sys.modules["xml.dom.minidom"]


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)

    with pytest.raises(
        MissingExtraError, match=r'^this needs captum.*: pip install "molhpft\[explain\]"$'
    ):
        require("captum.attr", extra="explain")


def test_a_package_that_is_there_but_broken_fails_as_it_does(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import absent_dependency")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="absent_dependency") as failure:
        require("broken_package", extra="report")
    assert not isinstance(failure.value, MissingExtraError)


ROOT = Path(__file__).parents[2]
_SECTIONS = (ROOT / "pyproject.toml").read_text().split("\n[")
_EXTRAS = next(s for s in _SECTIONS if s.startswith("project.optional-dependencies]"))
# lists of strings are Python's, too; its own reader of TOML came with 3.11
EXTRAS = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in ast.parse(_EXTRAS.partition("\n")[2]).body
}
SOURCES = [*(ROOT / "molhpft").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def required():
    """Place, module and extra of every call of `require` in the package."""
    for path in (ROOT / "molhpft").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "require":
                (module,), (extra,) = call.args, call.keywords
                name = module.value if isinstance(module, ast.Constant) else None
                yield f"{path.name}:{call.lineno}", name, extra.value.value


def test_an_extra_that_a_sentence_names_exists_and_has_the_package():
    calls = list(required())
    assert len(calls) > 20
    for place, module, extra in calls:
        assert extra in EXTRAS, place
        package = (module or "plotly").partition(".")[0]  # a loop's modules are of the report
        distribution = {"PIL": "pillow"}.get(package, package.replace("_", "-"))
        held = {re.split(r"[<>=;\[ ]", needed)[0] for needed in EXTRAS[extra]}
        assert distribution in held, place


def test_an_extra_that_a_command_line_names_exists():
    named = re.findall(r"(?:molhpft|\.)\[([a-z,]+)\]\"", "".join(p.read_text() for p in SOURCES))
    assert len(named) > 3
    assert {extra for names in named for extra in names.split(",")} <= {*EXTRAS}
