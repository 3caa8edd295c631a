"""The package keeps its shape: imports point one way, names say what they are."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent / "molhpft"
_BASE = {"core", "domains", "measure", "tuning", "config"}
MAY_IMPORT = {  # package -> what it may import from molhpft, besides itself
    "core": set(),
    "kernels": set(),
    "domains": {"core", "kernels"},
    "measure": {"core"},
    "tuning": {"core", "kernels"},
    "config": {"core", "domains", "measure", "tuning"},
    "run": _BASE,
    "results": _BASE | {"run"},
    "sweep": _BASE | {"run"},
    "report": _BASE | {"run", "results"},
    "advice": _BASE | {"run"},
    "studies": _BASE | {"run", "results", "sweep"},
    "paper": _BASE | {"run", "results", "sweep", "studies"},
    "estimator": _BASE | {"run", "advice"},
    "__init__.py": {"config", "estimator"},
    "cli": _BASE | {"run", "results", "sweep", "report", "advice", "studies", "paper", "estimator"},
}
FILES = sorted(ROOT.rglob("*.py"))
DRAWERS = {"utils", "util", "helpers", "common", "misc"}
SAME_QUESTION = {"checkpoints", "tasks", "examples"}  # of two domains


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> set[str]:
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("molhpft.")} - {"__version__"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in nodes(path) if isinstance(node, ast.Call)]


def test_imports_point_down():
    for path in FILES:
        layer = path.relative_to(ROOT.parent).parts[1]
        illegal = imported(path) - MAY_IMPORT[layer] - {layer}
        assert not illegal, f"{path}: {layer} may not import {sorted(illegal)}"


def test_no_file_is_a_drawer_or_shares_its_name_with_one_on_another_question():
    stems = Counter(path.stem for path in FILES if path.name != "__init__.py")
    assert not DRAWERS & set(stems)
    assert {stem for stem, count in stems.items() if count > 1} <= SAME_QUESTION


def test_text_is_printed_by_consoles_that_look_for_no_markup():
    for path in FILES:
        makes_one = any(ast.unparse(call.func).endswith("Console") for call in calls(path))
        assert not makes_one or path.relative_to(ROOT) == Path("domains/console.py"), path


def test_nothing_unpickles_or_prompts():
    for path in FILES:
        names = {ast.unparse(call.func) for call in calls(path)}
        assert not names & {"input", "pickle.load", "pickle.loads", "joblib.load"}, path
        for call in calls(path):
            if ast.unparse(call.func) == "torch.load":
                safe = [k.value.value for k in call.keywords if k.arg == "weights_only"]
                assert safe == [True], path
