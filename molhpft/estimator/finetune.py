"""A table of molecules becomes a model in a folder; interrupted, it goes on where it was."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from molhpft.config.schema import Choice, RunConfig, apply, checked_choice, parse_changes
from molhpft.core.data import Task
from molhpft.domains.files import Json, writing
from molhpft.domains.molecules.tables import TableSplit, table_task
from molhpft.domains.molecules.target_columns import AnyKind
from molhpft.estimator.model import CONFIG, Model
from molhpft.estimator.notes import notes_on
from molhpft.estimator.sklearn import Encoder, Tau, settings
from molhpft.estimator.train import Answers, train
from molhpft.run.device import settled
from molhpft.run.folder import RunFolder, check_output, run_name
from molhpft.run.lock import locked

Kind: TypeAlias = AnyKind
Split: TypeAlias = TableSplit

_ASIDE = "auto"  # molecules that prediction sets are calibrated by, where they are not said
RUN = "run"  # in a model's folder: that of the run that made it


@dataclass(frozen=True)
class Finetuned:
    """A model and where it is.

    Attributes:
        model: fitted.
        folder: what `predict` and `from_pretrained` read.
        is_new: False where the folder held this very model already.
    """

    model: Model
    folder: Path
    is_new: bool


def finetune_table(
    table: Mapping[str, Any],
    out: Path,
    *,
    encoder: Encoder | None = None,
    tau: Tau | None = None,
    head: str | None = None,
    seed: int | None = None,
    changes: Sequence[str] = (),
    answers: Answers = Answers(),  # noqa: B008 - frozen
) -> Finetuned:
    """Make a model of a table, or find it made, by another process perhaps, which is waited for.

    Args:
        table: options of a config's csv task, those that are given: path, smiles_column,
            target_columns, split, split_seed, ...
        out: folder of the model; `<out>.partial` while it is being made.
        encoder: as in `settings`, like tau, head and seed.
        tau: epochs of head probing.
        head: what stands on the encoder.
        seed: of every random number.
        changes: "key=value" for any further key of a config, `task.split=random` among them.
        answers: how the model answers.

    Raises:
        FileNotFoundError: table or weights are absent.
        ValueError: they cannot be used, something is said twice, or `out` holds something else.
        OSError: `out` cannot be written to.
    """
    check_output(out, *(Path(p) for p in (table["path"], encoder) if isinstance(p, str | Path)))
    more: Json = {}
    for key, value in parse_changes(changes).items():
        apply(more, key, value)
    choice = _task(table, more.pop("task", {}))
    config = settings(encoder=encoder, tau=tau, head=head, seed=seed, more=more, task=choice)
    _check_place(out)
    task = table_task(**choice.options)
    name = _name(config, task, answers)
    if out.exists():
        return Finetuned(_found(out, name), out, is_new=False)
    with locked(out):
        if out.exists():
            return Finetuned(_found(out, name), out, is_new=False)
        return Finetuned(_made(config, task, out, answers, name), out, is_new=True)


def _made(config: RunConfig, task: Task, out: Path, answers: Answers, name: str) -> Model:
    """A model, trained and written to `out`."""
    partial = out.with_name(f"{out.name}.partial")
    with writing(out):  # before minutes of looking for molecules the encoder has seen
        partial.mkdir(parents=True, exist_ok=True)
    notes = tuple(note.text for note in notes_on(config, task))
    model, folder = train(config, task, partial / RUN, answers, notes=notes)
    model.about["name"] = name
    with writing(out):
        model.save_pretrained(partial)
        os.replace(partial, out)
    # the model holds these networks now; before it was written, a run that goes on needed them
    RunFolder(out / RUN / folder.path.name).drop("members")
    return model


def _task(table: Mapping[str, Any], changed: Any) -> Choice:
    """The task of a table, of options and of changes to the config's `task`."""
    if not isinstance(changed, Mapping):
        raise ValueError(
            f"task is the table; its options are set one by one, such as task.split=random, got "
            f"{changed!r}"
        )
    for key in sorted(table.keys() & changed.keys()):
        raise ValueError(
            f"task.{key} is given twice, by an option as {table[key]} and by a change as "
            f"{changed[key]}; leave one out"
        )
    if changed.get("name", "csv") != "csv":
        raise ValueError(f"task.name is csv, which reads tables, got {changed['name']!r}")
    return checked_choice("task", {"name": "csv", "calibration": _ASIDE, **table, **changed})


def _name(config: RunConfig, task: Task, answers: Answers) -> str:
    """What makes this model this one and no other."""
    run = run_name(settled(replace(config, members=answers.ensemble)), task)
    return f"{run}-{answers.calibration}-{answers.level:g}"


def _check_place(out: Path) -> None:
    if out.exists() and not (out / CONFIG).is_file():
        raise ValueError(f"{out} is there and is no model; choose another folder (--out)")


def _found(out: Path, name: str) -> Model:
    model = Model.from_pretrained(out)
    if model.about.get("name") != name:
        raise ValueError(
            f"{out} holds a model of other data or settings; choose another folder (--out), or "
            "delete it"
        )
    return model
