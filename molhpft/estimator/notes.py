"""What somebody should know about a table before they trust a model of it, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from molhpft.advice.inventory import absent_data, overlap_with, trained_on
from molhpft.config.schema import RunConfig
from molhpft.core.data import Task
from molhpft.core.objectives import Squared
from molhpft.domains.molecules.checkpoints import describe
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.overlap import inchikey_blocks
from molhpft.domains.weights import read_weights
from molhpft.estimator.train import thin_notes


class DataWarning(UserWarning):
    """Something about the data that a model of them, or its scores, may not deserve trust for."""


@dataclass(frozen=True)
class Note:
    """A sentence about the data.

    Attributes:
        text: the sentence.
        serious: whether it is also a warning: molecules are lost, labels or splits contradict what
            scores mean, or a weight file may be another network's.
    """

    text: str
    serious: bool = False


def notes_on(config: RunConfig, task: Task) -> tuple[Note, ...]:
    """How a table was read, what cannot be, salts, duplicates, thin splits, what the encoder knows.

    Args:
        config: says which encoder.
        task: on molecules.
    """
    molecules = task.examples
    if not isinstance(molecules, Molecules):
        return ()
    return (
        *map(Note, molecules.notes),
        *([Note(molecules.unreadable, serious=True)] if molecules.unreadable else []),
        *_mixtures(molecules.smiles),
        *_duplicates(molecules, task),
        *_encoder(config),
        *(Note(text, serious=True) for text in thin_notes(task)),
        *_leakage(config, task),
    )


def _mixtures(smiles: Sequence[str]) -> list[Note]:
    count = sum("." in string for string in smiles)
    if not count:
        return []
    return [
        Note(
            f"{count:,} of {len(smiles):,} molecules are salts or mixtures: their parts are read "
            "as one graph."
        )
    ]


def _duplicates(molecules: Molecules, task: Task) -> list[Note]:
    """Molecules that are the same by InChIKey; those with conflicting labels, and across splits."""
    keys = inchikey_blocks(molecules.smiles)
    found, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    repeated = (sizes > 1) & (found != b"")
    if not repeated.any():
        return []
    conflicts = sum(_conflict(molecules, group == k) for k in np.flatnonzero(repeated))
    sentence = (
        "Molecules that occur more than once (by InChIKey, without stereochemistry and "
        f"counter-ions): {int(repeated.sum()):,}, with different labels: {conflicts:,}; all rows "
        "were kept."
    )
    train = keys[task.rows("train").numpy()]
    others = {s: rows for s, rows in task.splits.items() if s != "train"}
    shared = {
        s: int(np.isin(keys[rows.numpy()], train[train != b""]).sum()) for s, rows in others.items()
    }
    across = ", ".join(f"{count:,} of {split}" for split, count in shared.items() if count)
    # of numbers, repeated measurements hardly ever agree
    contradict = bool(conflicts) and not isinstance(task.objective, Squared)
    told = [Note(f"Also among the training molecules: {across}.", serious=True)] if across else []
    return [Note(sentence, serious=contradict), *told]


def _conflict(molecules: Molecules, rows: np.ndarray) -> bool:
    """Whether two of these rows have different labels of one target."""
    labels = molecules.targets[torch.from_numpy(rows)].float()
    low, high = (torch.where(labels.isnan(), s * torch.inf, labels) for s in (1, -1))
    return bool((low.min(0).values < high.max(0).values).any())


def _encoder(config: RunConfig) -> list[Note]:
    """What a weight file of others is taken for, and why."""
    weights: Path | None = config.encoder.options["weights"]
    file = read_weights(weights) if weights is not None else None
    if file is None or file.about:
        return []
    return [Note(f"The encoder's file {file.path.name} is {describe(file)}.", serious=True)]


def _leakage(config: RunConfig, task: Task) -> list[Note]:
    """How many molecules of each split the encoder was pretrained on."""
    weights: Path | None = config.encoder.options["weights"]
    if weights is None:
        return []
    file = read_weights(weights)
    if absent := absent_data(file):
        return [
            Note(
                f"Whether the encoder was pretrained on these molecules was not looked up for lack "
                f"of {', '.join(absent)} on this machine; `molhpft data FILE.csv --against "
                f"{weights}` fetches them."
            )
        ]
    try:
        theirs = trained_on(file)
    except (FileNotFoundError, ValueError) as error:
        return [
            Note(f"Whether the encoder was pretrained on these molecules is not known: {error}.")
        ]
    found = overlap_with(task, theirs)
    told = ", ".join(
        f"{row['shared']:,} of {row['molecules']:,} of {row['split']}" for row in found
    )
    return [Note(f"Molecules that the encoder {weights.name} was pretrained on: {told}.")]
