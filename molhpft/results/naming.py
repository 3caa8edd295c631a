"""What to call a run among others: only what tells it from them, and as short as that allows.

Data and weights are what they hold: a task is told by its fingerprint, a weight file by its digest,
and where either lies says nothing. Names are for people.

Three names, each finer than the one before. The label says method, and encoder, head and cut where
these differ within a task; the family adds the settings that differ among runs of one label, but
for learning rates; the variant adds the learning rates.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molhpft.config.schema import MACHINE, RECORDED
from molhpft.domains.files import Json
from molhpft.results.read import Run

RATES = ("finetune.lr", "finetune.backbone_lr", "probe.lr")
PLACES = ("task.path", "task.of", "task.mnist")
"""Options of tasks that say where data lie."""

# told by columns of their own, or no part of what a run finds
_APART = ("seed", "cut", *RECORDED, *MACHINE)
_DIGITS = 6  # of a digest, as many as people compare
_NAMES = ("task.name", "encoder.name", "encoder.weights", "head.name", "method.name")


@dataclass(frozen=True)
class Settings:
    """Settings in which runs differ.

    Attributes:
        names: their keys in a config, with dots.
        weights: digest of a weight file to what it is called.
    """

    names: tuple[str, ...]
    weights: Mapping[str | None, str]

    def of(self, run: Run) -> Json:
        """A run's identity and its settings, as columns."""
        flat = dict(_flat(run.config))
        method = run.config["method"]["name"]
        identity = {
            "task": run.summary["task"],
            "data": run.summary["fingerprint"],
            "encoder": run.summary["encoder"],
            # a run from scratch is told where weights lie, and does not use them
            "weights": "none" if method == "scratch" else self.weights[_weights(run)],
            "method": method,
            "head": flat.get("head.name"),
            "cut": run.config.get("cut"),
        }
        return identity | {name: _plain(flat.get(name)) for name in self.names}


def settings_of(runs: Sequence[Run]) -> Settings:
    """The settings in which runs differ, in the order of a config.

    A list of tau is no setting: its values are rows. Tau chosen in another way ("auto") is one.
    """
    found: dict[str, set[str]] = defaultdict(set)
    configs = [dict(_flat(run.config)) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    for config in configs:
        for key in keys:
            found[key].add(json.dumps(_plain(config.get(key)), default=str))
    differing = (key for key in keys if len(found[key]) > 1)
    return Settings(tuple(key for key in differing if key not in _NAMES), _weight_names(runs))


def _weights(run: Run) -> str | None:
    digest: str | None = run.summary["weights_digest"]
    return digest


def _weight_names(runs: Sequence[Run]) -> dict[str | None, str]:
    """Short names of weight files; those of one name that hold other weights are told apart."""
    called: dict[str | None, set[str]] = defaultdict(set)
    for run in runs:
        called[_weights(run)].add(_short((run.config.get("encoder") or {}).get("weights")))
    names = {digest: min(own) for digest, own in called.items()}
    counts = Counter(names.values())
    return {
        digest: f"{name} {str(digest)[:_DIGITS]}" if counts[name] > 1 else name
        for digest, name in names.items()
    }


def named(rows: Sequence[Json], settings: Settings) -> list[Json]:
    """The rows with task made unmistakable and label, family and variant added.

    One fingerprint is one task.

    Args:
        rows: with what `settings.of` says of their run.
        settings: in which the runs differ.
    """
    rows = [dict(row) for row in rows]
    _name_tasks(rows, [name for name in settings.names if name.startswith("task.")])
    for group in _grouped(rows, "task").values():
        _label(group)
    other = [name for name in settings.names if not name.startswith("task.")]
    for group in _grouped(rows, "task", "label").values():
        differing = [name for name in other if len({_text(row[name]) for row in group}) > 1]
        for row in group:
            slow = [_told(n, row[n]) for n in differing if n not in RATES]
            fast = [_told(n, row[n]) for n in differing if n in RATES]
            row["family"] = ", ".join([row["label"], *slow])
            row["variant"] = ", ".join([row["label"], *slow, *fast])
    return rows


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif name in _APART or (name == "method.tau" and isinstance(value, list)):
            continue
        else:
            yield name, value


def _name_tasks(rows: list[Json], options: Sequence[str]) -> None:
    """One name for each fingerprint: the task's own, and what tells it from others of that name.

    Two splits of one data set are two tasks: their scores do not compare.
    """
    tasks = list(_grouped(rows, "data").values())
    for task in tasks:
        first, *others = sorted({row["task"] for row in task})
        for row in task:
            row["task"] = first + (f" = {' = '.join(others)}" if others else "")
    for name, group in _grouped(rows, "task").items():
        same = list(_grouped(group, "data").values())
        telling = [key for key in options if key not in PLACES and _tells(key, same)]
        how = [[f"{_last(key)}={_text(task[0][key])}" for key in telling] for task in same]
        for task, words in zip(same, how, strict=True):
            if len(same) > 1:
                unclear = how.count(words) > 1
                words = [*words, *([f"data {task[0]['data'][:_DIGITS]}"] if unclear else [])]
                for row in task:
                    row["task"] = f"{name[0]} ({', '.join(words)})"


def _tells(key: str, tasks: Sequence[Sequence[Json]]) -> bool:
    """Whether an option differs between tasks, and not within one."""
    values = [{_text(row[key]) for row in task} for task in tasks]
    return all(len(own) == 1 for own in values) and len(set.union(*values)) > 1


def _label(rows: list[Json]) -> None:
    """Name the rows of one task by what differs among them."""
    networks = [row for row in rows if row["head"] is not None]
    several = {key: len({_text(row[key]) for row in networks}) > 1 for key in ("encoder", "head")}
    weighted = {_text(row["weights"]) for row in networks if row["method"] != "scratch"}
    for row in rows:
        words = [row["method"].replace("_", "-")]
        if row["head"] is not None:
            words += [row["encoder"]] if several["encoder"] else []
            if len(weighted) > 1 and row["method"] != "scratch":
                words.append("random" if row["weights"] == "none" else row["weights"])
            # linear unless another is named
            words += [f"{row['head']} head"] if several["head"] and row["head"] != "linear" else []
            words += [] if row["cut"] is None else [f"cut at {row['cut']}"]
        row["label"] = ", ".join(words)


def _grouped(rows: list[Json], *keys: str) -> dict[tuple[str, ...], list[Json]]:
    groups: dict[tuple[str, ...], list[Json]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def _short(weights: Any) -> str:
    """A weight file by its name; one of a run by the run's, as all are called the same."""
    if weights is None:
        return "none"
    path = Path(str(weights))
    return path.parent.name if path.name == "model.safetensors" else path.name


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _text(value: Any) -> str:
    return "default" if value is None else str(value)


def _told(name: str, value: Any) -> str:
    """A setting and its value; a list of tau, which is none, stands beside "auto" only."""
    if name == "method.tau":
        return "tau by grid" if value is None else f"tau {value}"
    return f"{_last(name)}={_text(value)}"


def _last(name: str) -> str:
    section, _, key = name.partition(".")
    return key if section in ("task", "method", "finetune") else name
