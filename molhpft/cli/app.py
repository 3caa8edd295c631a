"""The command `molhpft`: its commands, and a user's errors as one sentence each."""

import io
import logging
import os
import sys
from typing import Annotated

import typer

from molhpft import __version__
from molhpft.cli import inspect, models, runs
from molhpft.domains.extras import MissingExtraError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prepare the task head, then finetune: HP-FT transfer learning for molecules and graphs.",
)

for _command in (
    runs.run,
    runs.quickstart,
    runs.study,
    runs.probe,
    runs.sweep,
    runs.baselines,
    runs.report,
    inspect.data,
    inspect.encoders,
    inspect.advise,
    models.finetune,
    models.predict,
    models.embed,
    models.explain,
):
    app.command()(_command)


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


def main() -> None:
    """Entry point of the `molhpft` command: exit status 2 and one sentence for a user's error.

    `MOLHPFT_DEBUG=1` shows the whole traceback instead.
    """
    _print_anything()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        app()
    except (ValueError, OSError, MissingExtraError) as error:
        if os.environ.get("MOLHPFT_DEBUG"):
            raise
        told = " ".join(str(error).splitlines())  # the names of columns may hold line breaks
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)


def _print_anything() -> None:
    """Print what a stream cannot encode as an escape: finished work is not lost to a name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
