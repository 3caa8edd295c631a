"""Lines of a page that stand for something else.

    {% text examples/resnet.py %}        a script's own words, and the commands that it names
    {% code examples/resnet.py moved %}  functions or classes of a script; without a name, all
                                         of it, to be opened
    {% file configs/toy/hp_ft.yaml %}    a whole file
    {% printed resnet %}                 what `docs/record.py` has seen a command print
    {% commands run sweep %}             commands of `molhpft` with their options
    {% modules molhpft.core %}           every module of a package, for the reference
    {% public %}                         the names that packages export

MkDocs calls `on_page_markdown`; what cannot be found fails the build.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

ROOT = Path(__file__).parents[1]
PRINTED = ROOT / "docs" / "printed"
PUBLIC = (
    "molhpft",
    "molhpft.estimator",
    "molhpft.core",
    "molhpft.domains.graphs",
    "molhpft.report",
)
WIDE = 90  # columns that fit a page in the usual size
LINE = re.compile(r"^\{% (\w+) ?(.*?) %\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with every such line replaced."""
    return LINE.sub(lambda found: PARTS[found[1]](*found[2].split()), markdown)


def text(script: str) -> str:
    """The docstring of a script below its first line, its `$ command` lines as a block."""
    words = ast.get_docstring(ast.parse(_source(script))) or ""
    _, _, rest = words.partition("\n")
    lines = rest.strip().splitlines()
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    prose = "\n".join(line for line in lines if not line.startswith("$ "))
    return f"{prose}\n\n```bash\n" + "\n".join(commands) + "\n```\n"


def code(script: str, *names: str) -> str:
    """A Python block of the named functions, classes and constants, in the order of the names."""
    source = _source(script)
    if not names:
        summary = "<summary>The whole script</summary>"
        return f'<details markdown="1">{summary}\n\n{_block(source, script)}\n</details>'
    nodes = {name: node for node in ast.parse(source).body for name in _names(node)}
    if unknown := [name for name in names if name not in nodes]:
        raise ValueError(f"{script} defines no {', '.join(unknown)}")
    lines = source.splitlines()
    parts = ["\n".join(lines[nodes[n].lineno - 1 : nodes[n].end_lineno]) for n in names]
    constants = sum(name.isupper() for name in names)
    return _block("\n\n\n".join(["\n".join(parts[:constants]), *parts[constants:]]), script)


def file(path: str) -> str:
    """A block with a whole file."""
    kind = path.rpartition(".")[2]
    return f'```{kind} title="{path}"\n{_source(path).rstrip()}\n```\n'


def printed(name: str) -> str:
    """A command and what it printed."""
    words = (PRINTED / f"{name}.txt").read_text(encoding="utf-8")
    command, _, output = words.partition("\n")
    shell = command.removeprefix("$ ")
    width = max(map(len, output.splitlines()))
    kind = ".printed .wide" if width > WIDE else ".printed"
    return f"```bash\n{shell}\n```\n\n``` {{.text {kind}}}\n{output.rstrip()}\n```\n"


def commands(*names: str) -> str:
    """A section for each command: what it does, its usage, its arguments and options."""
    # imported on use: most pages do without PyTorch
    from typer.main import get_command

    from molhpft.cli.app import app

    group: Any = get_command(app)
    return "\n\n".join(_command(name, group.commands[name]) for name in names)


def modules(package: str) -> str:
    """Directives that show every module of a package, not those of its own packages."""
    folder = ROOT / package.replace(".", "/")
    stems = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    if not stems:
        raise ValueError(f"{package} should be a package with modules, it has none")
    return "\n\n".join(f"::: {package}.{stem}" for stem in stems)


def public() -> str:
    """A table of the names that packages export, with the first line of what they say."""
    rows = [
        f"| `from {package} import {name}` | {_summary(getattr(import_module(package), name))} |"
        for package in PUBLIC
        for name in import_module(package).__all__
    ]
    return "\n".join(["| name | |", "|---|---|", *rows])


def _summary(thing: Any) -> str:
    """The first sentence of a docstring, with a link to all of it."""
    first, _, _ = inspect.cleandoc(thing.__doc__).partition("\n\n")
    place = f"{thing.__module__}.{thing.__qualname__}"
    return f"{' '.join(first.split())} [More][{place}]"


def _command(name: str, command: Any) -> str:
    types = get_type_hints(inspect.unwrap(command.callback))
    arguments = [p for p in command.params if p.param_type_name == "argument" and not p.hidden]
    options = [p for p in command.params if p.param_type_name == "option"]
    rows = [f"| `{_placeholder(p)}` | {_about(p, types[p.name])} |" for p in arguments]
    rows += [f"| `{_flags(p, types[p.name])}` | {_help(p)} |" for p in options]
    usage = " ".join(["molhpft", name, *map(_placeholder, arguments), "[OPTIONS]"])
    table = "\n".join(["| argument, option | |", "|---|---|", *rows])
    words = inspect.cleandoc(command.help or "")
    return f"## {name}\n\n{words}\n\n```text\n{usage}\n```\n\n{table}"


def _placeholder(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _about(argument: Any, annotation: Any) -> str:
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return f"{argument.help} {' or '.join(f'`{choice}`' for choice in choices)}".strip()


def _flags(option: Any, annotation: Any) -> str:
    flags = " / ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return flags
    return f"{flags} {option.metavar or _kind(annotation)}"


def _kind(annotation: Any) -> str:
    """What an option takes: its choices, or the name of its type."""
    inner = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return "|".join(map(str, inner))
    return _kind(inner[0]) if inner else annotation.__name__.upper()


def _help(option: Any) -> str:
    """What an option does, and its default as `--help` shows it."""
    default = option.opts[0] if option.default is True else option.default
    if isinstance(option.show_default, str):  # of an option that the code settles
        return f"{option.help} Default: {option.show_default}."
    shown = default is not False and default not in (None, (), [])
    also = " Required." if option.required else f" Default: `{default}`." if shown else ""
    return f"{option.help}{also}"


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _source(script: str) -> str:
    return (ROOT / script).read_text(encoding="utf-8")


def _block(source: str, title: str) -> str:
    return f'```python title="{title}"\n{textwrap.dedent(source).strip()}\n```\n'


PARTS: dict[str, Callable[..., str]] = {
    "text": text,
    "code": code,
    "file": file,
    "printed": printed,
    "commands": commands,
    "modules": modules,
    "public": public,
}
