"""Commands for somebody with a table: a model of it, answers, features, explanations."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from molhpft.cli.app import AsJson, Changes, app
from molhpft.estimator.finetuning import Finetuned, Kind, Split, finetune_table
from molhpft.estimator.model import Model
from molhpft.estimator.predicting import DUBIOUS, Precision, embed_table, predict_table
from molhpft.estimator.settings import ENCODER, HEAD, Tau
from molhpft.estimator.streams import is_stream
from molhpft.estimator.tables import model_tables
from molhpft.estimator.training import Answers
from molhpft.estimator.trust import CalibrationName
from molhpft.experiments.folder import check_output
from molhpft.experiments.tables import console

ModelFolder = Annotated[str, typer.Argument(help="Folder of a model, or its name on the hub.")]
SmilesColumn = Annotated[str, typer.Option(help="Column with the molecules.")]
Table = Annotated[
    Path, typer.Argument(help="CSV, Parquet, SDF or list of SMILES, packed too; or /dev/stdin.")
]
OutTable = Annotated[
    Path, typer.Option("--out", help="CSV or Parquet file to write, or /dev/stdout.")
]


@app.command()
def finetune(
    data: Table,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    smiles_column: Annotated[
        str | None, typer.Option(help="Column with the molecules.", show_default="smiles")
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to predict; repeatable; all for every one that can be.",
            show_default="the only one that can be",
        ),
    ] = None,
    kind: Annotated[
        Kind | None, typer.Option(help="What the targets are.", show_default="auto")
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="How molecules are held out.", show_default="scaffold"),
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(help="Draws a random split.", show_default="0")
    ] = None,
    split_column: Annotated[str | None, typer.Option(help="For --split column.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Shipped encoder or weight file.", show_default=ENCODER),
    ] = None,
    tau: Annotated[
        list[str] | None,
        typer.Option(help="Epochs of probing, repeatable; or auto.", show_default="auto"),
    ] = None,
    head: Annotated[str | None, typer.Option(help="mlp or linear.", show_default=HEAD)] = None,
    ensemble: Annotated[bool, typer.Option(help="Whether several taus answer together.")] = True,
    calibration: Annotated[CalibrationName, typer.Option(help="Of probabilities.")] = "platt",
    level: Annotated[float, typer.Option(help="Share of labels that sets are to hold.")] = 0.9,
    seed: Annotated[
        int | None, typer.Option(help="Seed of every random number.", show_default="0")
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Make a model of a table; its test split is read once, at the end."""
    table = {
        "path": str(data),
        "smiles_column": smiles_column,
        "target_columns": tuple(target) if target else None,
        "kind": kind,
        "split": split,
        "split_seed": split_seed,
        "split_column": split_column,
    }
    made = finetune_table(
        {key: value for key, value in table.items() if value is not None},
        out,
        encoder=encoder,
        tau=_taus(tau),
        head=head,
        seed=seed,
        changes=changes,
        answers=Answers(ensemble, calibration, level),
    )
    _report(made, as_json=as_json)


@app.command()
def predict(
    model: ModelFolder,
    data: Table,
    out: OutTable,
    smiles_column: SmilesColumn = "smiles",
    precision: Annotated[
        Precision, typer.Option(help="bf16-mixed is faster on processors that have it.")
    ] = "32",
) -> None:
    """Answer for every row of a table, beside its own columns; unreadable ones stay empty."""
    counts = predict_table(
        _model(model, out), data, out, smiles_column=smiles_column, precision=precision
    )
    _wrote(out, counts)


@app.command()
def embed(
    model: ModelFolder,
    data: Table,
    out: OutTable,
    smiles_column: SmilesColumn = "smiles",
) -> None:
    """Write the features that a model has for every row of a table, beside its own columns."""
    _wrote(out, embed_table(_model(model, out), data, out, smiles_column=smiles_column))


@app.command()
def explain(
    model: ModelFolder,
    smiles: Annotated[str, typer.Argument(help="The molecule.")],
    out: Annotated[Path, typer.Option(help="Picture to write, .svg or .png.")],
    target: Annotated[str | None, typer.Option(help="Which one, where there are several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw what each atom contributes to an answer, by integrated gradients."""
    # captum takes a second to import, which the other commands are spared
    from molhpft.estimator.explaining import draw
    from molhpft.estimator.explaining import explain as explain_molecule

    found = explain_molecule(_model(model, out), smiles, target=target)
    draw(found, out)
    if as_json:
        typer.echo(json.dumps({**asdict(found), "atoms": found.atoms.tolist()}, indent=2))
        return
    told = (
        f"{found.target}: logit {found.logit:.3f}, of which the atoms contribute "
        f"{found.logit - found.baseline:+.3f} to that of an average training atom, "
        f"{found.baseline:.3f} (their sum misses it by {found.error:.3f})."
    )
    console().print(told, soft_wrap=True)
    console().print(f"Wrote {out}: orange raises, blue lowers.", soft_wrap=True)


def _taus(given: list[str] | None) -> Tau | None:
    if not given:
        return None
    if given == ["auto"]:
        return "auto"
    for tau in given:
        if not tau.isdecimal():
            raise ValueError(f"--tau is a number of epochs, several, or auto alone; got {tau!r}")
    return tuple(map(int, given))


def _model(name: str, out: Path) -> Model:
    """The model of that name, none of whose files is `out`."""
    folder = Path(name)
    check_output(out, folder, *(folder.iterdir() if folder.is_dir() else ()))
    found: Model = Model.from_pretrained(name)
    return found


def _report(made: Finetuned, *, as_json: bool) -> None:
    about = made.model.about
    if as_json:
        typer.echo(json.dumps(about | {"folder": str(made.folder)}, indent=2))
        return
    screen = console()
    if not made.is_new:
        told = f"{made.folder} holds this very model already; nothing was trained."
        screen.print(told, soft_wrap=True)
    for table in model_tables(made.model):
        screen.print(table)
    for sentence in (*about["promise"], *about["notes"]):
        screen.print(sentence)
    screen.print(f"Model: {made.folder}", soft_wrap=True)


def _wrote(out: Path, counts: dict[str, int]) -> None:
    told = [f"{n:,} {status}" for status, n in counts.items() if n or status != DUBIOUS]
    screen = console(stderr=is_stream(out))  # standard output may be the table itself
    screen.print(f"Wrote {out}: {', '.join(told)}.", soft_wrap=True)
