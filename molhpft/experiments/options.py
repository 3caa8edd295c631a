"""Options of a function or dataclass, checked against its signature.

An option has one definition: the keyword-only parameter that takes it, with its type and default.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

Options = dict[str, Any]
Parameters = Mapping[str, inspect.Parameter]


def keywords(entry: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Keyword-only parameters of `entry`, by name, annotations evaluated."""
    parameters = inspect.signature(entry, eval_str=True).parameters
    return {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def checked(section: str, parameters: Parameters, given: Options) -> Options:
    """`given` with types checked and defaults filled in, by the parameters' annotations.

    A lone value stands for a tuple of one, unless it is a word with a meaning of its own.

    Args:
        section: where the options stand in the config, for messages.
        parameters: what may be given.
        given: option name to value.

    Raises:
        ValueError: an unknown or missing option or a value of the wrong type; the first of them.
    """
    fields: dict[str, Any] = {}
    for key, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        fields[key] = (parameter.annotation, ... if required else parameter.default)
        if _stands_for_tuple(given.get(key), parameter.annotation):
            given = {**given, key: [given[key]]}
    model: type[BaseModel] = create_model(
        "Options", __config__=ConfigDict(extra="forbid"), **fields
    )
    try:
        return dict(model(**given))
    except ValidationError as error:
        raise ValueError(_sentence(section, list(fields), error)) from error


def _stands_for_tuple(value: Any, annotation: Any) -> bool:
    kinds = (annotation, *get_args(annotation))
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    tuples = any(get_origin(kind) is tuple for kind in kinds)
    return tuples and isinstance(value, int | str) and value not in words


def _sentence(section: str, valid: list[str], error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join([*([section] if section else []), *(str(part) for part in first["loc"][:1])])
    if first["type"] == "extra_forbidden":
        return unknown(key, [f"{section}.{name}" if section else name for name in valid])
    if first["type"] == "missing":
        return f"missing key {key}"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{key} is {first['input']!r}, which does not fit: {message}"


def unknown(key: str, valid: list[str], what: str = "key") -> str:
    """Sentence that names an unknown key, the nearest valid one and all valid ones."""
    near = get_close_matches(key, valid, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {what} {key}; {hint}valid: {', '.join(valid) or 'none'}"
