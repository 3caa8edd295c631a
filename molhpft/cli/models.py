"""Commands for somebody with a table: a model of it, predictions, features, explanations."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from molhpft.cli.arguments import (
    AsJson,
    BatchSize,
    Changes,
    Device,
    Epochs,
    LearningRate,
    Seed,
    seed_option,
    with_flags,
)
from molhpft.domains.shipped import DEFAULT_ENCODER

if TYPE_CHECKING:
    from rich.table import Table

    from molhpft.estimator.finetune import MadeModel
    from molhpft.estimator.frozen import FrozenEncoder
    from molhpft.estimator.model import Model
    from molhpft.estimator.settings import Tau

KindName = Literal["auto", "classification", "regression"]
SplitName = Literal["scaffold", "random", "random_and_scaffold", "column", "group", "time"]
CalibrationName = Literal["auto", "platt", "venn_abers", "temperature", "isotonic", "none"]
MembersName = Literal["all", "networks", "kernels", "features", "fingerprints"]
PrecisionName = Literal["32", "bf16-mixed"]

TABLE = "The table"

ModelFolder = Annotated[str, typer.Argument(help="Folder of a model, or its name on the hub.")]
TablePath = Annotated[
    Path,
    typer.Argument(help="CSV, Parquet, SDF or list of SMILES, also compressed; or /dev/stdin."),
]
SmilesColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column with the SMILES.",
        show_default="smiles",
        rich_help_panel=TABLE,
    ),
]
OutTable = Annotated[
    Path, typer.Option("--out", help="CSV or Parquet file to write, or /dev/stdout.")
]
Targets = Annotated[
    list[str],
    typer.Option(
        "--target",
        metavar="NAME",
        help="Column to predict; repeatable; all for every one.",
        rich_help_panel=TABLE,
    ),
]
Kind = Annotated[
    KindName | None,
    typer.Option(
        metavar="KIND",
        help="classification, regression or auto.",
        show_default="auto",
        rich_help_panel=TABLE,
    ),
]
Split = Annotated[
    SplitName | None,
    typer.Option(
        metavar="NAME",
        help="scaffold, random, random_and_scaffold, column, group or time. The first four turn "
        "folds off, unless --folds is given, too (random_and_scaffold takes none).",
        show_default="random folds; scaffold without folds",
        rich_help_panel=TABLE,
    ),
]
SplitSeed = Annotated[
    int | None, seed_option("Seed of folds and splits drawn at random.", panel=TABLE)
]
SplitColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column for --split column, which it stands for; alone it turns folds off, too.",
        rich_help_panel=TABLE,
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        "--groups",
        metavar="NAME",
        help="Column of groups that stay together, such as series.",
        rich_help_panel=TABLE,
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="NAME",
        help="Column of times: what is held out is newer.",
        rich_help_panel=TABLE,
    ),
]
EncoderName = Annotated[
    str | None, typer.Option(help="Shipped encoder or weight file.", show_default=DEFAULT_ENCODER)
]
Taus = Annotated[
    list[str],
    typer.Option(
        "--tau",
        metavar="EPOCHS",
        help="Epochs of head probing; repeatable, to finetune from each; or auto.",
        show_default="auto",
    ),
]
MemberKinds = Annotated[
    MembersName,
    typer.Option(
        metavar="KIND",
        help="What may answer: all, networks (finetuned), kernels (every Gaussian process), "
        "features or fingerprints (the Gaussian process on frozen features, or on fingerprints).",
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        help="Number of folds: each part is held out once, to choose members and calibrate; 0 for "
        "one held-out part.",
        show_default="5; 0 beside a --split or --split-column that turns folds off",
        rich_help_panel=TABLE,
    ),
]
Calibration = Annotated[
    CalibrationName,
    typer.Option(
        metavar="METHOD",
        help="Of probabilities: auto, platt, venn_abers, temperature, isotonic or none.",
    ),
]
TargetCoverage = Annotated[
    float,
    typer.Option(help="Share of molecules whose label is to be in the prediction set or interval."),
]
Head = Annotated[
    str | None, typer.Option(help="Task head: mlp, linear or cosine.", show_default="mlp")
]


def finetune(
    data: TablePath,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    smiles_column: SmilesColumn = None,
    target: Targets = [],  # noqa: B006 - typer reads it, nothing changes it
    kind: Kind = None,
    split: Split = None,
    split_seed: SplitSeed = None,
    split_column: SplitColumn = None,
    groups: GroupColumn = None,
    time: TimeColumn = None,
    encoder: EncoderName = None,
    tau: Taus = [],  # noqa: B006 - as above
    head: Head = None,
    members: MemberKinds = "all",
    folds: Folds = None,
    calibration: Calibration = "auto",
    target_coverage: TargetCoverage = 0.9,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = None,
    changes: Changes = [],  # noqa: B006 - as above
    as_json: AsJson = False,
) -> None:
    """Make a model of a table; test molecules, where it has any, are read once, at the end."""
    from molhpft.estimator.finetune import finetune_table
    from molhpft.estimator.settings import Inference

    table = {
        "path": str(data),
        "smiles_column": smiles_column,
        "target_columns": tuple(target) if target else None,
        "kind": kind,
        "split": split,
        "split_seed": split_seed,
        "split_column": split_column,
        "group_column": groups,
        "time_column": time,
    }
    finetuned = finetune_table(
        {key: value for key, value in table.items() if value is not None},
        out,
        encoder=encoder,
        tau=_taus(tau),
        head=head,
        seed=seed,
        changes=with_flags(changes, epochs=epochs, lr=lr, batch_size=batch_size, device=device),
        folds=folds,
        inference=Inference(members, calibration, target_coverage),
    )
    _show(finetuned, as_json=as_json)


def predict(
    model: ModelFolder,
    data: TablePath,
    out: OutTable,
    smiles_column: SmilesColumn = None,
    precision: Annotated[
        PrecisionName, typer.Option(help="bf16-mixed is faster on processors that have it.")
    ] = "32",
) -> None:
    """Write predictions for every row of a table, beside its own columns."""
    from molhpft.estimator.predict import predict_table

    column = smiles_column or "smiles"
    counts = predict_table(_model(model, out), data, out, smiles_column=column, precision=precision)
    _wrote(out, counts, column)


def embed(
    out: OutTable,
    model: Annotated[
        str | None,
        typer.Argument(help="Folder of a model, or its name on the hub; none with --encoder."),
    ] = None,
    data: Annotated[
        Path | None, typer.Argument(help="Table, of any kind predict reads.", show_default=False)
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Shipped encoder or weight file, in place of a model."),
    ] = None,
    smiles_column: SmilesColumn = None,
) -> None:
    """Write features of a model, or of an encoder alone, for every row of a table.

    They stand beside the table's own columns.
    """
    from molhpft.domains.files import listed
    from molhpft.estimator.predict import embed_table

    words = [str(word) for word in (model, data) if word is not None]
    if len(words) != (1 if encoder else 2):
        raise ValueError(
            "embed takes a model and a table, or a table alone beside --encoder; got "
            f"{listed([*words, f'--encoder {encoder}'] if encoder else words) or 'no table'}"
        )
    embedder = _encoder(encoder, out) if encoder else _model(words[0], out)
    column = smiles_column or "smiles"
    _wrote(out, embed_table(embedder, Path(words[-1]), out, smiles_column=column), column)


def explain(
    model: ModelFolder,
    smiles: Annotated[str, typer.Argument(help="The molecule.")],
    out: Annotated[Path, typer.Option(help="Picture to write, .svg or .png.")],
    target: Annotated[
        str | None, typer.Option(help="Target to explain; needed where there are several.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the contribution of each atom to a prediction, by integrated gradients."""
    from molhpft.estimator import explain as explaining
    from molhpft.results.terminal import console

    explaining.check_picture(out)
    result = explaining.explain(_model(model, out), smiles, target=target)
    explaining.draw(result, out)
    if as_json:
        typer.echo(json.dumps({**asdict(result), "atoms": result.atoms.tolist()}, indent=2))
        return
    console().print(result.reading, soft_wrap=True)
    sentence = f"Wrote {out}: orange atoms raise {result.value}, blue ones lower it."
    console().print(sentence, soft_wrap=True)


def model_tables(model: "Model") -> "list[Table]":
    """What a model was made of, then its scores on every held-out split."""
    from rich.table import Table
    from rich.text import Text

    from molhpft.core.metrics import score_name, show_tau
    from molhpft.core.objectives import Squared
    from molhpft.domains.files import listed
    from molhpft.estimator.card import member_score, score_rows
    from molhpft.estimator.coverage import NAMED

    about, spec = model.about, model.spec
    made = Table(title=Text(about["task"], style="table.title"), show_header=False)
    made.title_justify = "left"
    tau = show_tau(about["chosen_tau"])
    encoder = f"{spec.encoder.name}, {about['encoder_weights']}"
    for key, value in (
        ("task", "regression" if isinstance(spec.objective, Squared) else "classification"),
        ("targets", listed(spec.value_names, most=NAMED)),
        *((f"{split} molecules", f"{size:,}") for split, size in about["sizes"].items()),
        *([("encoder", encoder)] if model.reads_encoder else []),
        *([("head", spec.head.name), ("tau", tau)] if model.networks else []),
        *_calibration(model),
        ("applicability domain", f"similarity from {model.uncertainty.domain_threshold:.2f}"),
    ):
        made.add_row(key, Text(value))
    members = Table("", title="members", title_justify="left")
    choosing = f"{about['folds']} folds" if about["folds"] else "valid"
    for name in ("weight", f"{score_name(about['chosen_by'])}, {choosing}"):
        members.add_column(name, justify="right")
    for member in about["members"]:
        members.add_row(
            member["name"],
            f"{member['weight']:.2f}" if member["weight"] else "",
            member_score(member, about["chosen_by"]),
        )
    splits, *rows = score_rows(about)
    scores = Table("", title="held-out molecules", title_justify="left")
    for split in splits:
        scores.add_column(split, justify="right")
    for row in rows:
        scores.add_row(*row)
    return [made, members, scores]


def _calibration(model: "Model") -> tuple[tuple[str, str], ...]:
    from molhpft.estimator.card import calibration_in_words

    if model.uncertainty.calibration is None:
        return ()
    return (("calibration", calibration_in_words(model.uncertainty)),)


def _taus(words: list[str]) -> "Tau | None":
    if not words:
        return None
    if words == ["auto"]:
        return "auto"
    for word in words:
        if not word.isdecimal():
            raise ValueError(f"--tau is a number of epochs, several, or auto alone; got {word!r}")
    return tuple(map(int, words))


def _model(name: str, out: Path) -> "Model":
    """The model of that name, none of whose files is `out`."""
    from molhpft.domains.files import check_output
    from molhpft.estimator.model import Model

    folder = Path(name)
    check_output(out, folder, *(folder.iterdir() if folder.is_dir() else ()))
    return Model.from_pretrained(name)


def _encoder(weights: str, out: Path) -> "FrozenEncoder":
    """The encoder of that name or file, which `out` is not."""
    from molhpft.domains.files import check_output
    from molhpft.domains.weights import weight_file
    from molhpft.estimator.frozen import frozen_encoder

    check_output(out, weight_file(Path(weights)))
    return frozen_encoder(weights)


def _show(finetuned: "MadeModel", *, as_json: bool) -> None:
    from molhpft.estimator.card import alone, sentences
    from molhpft.results.terminal import console

    about, folder = finetuned.model.about, finetuned.folder
    if as_json:
        typer.echo(json.dumps(about | {"folder": str(folder)}, indent=2))
        return
    screen = console()
    if not finetuned.is_new:
        screen.print(
            f"{folder} holds this very model already; nothing was trained.", soft_wrap=True
        )
    if sentence := alone(finetuned.model):
        screen.print(sentence, soft_wrap=True)
    for table in model_tables(finetuned.model):
        screen.print(table)
    for sentence in sentences(about):
        screen.print(sentence)
    screen.print(f"Model: {folder}", soft_wrap=True)


def _wrote(out: Path, counts: dict[str, int], smiles_column: str) -> None:
    from molhpft.estimator.predict import INVALID_VALENCE, UNREADABLE
    from molhpft.estimator.table_output import is_stream
    from molhpft.results.terminal import console

    shown = [f"{n:,} {status}" for status, n in counts.items() if n or status != INVALID_VALENCE]
    screen = console(stderr=is_stream(out))  # standard output may be the table itself
    screen.print(f"Wrote {out}: {', '.join(shown)}.", soft_wrap=True)
    if 0 < counts[UNREADABLE] == sum(counts.values()):
        question = f"No row holds a molecule in {smiles_column!r}; another column?"
        screen.print(f"{question} (--smiles-column)", soft_wrap=True)
