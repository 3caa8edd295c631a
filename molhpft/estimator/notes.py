"""Data notes: what one should know about a table before trusting a model of it, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from molhpft.advice.inventory import absent_data, overlap_with_encoder
from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.files import listed
from molhpft.domains.molecules.checkpoints import describe
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.overlap import inchikey_blocks
from molhpft.domains.weights import read_weights
from molhpft.estimator.coverage import NAMED
from molhpft.estimator.validation import VALID, split_targets, unscored_targets

_SCARCE = 5  # molecules of a class, of which a ranking says little
_SHOWN = 3  # molecules whose lines a note names


class DataWarning(UserWarning):
    """Something about the data makes a model of them, or its scores, less reliable."""


@dataclass(frozen=True)
class Note:
    """A sentence about the data.

    Attributes:
        text: the sentence.
        serious: whether it is also a warning: molecules are lost, labels or splits undermine what
            scores mean, or a weight file may be of another network.
        of_encoder: whether it is no matter to a model that reads no encoder.
    """

    text: str
    serious: bool = False
    of_encoder: bool = False


def notes_on(config: RunConfig, task: Task, *, reads_encoder: bool = True) -> tuple[Note, ...]:
    """Notes on reading, molecules, labels, thin splits, and an encoder's weights and leakage.

    Args:
        config: says which encoder.
        task: on molecules; others have no notes.
        reads_encoder: whether a member may read the encoder.
    """
    molecules = task.examples
    if not isinstance(molecules, Molecules):
        return ()
    return (
        *map(Note, molecules.notes),
        *([Note(molecules.unreadable, serious=True)] if molecules.unreadable else []),
        *_mixtures(molecules),
        *_duplicates(molecules, task),
        *(_weight_file(config) if reads_encoder else ()),
        *(Note(text, serious=True) for text in thin_split_notes(task)),
        *_scarce_classes(task),
        *(_leakage(config, task) if reads_encoder else ()),
    )


def _numbers(molecules: Molecules, rows: Sequence[int]) -> str:
    """The first few of some rows by the lines where their source has them: "2, 5, 9 and 3 more"."""
    places = [molecules.lines[row] for row in rows] if molecules.lines else rows
    return listed(map(str, places), most=_SHOWN)


def _unit(molecules: Molecules) -> str:
    return molecules.unit if molecules.lines else "row"


def _mixtures(molecules: Molecules) -> list[Note]:
    readable = molecules.store.readable.tolist()
    # a CXSMILES block, behind a space, has dots of its own
    first = [
        smiles.split()[0] if known else ""
        for smiles, known in zip(molecules.smiles, readable, strict=True)
    ]
    rows = [row for row, smiles in enumerate(first) if "." in smiles]
    if not rows:
        return []
    one = len(rows) == 1
    what, whose = ("is a salt or mixture", "its") if one else ("are salts or mixtures", "their")
    where = f"{_unit(molecules)}{'s' * (not one)} {_numbers(molecules, rows)}"
    text = f"{len(rows):,} of {len(molecules):,} molecules {what} ({where}): {whose} parts are "
    return [Note(f"{text}read as one graph.")]


def _duplicates(molecules: Molecules, task: Task) -> list[Note]:
    """Molecules that are the same by InChIKey: with conflicting labels, and across splits."""
    keys = inchikey_blocks(molecules.smiles)
    distinct, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    repeated = (sizes > 1) & (distinct != b"")
    if not repeated.any():
        return []
    together = (group == k for k in np.flatnonzero(repeated))
    conflicts = [np.flatnonzero(rows).tolist() for rows in together if _differ(molecules, rows)]
    # each molecule's lines together, the first molecules in the order of the table
    named = [_numbers(molecules, rows) for rows in sorted(conflicts)[:_SHOWN]]
    named += [f"{len(conflicts) - _SHOWN:,} more"] if len(conflicts) > _SHOWN else []
    where = f" ({_unit(molecules)}s {'; '.join(named)})" if named else ""
    text = (
        "Molecules that occur more than once (by InChIKey, without stereochemistry and "
        f"counter-ions): {int(repeated.sum()):,}, with different labels: "
        f"{len(conflicts):,}{where}; all rows were kept."
    )
    # repeated measurements of a number hardly ever agree
    notes = [Note(text, serious=bool(conflicts) and not isinstance(task.objective, Squared))]
    train = keys[task.rows("train").numpy()]
    shared = {
        split: int(np.isin(keys[rows.numpy()], train[train != b""]).sum())
        for split, rows in task.splits.items()
        if split != "train"
    }
    across = ", ".join(f"{count:,} of {split}" for split, count in shared.items() if count)
    if across:
        notes.append(Note(f"Also among the training molecules: {across}.", serious=True))
    return notes


def _differ(molecules: Molecules, rows: np.ndarray) -> bool:
    """Whether two of these rows have different labels of one target."""
    y = molecules.targets[torch.from_numpy(rows)].float()
    low, high = (torch.where(y.isnan(), sign * torch.inf, y) for sign in (1, -1))
    return bool((low.min(0).values < high.max(0).values).any())


def _weight_file(config: RunConfig) -> list[Note]:
    """What a foreign weight file is taken for, and why."""
    weights: Path | None = config.encoder.options["weights"]
    file = read_weights(weights) if weights is not None else None
    if file is None or file.about:
        return []
    text = f"The encoder's file {file.path.name} is {describe(file)}."
    return [Note(text, serious=True, of_encoder=True)]


def thin_split_notes(task: Task) -> list[str]:
    """Sentences on targets that a split has too few labels of to train on, choose by or score."""
    lack = "labels of both classes" if isinstance(task.objective, Multilabel) else "labels"
    consequence = {"train": "Not learned", "valid": "Never validated"}
    notes = []
    for split, names in unscored_targets(task).items():
        n = len(task.splits[split])
        where = f"the {split} split ({n:,} molecule{'s' * (n != 1)})"
        if split == "valid" and len(names) == len(task.target_names):
            notes.append(
                f"Never validated: {where} has no target with {lack}; epochs, tau and members were "
                "chosen by the loss on it."
            )
        elif names:
            start = consequence.get(split, "Not scored")
            notes.append(f"{start}, for {where} lacks {lack}: {listed(names, most=NAMED)}.")
    return notes


def _scarce_classes(task: Task) -> list[Note]:
    """Targets whose scores rest on a few molecules of one class."""
    if not isinstance(task.objective, Multilabel):
        return []
    notes = []
    for split in task.splits:
        if split == "train" and VALID in task.splits:
            continue  # which is not scored
        y = split_targets(task, split)
        fewest = torch.stack([(y == 0).sum(0), (y == 1).sum(0)]).min(0).values
        is_scarce = ((fewest > 0) & (fewest < _SCARCE)).tolist()
        names = [name for name, scarce in zip(task.target_names, is_scarce, strict=True) if scarce]
        if names:
            where = "the folds" if split == "train" else f"the {split} split"
            text = f"molecules of one class in {where}, and say little: {listed(names, most=NAMED)}"
            notes.append(Note(f"Scores rest on fewer than {_SCARCE} {text}."))
    return notes


def _leakage(config: RunConfig, task: Task) -> list[Note]:
    """How many molecules of each split the encoder was pretrained on."""
    weights: Path | None = config.encoder.options["weights"]
    if weights is None:
        return []
    file = read_weights(weights)
    unknown = "Whether the encoder was pretrained on these molecules"
    try:
        if absent := absent_data(file):
            text = (
                f"{unknown} was not looked up for lack of {', '.join(absent)} on this machine; "
                f"`molhpft data FILE.csv --against {weights}` fetches them."
            )
            return [Note(text, of_encoder=True)]
        rows = overlap_with_encoder(task, file)
    except (FileNotFoundError, ValueError) as error:
        return [Note(f"{unknown} is not known: {error}.", of_encoder=True)]
    counts = [f"{row['shared']:,} of {row['molecules']:,} of {row['split']}" for row in rows]
    text = f"Molecules that the encoder {weights.name} was pretrained on: {', '.join(counts)}."
    return [Note(text, of_encoder=True)]
