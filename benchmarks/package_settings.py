"""Settings of the package that no option and no key of a config changes, wherever they stand.

They are found, not listed: a constant that nobody has thought of decides a score as well.
"""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from inspect import Parameter, isclass, isfunction, signature
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

PACKAGES = ("core", "domains.molecules", "estimator", "kernels", "measure", "run", "tuning")
"""Where the modules are that a score of an estimator passes through."""
ONLY_SHOWN = ("card", "draw", "explain", "notes", "table_output")
"""Modules of these packages that say or draw what has been computed."""
OF_GPUS = ("gpu", "gpu_programs")
"""Modules that compute on a GPU, by Triton, what others do on processors."""


def package_settings() -> dict[str, Any]:
    """Constants of modules, and defaults of their functions and classes, by module.

    Numbers and texts are as they are, also within others; functions and classes by their names.
    """
    return {module.__name__: _constants(module) | _defaults(module) for module in _modules()}


def _modules() -> Iterator[ModuleType]:
    for name in PACKAGES:
        package = import_module(f"molhpft.{name}")
        for found in iter_modules(package.__path__):
            if found.name not in ONLY_SHOWN + OF_GPUS:
                yield import_module(f"{package.__name__}.{found.name}")


def _constants(module: ModuleType) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(module).items() if name.isupper()}


def _defaults(module: ModuleType) -> dict[str, Any]:
    """Defaults of what the module itself defines, private functions included."""
    defaults = {}
    for name, value in vars(module).items():
        callable_ = isfunction(value) or (isclass(value) and not issubclass(value, Exception))
        if callable_ and value.__module__ == module.__name__:
            parameters = signature(value).parameters.values()
            given = {p.name: p.default for p in parameters if p.default is not Parameter.empty}
            defaults |= {name: _plain(given)} if given else {}
    return defaults


def _plain(value: Any) -> Any:
    """A value as JSON can hold it, the same in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict | MappingProxyType):  # not every mapping: the environment is one
        return [[_plain(key), _plain(one)] for key, one in value.items()]
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    if names := _attributes(value):
        return {name: _plain(getattr(value, name)) for name in names}
    return getattr(value, "__qualname__", type(value).__name__)


def _attributes(value: Any) -> list[str]:
    """Names of what a value consists of; none of one that is whole."""
    if isinstance(value, partial):
        return ["func", "args", "keywords"]
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    return []
