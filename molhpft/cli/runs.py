"""Commands that make runs and read them: runs, probes, sweeps, studies, baselines, reports."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from molhpft.advice.baselines import run_baselines
from molhpft.cli.arguments import AsJson, Changes, ConfigPath, Out, Seed
from molhpft.config.measures import unmeasured
from molhpft.config.schema import load_config
from molhpft.report.page import write_report
from molhpft.results import terminal
from molhpft.results.terminal import console, probe_reading, probe_table
from molhpft.run.auto_tau import choice_reading
from molhpft.run.folder import check_output, finite
from molhpft.run.run import run as run_config
from molhpft.run.trajectory import READS as PROBE_READS
from molhpft.run.trajectory import Grid, probing
from molhpft.studies.linear_study import LinearStudy, linear_study
from molhpft.studies.quickstart import Quickstart
from molhpft.studies.quickstart import quickstart as run_quickstart
from molhpft.studies.toy_study import ToyStudy, toy_study
from molhpft.sweep.execute import Backend, LocalWorkers, RayCluster
from molhpft.sweep.execute import sweep as run_sweep
from molhpft.sweep.progress import seeds_table, sweep_reading, sweep_table
from molhpft.sweep.spec import load_sweep

BackendName = Literal["local", "ray"]
StudyName = Literal["toy", "linear"]
STUDIES: dict[StudyName, Callable[..., ToyStudy | LinearStudy]] = {
    "toy": toy_study,
    "linear": linear_study,
}


def run(
    config: ConfigPath,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    out: Out = Path("runs"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Run a config: probe the head, finetune from every tau, choose on validation."""
    check_output(out, config)
    extra = [] if seed is None else [f"seed={seed}"]
    choices = load_config(config, [*changes, *extra])
    folder = run_config(choices, out)
    if not folder.writes:  # a process that helped the first one
        return
    summary = folder.read_json("summary.json")
    if as_json:
        typer.echo(json.dumps(summary | {"folder": str(folder.path)}, indent=2))
        return
    screen = console()
    screen.print(terminal.run_table(summary))
    measures = terminal.measures_table(summary)
    if measures:
        screen.print(measures)
    absent = unmeasured(choices.measures, summary)
    if absent:
        screen.print(f"Not measured, as this method finetunes nothing: {', '.join(absent)}.")
    screen.print(terminal.reading(summary))
    if "choice" in summary:
        screen.print(choice_reading(summary["choice"], summary["metric"]))
    screen.print(f"Run folder: {folder.path}", soft_wrap=True)


def quickstart(out: Out = Path("runs/quickstart"), as_json: AsJson = False) -> None:
    """Offline, in two minutes: the shipped encoder by FT, LP, LP-FT and HP-FT, beside scratch."""
    result = run_quickstart(out)
    if as_json:
        typer.echo(json.dumps(result.summary, indent=2))
        return
    _show(result, result.figure)


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
    _show(result, *result.figures.values())


def _show(result: Quickstart | ToyStudy | LinearStudy, *figures: Path) -> None:
    screen = console()
    screen.print(result.table)
    screen.print(result.reading)
    for figure in figures:
        screen.print(f"Figure: {figure}", soft_wrap=True)


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
    retry: Annotated[bool, typer.Option("--retry", help="Run failed trials again.")] = False,
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
    screen.print(terminal.baseline_table(summaries))
    for folder in folders:
        screen.print(f"Run folder: {folder.path}", soft_wrap=True)


def report(
    runs: Annotated[Path, typer.Argument(help="Folder of run folders, at any depth.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("report"),
) -> None:
    """Write one HTML page (opens offline), Markdown and CSV tables about finished runs."""
    written = write_report(runs, out)
    screen = console()
    for task, sentences in written.conclusions.items():
        screen.print(f"{task}: {' '.join(sentences)}")
    for note in written.notes:
        screen.print(f"Note: {note}")
    for problem in written.problems:
        screen.print(f"Left out: {problem}")
    screen.print(f"Report: {written.page}", soft_wrap=True)
