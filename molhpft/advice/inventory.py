"""What is at hand: data sets in numbers, encoders, weight files, and molecules they share."""

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.config.changes import parse_changes
from molhpft.config.options import Options, checked, keywords, unknown
from molhpft.config.registry import ENCODERS, TASKS
from molhpft.core.data import Examples, Rows, TargetTable, Task
from molhpft.core.few_labels import recorded
from molhpft.core.objectives import Squared
from molhpft.domains.files import Json, listed
from molhpft.domains.molecules.checkpoints import describe as describe_graph_weights
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.ogb import ogb_folder, ogb_names
from molhpft.domains.molecules.overlap import MoleculeSet, inchikey_blocks, is_among, scaffold_keys
from molhpft.domains.molecules.pretraining_sources import molecules_trained_on
from molhpft.domains.molecules.table_files import SHOWN, is_table, read_sheet, spelled
from molhpft.domains.molecules.target_columns import ALL
from molhpft.domains.shipped import REPLACED, shipped_encoders, shipped_molecules
from molhpft.domains.vision.checkpoints import describe as describe_image_weights
from molhpft.domains.vision.examples import Images
from molhpft.domains.weights import (
    HUB,
    WeightFile,
    cached_names,
    hub_names,
    read_weights,
    weight_file,
)

_STRETCH = 16_384  # rows whose targets are in memory at a time
_WEIGHTS = (".safetensors", ".pth", ".pt", ".th")


def overlap(task: Task, other: str) -> list[Json]:
    """How many molecules of each split are shared with what something else was trained on.

    Args:
        task: on molecules.
        other: name of a data set, of which the training split counts; path of a table, which
            counts whole; or an encoder: name of a shipped one or path of a weight file of this
            package, which says what it was trained on.

    Returns:
        for every split: `split`, `molecules`, `shared` (with the same `inchikey_blocks`) and, but
        for shipped encoders, `scaffolds` (their ring system is that of a molecule of the other).

    Raises:
        FileNotFoundError: the other's molecules are absent.
        ValueError: one of them has no molecules, or the weight file does not say.
    """
    return _overlap_counter(other)(task)


def _overlap_counter(other: str) -> Callable[[Task], list[Json]]:
    """`overlap` of a task; what cannot be looked for is refused before a task is there."""
    if other in (*shipped_encoders(), *REPLACED) or other.endswith(_WEIGHTS):
        file = read_weights(Path(other))
        return lambda task: overlap_with_encoder(task, file)
    if other not in TASKS and not is_table(other):
        raise ValueError(
            f"{other} should be a data set, the file of a table, or an encoder: one of "
            f"{', '.join(shipped_encoders())} or a weight file"
        )
    return lambda task: overlap_with(task, _molecules_of(other))


def overlap_with_encoder(task: Task, file: WeightFile) -> list[Json]:
    """`overlap` with what an encoder was pretrained on: known without the data if it is shipped.

    Raises:
        FileNotFoundError: its molecules are needed and not at hand.
        ValueError: the task has no molecules, or the file does not say.
    """
    if (molecules := shipped_molecules(file.path)) is None:
        return overlap_with(task, trained_on(file))
    keys = inchikey_blocks(_molecules(task).smiles)
    return _counted(task, shared=MoleculeSet.from_bytes(molecules.read_bytes()).has(keys))


def overlap_with(task: Task, others: Sequence[str]) -> list[Json]:
    """`overlap` with given molecules.

    Raises:
        ValueError: the task has no molecules.
    """
    smiles = _molecules(task).smiles
    keys, scaffolds = inchikey_blocks(smiles), scaffold_keys(smiles)
    same = is_among(keys, inchikey_blocks(others)).numpy()
    alike = np.isin(scaffolds, scaffold_keys(others)) & (scaffolds != 0)
    return _counted(task, shared=same, scaffolds=alike)


def _counted(task: Task, **marked: NDArray[np.bool_]) -> list[Json]:
    """For every split, its molecules and how many of them are marked."""
    return [
        {"split": split, "molecules": len(rows)}
        | {name: int(marks[rows.numpy()].sum()) for name, marks in marked.items()}
        for split, rows in task.splits.items()
    ]


def _molecules_of(other: str) -> Sequence[str]:
    """SMILES of a table, or of the training split of a data set."""
    if other not in TASKS:
        sheet = read_sheet(Path(other))
        if spelled("smiles", sheet.names) not in sheet.names:
            raise ValueError(
                f"the column of molecules of {other} should be called smiles, as --against has no "
                f"option for another name; it has: {listed(sheet.names, most=SHOWN)}"
            )
        return sheet.molecules("smiles")
    task = TASKS[other](**checked("task", keywords(TASKS[other]), {}))
    molecules = _molecules(task)
    return [molecules.smiles[row] for row in task.rows("train").tolist()]


def trained_on(file: WeightFile) -> Sequence[str]:
    """SMILES of the molecules that an encoder of this package was pretrained on.

    Those of the encoder that its pretraining started from are among them.

    Raises:
        FileNotFoundError: they are not at hand.
        ValueError: the file does not say, or it was trained on something else.
    """
    task = file.about.get("config", {}).get("task", {})
    if task.get("name") != "pretraining":
        raise ValueError(f"{file.path} does not say on which molecules it was pretrained")
    options = keywords(molecules_trained_on)
    given = {key: value for key, value in task.items() if key in options}
    if all(one in ogb_names() for one in _sources(task)) and given.get("split") == "scaffold":
        del given["split"]  # an earlier version wrote the default down even for OGB's sets
    own, start = molecules_trained_on(**checked("task", options, given)), _started_from(file)
    return own if start is None else [*own, *trained_on(start)]


def _started_from(file: WeightFile) -> WeightFile | None:
    """The encoder whose weights a pretraining began with; None where they were random.

    Raises:
        FileNotFoundError: it is not at hand.
        ValueError: it cannot be read.
    """
    weights = file.about.get("config", {}).get("encoder", {}).get("weights")
    return None if weights is None else read_weights(Path(weights))


def absent_data(file: WeightFile) -> list[str]:
    """OGB data sets that `overlap_with_encoder` would have to download.

    Raises:
        FileNotFoundError: the encoder that the pretraining started from is not at hand.
        ValueError: it cannot be read.
    """
    if shipped_molecules(file.path) is not None:
        return []
    task = file.about.get("config", {}).get("task", {})
    names = [one for one in (*_sources(task), *task.get("without", ())) if one in ogb_names()]
    absent = [name for name in names if not ogb_folder(name).is_dir()]
    start = _started_from(file) if task.get("name") == "pretraining" else None
    return absent if start is None else list(dict.fromkeys([*absent, *absent_data(start)]))


def _sources(task: Json) -> list[str]:
    """What a pretraining task is of, as a weight file tells it."""
    of = task.get("of", [])
    # where there is one source, an earlier version wrote it without a list
    return [of] if isinstance(of, str) else of


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
    shared = _overlap_counter(against) if against else None  # before data are read
    task = TASKS[name](**options)
    return {
        "name": task.name,
        "place": _place(name, options),
        "objective": type(task.objective).__name__.lower(),
        "metric": task.objective.metric,
        "sizes": {split: len(rows) for split, rows in task.splits.items()},
        **_counts(task.examples),
        "targets": _targets(task),
        **({"overlap": shared(task)} if shared else {}),
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
    return name, recorded(checked("task", keywords(TASKS[name]), given))


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
    sources = [str(one) for one in options.get("of", [options.get("path", name)])]
    if sources == [name] and name not in ogb_names():
        return "comes with the installation"
    return listed([str(ogb_folder(one)) if one in ogb_names() else one for one in sources])


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
    targets = examples.targets
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        names = names or tuple(f"output {k}" for k in range(task.outputs))
        balances = _balances(task, targets, len(examples))
        return [{"name": name, **own} for name, own in zip(names, balances, strict=True)]
    names = names or tuple(f"class {k}" for k in range(task.outputs))
    counts = torch.bincount(targets.flatten().long(), minlength=task.outputs)
    counts = counts[: task.outputs]
    total = int(counts.sum())
    return [
        {"name": name, "labels": n, "share": n / total}
        for name, n in zip(names, counts.tolist(), strict=True)
    ]


def _balances(task: Task, targets: Tensor | TargetTable, n: int) -> list[Json]:
    """Numbers of each column of n rows of targets, which are read a stretch at a time."""
    values = task.objective.values if isinstance(task.objective, Squared) else Tensor.double
    total = torch.zeros(4, task.outputs, dtype=torch.float64)
    first = torch.full((task.outputs,), nan, dtype=torch.float64)
    for rows in torch.split(torch.arange(n), _STRETCH):
        y = values(targets[rows])
        labelled = ~y.isnan()
        other = labelled & (y != 0) & (y != 1)
        first = torch.where(
            first.isnan(), y[labelled.int().argmax(0), torch.arange(len(first))], first
        )
        # squares of numbers far from 0 that lie close together would lose all their digits
        y = torch.where(labelled, y - first, 0.0)
        total += torch.stack([labelled.sum(0), y.sum(0), y.square().sum(0), other.sum(0)])
    return [_balance(n, *column) for column in torch.cat([first[None], total]).T.tolist()]


def _balance(
    n: int, first: float, labels: float, total: float, squares: float, others: float
) -> Json:
    """Of a column with so many labels, their sum and sum of squares from the first one on.

    `others` of the labels are not 0 or 1.
    """
    numbers: Json = {"labels": int(labels), "missing": n - int(labels)}
    mean = total / labels if labels else nan
    if not others:
        return numbers | {"positive": first + mean}
    variance = (squares - labels * mean**2) / (labels - 1) if labels > 1 else nan
    return numbers | {"mean": first + mean, "std": max(variance, 0.0) ** 0.5}
