"""The command line: reads arguments, prints results, turns errors into one sentence each."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from molhpft.experiments import advice_table, inventory, tables
from molhpft.experiments.advise import advise as advise_config
from molhpft.experiments.baselines import run_baselines
from molhpft.experiments.choose import choice_reading
from molhpft.experiments.config import load_config
from molhpft.experiments.linear_study import LinearStudy, linear_study
from molhpft.experiments.probe_table import probe_reading, probe_table
from molhpft.experiments.probing import Grid, probing
from molhpft.experiments.quickstart import quickstart as run_quickstart
from molhpft.experiments.report.build import write_report
from molhpft.experiments.run import run as run_config
from molhpft.experiments.sweep import load_sweep
from molhpft.experiments.sweeping.cluster import RayCluster
from molhpft.experiments.sweeping.conduct import Backend
from molhpft.experiments.sweeping.conduct import sweep as run_sweep
from molhpft.experiments.sweeping.local import LocalWorkers
from molhpft.experiments.sweeping.table import sweep_reading, sweep_table
from molhpft.experiments.toy_study import ToyStudy, toy_study

BackendName = Literal["local", "ray"]
StudyName = Literal["toy", "linear"]
STUDIES: dict[StudyName, Callable[..., ToyStudy | LinearStudy]] = {
    "toy": toy_study,
    "linear": linear_study,
}

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


@app.command()
def run(
    config: ConfigPath,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    out: Out = Path("runs"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Run a config: probe the head, finetune from every tau, choose on validation."""
    extra = [] if seed is None else [f"seed={seed}"]
    folder = run_config(load_config(config, [*changes, *extra]), out)
    if not folder.writes:  # a process that helped the first one
        return
    summary = folder.read_json("summary.json")
    if as_json:
        typer.echo(json.dumps(summary | {"folder": str(folder.path)}, indent=2))
        return
    console = _console()
    console.print(tables.run_table(summary))
    console.print(tables.reading(summary))
    if "choice" in summary:
        console.print(choice_reading(summary["choice"], summary["metric"]))
    console.print(f"Run folder: {folder.path}", soft_wrap=True)


@app.command()
def sweep(
    config: ConfigPath,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    out: Annotated[str, typer.Option(help="Folder for run folders; for Ray also a URL.")] = "runs",
    workers: Annotated[int | None, typer.Option(min=1, help="Most trials at a time.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processors of each trial.")] = None,
    backend: Annotated[
        BackendName, typer.Option(help="Processes here, or a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of an existing Ray cluster.")] = None,
    gpus: Annotated[
        float | None, typer.Option("--gpus-per-trial", min=0.0, help="With Ray; may be a fraction.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Attempt failed trials again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every combination of what a config's `sweep` lists; a finished trial is never redone.

    Exit status 1 where a trial failed; its error is in the table and in OUT/trials.
    """
    chosen: Backend = LocalWorkers(workers, threads)
    if backend == "ray":
        chosen = RayCluster(address, gpus or 0.0, threads, workers)
    elif address is not None or gpus is not None:
        raise ValueError("--address and --gpus-per-trial are for --backend ray")
    rows = run_sweep(load_sweep(config, changes), out, chosen, retry=retry)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
    else:
        console = _console()
        console.print(sweep_table(rows))
        console.print(sweep_reading(rows), markup=False)
        console.print(f"Run folders: {out}", soft_wrap=True, markup=False)
    if any(row["status"] == "failed" for row in rows):
        raise typer.Exit(1)


@app.command()
def probe(
    config: ConfigPath,
    lr: Annotated[list[float], typer.Option(help="Learning rate to try; repeatable.")] = [],  # noqa: B006 - typer reads it, nothing changes it
    smoothing: Annotated[list[float], typer.Option(help="Smoothing to try; repeatable.")] = [],  # noqa: B006 - as above
    tau: Annotated[list[int], typer.Option(help="Epochs to look at; repeatable.")] = [],  # noqa: B006 - as above
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds to average over.")] = 1,
    changes: Changes = [],  # noqa: B006 - as above
    as_json: AsJson = False,
) -> None:
    """Probe the head only, by every setting at once: energy and validation score of each tau."""
    grid = Grid(lr, smoothing, tau, seeds)
    found = probing(load_config(config, changes), grid)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = _console()
    console.print(probe_table(found))
    console.print(probe_reading(found))


@app.command()
def advise(
    config: ConfigPath,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Probe the head once and say what to finetune with: tau, smoothing, head, batch norm, cut."""
    found = advise_config(load_config(config, changes))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    console = _console()
    console.print(advice_table.trail_table(found))
    console.print(advice_table.advice_table(found))
    console.print(advice_table.advice_reading(found), markup=False, highlight=False)


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Name of a data set, or a CSV file.")],
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Describe a data set: sizes, tasks, class balance, where it lies."""
    description = inventory.describe_data(name, changes)
    if as_json:
        typer.echo(json.dumps(description, indent=2))
        return
    for table in tables.data_tables(description):
        _console().print(table)


@app.command()
def baselines(
    name: Annotated[str, typer.Argument(help="Config (its task counts), data set or CSV file.")],
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    out: Out = Path("runs"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Morgan fingerprints with random forest and logistic regression: what has to be beaten."""
    folders = run_baselines(name, changes, out, seed=seed)
    summaries = [folder.read_json("summary.json") for folder in folders]
    if as_json:
        typer.echo(json.dumps(summaries, indent=2))
        return
    console = _console()
    console.print(tables.baseline_table(summaries))
    for folder in folders:
        console.print(f"Run folder: {folder.path}", soft_wrap=True)


@app.command()
def encoders(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Weight files (or shipped encoders) to identify.")
    ] = None,
) -> None:
    """List encoders and those shipped, or say what weight files are and what they fit."""
    console = _console()
    if files:
        for file in files:
            console.print(f"{file} is {inventory.describe_weights(file)}.", soft_wrap=True)
        return
    console.print(tables.encoder_table(inventory.encoders()))
    console.print(tables.shipped_table(inventory.shipped()))


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="Folder of run folders, at any depth.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("report"),
) -> None:
    """Write one HTML page (opens offline), Markdown and CSV tables about finished runs."""
    written = write_report(runs, out)
    console = _console()
    for task, sentences in written.answers.items():
        console.print(f"{task}: {' '.join(sentences)}", markup=False, highlight=False)
    for problem in written.problems:
        console.print(f"Left out: {problem}", markup=False, highlight=False)
    console.print(f"Report: {written.page}", soft_wrap=True)


@app.command()
def study(
    name: Annotated[StudyName, typer.Argument(help="Which study.")],
    out: Out = Path("runs/study"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Regenerate the paper's toy figures (2, 3, 11), or the linear theory beside real training."""
    result = STUDIES[name](out, seed=seed or 0)
    if as_json:
        typer.echo(json.dumps(result.summary, indent=2))
        return
    console = _console()
    console.print(result.table)
    console.print(result.reading)
    for figure in result.figures.values():
        console.print(f"Figure: {figure}", soft_wrap=True)


@app.command()
def quickstart(out: Out = Path("runs/quickstart"), as_json: AsJson = False) -> None:
    """Offline, in two minutes: the shipped encoder by FT, LP, LP-FT and HP-FT, beside scratch."""
    result = run_quickstart(out)
    if as_json:
        typer.echo(json.dumps(result.summary, indent=2))
        return
    console = _console()
    console.print(result.table)
    console.print(result.reading)
    console.print(f"Figure: {result.figure}", soft_wrap=True)


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
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        sys.exit(2)


def _console() -> Console:
    # a terminal decides its own width; a pipe gets one wide enough for every table
    return Console() if sys.stdout.isatty() else Console(width=132)


if __name__ == "__main__":
    main()
