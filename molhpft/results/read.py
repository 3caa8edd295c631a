"""Run folders of a whole tree, read with suspicion: what is not whole is named, never read.

Other people's disks fill up and their jobs are killed, so a folder that cannot be read is a
sentence beside the results and does not stop the rest.

What a run leaves of its epochs, read with suspicion: each, and how many a choice of tau took.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from molhpft.domains.files import Json
from molhpft.run.standouts import STANDOUTS, Standouts

AGAIN = "delete the folder and run its config again"


def read_history(path: Path) -> list[Json]:
    """Rows of `history.jsonl` of a run folder.

    Raises:
        ValueError: it is missing, or a line of it is no epoch.
    """
    rows = []
    for number, line in enumerate(read_text(path / "history.jsonl").splitlines(), start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"history.jsonl is damaged in line {number}") from error
        if not _is_row(row):
            raise ValueError(f"history.jsonl has no epoch of a run in line {number}")
        rows.append(row)
    return rows


def read_spent(path: Path, config: Json) -> int | None:
    """Epochs of finetuning that `tau: auto` took in all, those of taus it gave up among them.

    Args:
        path: a run folder.
        config: of the run; one that names its tau has chosen nothing, hence None.

    Raises:
        ValueError: `choice.json` is missing or does not say it.
    """
    if config["method"].get("tau") != "auto":
        return None
    try:
        choice = json.loads(read_text(path / "choice.json"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"choice.json is damaged ({error}); {AGAIN}") from error
    spent = choice.get("spent") if isinstance(choice, dict) else None
    if type(spent) is not int:
        raise ValueError(f"choice.json does not say how many epochs it took; {AGAIN}")
    return spent


def read_text(path: Path) -> str:
    """A file as text.

    Raises:
        ValueError: it is missing, or no text.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing; {AGAIN}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is damaged (no text); {AGAIN}") from error


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
        return False
    counted = ("epoch", "tau") if row["phase"].startswith("finetune") else ("epoch",)
    return all(type(row.get(key)) is int for key in counted)


NOTHING_KEPT = "it kept no molecules to draw; set features: true in its config"

Numbers = dict[str, FiniteFloat | None]

_STANDOUTS = TypeAdapter(Standouts)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: content of `config.yaml`.
        summary: content of `summary.json`, checked.
        history: rows of `history.jsonl`; None when that or `choice.json` is missing or damaged.
        spent: epochs of finetuning that `tau: auto` took in all; None where nothing was chosen.
    """

    path: Path
    config: Json
    summary: Json
    history: Sequence[Json] | None
    spent: int | None


@dataclass(frozen=True)
class Problem:
    """A folder, or a part of one, that is left out.

    Attributes:
        path: the folder.
        what: what is wrong and what to do, in a sentence.
    """

    path: Path
    what: str


def read_runs(root: Path) -> tuple[list[Run], list[Problem]]:
    """Every finished run below a folder, and what could not be read, both in order of their paths.

    Raises:
        ValueError: there is no such folder, or nothing in it is a run.
    """
    if not root.is_dir():
        raise ValueError(f"no folder at {root}; give the --out of `molhpft run`")
    runs: list[Run] = []
    problems: list[Problem] = []
    for path in _run_folders(root):
        try:
            run, complaints = _read(path)
        except (OSError, ValueError) as error:
            problems.append(Problem(path, str(error)))
            continue
        runs.append(run)
        problems += [Problem(path, complaint) for complaint in complaints]
    if not runs:
        found = "; ".join(f"{p.path.name}: {p.what}" for p in problems[:3])
        raise ValueError(
            f"{root} holds no finished run that can be read"
            f"{f' ({found})' if found else ''}; `molhpft run CONFIG --out {root}` makes one"
        )
    return runs, problems


def read_standouts(run: Run) -> Standouts:
    """Molecules that stand out in a run, see `standouts`.

    Raises:
        ValueError: the run kept none, or the file is damaged.
    """
    path = run.path / STANDOUTS
    if not path.is_file():
        without = run.config.get("features") is True
        raise ValueError("its task has no molecules" if without else NOTHING_KEPT)
    try:
        return _STANDOUTS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{STANDOUTS} is damaged ({_first(error)}); {AGAIN}") from error


class _Confidence(BaseModel):
    histogram: dict[Literal["before", "after"], list[FiniteFloat]]


class _Measures(BaseModel):
    """What the report reads of measures; a run may have more."""

    confidence: _Confidence | None = None
    targets: dict[str, Numbers] | None = None
    exchange: dict[Literal["train", "valid"], list[list[FiniteFloat | None]]] | None = None
    direction: Numbers | None = None
    ntk: Numbers | None = None
    decomposition: Numbers | None = None
    drift: Numbers | None = None
    bound: dict[str, bool | FiniteFloat | list[str] | None] | None = None


class _Branch(BaseModel):
    measures: _Measures | None = None
    tau: int | None
    energy: Numbers
    probe: Numbers
    final: Numbers
    shift: Numbers


class _Summary(BaseModel):
    measures: _Measures | None = None
    task: str
    fingerprint: str = Field(min_length=1)
    weights_digest: str | None
    sizes: dict[str, int] | None = None
    encoder: str
    weights: str
    method: str
    metric: str
    seed: int
    chosen_tau: int | None
    branches: list[_Branch] = Field(min_length=1)


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders that are runs or were to become one."""
    for place, folders, files in os.walk(root):
        folders.sort()
        path = Path(place)
        if path.suffix == ".partial":
            folders.clear()
            yield path
        # a folder of runs may hold a file of such a name too: what is below it is read all the same
        elif "summary.json" in files or ("config.yaml" in files and not folders):
            yield path


def _read(path: Path) -> tuple[Run, list[str]]:
    if path.suffix == ".partial":
        raise ValueError("the run has not ended; run its config again to go on with it")
    summary, config = _summary(path), _config(path)
    _check_pair(summary, config)
    try:
        return Run(path, config, summary, read_history(path), read_spent(path, config)), []
    except ValueError as error:
        complaint = f"{error}; training curves and costs leave it out"
        return Run(path, config, summary, None, None), [complaint]


def _summary(path: Path) -> Json:
    try:
        summary: Json = json.loads(read_text(path / "summary.json"))
        if isinstance(summary, dict) and "branches" in summary and "fingerprint" not in summary:
            raise ValueError(
                "summary.json does not say which data the run is of, so that it can be compared "
                f"with no other (an older version wrote it); {AGAIN}"
            )
        checked = _Summary.model_validate(summary, strict=True)
    except ValidationError as error:
        raise ValueError(f"summary.json is none of a run ({_first(error)})") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"summary.json is damaged ({error}); {AGAIN}") from error
    if checked.chosen_tau not in [branch.tau for branch in checked.branches]:
        raise ValueError(
            f"summary.json chooses tau {checked.chosen_tau}, which none of its branches has; "
            f"{AGAIN}"
        )
    matrices = ((checked.measures or _Measures()).exchange or {}).values()
    count = len(checked.branches)
    if any([len(row) for row in matrix] != [count] * count for matrix in matrices):
        raise ValueError(f"summary.json has an exchange that is no matrix of {count} by {count}")
    for branch in checked.branches:
        if not {"valid", "test"} <= branch.final.keys():
            raise ValueError(f"summary.json has no final valid and test score of tau {branch.tau}")
    return summary


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{f'{place}: ' if place else ''}{first['msg'].lower()}"


def _config(path: Path) -> Json:
    try:
        config = yaml.safe_load(read_text(path / "config.yaml"))
    except yaml.YAMLError as error:
        raise ValueError(f"config.yaml is damaged ({' '.join(str(error).split())})") from error
    sections = ("task", "method")
    if not isinstance(config, dict) or not all(_is_choice(config.get(key)) for key in sections):
        raise ValueError("config.yaml is none of a run: it should name a task and a method")
    return config


def _is_choice(section: Any) -> bool:
    return isinstance(section, dict) and isinstance(section.get("name"), str)


def _check_pair(summary: Json, config: Json) -> None:
    told = (summary["method"], summary["seed"])
    asked = (config["method"]["name"], config.get("seed"))
    if told != asked:
        raise ValueError(
            f"summary.json is of method {told[0]} with seed {told[1]}, config.yaml of {asked[0]} "
            f"with seed {asked[1]}: they are of two runs; {AGAIN}"
        )
