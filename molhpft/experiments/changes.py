"""Changes to a config that is not checked yet: "finetune.lr=0.0003"."""

from typing import Any

import yaml

from molhpft.experiments.options import Options


def parse_change(change: str) -> tuple[str, Any]:
    """Key and value of a change written as "key=value", the value read as YAML.

    Raises:
        ValueError: it is not written so, or the value is not YAML.
    """
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise ValueError(f"a change is key=value, such as finetune.lr=0.0003, got {change!r}")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"the value of {change} is not YAML: {error}") from error


def apply(raw: Options, key: str, value: Any) -> None:
    """Set a key of an unchecked config in place.

    Args:
        raw: nested dictionaries.
        key: with dots between nested keys; a name on the way becomes a group of keys.
        value: put there as it is.

    Raises:
        ValueError: the key leads through a value.
    """
    *parents, last = key.split(".")
    for parent in parents:
        inner = raw.setdefault(parent, {})
        raw[parent] = inner = {"name": inner} if isinstance(inner, str) else inner
        if not isinstance(inner, dict):
            raise ValueError(f"cannot set {key}: {parent} is {inner!r}, not a group of keys")
        raw = inner
    raw[last] = value
