"""What a head may read of molecules beside the features: counts of substructures, properties."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from molhpft.core.data import Task
from molhpft.domains.molecules.count_fingerprints import (
    COLUMNS,
    SUBSTRUCTURES,
    count_fingerprints,
)
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.featurized import Featurized, Reading
from molhpft.domains.molecules.graphs import GraphStore, graph_store
from molhpft.domains.molecules.properties import COUNT, properties


def column_counts(kinds: Sequence[Reading]) -> dict[str, int]:
    """How many columns each kind has, in their order."""
    return {kind: COUNT if kind == "properties" else COLUMNS for kind in kinds}


def reading_beside(task: Task, kinds: Sequence[Reading]) -> Task:
    """The task with further columns in every batch, computed once and cached.

    Args:
        task: its fingerprint stays, for its molecules and labels do.
        kinds: what is read; what the task has already is not read again.

    Raises:
        ValueError: something is to be read, and the task is not one of molecules.
    """
    if not kinds:
        return task
    molecules = task.examples
    if not isinstance(molecules, Molecules):
        raise ValueError(
            f"head.beside reads {', '.join(kinds)} of molecules, and task {task.name} has "
            f"{type(molecules).__name__.lower()}; leave head.beside out"
        )
    store = molecules.store
    missing = [kind for kind in kinds if kind not in store.beside]
    if not missing:
        return task
    read: dict[str, Tensor] = {
        kind: _columns(kind, molecules.smiles).to(store.atoms.device) for kind in missing
    }
    store = replace(store, beside={**store.beside, **read})
    return replace(task, examples=replace(molecules, store=store))


def store_beside(molecules: Featurized, kinds: Sequence[Reading]) -> GraphStore:
    """Graphs of molecules with further columns that were read with them.

    Args:
        molecules: n of them, with what is in `kinds` read.
        kinds: of the columns.
    """
    beside: Mapping[str, Tensor] = {k: torch.from_numpy(molecules.columns[k]) for k in kinds}
    return replace(graph_store(molecules.graphs), beside=beside)


def _columns(kind: Reading, smiles: Sequence[str]) -> Tensor:
    """Counts in uint8, (n, 2048), or properties in float32, (n, 79)."""
    if kind in SUBSTRUCTURES:
        return torch.from_numpy(count_fingerprints(kind, smiles).astype("uint8").toarray())
    return torch.from_numpy(properties(smiles))
