"""Commands that choose and compare: probes, advice, sweeps, baselines, reports."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from molhpft.cli.app import AsJson, Changes, ConfigPath, Out, Seed, app
from molhpft.experiments import advice_table, tables
from molhpft.experiments.advise import READS as ADVISE_READS
from molhpft.experiments.advise import advise as advise_config
from molhpft.experiments.baselines import run_baselines
from molhpft.experiments.config import load_config
from molhpft.experiments.folder import check_output, finite
from molhpft.experiments.guide import Expectation
from molhpft.experiments.probe_table import probe_reading, probe_table
from molhpft.experiments.probing import READS as PROBE_READS
from molhpft.experiments.probing import Grid, probing
from molhpft.experiments.report.build import write_report
from molhpft.experiments.sweep import load_sweep
from molhpft.experiments.sweeping.cluster import RayCluster
from molhpft.experiments.sweeping.conduct import Backend
from molhpft.experiments.sweeping.conduct import sweep as run_sweep
from molhpft.experiments.sweeping.local import LocalWorkers
from molhpft.experiments.sweeping.table import seeds_table, sweep_reading, sweep_table
from molhpft.experiments.tables import console

BackendName = Literal["local", "ray"]


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
    found = probing(load_config(config, changes, reader=PROBE_READS), grid)
    if as_json:
        typer.echo(json.dumps(finite(found), indent=2))
        return
    screen = console()
    screen.print(probe_table(found))
    screen.print(probe_reading(found))


@app.command()
def advise(
    config: ConfigPath,
    expect: Annotated[
        Expectation | None,
        typer.Option(help="How much the task should change the features; unset: no idea."),
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Probe the head once and say what to finetune with: tau, smoothing, head, batch norm, cut."""
    found = advise_config(load_config(config, changes, reader=ADVISE_READS), expects=expect)
    if as_json:
        typer.echo(json.dumps(finite(found), indent=2))
        return
    screen = console()
    screen.print(advice_table.trail_table(found))
    screen.print(advice_table.advice_table(found))
    screen.print(advice_table.advice_reading(found))


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
    check_output(Path(out), config)
    rows = run_sweep(load_sweep(config, changes), out, chosen, retry=retry)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, default=str))
    else:
        screen = console()
        screen.print(sweep_table(rows))
        if any("seed" in row["settings"] for row in rows):
            screen.print(seeds_table(rows))
        screen.print(sweep_reading(rows))
        screen.print(f"Run folders: {out}", soft_wrap=True)
    if any(row["status"] == "failed" for row in rows):
        raise typer.Exit(1)


@app.command()
def baselines(
    name: Annotated[str, typer.Argument(help="Config (its task counts), data set or table.")],
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
    screen = console()
    screen.print(tables.baseline_table(summaries))
    for folder in folders:
        screen.print(f"Run folder: {folder.path}", soft_wrap=True)


@app.command()
def report(
    runs: Annotated[Path, typer.Argument(help="Folder of run folders, at any depth.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("report"),
) -> None:
    """Write one HTML page (opens offline), Markdown and CSV tables about finished runs."""
    written = write_report(runs, out)
    screen = console()
    for task, sentences in written.answers.items():
        screen.print(f"{task}: {' '.join(sentences)}")
    for note in written.notes:
        screen.print(f"Note: {note}")
    for problem in written.problems:
        screen.print(f"Left out: {problem}")
    screen.print(f"Report: {written.page}", soft_wrap=True)
