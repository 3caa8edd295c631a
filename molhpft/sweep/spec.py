"""A sweep's config: a run's config and, under `sweep`, what to vary; every combination is a trial.

sweep:
  method: [ft, {name: hp_ft, tau: [4, 16]}]
  finetune.lr: [0.001, 0.0003]
  seeds: 5
"""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from molhpft.config.build import build_recipes
from molhpft.config.options import Options
from molhpft.config.schema import (
    SWEEP,
    RunConfig,
    apply,
    idle,
    is_among,
    parse_changes,
    parse_config,
    read_config,
    written,
)
from molhpft.config.used_keys import idle_message
from molhpft.run.folder import probe_name, trial_name

_log = logging.getLogger(__name__)

_EXAMPLE = "for example sweep: {method: [ft, lp_ft], finetune.lr: [0.001, 0.0003], seeds: 3}"


@dataclass(frozen=True)
class Trial:
    """A run of a sweep.

    Attributes:
        name: by its content.
        settings: dotted key to value, of what the sweep varies and this trial reads.
        config: its own, checked.
        shared: every tau at which some trial wants a head of the probe it shares; empty for none.
    """

    name: str
    settings: Options
    config: RunConfig
    shared: tuple[int, ...] = ()


def load_sweep(path: Path, changes: Sequence[str] = ()) -> list[Trial]:
    """Read a sweep's config, apply changes, check every trial.

    As for a run, what a change takes the effect from is left out with a warning: the template of
    finetuning, where "sweep.method=[lp]" has left a sweep no method that finetunes.

    Args:
        path: a YAML file.
        changes: "key=value" as for a run; "sweep.seeds=5" changes the sweep.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or a sweep that `parse_sweep` refuses.
    """
    raw, changed = read_config(path, changes), parse_changes(changes)
    trials, nothing = _parsed(raw)
    own = [key.removeprefix(f"{SWEEP}.") for key in changed]
    before = _idle_before(path) if nothing and changed else nothing
    fallen = {k: v for k, v in nothing.items() if k not in before and not is_among(k, own)}
    if fallen:
        _log.warning("in every trial, %s; left out of this sweep", idle_message(fallen))
    _refuse({key: why for key, why in nothing.items() if key not in fallen})
    return trials


def parse_sweep(
    raw: Mapping[str, Any], *, idle_are: Literal["refused", "dropped"] = "refused"
) -> list[Trial]:
    """The trials of a config given as nested dictionaries, those that share a probe lying apart.

    `sweep` is a grid or a list of grids: a dotted key of the config to the list of its values.
    `seeds` is short for `seed`: a list, or how many to count from the config's own. Combinations
    that come to the same run are one trial: linear probing with two rates of finetuning, say.

    Args:
        raw: what a file would hold.
        idle_are: what becomes of keys that act in no trial, as in `parse_config`.

    Raises:
        ValueError: no grid, a key without a list of values, the first combination that is no
            valid config, with what is wrong with it, or a key that acts in no trial.
    """
    trials, nothing = _parsed(raw)
    if idle_are == "refused":
        _refuse(nothing)
    return trials


def _parsed(raw: Mapping[str, Any]) -> tuple[list[Trial], dict[str, str]]:
    """The trials, and keys that act in none of them, each with the reason."""
    base = {key: value for key, value in raw.items() if key != SWEEP}
    grids = raw.get(SWEEP)
    grids = [grids] if isinstance(grids, Mapping) else grids
    if not isinstance(grids, list) or not grids:
        raise ValueError(f"sweep must be keys with lists of values, got {grids!r}; {_EXAMPLE}")
    trials: dict[str, Trial] = {}
    everywhere, nothing = _Keys(), dict[str, str]()
    for grid in grids:
        varied = _Keys()
        for settings in _combinations(grid, base):
            trial, keys = _trial(base, settings)
            trials.setdefault(trial.name, trial)
            varied.add(keys)
            everywhere.add(keys)
        nothing |= {key: why for key, why in varied.nothing.items() if is_among(key, grid)}
    return _sharing(list(trials.values())), nothing | everywhere.nothing


def _refuse(nothing: Mapping[str, str]) -> None:
    if nothing:
        raise ValueError(f"in every trial, {idle_message(nothing)}; leave that out")


def _idle_before(path: Path) -> dict[str, str]:
    try:
        return _parsed(read_config(path))[1]
    except ValueError:
        return {}  # it is no whole sweep before the changes


class _Keys:
    """Keys that some trials give, and which of them act in none."""

    def __init__(self) -> None:
        self.acting: set[str] = set()
        self.idle: dict[str, str] = {}

    def add(self, keys: Mapping[str, str | None]) -> None:
        """Those of a trial: dotted key to the reason why it would do nothing, or None."""
        self.acting |= {key for key, why in keys.items() if why is None}
        self.idle |= {key: why for key, why in keys.items() if why is not None}

    @property
    def nothing(self) -> dict[str, str]:
        """Those that act in no trial, each with a reason."""
        return {key: why for key, why in self.idle.items() if key not in self.acting}


def _combinations(grid: Any, base: Options) -> list[Options]:
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"a grid of a sweep is keys with lists of values, got {grid!r}")
    if {"seed", "seeds"} <= set(grid):
        raise ValueError("sweep has both seed and seeds, which mean the same; give one of them")
    values = {str(key): _values(str(key), given, base) for key, given in grid.items()}
    values = {"seed" if key == "seeds" else key: given for key, given in values.items()}
    return [
        dict(zip(values, combination, strict=True)) for combination in product(*values.values())
    ]


def _values(key: str, given: Any, base: Options) -> list[Any]:
    first = base.get("seed", 0)
    if key == "seeds" and type(given) is int and given > 0 and type(first) is int:
        return [first + i for i in range(given)]
    if not isinstance(given, list) or not given:
        kind = "a number of seeds or a list of them" if key == "seeds" else "a list of values"
        raise ValueError(f"sweep.{key} must be {kind}, got {given!r}")
    return given


def _trial(base: Options, settings: Options) -> tuple[Trial, dict[str, str | None]]:
    """A trial, and of each key that may do nothing in some trial why it does in this one.

    The config is a template for all trials: what one has no use for is no setting of it.
    """
    raw = deepcopy(base)
    try:
        # a whole group before the keys in it: `method`, then `method.tau`
        for key in sorted(settings, key=lambda key: key.count(".")):
            apply(raw, key, deepcopy(settings[key]))
        nothing = idle(raw)
        config = parse_config(raw, idle_are="dropped")
        build_recipes(config)
        if config.devices * config.nodes > 1:
            raise ValueError("a trial has one device; leave devices and nodes out of a sweep")
    except ValueError as error:
        raise ValueError(f"trial with {described(settings)}: {error}") from error
    keys = {key: nothing.get(key) for key in written(raw)}
    own = {key: value for key, value in settings.items() if not _is_idle(key, keys)}
    return Trial(trial_name(config), own, config), keys


def _is_idle(key: str, keys: Mapping[str, str | None]) -> bool:
    """Whether a setting, which may be a group of keys, does nothing at all."""
    reasons = [why for own, why in keys.items() if f"{own}.".startswith(f"{key}.")]
    return bool(reasons) and None not in reasons


def _sharing(trials: list[Trial]) -> list[Trial]:
    """The trials with what they share, the first of each group first.

    Whoever comes first probes for its group: the others then find the heads, where starting a
    whole group at once would have each probe for itself.
    """
    groups: dict[str, list[int]] = {}
    taus: dict[str, set[int]] = {}
    names = []
    for i, trial in enumerate(trials):
        recipes = build_recipes(trial.config)
        own = {recipe.tau for recipe in recipes}
        name = probe_name(trial.config, recipes[0]) if max(own) else trial.name
        groups.setdefault(name, []).append(i)
        taus.setdefault(name, set()).update(own)
        names.append(name)
    order = sorted((place, i) for group in groups.values() for place, i in enumerate(group))
    return [
        replace(trials[i], shared=tuple(sorted(taus[name])) if len(groups[name]) > 1 else ())
        for _, i in order
        for name in [names[i]]
    ]


def described(settings: Mapping[str, Any]) -> str:
    """Settings in one line: "method=hp_ft tau=[4, 16], seed=0"."""
    return ", ".join(f"{key}={told(value)}" for key, value in settings.items()) or "no settings"


def told(value: Any) -> str:
    """A value in a few words; an entry of the catalog begins with its name."""
    if not isinstance(value, Mapping):
        return str(value)
    options = [f"{k}={told(v)}" for k, v in value.items() if k != "name"]
    return " ".join([*([str(value["name"])] if "name" in value else []), *options])
