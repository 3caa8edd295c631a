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


class DataWarning(UserWarning):
    """Something about the data makes a model of them, or its scores, less reliable."""


@dataclass(frozen=True)
class Note:
    """A sentence about the data.

    Attributes:
        text: the sentence.
        serious: whether it is also a warning: molecules are lost, labels or splits undermine what
            scores mean, or a weight file may be of another network.
    """

    text: str
    serious: bool = False


def notes_on(config: RunConfig, task: Task) -> tuple[Note, ...]:
    """Notes on reading, unreadable molecules, salts, duplicates, weights, thin splits and leakage.

    Args:
        config: says which encoder.
        task: on molecules; others have no notes.
    """
    molecules = task.examples
    if not isinstance(molecules, Molecules):
        return ()
    return (
        *map(Note, molecules.notes),
        *([Note(molecules.unreadable, serious=True)] if molecules.unreadable else []),
        *_mixtures(molecules.smiles),
        *_duplicates(molecules, task),
        *_weight_file(config),
        *(Note(text, serious=True) for text in thin_split_notes(task)),
        *_scarce_classes(task),
        *_leakage(config, task),
    )


def _mixtures(smiles: Sequence[str]) -> list[Note]:
    count = sum("." in string for string in smiles)
    if not count:
        return []
    text = f"{count:,} of {len(smiles):,} molecules are salts or mixtures: their parts are read "
    return [Note(f"{text}as one graph.")]


def _duplicates(molecules: Molecules, task: Task) -> list[Note]:
    """Molecules that are the same by InChIKey: with conflicting labels, and across splits."""
    keys = inchikey_blocks(molecules.smiles)
    distinct, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    repeated = (sizes > 1) & (distinct != b"")
    if not repeated.any():
        return []
    conflicts = sum(_has_conflict(molecules, group == k) for k in np.flatnonzero(repeated))
    text = (
        "Molecules that occur more than once (by InChIKey, without stereochemistry and "
        f"counter-ions): {int(repeated.sum()):,}, with different labels: {conflicts:,}; all rows "
        "were kept."
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


def _has_conflict(molecules: Molecules, rows: np.ndarray) -> bool:
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
    return [Note(f"The encoder's file {file.path.name} is {describe(file)}.", serious=True)]


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
            return [
                Note(
                    f"{unknown} was not looked up for lack of {', '.join(absent)} on this machine; "
                    f"`molhpft data FILE.csv --against {weights}` fetches them."
                )
            ]
        rows = overlap_with_encoder(task, file)
    except (FileNotFoundError, ValueError) as error:
        return [Note(f"{unknown} is not known: {error}.")]
    counts = [f"{row['shared']:,} of {row['molecules']:,} of {row['split']}" for row in rows]
    return [
        Note(f"Molecules that the encoder {weights.name} was pretrained on: {', '.join(counts)}.")
    ]
