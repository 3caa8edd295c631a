"""Configs before they are checked: YAML files, and changes such as "finetune.lr=0.0003"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from molhpft.config.options import Options

SWEEP = "sweep"


def parse_change(change: str) -> tuple[str, Any]:
    """Key and value of a change written as "key=value", the value read as YAML.

    Raises:
        ValueError: it is not written so, or the value is not YAML.
    """
    key, equals, value = change.partition("=")
    if not equals or not all(key.split(".")):
        raise ValueError(f"a change is key=value, such as finetune.lr=0.0003, got {change!r}")
    try:
        return key, read_yaml(value, f"the value of {key}")
    except yaml.YAMLError as error:
        raise ValueError(f"the value of {change} is not YAML: {yaml_fault(error)}") from error


def yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is not YAML, and in which line, as the end of a sentence.

    Of a quote or bracket that nothing closes, which is noticed at the end, also where it begins.
    """
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark, begins = error.problem_mark or error.context_mark, error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    fault = f"{where}{error.problem or error.context}"
    if mark and begins and begins.line != mark.line:
        return f"{fault}, in what begins in line {begins.line + 1}"
    return fault


def read_yaml(text: str, where: str) -> Any:
    """YAML as plain Python values.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: a key is given twice; YAML itself would silently take the last.
    """
    _refuse_twice(yaml.compose(text, yaml.SafeLoader), where)
    return yaml.safe_load(text)


def _refuse_twice(node: yaml.Node | None, where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        names = [str(key.value) for key, _ in node.value]
        for i, (key, value) in enumerate(node.value):
            if names[i] in names[:i]:
                line = key.start_mark.line + 1
                raise ValueError(f"{where} gives {names[i]} twice, again in line {line}; keep one")
            _refuse_twice(value, where)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value, where)


def parse_changes(changes: Sequence[str]) -> Options:
    """Dotted keys and values of changes, groups of keys before the keys in them.

    Raises:
        ValueError: a change is none, or one key is changed twice.
    """
    values: Options = {}
    for key, value in map(parse_change, changes):
        if key in values:
            raise ValueError(f"{key} is set twice, to {values[key]} and to {value}; give one value")
        values[key] = value
    return {key: values[key] for key in sorted(values, key=lambda key: key.count("."))}


def apply(raw: Options, key: str, value: Any) -> None:
    """Set a key of an unchecked config in place.

    Args:
        raw: nested dictionaries.
        key: with dots between nested keys; a name on the way becomes a group of keys. What follows
            "sweep." is one key of its grid, or of each of its grids.
        value: to set, as it is.

    Raises:
        ValueError: the key leads through a value.
    """
    first, _, rest = key.partition(".")
    if first == SWEEP and rest:
        grids = raw.setdefault(SWEEP, {})
        for grid in grids if isinstance(grids, list) else [grids]:
            if not isinstance(grid, dict):
                raise ValueError(f"cannot set {key}: {SWEEP} is {grids!r}, not keys with values")
            grid[rest] = value
        return
    *parents, last = key.split(".")
    for parent in parents:
        inner = raw.setdefault(parent, {})
        raw[parent] = inner = spelled_out(inner)
        if not isinstance(inner, dict):
            raise ValueError(f"cannot set {key}: {parent} is {inner!r}, not a group of keys")
        raw = inner
    raw[last] = value


def spelled_out(value: Any) -> Any:
    """A name as the group of keys that it is short for; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def read_config(path: Path, changes: Sequence[str] = ()) -> Options:
    """The content of a config file with changes applied, not yet checked; see `load_config`."""
    if not path.is_file():
        raise FileNotFoundError(f"no config at {path}; give a YAML file such as configs/finetune/*")
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {yaml_fault(error)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be text in UTF-8: {error}; save it as UTF-8") from error
    if not isinstance(raw, dict):
        remedy = ""
        if path.suffix not in (".yaml", ".yml"):
            remedy = f"; a config names a table in a line: task: {{name: csv, path: {path}}}"
        raise ValueError(f"{path} must hold keys such as task and method, got {raw!r:.60}{remedy}")
    for key, value in parse_changes(changes).items():
        apply(raw, key, value)
    return raw
