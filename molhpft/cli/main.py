"""The entry point: errors of a user become one sentence each."""

import io
import logging
import os
import sys

from molhpft.cli import choosing, modelling, training
from molhpft.cli.app import app

COMMANDS = (training, choosing, modelling)  # imported for the commands they add to the app


def main() -> None:
    """Entry point of the `molhpft` command: exit status 2 and one sentence for a user's error.

    `MOLHPFT_DEBUG=1` shows the whole traceback instead.
    """
    _print_anything()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        app()
    except (ValueError, OSError) as error:
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
