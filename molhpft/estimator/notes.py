"""What somebody should know about a table before they trust a model of it, in sentences."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from molhpft.core.task import Task
from molhpft.domains.molecules.checkpoints import describe
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.overlap import skeletons
from molhpft.domains.weights import read_weights
from molhpft.experiments.config import RunConfig
from molhpft.experiments.leakage import absent_data, overlap_with, trained_on


def notes_on(config: RunConfig, task: Task) -> tuple[str, ...]:
    """Unreadable molecules, salts and mixtures, duplicates, and what the encoder has seen.

    Args:
        config: says which encoder.
        task: on molecules.
    """
    molecules = task.examples
    if not isinstance(molecules, Molecules):
        return ()
    return (
        *_unreadable(molecules),
        *_mixtures(molecules.smiles),
        *_duplicates(molecules, task),
        *_encoder(config),
        *_leakage(config, task),
    )


def _unreadable(molecules: Molecules) -> list[str]:
    count = int((~molecules.store.readable).sum())
    if not count:
        return []
    return [f"{count:,} of {len(molecules):,} molecules cannot be read and were left out."]


def _mixtures(smiles: Sequence[str]) -> list[str]:
    count = sum("." in string for string in smiles)
    if not count:
        return []
    return [
        f"{count:,} of {len(smiles):,} molecules are salts or mixtures: their parts are read as "
        "one graph."
    ]


def _duplicates(molecules: Molecules, task: Task) -> list[str]:
    """Molecules that are the same by InChIKey; those with conflicting labels, and across splits."""
    keys = skeletons(molecules.smiles)
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
    return [sentence, *([f"Also among the training molecules: {across}."] if across else [])]


def _conflict(molecules: Molecules, rows: np.ndarray) -> bool:
    """Whether two of these rows have different labels of one target."""
    labels = molecules.targets[torch.from_numpy(rows)].float()
    low, high = (torch.where(labels.isnan(), s * torch.inf, labels) for s in (1, -1))
    return bool((low.min(0).values < high.max(0).values).any())


def _encoder(config: RunConfig) -> list[str]:
    """What a weight file of others is taken for, and why."""
    weights: Path | None = config.encoder.options["weights"]
    file = read_weights(weights) if weights is not None else None
    if file is None or file.about:
        return []
    return [f"The encoder's file {file.path.name} is {describe(file)}."]


def _leakage(config: RunConfig, task: Task) -> list[str]:
    """How many molecules of each split the encoder was pretrained on."""
    weights: Path | None = config.encoder.options["weights"]
    if weights is None:
        return []
    file = read_weights(weights)
    if absent := absent_data(file):
        return [
            f"Whether the encoder was pretrained on these molecules was not looked up for lack of "
            f"{', '.join(absent)} on this machine; `molhpft data FILE.csv --against {weights}` "
            f"fetches them."
        ]
    try:
        theirs = trained_on(file)
    except (FileNotFoundError, ValueError) as error:
        return [f"Whether the encoder was pretrained on these molecules is not known: {error}."]
    found = overlap_with(task, theirs)
    told = ", ".join(
        f"{row['shared']:,} of {row['molecules']:,} of {row['split']}" for row in found
    )
    return [f"Molecules that the encoder {weights.name} was pretrained on: {told}."]
