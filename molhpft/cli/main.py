"""The entry point: errors of a user become one sentence each."""

import logging
import os
import sys

from rich.console import Console

from molhpft.cli import choosing, modelling, training
from molhpft.cli.app import app

COMMANDS = (training, choosing, modelling)  # imported for the commands they add to the app


def main() -> None:
    """Entry point of the `molhpft` command: exit status 2 and one sentence for a user's error.

    `MOLHPFT_DEBUG=1` shows the whole traceback instead.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        app()
    except (ValueError, OSError) as error:
        if os.environ.get("MOLHPFT_DEBUG"):
            raise
        told = " ".join(str(error).splitlines())  # the names of columns may hold line breaks
        Console(stderr=True, soft_wrap=True).print(f"error: {told}", markup=False, highlight=False)
        sys.exit(2)
