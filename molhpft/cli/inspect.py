"""Commands that look before anything is trained: data, encoders, advice."""

import json
from pathlib import Path
from typing import Annotated

import typer

from molhpft.advice import advise as advice_table
from molhpft.advice import inventory
from molhpft.advice.advise import READS as ADVISE_READS
from molhpft.advice.advise import advise as advise_config
from molhpft.cli.arguments import AsJson, Changes, ConfigPath
from molhpft.config.schema import load_config
from molhpft.results import terminal
from molhpft.results.terminal import console
from molhpft.run.auto_tau import Expectation
from molhpft.run.folder import finite


def advise(
    config: ConfigPath,
    expect: Annotated[
        Expectation | None,
        typer.Option(help="How much the task should change the features; unset: no idea."),
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Probe the head once and say what to finetune with: tau, smoothing, head, batch norm, cut."""
    found = advise_config(load_config(config, changes, reader=ADVISE_READS), expects=expect)
    if as_json:
        typer.echo(json.dumps(finite(found), indent=2))
        return
    screen = console()
    screen.print(advice_table.curve_table(found))
    screen.print(advice_table.advice_table(found))
    screen.print(advice_table.advice_reading(found))


def data(
    name: Annotated[str, typer.Argument(help="Name of a data set, or a table.")],
    against: Annotated[
        str | None, typer.Option(help="Data set (its training split), table or encoder.")
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Describe a data set: sizes, tasks, class balance, place, and who has trained on it."""
    description = inventory.describe_data(name, changes, against)
    if as_json:
        typer.echo(json.dumps(description, indent=2))
        return
    for table in terminal.data_tables(description):
        console().print(table)


def encoders(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Weight files (or shipped encoders) to identify.")
    ] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Ask the model hub what it has.")] = False,
) -> None:
    """List encoders, shipped and fetched ones, or say what weight files are and what they fit.

    A file may also be the folder of a model, or hub:owner/name.
    """
    screen = console()
    if files:
        for file in files:
            screen.print(f"{file} is {inventory.describe_weights(file)}.", soft_wrap=True)
        return
    screen.print(terminal.encoder_table(inventory.encoders()))
    screen.print(terminal.shipped_table(inventory.shipped()))
    named = inventory.shared(ask_hub=hub)
    where = "On the hub" if hub else "Fetched from the hub before"
    screen.print(f"{where}: {', '.join(named) or 'none'}.", soft_wrap=True)
