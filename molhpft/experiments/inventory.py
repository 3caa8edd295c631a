"""What is at hand: a data set in numbers, the encoders, what a weight file is."""

from pathlib import Path

from torch import Tensor

from molhpft.core.task import Task
from molhpft.domains.molecules.checkpoints import describe
from molhpft.domains.molecules.datasets import ogb_folder, ogb_names
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.weights import read_weights
from molhpft.experiments.catalog import ENCODERS, TASKS
from molhpft.experiments.folder import Json
from molhpft.experiments.options import keywords, unknown


def describe_data(name: str) -> Json:
    """Sizes, targets with their class balance or range, and place of a data set.

    Args:
        name: of a task in the catalog, or path of a CSV file read with default options.

    Raises:
        FileNotFoundError: the data are absent; the message says what to put where.
        ValueError: no data set has that name.
    """
    is_table = name.endswith((".csv", ".csv.gz"))
    if not is_table and name not in TASKS:
        raise ValueError(f"{unknown(name, list(TASKS), 'data set')}, or the path of a .csv file")
    if name == "csv":
        raise ValueError("csv is any table of yours: give the path of its .csv file instead")
    task = csv_task(path=Path(name)) if is_table else TASKS[name]()
    return {
        "name": task.name,
        "place": _place(name),
        "objective": type(task.objective).__name__.lower(),
        "metric": task.objective.metric,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        **_graph_counts(task),
        "targets": _targets(task),
    }


def describe_weights(path: Path) -> str:
    """What a weight file is and which encoder takes it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read safely, or is no graph encoder.
    """
    return describe(read_weights(path))


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


def _place(name: str) -> str:
    if name in ogb_names():
        return str(ogb_folder(name))
    return name if name.endswith((".csv", ".csv.gz")) else "inside RDKit"


def _graph_counts(task: Task) -> Json:
    if not isinstance(task.examples, Molecules):
        return {}
    store = task.examples.store
    return {
        "molecules": len(store),
        "unreadable": int((~store.readable).sum()),
        "atoms": len(store.atoms),
        "bonds": len(store.bonds),
        "megabytes": round(store.nbytes / 1e6, 1),
    }


def _targets(task: Task) -> list[Json]:
    if not isinstance(task.examples, Molecules):
        return []
    columns = zip(task.describes, task.examples.targets.T, strict=True)
    return [{"name": name, **_balance(column)} for name, column in columns]


def _balance(column: Tensor) -> Json:
    known = column[~column.isnan()]
    numbers: Json = {"labels": len(known), "missing": len(column) - len(known)}
    if ((known == 0) | (known == 1)).all():
        return numbers | {"positive": known.mean().item()}
    return numbers | {"mean": known.mean().item(), "std": known.std().item()}
