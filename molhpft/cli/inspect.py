"""Commands to run before anything is trained: advice, data, encoders."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from molhpft.cli.arguments import AsJson, Changes, ConfigPath

ExpectationName = Literal["strong", "mild", "tiny"]


def advise(
    config: ConfigPath,
    expect: Annotated[
        ExpectationName | None,
        typer.Option(help="How much finetuning should change the features; unset: no idea."),
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Probe the head once and advise on tau, smoothing, head, batch norm and partial backbone."""
    from molhpft.advice import advise as advice
    from molhpft.config.schema import load_config
    from molhpft.results.terminal import console
    from molhpft.run.folder import finite

    result = advice.advise(load_config(config, changes, reader=advice.READS), expects=expect)
    if as_json:
        typer.echo(json.dumps(finite(result), indent=2))
        return
    screen = console()
    screen.print(advice.curve_table(result))
    screen.print(advice.advice_table(result))
    screen.print(advice.advice_reading(result))


def data(
    name: Annotated[str, typer.Argument(help="Name of a data set, or a table.")],
    against: Annotated[
        str | None,
        typer.Option(help="Data set, table or encoder whose training molecules to look for."),
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
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
