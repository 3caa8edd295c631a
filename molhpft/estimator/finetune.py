"""A table of molecules becomes a model in a folder; interrupted, it resumes where it was."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from molhpft.config.changes import apply, parse_changes
from molhpft.config.schema import Choice, RunConfig, checked_choice
from molhpft.core import few_labels
from molhpft.core.data import Task
from molhpft.core.few_labels import fewer_to_train
from molhpft.domains.files import Json, check_folder, check_output, digest, writing
from molhpft.domains.molecules.table_options import FLAGS
from molhpft.domains.molecules.tables import (
    Table,
    check_split,
    divided_task,
    pooled_task,
    read_table,
)
from molhpft.estimator.held_out_file import HELD_OUT, write_held_out
from molhpft.estimator.model import CONFIG, Model
from molhpft.estimator.notes import notes_on
from molhpft.estimator.settings import Encoder, Inference, Tau, model_config
from molhpft.estimator.train import train
from molhpft.estimator.validation import FOLDS, Fold, Holdout, check_folds, draw_folds, molecules_of
from molhpft.run.device import settled
from molhpft.run.folder import RunFolder
from molhpft.run.identity import run_name
from molhpft.run.lock import locked

RUN = "run"  # in a model's folder: that of the run that made it


@dataclass(frozen=True)
class MadeModel:
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
    folds: int | None = None,
    changes: Sequence[str] = (),
    inference: Inference = Inference(),  # noqa: B008 - frozen
) -> MadeModel:
    """Make a model of a table, or find it made; another process that is making it is waited for.

    Args:
        table: options of a config's csv task, those that are given: path, smiles_column,
            target_columns, split, split_seed, ... A split_column, group_column or time_column alone
            says how molecules are held out.
        out: folder of the model, or a link to one; `<out>.partial` while it is being made.
        encoder: as in `model_config`, like tau, head and seed.
        tau: epochs of head probing.
        head: what stands on the encoder.
        seed: of every random number, of those that draw folds and splits unless `split_seed` does.
        folds: in how many parts the molecules are divided that do not test, each of which is
            predicted by members trained on the others; 0 for one part that validates and one that
            calibrates. None for 5, and for 0 where a column or `split` says which validate.
        changes: "key=value" for any further key of a config, `task.split=random` among them.
        inference: how the model predicts.

    Raises:
        FileNotFoundError: table or weights are absent.
        ValueError: they cannot be used, something is given twice, or `out` holds something else.
        OSError: `out` cannot be written to.
    """
    check_output(out, *(Path(p) for p in (table["path"], encoder) if isinstance(p, str | Path)))
    check_folder(out)
    out = _place_of(out)
    more: Json = {}
    for key, value in parse_changes(changes).items():
        apply(more, key, value)
    own = more.get("seed", seed)
    split_seed = own if isinstance(own, int) else 0  # any other is refused with the config
    data = _table(_given(table, more.pop("task", {})), folds, split_seed)
    config = model_config(
        encoder=encoder,
        tau=tau,
        head=head,
        seed=seed,
        more=more,
        task=data.choice,
        molecules=len(data.task.rows("train")),
        members=inference.members,
    )
    task, drawn = data.task, data.drawn(config.seed)
    name = _name(config, task, inference, drawn)
    with nullcontext() if _is_made(out) else locked(out):
        if _is_made(out):
            return MadeModel(_existing(out, name), out, is_new=False)
        return _made(config, data, drawn, out, inference, name)


def _place_of(out: Path) -> Path:
    """Where the model's folder will be put, beside its unfinished one: at the end of a link.

    Raises:
        ValueError: the folder there holds something else, or is the one that the command works in.
    """
    if out.resolve() == Path.cwd():
        raise ValueError(
            f"{out} is the folder that this command works in, and a model is put into one of its "
            "own; name another (--out)"
        )
    place = out.resolve() if out.is_symlink() else out
    if not _is_made(place) and place.exists() and any(place.iterdir()):
        raise ValueError(f"{place} is there and is no model; choose another folder (--out)")
    return place


def _is_made(out: Path) -> bool:
    return (out / CONFIG).is_file()


def _made(
    config: RunConfig,
    data: "LearnedTable",
    folds: Sequence[Fold],
    out: Path,
    inference: Inference,
    name: str,
) -> MadeModel:
    """Make the model in a folder beside `out`, then put that into its place."""
    partial = out.with_name(f"{out.name}.partial")
    with writing(out):  # before minutes of looking for molecules the encoder has seen
        partial.mkdir(parents=True, exist_ok=True)
    with RunFolder(out).nothing_left():
        notes = notes_on(config, data.task, reads_encoder=inference.members != "fingerprints")
        run = partial / RUN
        model, folders = train(config, data.task, run, inference, folds=folds, notes=notes)
    model.about |= {"name": name, "held_out": HELD_OUT}
    assert model.held_out is not None
    with writing(out):
        _drop_others(run, folders)
        molecules = molecules_of(data.task)
        write_held_out(model.held_out, molecules, data.labels, model.spec, partial / HELD_OUT)
        model.save_pretrained(partial)
        if out.exists():
            out.rmdir()  # an empty one, which not every system replaces
        os.replace(partial, out)
    # an interrupted run needs its members until the model that holds them is in place
    for folder in folders:
        RunFolder(out / RUN / folder.path.name).drop("members")
    return MadeModel(model, out, is_new=True)


def _drop_others(run: Path, folders: Sequence[RunFolder]) -> None:
    """Remove what an interrupted making of another model has left among the runs of this one."""
    own = {folder.path for folder in folders}
    for other in run.iterdir() if run.is_dir() else ():
        if other not in own:
            shutil.rmtree(other) if other.is_dir() else other.unlink()


@dataclass(frozen=True, eq=False)
class LearnedTable:
    """A table as it is learned from.

    Attributes:
        task: with all molecules that do not test in "train" where there are folds.
        labels: of all rows as the table has them, float64 (n, t).
        choice: of the config.
        folds: how many; 0 for a held-out part.
        split: how they are drawn where there are neither groups nor times.
        groups: (n,), of all rows, if any.
        times: (n,), of all rows, if any.
    """

    task: Task
    labels: Tensor
    choice: Choice
    folds: int
    split: Holdout = "random"
    groups: tuple[str, ...] | None = None
    times: tuple[float, ...] | None = None

    def drawn(self, seed: int) -> list[Fold]:
        """The folds; none of a held-out part."""
        own = self.choice.options["split_seed"]
        seed = seed if own is None else own
        options: Json = {"count": self.folds, "seed": seed}
        return draw_folds(self.task, self.split, groups=self.groups, times=self.times, **options)


def _table(given: Mapping[str, Any], folds: int | None, seed: int) -> LearnedTable:
    """Read a table for folds, or for a held-out part; `train_size` or `shots` make it smaller."""
    fewer = {key: given[key] for key in few_labels.OPTIONS if key in given}
    others = {key: value for key, value in given.items() if key not in fewer}
    data = learned_table(others, folds, seed=seed)
    if not fewer:
        return data
    choice = checked_choice("task", {"name": "csv", **data.choice.options, **fewer})
    fewer = {key: choice.options.get(key) for key in few_labels.OPTIONS}
    return replace(data, task=fewer_to_train(data.task, **fewer), choice=choice)


def learned_table(given: Mapping[str, Any], folds: int | None, *, seed: int = 0) -> LearnedTable:
    """Read a table to be learned from in folds, or with a held-out part.

    Args:
        given: options of a config's csv task.
        folds: how many; None for as many as the options call for.
        seed: of a held-out part that is drawn at random, unless the options have a `split_seed`.

    Raises:
        ValueError: they contradict one another, or the table cannot be used.
        OSError: it cannot be read.
    """
    if folds is not None:
        check_folds(folds)
    columns: Json = {key: given.get(key) for key in ("split_column", "group_column", "time_column")}
    by = "time" if columns["time_column"] else "group" if columns["group_column"] else None
    named = "column" if columns["split_column"] else by
    if named and "split" not in given:
        given = {**given, "split": named}
    choice = checked_choice("task", {"name": "csv", "calibration": "auto", **given})
    options, split = choice.options, given.get("split")
    if folds is None:
        folds = FOLDS if split is None or by else 0
    if folds:
        how = drawn_by(split, by)
        _check_folds_drawn(how, given, options)
    else:
        check_split(options["split"], options["split_seed"], **columns)
    keys = ("path", "smiles_column", "target_columns", "kind")
    table = read_table(**{key: options[key] for key in keys}, besides=columns)
    if folds:
        return _folded(table, choice, folds, how)
    how_divided = {key: options[key] for key in ("split", "split_seed", "calibration")}
    if options["split"] in ("random", "group") and options["split_seed"] is None:
        how_divided["split_seed"] = seed
    task = divided_task(table, **how_divided, **columns)
    return LearnedTable(task, table.targets.values, choice, 0)


def _check_folds_drawn(how: str, given: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse options of a table that contradict folds, or of which folds would make no use."""
    of_column = "column" if given.get("split") == "column" else "random"
    check_split(of_column, None, split_column=options["split_column"])
    columns = {key: options[key] for key in ("group_column", "time_column")}
    check_split(how, options["split_seed"], **columns)
    if "calibration" in given:
        raise ValueError("with folds every molecule calibrates; leave task.calibration out")
    if how == "group" and options["split_seed"] is not None:
        raise ValueError("folds by groups are not drawn at random; leave split_seed out")


def _folded(table: Table, choice: Choice, folds: int, how: str) -> LearnedTable:
    """A table for folds that are drawn by scaffold, group or time, or at random."""
    options = choice.options
    task = pooled_task(table, split_column=options["split_column"])
    rows, groups, times = task.rows("train"), options["group_column"], options["time_column"]
    return LearnedTable(
        task,
        table.targets.values,
        choice,
        folds,
        "scaffold" if how == "scaffold" else "random",
        groups=None if groups is None else table.groups(groups, rows),
        times=None if times is None else table.times(times, rows),
    )


def drawn_by(split: str | None, by: str | None) -> str:
    """How folds are drawn: by groups or times where a column has them, else scaffold or random.

    Raises:
        ValueError: the split says something else.
    """
    if by and split not in (by, "column"):
        raise ValueError(
            f"the column of {by}s says which molecules are held out, and split {split!r} says "
            f"otherwise; leave out the split, or the column ({FLAGS[f'{by}_column'][0]} or "
            f"task.{by}_column)"
        )
    if by or split == "scaffold":
        return by or "scaffold"
    if split not in (None, "random", "column"):
        raise ValueError(
            "folds are drawn by split random or scaffold, by a column of groups or times, or "
            f"beside a column of splits, got split {split!r}; take one of these, or no folds"
        )
    return "random"


def _given(table: Mapping[str, Any], changes: Any) -> Json:
    """Options of the csv task, from those of a command and from changes to the config's `task`."""
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
    return {**table, **changes}


def _name(config: RunConfig, task: Task, inference: Inference, folds: Sequence[Fold]) -> str:
    """What tells this model, and what its files say of the table, from any other."""
    run = run_name(settled(replace(config, members=True)), task)
    lines = digest(repr(molecules_of(task).lines))[:8]
    how = f"{inference.members}-{inference.calibration}-{inference.target_coverage!r}"
    parts = (part for fold in folds for part in (fold.train, fold.held))
    # with their lengths: rows alone would not say where a part ends
    rows = (one for part in parts for one in (f"{len(part)} rows ", part))
    drawn = [digest(*rows)[:8]] if folds else []
    return "-".join([run, how, *drawn, lines])


def _existing(out: Path, name: str) -> Model:
    model = Model.from_pretrained(out)
    if model.about.get("name") != name:
        raise ValueError(
            f"{out} holds a model of other data or settings; choose another folder (--out), or "
            "delete it"
        )
    return model
