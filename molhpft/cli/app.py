"""What commands share: the app, and options with one meaning."""

from pathlib import Path
from typing import Annotated

import typer

from molhpft import __version__

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


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"molhpft {__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that come before the name of a command."""
