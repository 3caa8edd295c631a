"""Options that several commands share, with one meaning each."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(help="YAML file, such as configs/finetune/*.yaml.")]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for run folders.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random number.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
