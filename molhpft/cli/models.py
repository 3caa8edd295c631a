"""Commands for somebody with a table: a model of it, answers, features, explanations.

A model in the terminal: what it was made of, what it scores, how far it can be trusted.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from molhpft.cli.arguments import AsJson, Changes
from molhpft.core.objectives import Squared
from molhpft.domains.files import NAMED, listed
from molhpft.estimator.confidence import CalibrationName
from molhpft.estimator.finetune import Finetuned, Kind, Split, finetune_table
from molhpft.estimator.model import NAMES, Model, score_text
from molhpft.estimator.predict import DUBIOUS, Precision, embed_table, is_stream, predict_table
from molhpft.estimator.sklearn import ENCODER, HEAD, Tau
from molhpft.estimator.train import Answers
from molhpft.results.terminal import console
from molhpft.run.folder import check_output


def model_tables(model: Model) -> list[Table]:
    """What was learned from what, then the scores of every held-out split."""
    about, shape = model.about, model.shape
    kind = "regression" if isinstance(shape.objective, Squared) else "classification"
    made = Table(title=Text(about["task"], style="table.title"), show_header=False)
    made.title_justify = "left"
    for key, value in (
        ("task", kind),
        ("targets", listed(shape.value_names, most=NAMED)),
        *((f"{split} molecules", f"{size:,}") for split, size in about["sizes"].items()),
        ("encoder", f"{shape.encoder.name}, {about['encoder_weights']}"),
        ("head", shape.head.name),
        ("tau", str(about["chosen_tau"])),
        ("members", ", ".join(f"tau {member['tau']}" for member in about["members"])),
        ("near training from", f"similarity {model.trust.near:.2f}"),
    ):
        made.add_row(key, Text(value))
    scores = Table(title="held-out molecules", title_justify="left")
    scores.add_column("")
    for split in about["scores"]:
        scores.add_column(split, justify="right")
    for name in next(iter(about["scores"].values())):
        found = (row.get(name) for row in about["scores"].values())
        scores.add_row(NAMES[name], *(score_text(value) for value in found))
    return [made, scores]


ModelFolder = Annotated[str, typer.Argument(help="Folder of a model, or its name on the hub.")]
SmilesColumn = Annotated[str, typer.Option(help="Column with the molecules.")]
TablePath = Annotated[
    Path, typer.Argument(help="CSV, Parquet, SDF or list of SMILES, packed too; or /dev/stdin.")
]
OutTable = Annotated[
    Path, typer.Option("--out", help="CSV or Parquet file to write, or /dev/stdout.")
]


def finetune(
    data: TablePath,
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


def predict(
    model: ModelFolder,
    data: TablePath,
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


def embed(
    model: ModelFolder,
    data: TablePath,
    out: OutTable,
    smiles_column: SmilesColumn = "smiles",
) -> None:
    """Write the features that a model has for every row of a table, beside its own columns."""
    _wrote(out, embed_table(_model(model, out), data, out, smiles_column=smiles_column))


def explain(
    model: ModelFolder,
    smiles: Annotated[str, typer.Argument(help="The molecule.")],
    out: Annotated[Path, typer.Option(help="Picture to write, .svg or .png.")],
    target: Annotated[str | None, typer.Option(help="Which one, where there are several.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw what each atom contributes to an answer, by integrated gradients."""
    # captum takes a second to import, which the other commands are spared
    from molhpft.estimator.explain import draw
    from molhpft.estimator.explain import explain as explain_molecule

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
