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

_INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prepare the task head, then finetune: HP-FT transfer learning for molecules and graphs.",
)

GO_ON = ("quickstart", "finetune", "run", "sweep", "baselines", "paper")
"""Commands that keep what they have done, and go on from it."""

for _command in (
    runs.quickstart,
    models.finetune,
    models.predict,
    models.embed,
    models.explain,
    runs.run,
    runs.probe,
    runs.sweep,
    runs.baselines,
    runs.report,
    runs.study,
    runs.paper,
    inspect.advise,
    inspect.rank,
    inspect.data,
    inspect.encoders,
):
    app.command()(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"molhpft {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that come before the name of a command."""


def main() -> None:
    """Entry point of the `molhpft` command: exit status 2 and one sentence for a user's error.

    `MOLHPFT_DEBUG=1` shows the whole traceback instead. Status 130 and a sentence for Ctrl-C.
    """
    # a finished run is not lost to a name that a stream cannot encode
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        app(prog_name="molhpft")
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            command = next(iter(sys.argv[1:]), "")
            advice = "the same command goes on from what it has kept"
            rest = advice if command in GO_ON else "nothing is kept"
            print(f"interrupted; {rest}", file=sys.stderr)
        raise
    except (ValueError, OSError, MissingExtraError) as error:
        if os.environ.get("MOLHPFT_DEBUG"):
            raise
        message = " ".join(str(error).splitlines())  # names of columns may hold line breaks
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)
