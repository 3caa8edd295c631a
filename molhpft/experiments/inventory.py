"""What is at hand: a data set in numbers, the encoders, what a weight file is."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from molhpft.core.objectives import Squared
from molhpft.core.task import Examples, Rows, Task
from molhpft.domains.hub import cached_names, hub_names
from molhpft.domains.molecules.checkpoints import describe as describe_graph_weights
from molhpft.domains.molecules.datasets import ogb_folder, ogb_names
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.sheets import is_table
from molhpft.domains.molecules.target_columns import ALL
from molhpft.domains.vision.checkpoints import describe as describe_image_weights
from molhpft.domains.vision.examples import Images
from molhpft.domains.weights import HUB, read_weights, shipped_encoders, weight_file
from molhpft.experiments.catalog import ENCODERS, TASKS
from molhpft.experiments.changes import parse_changes
from molhpft.experiments.folder import Json
from molhpft.experiments.leakage import overlap
from molhpft.experiments.options import Options, checked, keywords, unknown


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


def shared(*, ask_hub: bool = False) -> list[str]:
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
    examples = task.examples
    if not isinstance(examples, Molecules | Images | Rows):
        return []
    if examples.targets.is_floating_point():
        names = task.describes or tuple(f"output {k}" for k in range(task.outputs))
        own = task.objective.values if isinstance(task.objective, Squared) else Tensor.double
        columns = zip(names, own(examples.targets).T, strict=True)
        return [{"name": name, **_balance(column)} for name, column in columns]
    counts = torch.bincount(examples.targets.flatten().long(), minlength=task.outputs)
    names = task.describes or tuple(f"class {k}" for k in range(task.outputs))
    known = counts[: task.outputs]
    total = int(known.sum())
    return [
        {"name": name, "labels": n, "share": n / total}
        for name, n in zip(names, known.tolist(), strict=True)
    ]


def _balance(column: Tensor) -> Json:
    known = column[~column.isnan()]
    numbers: Json = {"labels": len(known), "missing": len(column) - len(known)}
    if ((known == 0) | (known == 1)).all():
        return numbers | {"positive": known.mean().item()}
    return numbers | {"mean": known.mean().item(), "std": known.std().item()}
