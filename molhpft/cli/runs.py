"""Commands that make runs and read them: runs, probes, sweeps, studies, baselines, reports."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from molhpft.cli.arguments import (
    COMMON,
    AsJson,
    BaselineChanges,
    BatchSize,
    Changes,
    ConfigPath,
    Device,
    Epochs,
    LearningRate,
    Out,
    ProbeChanges,
    Seed,
    SplitOption,
    SplitSeed,
    seed_option,
    with_flags,
)

if TYPE_CHECKING:
    from molhpft.sweep.execute import Backend

BackendName = Literal["local", "ray"]
StudyName = Literal["toy", "linear"]


def run(
    config: ConfigPath,
    out: Out = Path("runs"),
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = None,
    split: SplitOption = None,
    split_seed: SplitSeed = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Run a config: probe the head, finetune from every tau, choose on validation."""
    from molhpft.config.measures import unmeasured
    from molhpft.config.schema import load_config
    from molhpft.domains.files import check_folder, check_output
    from molhpft.results import terminal
    from molhpft.run.auto_tau import choice_reading
    from molhpft.run.run import run as run_config

    check_output(out, config)
    check_folder(out)
    flags: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "device": device}
    changes = with_flags(changes, **flags, seed=seed, split=split, split_seed=split_seed)
    settings = load_config(config, changes)
    folder = run_config(settings, out)
    if not folder.writes:  # a process that helped the first one
        return
    summary = folder.read_json("summary.json")
    if as_json:
        typer.echo(json.dumps(summary | {"folder": str(folder.path)}, indent=2))
        return
    screen = terminal.console()
    screen.print(terminal.run_table(summary))
    measures = terminal.measures_table(summary)
    if measures:
        screen.print(measures)
    absent = unmeasured(settings.measures, summary)
    if absent:
        screen.print(f"Not measured, as this method finetunes nothing: {', '.join(absent)}.")
    screen.print(terminal.reading(summary))
    if "choice" in summary:
        screen.print(choice_reading(summary["choice"], summary["metric"]))
    screen.print(f"Run folder: {folder.path}", soft_wrap=True)


def quickstart(out: Out = Path("runs/quickstart"), as_json: AsJson = False) -> None:
    """Compare FT, LP, LP-FT and HP-FT of the shipped encoder, offline and in a minute or two."""
    from molhpft.domains.files import check_folder
    from molhpft.studies.quickstart import quickstart as run_quickstart

    check_folder(out)
    result = run_quickstart(out)
    _show(result, *([result.figure] if result.figure else []), as_json=as_json)
    if result.figure is None and not as_json:
        typer.echo('Figure: not drawn; for that, pip install "molhpft[report]".')


def study(
    name: Annotated[StudyName, typer.Argument(help="Which study.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the figures.")] = Path(
        "runs/study"
    ),
    seed: Annotated[int, seed_option("Seed of every random number.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Regenerate the paper's toy figures (2, 3, 6, 11), or hold the linear theory to training."""
    from molhpft.domains.extras import require
    from molhpft.domains.files import check_folder
    from molhpft.studies.linear_study import linear_study
    from molhpft.studies.toy_study import toy_study

    check_folder(out)
    require("matplotlib", extra="report")
    result: Any = (toy_study if name == "toy" else linear_study)(out, seed=seed)
    _show(result, *result.figures.values(), as_json=as_json)


def paper(
    name: Annotated[
        str | None, typer.Argument(help="Figure or table, such as fig3; without one, the list.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for files and runs.")] = Path("paper"),
    stand_in: Annotated[
        bool,
        typer.Option(
            "--stand-in",
            help="Use data at hand in place of the paper's own; the result says so.",
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Draw fig1, 4, 13-15 of a run of your own.")
    ] = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """List the figures and tables of the paper (Ren et al., 2023), or make one of them."""
    from molhpft.domains.files import check_folder
    from molhpft.paper.show import list_table, rows, show
    from molhpft.results.terminal import console

    if name is None:
        if stand_in or config or changes:
            raise ValueError("the list takes no options; name a figure or table, such as fig3")
        if as_json:
            typer.echo(json.dumps(rows(), indent=2))
        else:
            console().print(list_table())
        return
    check_folder(out)
    made = show(name, out, stand_in=stand_in, config=config, changes=changes)
    if as_json:
        typer.echo(json.dumps(made.summary, indent=2))
        return
    screen = console()
    screen.print(made.table or made.title)
    if made.reading:
        screen.print(made.reading)
    for path in made.files:
        screen.print(f"File: {path}", soft_wrap=True)


def _show(result: Any, *figures: Path, as_json: bool) -> None:
    from molhpft.results.terminal import console

    if as_json:
        typer.echo(json.dumps(result.summary, indent=2))
        return
    screen = console()
    screen.print(result.table)
    screen.print(result.reading)
    for figure in figures:
        screen.print(f"Figure: {figure}", soft_wrap=True)


def probe(
    config: ConfigPath,
    lr: Annotated[list[float], typer.Option(help="Learning rate to try; repeatable.")] = [],  # noqa: B006 - typer reads it, nothing changes it
    smoothing: Annotated[list[float], typer.Option(help="Smoothing to try; repeatable.")] = [],  # noqa: B006 - as above
    tau: Annotated[list[int], typer.Option(help="Epochs to report; repeatable.")] = [],  # noqa: B006 - as above
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds to average over.")] = 1,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of probing.", rich_help_panel=COMMON)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples in a batch of probing.", rich_help_panel=COMMON)
    ] = None,
    device: Device = None,
    seed: Seed = None,
    split: SplitOption = None,
    split_seed: SplitSeed = None,
    changes: ProbeChanges = [],  # noqa: B006 - as above
    as_json: AsJson = False,
) -> None:
    """Only probe the head, by every setting at once: energy and validation score of each tau."""
    from molhpft.config.schema import load_config
    from molhpft.results import terminal
    from molhpft.run.folder import finite
    from molhpft.run.probe_grid import READS, Grid, probe_grid

    flags: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "device": device,
        "seed": seed,
    }
    changes = with_flags(changes, section="probe", **flags, split=split, split_seed=split_seed)
    result = probe_grid(load_config(config, changes, reader=READS), Grid(lr, smoothing, tau, seeds))
    if as_json:
        typer.echo(json.dumps(finite(result), indent=2))
        return
    screen = terminal.console()
    screen.print(terminal.probe_table(result))
    screen.print(terminal.probe_reading(result))


def sweep(
    config: ConfigPath,
    out: Annotated[str, typer.Option(help="Folder for run folders; for Ray also a URL.")] = "runs",
    workers: Annotated[int | None, typer.Option(min=1, help="Most trials at a time.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Processors of each trial.")] = None,
    backend: Annotated[
        BackendName, typer.Option(help="Processes here, or a Ray cluster.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-trial", min=0.0, help="GPUs of each trial, with Ray; 0.5 is half."
        ),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run failed trials again.")] = False,
    epochs: Epochs = None,
    lr: LearningRate = None,
    batch_size: BatchSize = None,
    device: Device = None,
    seed: Seed = None,
    split: SplitOption = None,
    split_seed: SplitSeed = None,
    changes: Changes = [],  # noqa: B006 - typer reads it, nothing changes it
    as_json: AsJson = False,
) -> None:
    """Run every combination of what a config's `sweep` lists; finished trials are not run again.

    Exit status 1 where a trial failed; its error is in the table and in OUT/trials.
    """
    from molhpft.domains.files import check_folder, check_output
    from molhpft.results.terminal import console
    from molhpft.sweep.execute import LocalWorkers, RayCluster
    from molhpft.sweep.execute import sweep as run_sweep
    from molhpft.sweep.progress import seeds_table, sweep_reading, sweep_table
    from molhpft.sweep.spec import load_sweep

    pool: Backend = LocalWorkers(workers, threads)
    if backend == "ray":
        pool = RayCluster(address, gpus or 0.0, threads, workers)
    elif address is not None or gpus is not None:
        raise ValueError("--address and --gpus-per-trial are for --backend ray")
    check_output(Path(out), config)
    check_folder(Path(out))
    flags: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "device": device}
    changes = with_flags(changes, **flags, seed=seed, split=split, split_seed=split_seed)
    rows = run_sweep(load_sweep(config, changes), out, pool, retry=retry)
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
    name: Annotated[str, typer.Argument(help="Config (whose task is taken), data set or table.")],
    only: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Baseline to fit, all by default; repeatable."),
    ] = [],  # noqa: B006 - typer reads it, nothing changes it
    changes: BaselineChanges = [],  # noqa: B006 - as above
    out: Out = Path("runs"),
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Fit forests, boosting, linear and kernel models of fingerprints: the scores to beat."""
    from molhpft.advice.baselines import run_baselines
    from molhpft.results import terminal

    runs = run_baselines(name, changes, out, only=only, seed=seed)
    summaries = [folder.read_json("summary.json") for folder in runs.folders]
    reading = terminal.baseline_reading(summaries, runs.left_out, split=runs.split)
    if as_json:
        typer.echo(json.dumps(summaries, indent=2))
        typer.echo(reading, err=True)
        return
    screen = terminal.console()
    screen.print(terminal.baseline_table(summaries))
    screen.print(reading)
    screen.print(f"Run folders: {out}", soft_wrap=True)


def report(
    runs: Annotated[Path, typer.Argument(help="Folder of run folders, at any depth.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report.")] = Path("report"),
) -> None:
    """Write an offline HTML page, Markdown and CSV tables about finished runs."""
    from molhpft.domains.extras import require
    from molhpft.results.terminal import console

    for module in ("plotly", "jinja2"):
        require(module, extra="report")
    from molhpft.domains.files import check_folder
    from molhpft.report.page import write_report

    check_folder(out)
    written = write_report(runs, out)
    screen = console()
    for task, sentences in written.conclusions.items():
        screen.print(f"{task}: {' '.join(sentences)}")
    for note in written.notes:
        screen.print(f"Note: {note}")
    for problem in written.problems:
        screen.print(f"Left out: {problem}")
    screen.print(f"Report: {written.page}", soft_wrap=True)
