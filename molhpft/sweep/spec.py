"""What a sweep runs: a run's config and, under `sweep`, values to vary; a combination is a trial.

sweep:
  method: [ft, {name: hp_ft, tau: [4, 16]}]
  finetune.lr: [0.001, 0.0003]
  seeds: 5
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from molhpft.config.build import build_recipes
from molhpft.config.changes import SWEEP, apply, parse_changes, read_config
from molhpft.config.options import Options
from molhpft.config.schema import RunConfig, given_keys, is_among, parse_config, unused_keys
from molhpft.config.used_keys import unused_message
from molhpft.run.identity import probe_name, trial_name

_log = logging.getLogger(__name__)

_EXAMPLE = "for example sweep: {method: [ft, lp_ft], finetune.lr: [0.001, 0.0003], seeds: 3}"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: by its content.
        settings: dotted key to value, of what the sweep varies and this trial uses.
        config: of the run, checked.
        shared: every tau that some trial needs of the probe they share; empty for no sharing.
    """

    name: str
    settings: Options
    config: RunConfig
    shared: tuple[int, ...] = ()


def load_sweep(path: Path, changes: Sequence[str] = ()) -> list[Trial]:
    """Read a sweep's config, apply changes and check every trial.

    As for a run, keys that lose their effect by a change are dropped with a warning: after
    "sweep.method=[lp]" no trial finetunes, so the config's `finetune` does nothing.

    Args:
        path: a YAML file.
        changes: "key=value" as for a run; "sweep.seeds=5" changes the sweep.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not YAML, or is a sweep that `parse_sweep` refuses.
    """
    trials, unused = _parse(read_config(path, changes))
    if unused and changes:
        changed = [key.removeprefix(f"{SWEEP}.") for key in parse_changes(changes)]
        before = _idle_unchanged(path)
        dropped = {
            key: why
            for key, why in unused.items()
            if key not in before and not is_among(key, changed)
        }
        if dropped:
            _log.warning("in every trial, %s; left out of this sweep", unused_message(dropped))
        unused = {key: why for key, why in unused.items() if key not in dropped}
    _refuse(unused)
    return trials


def parse_sweep(
    raw: Mapping[str, Any], *, unused_are: Literal["refused", "dropped"] = "refused"
) -> list[Trial]:
    """The trials of a config given as nested dictionaries, the first of each shared probe ahead.

    `sweep` is a grid or a list of grids; a grid maps dotted keys of the config to lists of values.
    `seeds` is short for `seed`: a list, or how many to count from the config's own. Combinations
    that amount to the same run are one trial: linear probing with two rates of finetuning, say.

    >>> raw = {"task": "toy", "encoder": "toy_mlp", "sweep": {"method": ["lp", "ft"], "seeds": 2}}
    >>> [settings_text(trial.settings) for trial in parse_sweep(raw)]
    ['method=lp, seed=0', 'method=lp, seed=1', 'method=ft, seed=0', 'method=ft, seed=1']

    Args:
        raw: what a file would hold.
        unused_are: what happens to keys that act in no trial, as in `parse_config`.

    Raises:
        ValueError: there is no grid, a key has no list of values, a combination is no valid config,
            or a key acts in no trial.
    """
    trials, unused = _parse(raw)
    if unused_are == "refused":
        _refuse(unused)
    return trials


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in one line: "method=hp_ft tau=[4, 16], seed=0"."""
    return ", ".join(f"{k}={value_text(v)}" for k, v in settings.items()) or "no settings"


def value_text(value: Any) -> str:
    """A value in a few words; an entry of the catalog begins with its name."""
    if not isinstance(value, Mapping):
        return str(value)
    options = [f"{k}={value_text(v)}" for k, v in value.items() if k != "name"]
    return " ".join([*([str(value["name"])] if "name" in value else []), *options])


def _parse(raw: Mapping[str, Any]) -> tuple[list[Trial], dict[str, str]]:
    """The trials, and the keys that act in none of them, each with the reason."""
    base = {key: value for key, value in raw.items() if key != SWEEP}
    grids = raw.get(SWEEP)
    grids = [grids] if isinstance(grids, Mapping) else grids
    if not isinstance(grids, list) or not grids:
        raise ValueError(f"sweep must be keys with lists of values, got {grids!r}; {_EXAMPLE}")
    trials: dict[str, Trial] = {}
    keys_of_all: list[Mapping[str, str | None]] = []
    unused: dict[str, str] = {}
    for grid in grids:
        keys_of_grid = []
        for settings in _combinations(grid, base):
            trial, keys = _trial(base, settings)
            trials.setdefault(trial.name, trial)
            keys_of_grid.append(keys)
        # what a grid varies must act in that grid; the rest of the config, in some grid
        varied = _idle_in_all(keys_of_grid)
        unused |= {key: why for key, why in varied.items() if is_among(key, grid)}
        keys_of_all += keys_of_grid
    return _share_probes(list(trials.values())), unused | _idle_in_all(keys_of_all)


def _idle_in_all(keys_of_trials: Iterable[Mapping[str, str | None]]) -> dict[str, str]:
    """Keys that act in no trial, with a reason; a trial maps its keys to why they do nothing."""
    items = [item for keys in keys_of_trials for item in keys.items()]
    acting = {key for key, why in items if why is None}
    return {key: why for key, why in items if why is not None and key not in acting}


def _refuse(unused: Mapping[str, str]) -> None:
    if unused:
        raise ValueError(f"in every trial, {unused_message(unused)}; leave that out")


def _idle_unchanged(path: Path) -> dict[str, str]:
    """Keys that act in no trial of the file as it stands."""
    try:
        return _parse(read_config(path))[1]
    except ValueError:
        return {}  # the file is a whole sweep only with the changes


def _combinations(grid: Any, base: Options) -> list[Options]:
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"a grid of a sweep is keys with lists of values, got {grid!r}")
    if {"seed", "seeds"} <= set(grid):
        raise ValueError("sweep has both seed and seeds, which mean the same; give one of them")
    lists = [_values(str(key), values, base) for key, values in grid.items()]
    keys = ["seed" if key == "seeds" else str(key) for key in grid]
    return [dict(zip(keys, combination, strict=True)) for combination in product(*lists)]


def _values(key: str, values: Any, base: Options) -> list[Any]:
    first = base.get("seed", 0)
    if key == "seeds" and type(values) is int and values > 0 and type(first) is int:
        return [first + i for i in range(values)]
    if not isinstance(values, list) or not values:
        kind = "a number of seeds or a list of them" if key == "seeds" else "a list of values"
        raise ValueError(f"sweep.{key} must be {kind}, got {values!r}")
    return values


def _trial(base: Options, settings: Options) -> tuple[Trial, dict[str, str | None]]:
    """A trial, and for each key of its config why it does nothing there; None where it acts.

    The config is a template for all trials: a key that does nothing in one is not its setting.
    """
    raw = deepcopy(base)
    try:
        # a whole group before the keys in it: `method`, then `method.tau`
        for key in sorted(settings, key=lambda key: key.count(".")):
            apply(raw, key, deepcopy(settings[key]))
        reasons = unused_keys(raw)
        config = parse_config(raw, unused_are="dropped")
        build_recipes(config)
        if config.devices * config.nodes > 1:
            raise ValueError("a trial has one device; leave devices and nodes out of a sweep")
        name = trial_name(config)
    except ValueError as error:
        raise ValueError(f"trial with {settings_text(settings)}: {error}") from error
    keys = {key: reasons.get(key) for key in given_keys(raw)}
    used = {key: value for key, value in settings.items() if not _is_idle(key, keys)}
    return Trial(name, used, config), keys


def _is_idle(setting: str, keys: Mapping[str, str | None]) -> bool:
    """Whether a setting, which may be a group of keys, does nothing at all."""
    reasons = [why for key, why in keys.items() if f"{key}.".startswith(f"{setting}.")]
    return bool(reasons) and None not in reasons


def _share_probes(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with the taus of the probe they share, the first of each group first.

    The first one probes for its group and the others read its heads; a whole group started at
    once would probe as often as it has trials.
    """
    groups: dict[str, list[Trial]] = {}
    taus: dict[str, set[int]] = {}
    for trial in trials:
        recipes = build_recipes(trial.config)
        needed = {recipe.tau for recipe in recipes}
        # what is chosen automatically is not known yet
        alike = max(needed) and not recipes[0].chooses
        name = probe_name(trial.config, recipes[0]) if alike else trial.name
        groups.setdefault(name, []).append(trial)
        taus.setdefault(name, set()).update(needed)
    shared = {
        trial.name: (place, tuple(sorted(taus[name])) if len(group) > 1 else ())
        for name, group in groups.items()
        for place, trial in enumerate(group)
    }
    # stable: trials of the same place in their groups stay in the order of the grid
    ordered = sorted(trials, key=lambda trial: shared[trial.name][0])
    return [replace(trial, shared=shared[trial.name][1]) for trial in ordered]
