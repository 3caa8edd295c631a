"""How a model of a table is made: the config of its runs, from few options, and how it predicts."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from molhpft.config.options import Options, keywords
from molhpft.config.registry import METHODS
from molhpft.config.schema import DEFAULTS, Choice, RunConfig, parse_config, unused_keys, without
from molhpft.config.used_keys import unused_message
from molhpft.domains.files import listed
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.estimator.calibrate import CalibrationName

Encoder = str | Path | Mapping[str, Any]
Tau = int | Literal["auto"] | tuple[int, ...]

TAU: Tau = "auto"
HEAD = "mlp"
_SEEN = 60_000  # molecules, each as often as there are epochs
_LEAST_EPOCHS, _MOST_EPOCHS = 3, 12
_FINETUNE: Options = {
    # no epoch is chosen by molecules that then say how good the network is
    "keep": "last",
    "lr": 2e-3,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "cosine",
    "batch_size": 64,
}
_PRETRAINED_LR = 7e-4  # of a backbone that has something to lose

IN_MEMORY = Choice("table", {})
"""The task of a config whose molecules are in no file."""

_OF_NETWORKS = (
    "checkpoint",
    "cut",
    "features",
    "finetune",
    "measures",
    "precision",
    "probe",
    "standardise",
    "views",
)
"""Keys of a config that only finetuned networks use."""

_log = logging.getLogger(__name__)


def model_config(
    *,
    encoder: Encoder | None = None,
    tau: Tau | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    more: Mapping[str, Any],
    task: Choice = IN_MEMORY,
    molecules: int = 0,
    members: "Members" = "all",
) -> RunConfig:
    """The config of a run that makes a model, from a few options and any further keys.

    Args:
        encoder: name of a shipped encoder or path of a weight file, whose encoder is recognised; or
            the keys of a config's `encoder`, such as `{"name": "gcn"}` for random weights. Like the
            three options that follow, None where the user has not given it.
        tau: epochs of head probing, one or several, or "auto"; of the method in `more`, if any.
        head: as in a config.
        seed: of every random number.
        more: further keys of a config, such as `finetune`, `probe`, `device` or `cut`, and any of
            the options above that is None. `finetune` and `probe` have defaults of their own.
        task: of the config.
        molecules: how many there are to train on; many are seen in fewer epochs.
        members: what may answer; where that is no network, a warning names what only networks use.

    Raises:
        FileNotFoundError: there is no such weight file.
        ValueError: a key or value does not fit, is given twice or would do nothing, or no encoder
            takes the weights.
    """
    given: Options = jsonable(more)
    if "task" in given:
        raise ValueError(
            f"task is the molecules that are given and no key of this config, got "
            f"{given['task']!r}; split, split_seed and validation say which are held out"
        )
    if "members" in given:
        raise ValueError(
            "members is no key of this config: the option of that name (--members) says what "
            "predicts together"
        )
    encoder_keys = _entry("encoder", given, encoder, default=DEFAULT_ENCODER)
    # under a cut the head begins with layers that were trained on features as they are, and random
    # features vary so little that dividing by it would magnify every step of the backbone
    standardise = given.get("cut") is None and _is_pretrained(encoder_keys)
    raw = {
        **given,
        "encoder": encoder_keys,
        "head": _entry("head", given, head, default=HEAD),
        "method": _method(given.get("method", {}), tau),
        "seed": _once("seed", given, seed, default=0),
        "standardise": given.get("standardise", standardise),
    }
    defaults = _defaults(encoder_keys, molecules)
    if tau is not None:
        raw = _without_idled_by_tau(raw, task, defaults)
    config = parse_config(raw, task=task, defaults=defaults)
    _warn_of_idle(members, {**given, "encoder": encoder or given.get("encoder")}, tau, head)
    return config


def _warn_of_idle(members: "Members", given: Options, tau: Any, head: Any) -> None:
    """Say which settings that are given do nothing, since no network is finetuned.

    A search over members has one config for all.
    """
    if members in ("all", "networks"):
        return
    idle = [key for key in _OF_NETWORKS if given.get(key) is not None]
    idle += ["device"] if given.get("device") not in (None, "auto", "cpu") else []
    idle += ["encoder"] if members == "fingerprints" and given.get("encoder") is not None else []
    method = given.get("method")
    idle += ["head"] if head is not None or "head" in given else []
    options = set(method) if isinstance(method, Mapping) else {"name"} if method else set()
    idle += ["method"] if options - {"tau"} else []
    idle += ["tau"] if tau is not None or "tau" in options else []
    if idle:
        them = "it does" if len(idle) == 1 else "they do"
        _log.warning(
            "members %s finetunes no network, which alone uses %s: %s nothing here",
            *(members, listed(sorted(idle)), them),
        )


def _defaults(encoder: Any, molecules: int) -> Options:
    """What validated best (`benchmarks/estimators.py`) and is not a config's own default."""
    epochs = max(_LEAST_EPOCHS, min(_MOST_EPOCHS, round(_SEEN / max(molecules, 1))))
    finetune = {**_FINETUNE, "epochs": epochs}
    if _is_pretrained(encoder):
        finetune["backbone_lr"] = _PRETRAINED_LR
    return {**DEFAULTS, "finetune": finetune}


def _without_idled_by_tau(raw: Options, task: Choice, defaults: Options) -> Options:
    """The config without keys, such as those of `probe`, that only do nothing for this tau.

    A search over tau tries 0, too, with one config for all.
    """
    if not isinstance(raw["method"], Mapping):
        return raw  # for `parse_config` to refuse
    automatic = {**raw, "method": {**raw["method"], "tau": "auto"}}
    before = unused_keys(automatic, task=task, defaults=defaults)
    now = unused_keys(raw, task=task, defaults=defaults)
    idled = {key: why for key, why in now.items() if key not in before}
    if idled:
        _log.warning("%s; left out of this run", unused_message(idled))
    return without(raw, idled)


def _once(key: str, given: Mapping[str, Any], option: Any, *, default: Any) -> Any:
    """The value of a key that an option or the config gives, but not both."""
    if option is not None and key in given:
        raise ValueError(
            f"{key} is given twice, by its option as {option} and in the config as {given[key]}; "
            "leave one out"
        )
    return given.get(key, default if option is None else option)


def _entry(section: str, given: Options, option: Any, *, default: str) -> Any:
    """The encoder or head; keys without a name among them modify the one that the option names."""
    keys = given.get(section)
    if not isinstance(keys, Mapping) or "name" in keys:
        value = _once(section, given, option, default=default)
        return value if section in given else _named(section, value)
    entry = _named(section, default if option is None else option)
    for key in keys.keys() & (option.keys() if isinstance(option, Mapping) else set()):
        _once(key, keys, entry[key], default=None)
    return {**entry, **keys}


def _is_pretrained(encoder: Any) -> bool:
    return isinstance(encoder, Mapping) and encoder.get("weights") is not None


def _named(section: str, value: Any) -> Options:
    """An entry of the catalog, from its keys, its name, or an encoder's weight file."""
    if isinstance(value, Mapping):
        return dict(jsonable(value))
    if section == "head":
        return {"name": value}
    return {"weights": str(value)}


def _method(given: Any, tau: Tau | None) -> Any:
    """The method's keys; `tau` is among them where it is given, or where the method needs one."""
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, Mapping):
        return given  # for `parse_config` to refuse
    method = {"name": "hp_ft", **given}
    name = method["name"]
    if not isinstance(name, str) or name not in METHODS:
        return method
    options = keywords(METHODS[name])
    if tau is not None and "tau" not in options:
        raise ValueError(f"method {name} is not probed for tau epochs; leave tau out, got {tau}")
    needed = "tau" in options and options["tau"].default is options["tau"].empty
    taus = jsonable(_once("tau", method, tau, default=TAU if needed else None))
    if taus is None:
        return method
    return {**method, "tau": taus if isinstance(taus, str | list) else [taus]}


def jsonable(value: Any) -> Any:
    """A value as YAML and JSON hold it: no numbers or arrays of numpy, paths as text."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | range):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


Members = Literal["all", "networks", "kernels", "features", "fingerprints"]


@dataclass(frozen=True)
class Inference:
    """How a model predicts.

    Attributes:
        members: what may predict together: "all", finetuned "networks" alone, Gaussian processes
            ("kernels") alone, or that on frozen "features" or on "fingerprints" alone.
        calibration: method for probabilities; "auto" for Venn-Abers where it is better than Platt's
            on molecules that neither was fitted to, else for Platt's.
        target_coverage: share of molecules whose label should be in its prediction set, between 0
            and 1.

    Raises:
        ValueError: there is no such choice, or the coverage is out of range.
    """

    members: Members = "all"
    calibration: CalibrationName = "auto"
    target_coverage: float = 0.9

    def __post_init__(self) -> None:
        for key, choices in (("members", Members), ("calibration", CalibrationName)):
            value = getattr(self, key)
            if value not in get_args(choices):
                raise ValueError(
                    f"{key} should be one of {', '.join(get_args(choices))}, got {value!r}"
                )
        if not 0 < self.target_coverage < 1:
            raise ValueError(
                f"target coverage should lie between 0 and 1, got {self.target_coverage:g}"
            )
