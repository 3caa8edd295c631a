"""Which molecules of a data set an encoder, or another data set, has trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from molhpft.core.task import Task
from molhpft.domains.molecules.datasets import ogb_folder, ogb_names
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.overlap import scaffold_keys, skeletons
from molhpft.domains.molecules.pretraining import molecules_trained_on
from molhpft.domains.molecules.sheets import is_table, read_sheet
from molhpft.domains.weights import WeightFile, read_weights, shipped_encoders
from molhpft.experiments.catalog import TASKS
from molhpft.experiments.folder import Json
from molhpft.experiments.options import checked, keywords

_WEIGHTS = (".safetensors", ".pth", ".th")


def overlap(task: Task, other: str) -> list[Json]:
    """How many molecules of each split are shared with what something else was trained on.

    Args:
        task: on molecules.
        other: name of a data set, of which the training split counts; path of a table, which
            counts whole; or an encoder: name of a shipped one or path of a weight file of this
            package, which says what it was trained on.

    Returns:
        for every split: `split`, `molecules`, `shared` (the same by InChIKey, see `skeletons`) and
        `scaffolds` (their ring system is that of a molecule of the other).

    Raises:
        FileNotFoundError: the other's molecules are absent.
        ValueError: one of them has no molecules, or the weight file does not say.
    """
    return overlap_with(task, _training_molecules(other))


def overlap_with(task: Task, theirs: Sequence[str]) -> list[Json]:
    """`overlap` with molecules that are at hand.

    Raises:
        ValueError: the task has no molecules.
    """
    ours = _molecules(task).smiles
    keys, scaffolds = skeletons(ours), scaffold_keys(ours)
    known = np.isin(keys, skeletons(theirs)) & (keys != b"")
    alike = np.isin(scaffolds, scaffold_keys(theirs)) & (scaffolds != 0)
    return [
        {
            "split": split,
            "molecules": len(rows),
            "shared": int(known[rows.numpy()].sum()),
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
