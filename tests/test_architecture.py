"""The package keeps its shape: imports point one way, files stay small, names say what they are."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "molhpft"
MAY_IMPORT = {  # folder or file -> what it may import from molhpft, besides itself
    "core": set(),
    "kernels": set(),
    "domains": {"core", "kernels"},
    "measure": {"core"},
    "tuning": {"core", "kernels"},
    "experiments": {"core", "domains", "measure", "tuning"},
    "estimator": {"core", "domains", "measure", "tuning", "experiments"},
    "cli": {"experiments", "estimator"},
}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")
DRAWERS = {"utils", "util", "helpers", "common", "misc"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("molhpft.")} - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    illegal = imported(path) - MAY_IMPORT[layer] - {layer}
    assert not illegal, f"{layer} may not import {sorted(illegal)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_hold_one_concept_and_are_no_drawers(path):
    assert len(path.read_text().splitlines()) <= 600
    assert path.stem not in DRAWERS


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_text_is_printed_by_consoles_that_look_for_no_markup(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    consoles = [call for call in calls if ast.unparse(call.func).endswith("Console")]
    assert not consoles or path.relative_to(ROOT) == Path("domains/progress.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unpickles_or_prompts(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"input", "pickle.load", "pickle.loads", "joblib.load"}
    for call in calls:
        if ast.unparse(call.func) == "torch.load":
            assert any(k.arg == "weights_only" and k.value.value is True for k in call.keywords)
