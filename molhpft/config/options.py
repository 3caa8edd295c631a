"""Options of a function or dataclass, checked against its signature.

An option has one definition: the keyword-only parameter that takes it, with its type, its range
(`core/annotations.py`) and its default.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from molhpft.core.annotations import in_words, range_of

Options = dict[str, Any]
Parameters = Mapping[str, inspect.Parameter]


def keywords(entry: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Keyword-only parameters of `entry`, by name, annotations evaluated."""
    return dict(_keywords(entry))


@lru_cache
def _keywords(entry: Callable[..., Any]) -> tuple[tuple[str, inspect.Parameter], ...]:
    parameters = inspect.signature(entry, eval_str=True).parameters.items()
    return tuple((k, p) for k, p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


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
    for key, parameter in parameters.items():
        if key in given:
            _refuse_yes_and_no(_dotted(section, key), given[key], parameter.annotation)
            if _stands_for_tuple(given[key], parameter.annotation):
                given = {**given, key: [given[key]]}
    try:
        return dict(_model(tuple(parameters.values()))(**given))
    except ValidationError as error:
        raise ValueError(_sentence(section, parameters, error)) from error


@lru_cache(maxsize=256)
def _model(parameters: tuple[inspect.Parameter, ...]) -> type[BaseModel]:
    """A model with a field for each parameter; one takes milliseconds to make."""
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is inspect.Parameter.empty else p.default)
        for p in parameters
    }
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    model: type[BaseModel] = create_model("Options", __config__=config, **fields)
    return model


def _dotted(section: str, key: str) -> str:
    return f"{section}.{key}" if section else key


def _refuse_yes_and_no(key: str, value: Any, annotation: Any) -> None:
    """Refuse yes and no, which YAML reads as booleans, where they would pass for 1 and 0."""
    values = value if isinstance(value, list | tuple) else [value]
    if bool not in _kinds(annotation) and any(isinstance(one, bool) for one in values):
        raise ValueError(f"{key} is {value!r}, which does not fit: it is no yes or no")


def _kinds(annotation: Any) -> set[Any]:
    parts = get_args(annotation)
    return {annotation} if not parts else {kind for part in parts for kind in _kinds(part)}


def _stands_for_tuple(value: Any, annotation: Any) -> bool:
    # what may be in a tuple is no word for all of it
    inner = () if get_origin(annotation) is tuple else get_args(annotation)
    kinds = (annotation, *inner)
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    tuples = any(get_origin(kind) is tuple for kind in kinds)
    return tuples and isinstance(value, int | float | str) and value not in words


def _sentence(section: str, parameters: Parameters, error: ValidationError) -> str:
    # a key that nobody knows says more than the one that is missing for it
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    name = str(first["loc"][0])
    key, value = _dotted(section, name), first["input"]
    if first["type"] == "extra_forbidden":
        return unknown(key, [_dotted(section, other) for other in parameters])
    if first["type"] == "missing":
        return f"missing key {key}"
    interval = range_of(parameters[name].annotation)
    if first["type"] in _OUT_OF_RANGE and interval:
        return f"{key} should be {in_words(interval)}, got {value!r}"
    words = first["msg"].removeprefix("Value error, ")  # which pydantic puts before ours
    message = words[0].lower() + words[1:]
    return f"{key} is {value!r}, which does not fit: {message}"


_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def unknown(key: str, valid: list[str], what: str = "key") -> str:
    """Sentence that names an unknown key, the nearest valid one and all valid ones.

    >>> unknown("epochs", ["finetune.epochs", "seed"])
    'unknown key epochs; did you mean finetune.epochs? valid: finetune.epochs, seed'
    """
    # of dotted keys the last words, since a section that they share makes them no more alike
    words = {one.rpartition(".")[2]: one for one in reversed(valid)}
    near = get_close_matches(key.rpartition(".")[2], words, n=1)
    hint = f"did you mean {words[near[0]]}? " if near else ""
    return f"unknown {what} {key}; {hint}valid: {', '.join(valid) or 'none'}"
