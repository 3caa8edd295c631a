"""Commands that train: a run, a quickstart, a study; and what can be trained and on what."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from molhpft.cli.app import AsJson, Changes, ConfigPath, Out, Seed, app
from molhpft.experiments import inventory, tables
from molhpft.experiments.choose import choice_reading
from molhpft.experiments.config import load_config
from molhpft.experiments.folder import check_output
from molhpft.experiments.linear_study import LinearStudy, linear_study
from molhpft.experiments.measures import unmeasured
from molhpft.experiments.quickstart import Quickstart
from molhpft.experiments.quickstart import quickstart as run_quickstart
from molhpft.experiments.run import run as run_config
from molhpft.experiments.tables import console
from molhpft.experiments.toy_study import ToyStudy, toy_study

StudyName = Literal["toy", "linear"]
STUDIES: dict[StudyName, Callable[..., ToyStudy | LinearStudy]] = {
    "toy": toy_study,
    "linear": linear_study,
}


@app.command()
def run(
    config: ConfigPath,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    out: Out = Path("runs"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Run a config: probe the head, finetune from every tau, choose on validation."""
    check_output(out, config)
    extra = [] if seed is None else [f"seed={seed}"]
    choices = load_config(config, [*changes, *extra])
    folder = run_config(choices, out)
    if not folder.writes:  # a process that helped the first one
        return
    summary = folder.read_json("summary.json")
    if as_json:
        typer.echo(json.dumps(summary | {"folder": str(folder.path)}, indent=2))
        return
    screen = console()
    screen.print(tables.run_table(summary))
    measures = tables.measures_table(summary)
    if measures:
        screen.print(measures)
    absent = unmeasured(choices.measures, summary)
    if absent:
        screen.print(f"Not measured, as this method finetunes nothing: {', '.join(absent)}.")
    screen.print(tables.reading(summary))
    if "choice" in summary:
        screen.print(choice_reading(summary["choice"], summary["metric"]))
    screen.print(f"Run folder: {folder.path}", soft_wrap=True)


@app.command()
def quickstart(out: Out = Path("runs/quickstart"), as_json: AsJson = False) -> None:
    """Offline, in two minutes: the shipped encoder by FT, LP, LP-FT and HP-FT, beside scratch."""
    result = run_quickstart(out)
    if as_json:
        typer.echo(json.dumps(result.summary, indent=2))
        return
    _show(result, result.figure)


@app.command()
def study(
    name: Annotated[StudyName, typer.Argument(help="Which study.")],
    out: Out = Path("runs/study"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Regenerate the paper's toy figures (2, 3, 11), or the linear theory beside real training."""
    result = STUDIES[name](out, seed=seed or 0)
    if as_json:
        typer.echo(json.dumps(result.summary, indent=2))
        return
    _show(result, *result.figures.values())


@app.command()
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
    for table in tables.data_tables(description):
        console().print(table)


@app.command()
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
    screen.print(tables.encoder_table(inventory.encoders()))
    screen.print(tables.shipped_table(inventory.shipped()))
    named = inventory.shared(ask_hub=hub)
    where = "On the hub" if hub else "Fetched from the hub before"
    screen.print(f"{where}: {', '.join(named) or 'none'}.", soft_wrap=True)


def _show(result: Quickstart | ToyStudy | LinearStudy, *figures: Path) -> None:
    screen = console()
    screen.print(result.table)
    screen.print(result.reading)
    for figure in figures:
        screen.print(f"Figure: {figure}", soft_wrap=True)
