"""Run folders of a whole tree, read with suspicion: a folder that is not whole is named, not read.

Other people's disks fill up and their jobs are killed. A folder that cannot be read becomes a
sentence beside the results and does not stop the rest.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from molhpft.config.changes import yaml_fault
from molhpft.domains.files import Json, parse_json
from molhpft.domains.weights import CARD, FILES
from molhpft.run.folder import MANIFEST, lacking
from molhpft.run.identity import FORMAT
from molhpft.run.standouts import STANDOUTS, Standouts

NO_MOLECULES = "it stored no molecules to draw; set features: true in its config"
_AGAIN = "delete the folder and run its config again"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: content of `config.yaml`.
        summary: content of `summary.json`, checked.
        history: rows of `history.jsonl`; None when that or `choice.json` is missing or damaged.
        spent: epochs of finetuning that `tau: auto` took in all, for taus it gave up too; None for
            a run whose config names its tau.
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
        of_other_format: whether it is only that another version wrote the run.
    """

    path: Path
    what: str
    of_other_format: bool = False


class _OtherFormatError(ValueError):
    """A run folder is of another version, whose numbers may mean something else."""


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
            run, complaint = _read(path)
        except (OSError, ValueError) as error:
            other = isinstance(error, _OtherFormatError)
            problems.append(Problem(path, str(error), of_other_format=other))
            continue
        runs.append(run)
        if complaint:
            problems.append(Problem(path, complaint))
    if not runs and all((root / name).is_file() for name in FILES):
        raise ValueError(
            f"{root} is a model, and its scores are in its card, {root / CARD}; the report is of "
            "runs: give the --out of `molhpft run` or of a sweep"
        )
    if not runs:
        reasons = "; ".join(f"{p.path.name}: {p.what}" for p in problems[:3])
        raise ValueError(
            f"{root} holds no finished run that can be read"
            f"{f' ({reasons})' if reasons else ''}; `molhpft run CONFIG --out {root}` makes one"
        )
    return runs, problems


def read_standouts(run: Run) -> Standouts:
    """Molecules that stand out in a run, see `run.standouts`.

    Raises:
        ValueError: the run stored none, or the file is damaged.
    """
    path = run.path / STANDOUTS
    if not path.is_file() and STANDOUTS not in lacking(_manifest(path), {}):
        asked = run.config.get("features") is True
        raise ValueError("its task has no molecules" if asked else NO_MOLECULES)
    try:
        return TypeAdapter(Standouts).validate_python(_json(path))
    except ValidationError as error:
        raise ValueError(f"{STANDOUTS} is damaged ({_first(error)}); {_AGAIN}") from error


Numbers = dict[str, FiniteFloat | None]


class _Confidence(BaseModel):
    histogram: dict[Literal["before", "after"], list[FiniteFloat]]


class _Measures(BaseModel):
    """What a report reads of measures; a run may have more."""

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
    head: Numbers | None = None
    ece: Numbers | None = None


class _Summary(BaseModel):
    measures: _Measures | None = None
    task: str
    fingerprint: str = Field(min_length=1)
    auxiliary: str = ""
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


def _read(path: Path) -> tuple[Run, str | None]:
    """A run, and a complaint where it has lost its history."""
    if path.suffix == ".partial":
        raise ValueError("the run has not ended; run its config again to go on with it")
    summary, config = _summary(path), _config(path)
    written = (summary["method"], summary["seed"])
    configured = (config["method"]["name"], config.get("seed"))
    if written != configured:
        raise ValueError(
            f"summary.json is of method {written[0]} with seed {written[1]}, config.yaml of "
            f"{configured[0]} with seed {configured[1]}: they are of two runs; {_AGAIN}"
        )
    try:
        history = _history(path)
        return Run(path, config, summary, history, _spent(path, config)), None
    except ValueError as error:
        complaint = f"{error}; training curves and costs leave it out"
        return Run(path, config, summary, None, None), complaint


def _summary(path: Path) -> Json:
    summary = _json(path / "summary.json")
    if isinstance(summary, dict) and "branches" in summary and summary.get("format") != FORMAT:
        raise _OtherFormatError(
            f"another version wrote it (format {summary.get('format', 'not given')}, this one "
            f"writes {FORMAT}), whose numbers may mean something else; run its config again"
        )
    try:
        checked = _Summary.model_validate(summary, strict=True)
    except ValidationError as error:
        raise ValueError(f"summary.json is none of a run ({_first(error)})") from error
    taus = [branch.tau for branch in checked.branches]
    if checked.chosen_tau not in taus:
        raise ValueError(
            f"summary.json chooses tau {checked.chosen_tau}, which none of its branches has; "
            f"{_AGAIN}"
        )
    for matrix in ((checked.measures or _Measures()).exchange or {}).values():
        if [len(row) for row in matrix] != [len(taus)] * len(taus):
            raise ValueError(
                f"summary.json has an exchange that is no matrix of {len(taus)} by {len(taus)}"
            )
    for branch in checked.branches:
        if not {"valid", "test"} <= branch.final.keys():
            raise ValueError(f"summary.json has no final valid and test score of tau {branch.tau}")
    return dict(summary)


def _config(path: Path) -> Json:
    try:
        config = yaml.safe_load(_text(path / "config.yaml"))
    except yaml.YAMLError as error:
        raise ValueError(f"config.yaml is damaged ({yaml_fault(error)}); {_AGAIN}") from error
    sections = ("task", "method")
    if not isinstance(config, dict) or not all(_is_named(config.get(key)) for key in sections):
        raise ValueError("config.yaml is none of a run: it should name a task and a method")
    return dict(config)


def _is_named(section: object) -> bool:
    return isinstance(section, dict) and isinstance(section.get("name"), str)


def _history(path: Path) -> list[Json]:
    rows = []
    for number, line in enumerate(_text(path / "history.jsonl").splitlines(), start=1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"history.jsonl is damaged in line {number}") from error
        if not _is_epoch(row):
            raise ValueError(f"history.jsonl has no epoch of a run in line {number}")
        rows.append(row)
    return rows


def _is_epoch(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("phase"), str):
        return False
    tau = row.get("tau", "" if row["phase"].startswith("finetune") else None)
    return type(row.get("epoch")) is int and (tau is None or type(tau) is int)


def _spent(path: Path, config: Json) -> int | None:
    if config["method"].get("tau") != "auto":
        return None
    choice = _json(path / "choice.json")
    spent = choice.get("spent") if isinstance(choice, dict) else None
    if type(spent) is not int:
        raise ValueError(f"choice.json does not say how many epochs it took; {_AGAIN}")
    return spent


def _json(path: Path) -> Any:
    return parse_json(_content(path), path.name, remedy=_AGAIN)


def _text(path: Path) -> str:
    try:
        return _content(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is damaged (no text); {_AGAIN}") from error


def _content(path: Path) -> bytes:
    """A file of a run folder, in the size in which the run wrote it.

    What was cut short may still read well. Of a folder without a manifest nothing is known.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing; {_AGAIN}")
    content, manifest = path.read_bytes(), _manifest(path)
    if manifest is not None:
        absent = lacking(manifest, {path.name: len(content)})
        if other := [name for name in absent if name in (path.name, MANIFEST)]:
            raise ValueError(
                f"{other[0]} should have the size that {MANIFEST} lists, and was cut short or "
                f"changed; {_AGAIN}"
            )
    return content


def _manifest(path: Path) -> bytes | None:
    """What lists a file of a run folder; None where the folder has lost it."""
    manifest = path.with_name(MANIFEST)
    return manifest.read_bytes() if manifest.is_file() else None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{f'{place}: ' if place else ''}{first['msg'].lower()}"
