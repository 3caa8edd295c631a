"""A table of molecules becomes a model in a folder; interrupted, it resumes where it was."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from molhpft.config.changes import apply, parse_changes
from molhpft.config.schema import Choice, RunConfig, checked_choice
from molhpft.core.data import Task
from molhpft.domains.files import Json, writing
from molhpft.domains.molecules.tables import table_task
from molhpft.estimator.model import CONFIG, Model
from molhpft.estimator.notes import notes_on
from molhpft.estimator.train import Encoder, Inference, Tau, model_config, train
from molhpft.run.device import settled
from molhpft.run.folder import RunFolder, check_output
from molhpft.run.identity import run_name
from molhpft.run.lock import locked

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
    inference: Inference = Inference(),  # noqa: B008 - frozen
) -> Finetuned:
    """Make a model of a table, or find it made; another process that is making it is waited for.

    Args:
        table: options of a config's csv task, those that are given: path, smiles_column,
            target_columns, split, split_seed, ...
        out: folder of the model; `<out>.partial` while it is being made.
        encoder: as in `model_config`, like tau, head and seed.
        tau: epochs of head probing.
        head: what stands on the encoder.
        seed: of every random number.
        changes: "key=value" for any further key of a config, `task.split=random` among them.
        inference: how the model predicts.

    Raises:
        FileNotFoundError: table or weights are absent.
        ValueError: they cannot be used, something is given twice, or `out` holds something else.
        OSError: `out` cannot be written to.
    """
    check_output(out, *(Path(p) for p in (table["path"], encoder) if isinstance(p, str | Path)))
    more: Json = {}
    for key, value in parse_changes(changes).items():
        apply(more, key, value)
    choice = _table_choice(table, more.pop("task", {}))
    config = model_config(encoder=encoder, tau=tau, head=head, seed=seed, more=more, task=choice)
    if out.exists() and not (out / CONFIG).is_file():
        raise ValueError(f"{out} is there and is no model; choose another folder (--out)")
    task = table_task(**choice.options)
    name = _name(config, task, inference)
    with nullcontext() if out.exists() else locked(out):
        if out.exists():
            return Finetuned(_existing(out, name), out, is_new=False)
        partial = out.with_name(f"{out.name}.partial")
        with writing(out):  # before minutes of looking for molecules the encoder has seen
            partial.mkdir(parents=True, exist_ok=True)
        notes = [note.text for note in notes_on(config, task)]
        model, folder = train(config, task, partial / RUN, inference, notes=notes)
        model.about["name"] = name
        with writing(out):
            model.save_pretrained(partial)
            os.replace(partial, out)
        # an interrupted run needs its members until the model that holds them is in place
        RunFolder(out / RUN / folder.path.name).drop("members")
        return Finetuned(model, out, is_new=True)


def _table_choice(table: Mapping[str, Any], changes: Any) -> Choice:
    """The csv task of options and of changes to the config's `task`."""
    if not isinstance(changes, Mapping):
        raise ValueError(
            f"task is the table; its options are set one by one, such as task.split=random, got "
            f"{changes!r}"
        )
    for key in sorted(table.keys() & changes.keys()):
        raise ValueError(
            f"task.{key} is given twice, by an option as {table[key]} and by a change as "
            f"{changes[key]}; leave one out"
        )
    if changes.get("name", "csv") != "csv":
        raise ValueError(f"task.name is csv, which reads tables, got {changes['name']!r}")
    return checked_choice("task", {"name": "csv", "calibration": "auto", **table, **changes})


def _name(config: RunConfig, task: Task, inference: Inference) -> str:
    """What tells this model from any other."""
    run = run_name(settled(replace(config, members=inference.ensemble)), task)
    return f"{run}-{inference.calibration}-{inference.target_coverage:g}"


def _existing(out: Path, name: str) -> Model:
    model = Model.from_pretrained(out)
    if model.about.get("name") != name:
        raise ValueError(
            f"{out} holds a model of other data or settings; choose another folder (--out), or "
            "delete it"
        )
    return model
