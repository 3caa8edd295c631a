"""From a user's few words to the config of a run."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from molhpft.domains.molecules.checkpoints import fitting_encoder
from molhpft.domains.weights import read_weights
from molhpft.experiments.acting import idle_message
from molhpft.experiments.catalog import METHODS
from molhpft.experiments.config import DEFAULTS, Choice, RunConfig, idle, parse_config, without
from molhpft.experiments.options import Options, keywords

Encoder = str | Path | Mapping[str, Any]
Tau = int | Literal["auto"] | tuple[int, ...]

ENCODER = "gcn_muv"
TAU: Tau = "auto"
# what validated best in configs/sweeps/default_settings.yaml and is not a config's own default
HEAD = "mlp"
_DEFAULTS: Options = {**DEFAULTS, "finetune": {**DEFAULTS["finetune"], "batch_size": 32}}

_log = logging.getLogger(__name__)

IN_MEMORY = Choice("table", {})
"""The task of a config whose molecules are no file."""


def settings(
    *,
    encoder: Encoder | None = None,
    tau: Tau | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    more: Mapping[str, Any],
    task: Choice = IN_MEMORY,
) -> RunConfig:
    """The config of a model, of a few options and any further keys; each says what no other does.

    Args:
        encoder: name of a shipped encoder or path of a weight file, whose encoder is recognised; or
            the keys of a config's `encoder`, such as `{"name": "gcn"}` for random weights. Like the
            three options that follow, None where the user has not given it.
        tau: epochs of head probing, one or several, or "auto"; of the method in `more`, if any.
        head: as in a config.
        seed: of every random number.
        more: further keys of a config: `finetune`, `probe`, `device`, `cut`, ...; one of the
            options above where that is None. Where `finetune` says nothing else, batches are of 32.
        task: of the config.

    Raises:
        FileNotFoundError: there is no such weight file.
        ValueError: a key or value does not fit, is given twice or would mean nothing, or the
            weights are of no known encoder.
    """
    own = jsonable(more)
    _check_keys(own)
    raw = {
        "encoder": _choice("encoder", own, encoder, default=ENCODER),
        "head": _choice("head", own, head, default=HEAD),
        "method": _method(own.get("method", {}), tau),
        "seed": _once("seed", own, seed, default=0),
    }
    return parse_config(_serving({**own, **raw}, own, tau, task), task=task, defaults=_DEFAULTS)


def _serving(raw: Options, own: Options, tau: Tau | None, task: Choice) -> Options:
    """The config without what the option `tau` takes the effect from: `probe` serves every tau.

    A search over tau tries 0 too, with one config for all.
    """
    if tau is None:
        return raw
    probed = {**raw, "method": {**raw["method"], "tau": "auto"}}
    nothing = idle(raw, task=task, defaults=_DEFAULTS)
    before = idle(probed, task=task, defaults=_DEFAULTS)
    fallen = {key: why for key, why in nothing.items() if key not in before}
    if fallen:
        _log.warning("%s; left out of this run", idle_message(fallen))
    return without(raw, fallen)


def _check_keys(own: Options) -> None:
    """Refuse keys that another option stands for."""
    if "task" in own:
        raise ValueError(
            f"task is the molecules that are given and no key of this config, got {own['task']!r}; "
            "split, split_seed and validation say which are held out"
        )
    if "members" in own:
        raise ValueError(
            "members is no key of this config: the option ensemble (--ensemble, --no-ensemble) "
            "says whether several networks answer"
        )


def _once(key: str, own: Options, option: Any, *, default: Any) -> Any:
    """The value of a key that an option or the config gives, not both."""
    if option is not None and key in own:
        raise ValueError(
            f"{key} is given twice, by its option as {option} and in the config as {own[key]}; "
            "leave one out"
        )
    return own.get(key, default if option is None else option)


def _choice(key: str, own: Options, option: Any, *, default: str) -> Any:
    """An encoder or head; keys without a name go to the one that the option names."""
    found = _encoder if key == "encoder" else _named
    if not isinstance(own.get(key), Mapping) or "name" in own[key]:
        given = _once(key, own, option, default=default)
        return given if key in own else found(given)
    named = found(default if option is None else option)
    for inner in own[key].keys() & (option.keys() if isinstance(option, Mapping) else set()):
        _once(inner, own[key], named[inner], default=None)
    return {**named, **own[key]}


def _named(given: Any) -> Options:
    return {"name": given} if isinstance(given, str) else dict(jsonable(given))


def _method(given: Any, tau: Tau | None) -> Any:
    """The method's keys; `tau` is among them where it is given, or where the method needs one."""
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return given  # for `parse_config` to refuse
    method = {"name": "hp_ft", **given}
    name = method["name"]
    if not isinstance(name, str) or name not in METHODS:
        return method
    known = keywords(METHODS[name])
    if tau is not None and "tau" not in known:
        raise ValueError(f"method {name} is not probed for tau epochs; leave tau out, got {tau}")
    needed = "tau" in known and known["tau"].default is known["tau"].empty
    taus = _once("tau", method, tau, default=TAU if needed else None)
    if taus is None:
        return method
    taus = jsonable(taus)
    return {**method, "tau": taus if isinstance(taus, str | list) else [taus]}


def _encoder(given: Any) -> Options:
    if isinstance(given, Mapping):
        return dict(jsonable(given))
    path = Path(given)
    return {**fitting_encoder(read_weights(path)), "weights": str(path)}


def jsonable(value: Any) -> Any:
    """A value as YAML and JSON hold it: no numbers or arrays of numpy, paths as text."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
