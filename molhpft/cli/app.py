"""What commands share: the app, options with one meaning, and where results are printed."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prepare the task head, then finetune: HP-FT transfer learning for molecules and graphs.",
)

ConfigPath = Annotated[Path, typer.Argument(help="YAML file, such as configs/finetune/*.yaml.")]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for run folders.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random number.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]


def console() -> Console:
    """Standard output: a terminal decides its own width, a pipe gets one for every table."""
    return Console() if sys.stdout.isatty() else Console(width=132)
