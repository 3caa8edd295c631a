"""Arguments and options that several commands share, and how flags become keys of a config.

Words that an option can take stand here, not where they are used, so that a command line that only
prints help does not import PyTorch; a test holds them equal.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

DeviceName = Literal["auto", "cpu", "cuda"]

COMMON = "Common keys of the config"
"""Panel of help for flags that stand for keys; every other key is set by --set."""

ConfigPath = Annotated[
    Path, typer.Argument(help="YAML file, such as configs/finetune/tox21_hpft.yaml.")
]


def _set_option(what: str) -> Any:
    return typer.Option("--set", metavar="KEY=VALUE", help=what, rich_help_panel=COMMON)


Changes = Annotated[list[str], _set_option("Set any key of the config; repeatable.")]
ProbeChanges = Annotated[
    list[str],
    _set_option(
        "Set a key of the config that is read here: task, encoder, head, method, probe, seed, "
        "device, cut, standardise, views; repeatable."
    ),
]
AdviseChanges = Annotated[
    list[str],
    _set_option(
        "Set a key of the config that is read here: task, encoder, head, method, probe, "
        "probe.epochs, seed, device, cut, standardise, views, finetune.batch_size, "
        "finetune.batch_norm; repeatable."
    ),
]
RankChanges = Annotated[
    list[str],
    _set_option(
        "Set a key of the config that is read here: task, standardise, seed, device; repeatable."
    ),
]
BaselineChanges = Annotated[
    list[str],
    _set_option(
        "Set a key of the config that is read here: task, seed; of a data set or table one of its "
        "options, such as split=random; repeatable."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for run folders.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

Epochs = Annotated[int | None, typer.Option(help="Epochs of finetuning.", rich_help_panel=COMMON)]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate of finetuning.", rich_help_panel=COMMON),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Molecules or images in a batch of finetuning.", rich_help_panel=COMMON),
]
Device = Annotated[
    DeviceName | None, typer.Option(help="Where to compute.", rich_help_panel=COMMON)
]


def seed_option(what: str, *, panel: str | None = None) -> Any:
    """An option whose number may be whatever a config takes as a seed."""
    return typer.Option(min=0, max=2**63 - 1, help=what, rich_help_panel=panel)


Seed = Annotated[int | None, seed_option("Seed of every random number.", panel=COMMON)]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="NAME",
        help="How the task is split: scaffold, random, ...",
        rich_help_panel=COMMON,
    ),
]
SplitSeed = Annotated[int | None, seed_option("Seed of a random split.", panel=COMMON)]

_KEYS = {"device": "device", "seed": "seed", "split": "task.split", "split_seed": "task.split_seed"}


def with_flags(changes: list[str], *, section: str = "finetune", **flags: Any) -> list[str]:
    """Changes of a config, those of `--set` and those of flags.

    >>> with_flags(["head=mlp"], lr=0.01, seed=None, split="random")
    ['head=mlp', 'finetune.lr=0.01', 'task.split=random']

    Args:
        changes: "key=value", of `--set`.
        section: of the config that epochs, learning rate and batch size belong to.
        flags: name to value; None for one that is not given.

    Raises:
        ValueError: `--set` gives the key of a flag, too.
    """
    given = {
        _KEYS.get(flag, f"{section}.{flag}"): (flag, value)
        for flag, value in flags.items()
        if value is not None
    }
    if given and changes:
        _refuse_given_twice(changes, given)
    return [*changes, *(f"{key}={value}" for key, (_, value) in given.items())]


def _refuse_given_twice(changes: list[str], given: Mapping[str, tuple[str, Any]]) -> None:
    from molhpft.config.changes import parse_changes

    by_set = parse_changes(changes)
    for key, (flag, value) in given.items():
        group, _, last = key.rpartition(".")
        in_group = isinstance(by_set.get(group), Mapping) and last in by_set[group]
        if key in by_set or in_group:
            other = by_set[key] if key in by_set else by_set[group][last]
            raise ValueError(
                f"{key} is given twice, by --{flag.replace('_', '-')} as {value} and by --set as "
                f"{other}; leave one out"
            )
