"""Commands to run before anything is trained: advice, ranked encoders, data, encoders."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from molhpft.cli.arguments import (
    AdviseChanges,
    AsJson,
    ConfigPath,
    Device,
    RankChanges,
    Seed,
    with_flags,
)

ExpectationName = Literal["strong", "mild", "tiny"]

_COMPARED = typer.Option(
    "--encoders",
    metavar="ENCODER...",
    help="Shipped encoders, weight files, model folders or hub:owner/name to compare.",
)
Encoders = Annotated[list[str], _COMPARED]
DataChanges = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set an option of the data set, such as split=random; repeatable.",
    ),
]
# an option takes one word; those after it are arguments
FurtherEncoders = Annotated[
    list[str] | None, typer.Argument(metavar="--encoders ENCODER", hidden=True)
]


def advise(
    config: ConfigPath,
    further: FurtherEncoders = None,
    encoders: Encoders = [],  # noqa: B006 - typer reads it, nothing changes it
    expect: Annotated[
        ExpectationName | None,
        typer.Option(help="How much finetuning should change the features; unset: no idea."),
    ] = None,
    changes: AdviseChanges = [],  # noqa: B006 - as above
    as_json: AsJson = False,
) -> None:
    """Probe the head once and advise on tau, smoothing, head, batch norm and partial backbone.

    With --encoders, also on the encoder: that of the config and these are ranked.
    """
    from molhpft.advice import advise as advice
    from molhpft.config.schema import load_config
    from molhpft.results.terminal import console
    from molhpft.run.folder import finite

    compared = _compared(encoders, further)
    result = advice.advise(
        load_config(config, changes, reader=advice.READS), expects=expect, encoders=compared
    )
    if as_json:
        typer.echo(json.dumps(finite(result), indent=2))
        return
    screen = console()
    screen.print(advice.curve_table(result))
    screen.print(advice.advice_table(result))
    screen.print(advice.advice_reading(result))


def rank(
    config: ConfigPath,
    further: FurtherEncoders = None,
    encoders: Encoders = [],  # noqa: B006 - typer reads it, nothing changes it
    device: Device = None,
    seed: Seed = None,
    changes: RankChanges = [],  # noqa: B006 - as above
    as_json: AsJson = False,
) -> None:
    """Rank encoders for a config's task by transferability scores, without training any.

    Example: molhpft rank CONFIG --encoders gcn_structure model.safetensors gcn.pth
    """
    from molhpft.advice import rank as ranking
    from molhpft.config.schema import load_config
    from molhpft.results.terminal import console
    from molhpft.run.folder import finite

    settings = load_config(
        config, with_flags(changes, device=device, seed=seed), reader=ranking.READS
    )
    result = ranking.rank(settings, _compared(encoders, further))
    if as_json:
        typer.echo(json.dumps(finite(result), indent=2))
        return
    screen = console()
    screen.print(ranking.rank_table(result))
    screen.print(ranking.rank_reading(result), soft_wrap=True)


def _compared(encoders: list[str], further: list[str] | None) -> list[str]:
    """Encoders in the order in which they were given.

    Raises:
        ValueError: there are words that follow no --encoders.
    """
    if further and not encoders:
        raise ValueError(
            f"encoders to compare stand after --encoders, got {further[0]} without it: "
            f"--encoders {' '.join(further)}"
        )
    return [*encoders, *(further or [])]


def data(
    name: Annotated[str, typer.Argument(help="Name of a data set, or a table.")],
    against: Annotated[
        str | None,
        typer.Option(help="Data set, table or encoder whose training molecules to look for."),
    ] = None,
    changes: DataChanges = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Describe a data set: sizes, targets, class balance, where it lies, overlap with another."""
    from molhpft.advice.inventory import describe_data
    from molhpft.results import terminal

    description = describe_data(name, changes, against)
    if as_json:
        typer.echo(json.dumps(description, indent=2))
        return
    for table in terminal.data_tables(description):
        terminal.console().print(table)


def encoders(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Weight files, shipped encoders, model folders or hub:owner/name."),
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Ask the model hub what it has.")] = False,
) -> None:
    """List encoders and their weights, or say what given weight files are and which take them."""
    from molhpft.advice import inventory
    from molhpft.results import terminal

    screen = terminal.console()
    if files:
        for file in files:
            screen.print(f"{file} is {inventory.describe_weights(file)}.", soft_wrap=True)
        return
    screen.print(terminal.encoder_table(inventory.encoders()))
    screen.print(terminal.shipped_table(inventory.shipped()))
    names = inventory.hub_models(ask_hub=hub)  # may fail, for want of a network
    where = "On the hub" if hub else "Fetched from the hub before"
    screen.print(f"{where}: {', '.join(names) or 'none'}.", soft_wrap=True)
