"""What is at hand: data sets in numbers, encoders, weight files, and molecules they share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from molhpft.config.changes import parse_changes
from molhpft.config.options import Options, checked, keywords, unknown
from molhpft.config.registry import ENCODERS, TASKS
from molhpft.core.data import Examples, Rows, Task
from molhpft.core.objectives import Squared
from molhpft.domains.files import Json
from molhpft.domains.molecules.checkpoints import describe as describe_graph_weights
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.ogb import ogb_folder, ogb_names
from molhpft.domains.molecules.overlap import inchikey_blocks, scaffold_keys
from molhpft.domains.molecules.pretraining import molecules_trained_on
from molhpft.domains.molecules.table_files import is_table, read_sheet
from molhpft.domains.molecules.target_columns import ALL
from molhpft.domains.vision.checkpoints import describe as describe_image_weights
from molhpft.domains.vision.examples import Images
from molhpft.domains.weights import (
    HUB,
    WeightFile,
    cached_names,
    hub_names,
    read_weights,
    shipped_encoders,
    weight_file,
)

_WEIGHTS = (".safetensors", ".pth", ".th")


def overlap(task: Task, other: str) -> list[Json]:
    """How many molecules of each split are shared with what something else was trained on.

    Args:
        task: on molecules.
        other: name of a data set, of which the training split counts; path of a table, which
            counts whole; or an encoder: name of a shipped one or path of a weight file of this
            package, which says what it was trained on.

    Returns:
        for every split: `split`, `molecules`, `shared` (with the same `inchikey_blocks`) and
        `scaffolds` (their ring system is that of a molecule of the other).

    Raises:
        FileNotFoundError: the other's molecules are absent.
        ValueError: one of them has no molecules, or the weight file does not say.
    """
    return overlap_with(task, _training_molecules(other))


def overlap_with(task: Task, others: Sequence[str]) -> list[Json]:
    """`overlap` with given molecules.

    Raises:
        ValueError: the task has no molecules.
    """
    smiles = _molecules(task).smiles
    keys, scaffolds = inchikey_blocks(smiles), scaffold_keys(smiles)
    same = np.isin(keys, inchikey_blocks(others)) & (keys != b"")
    alike = np.isin(scaffolds, scaffold_keys(others)) & (scaffolds != 0)
    return [
        {
            "split": split,
            "molecules": len(rows),
            "shared": int(same[rows.numpy()].sum()),
            "scaffolds": int(alike[rows.numpy()].sum()),
        }
        for split, rows in task.splits.items()
    ]


def _training_molecules(other: str) -> Sequence[str]:
    if other in shipped_encoders() or other.endswith(_WEIGHTS):
        return trained_on(read_weights(Path(other)))
    if other not in TASKS and is_table(other):
        return read_sheet(Path(other)).molecules("smiles")
    if other not in TASKS:
        raise ValueError(
            f"{other} should be a data set, the file of a table, or an encoder: one of "
            f"{', '.join(shipped_encoders())} or a weight file"
        )
    task = TASKS[other](**checked("task", keywords(TASKS[other]), {}))
    molecules = _molecules(task)
    return [molecules.smiles[row] for row in task.rows("train").tolist()]


def trained_on(file: WeightFile) -> Sequence[str]:
    """SMILES of the molecules that an encoder of this package was pretrained on.

    Raises:
        FileNotFoundError: they are not at hand.
        ValueError: the file does not say, or it was trained on something else.
    """
    task = file.about.get("config", {}).get("task", {})
    if task.get("name") != "pretraining":
        raise ValueError(f"{file.path} does not say on which molecules it was pretrained")
    options = keywords(molecules_trained_on)
    given = {key: value for key, value in task.items() if key in options}
    return molecules_trained_on(**checked("task", options, given))


def absent_data(file: WeightFile) -> list[str]:
    """OGB data sets that `trained_on` would have to download."""
    task = file.about.get("config", {}).get("task", {})
    names = [
        name for name in (str(task.get("of")), *task.get("without", ())) if name in ogb_names()
    ]
    return [name for name in names if not ogb_folder(name).is_dir()]


def _molecules(task: Task) -> Molecules:
    if not isinstance(task.examples, Molecules):
        raise ValueError(f"{task.name} has no molecules to compare")
    return task.examples


def describe_data(name: str, changes: Sequence[str] = (), against: str | None = None) -> Json:
    """Sizes, targets with their class balance or range, and place of a data set.

    Args:
        name: of a task in the catalog, or path of a table.
        changes: options of the task, "key=value" as in a config.
        against: another data set or table, or an encoder, whose training molecules are looked for
            in every split.

    Raises:
        FileNotFoundError: the data are absent; the message says what to put where.
        ValueError: no data set has that name, or an option does not fit.
    """
    name, options = chosen_task(name, changes)
    if name == "csv" and options["target_columns"] is None:
        options = {**options, "target_columns": (ALL,)}
    task = TASKS[name](**options)
    return {
        "name": task.name,
        "place": _place(name, options),
        "objective": type(task.objective).__name__.lower(),
        "metric": task.objective.metric,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        **_counts(task.examples),
        "targets": _targets(task),
        **({"overlap": overlap(task, against)} if against else {}),
    }


def chosen_task(name: str, changes: Sequence[str] = ()) -> tuple[str, Options]:
    """Entry of the catalog and its options, every default filled in.

    Args:
        name: of a task in the catalog, or path of a table.
        changes: options of the task, "key=value" as in a config.

    Raises:
        ValueError: no data set has that name, or an option does not fit.
    """
    # as a config says it, or by the option alone
    given = parse_changes([change.removeprefix("task.") for change in changes])
    if name not in TASKS and is_table(name):
        name, given = "csv", {"path": name, **given}
    if name not in TASKS:
        raise ValueError(f"{unknown(name, list(TASKS), 'data set')}, or the file of a table")
    return name, checked("task", keywords(TASKS[name]), given)


def describe_weights(path: Path) -> str:
    """What a weight file is and which encoder takes it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read safely, or no encoder takes it.
    """
    file = read_weights(path)
    refusals = []
    for describe in (describe_graph_weights, describe_image_weights):
        try:
            return describe(file)
        except ValueError as error:
            refusals.append(str(error))
    raise ValueError("; ".join(refusals))


def shipped() -> list[Json]:
    """Name, size in bytes and kind of each encoder that comes with this package."""
    files = [(name, weight_file(Path(name))) for name in shipped_encoders()]
    return [
        {"name": name, "bytes": path.stat().st_size, "what": describe_weights(path)}
        for name, path in files
    ]


def hub_models(*, ask_hub: bool = False) -> list[str]:
    """What `weights` can name beside files: models of the hub, those fetched before or all of them.

    Raises:
        FileNotFoundError: the hub is asked and cannot be reached.
    """
    return [f"{HUB}{name}" for name in (hub_names() if ask_hub else cached_names())]


def encoders() -> list[Json]:
    """Name, meaning, options and weight files of each encoder."""
    return [
        {
            "name": name,
            "what": (encoder.build.__doc__ or "").splitlines()[0],
            "options": {k: p.default for k, p in keywords(encoder.build).items()},
            "files": encoder.files,
        }
        for name, encoder in ENCODERS.items()
    ]


def _place(name: str, options: Options) -> str:
    source = str(options.get("path", options.get("of", name)))
    if source in ogb_names():
        return str(ogb_folder(source))
    return "comes with the installation" if source == name else source


def _counts(examples: Examples) -> Json:
    if isinstance(examples, Molecules):
        store = examples.store
        return {
            "molecules": len(store),
            "unreadable": int((~store.readable).sum()),
            "atoms": len(store.atoms),
            "bonds": len(store.bonds),
            "memory": f"{store.nbytes / 1e6:.1f} MB",
        }
    if isinstance(examples, Images):
        shape = " x ".join(map(str, examples.pixels.shape[1:]))
        memory = f"{examples.pixels.nbytes / 1e6:.1f} MB"
        return {"images": len(examples), "shape": shape, "memory": memory}
    return {"examples": len(examples)}


def _targets(task: Task) -> list[Json]:
    """A row for each target, or each class of a multiclass task."""
    examples = task.examples
    if not isinstance(examples, Molecules | Images | Rows):
        return []
    names = task.target_names
    if examples.targets.is_floating_point():
        names = names or tuple(f"output {k}" for k in range(task.outputs))
        values = task.objective.values if isinstance(task.objective, Squared) else Tensor.double
        columns = zip(names, values(examples.targets).T, strict=True)
        return [{"name": name, **_balance(column)} for name, column in columns]
    names = names or tuple(f"class {k}" for k in range(task.outputs))
    counts = torch.bincount(examples.targets.flatten().long(), minlength=task.outputs)
    counts = counts[: task.outputs]
    total = int(counts.sum())
    return [
        {"name": name, "labels": n, "share": n / total}
        for name, n in zip(names, counts.tolist(), strict=True)
    ]


def _balance(column: Tensor) -> Json:
    y = column[~column.isnan()]
    numbers: Json = {"labels": len(y), "missing": len(column) - len(y)}
    if ((y == 0) | (y == 1)).all():
        return numbers | {"positive": y.mean().item()}
    return numbers | {"mean": y.mean().item(), "std": y.std().item()}
