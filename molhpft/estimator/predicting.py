"""Predictions and features for the rows of a table, in its order, however long it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molhpft.core.objectives import Squared
from molhpft.domains.molecules.graphs import graph_store
from molhpft.domains.molecules.reading import Described, described_stream
from molhpft.domains.progress import bar
from molhpft.estimator.model import Model
from molhpft.estimator.prediction import Prediction
from molhpft.estimator.streams import Columns, molecule_stream, table_writer

_READ, _UNREADABLE = "ok", "unreadable"


def predict_table(model: Model, path: Path, out: Path, *, smiles_column: str) -> dict[str, int]:
    """Write a row of predictions for every row of a table.

    Columns: the SMILES; `status` (ok or unreadable); for every target its probability or value, its
    `spread` over members, and the set of labels or the ends of the interval that hold the truth at
    the model's level; `similarity` to the nearest training molecule, that molecule, and whether
    it is near (`in_domain`). Cells of unreadable molecules are empty.

    Args:
        model: fitted.
        path: `.csv`, `.csv.gz` or `.parquet`.
        out: `.csv` or `.parquet`.
        smiles_column: name of the column with the molecules.

    Returns:
        number of rows by status.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it is none, or lacks the column.
        OSError: `out` cannot be written to.
    """

    def answered(molecules: Described) -> tuple[Tensor, Columns]:
        found = model.answers(molecules)
        return found.readable, _answers(model, found)

    return _row_by_row(path, out, smiles_column, answered, what="predicting")


def embed_table(model: Model, path: Path, out: Path, *, smiles_column: str) -> dict[str, int]:
    """Write the features of every row of a table, `z0`, `z1`, ...; otherwise as `predict_table`."""

    def embedded(molecules: Described) -> tuple[Tensor, Columns]:
        store = graph_store(molecules.graphs)
        rows = store.readable.nonzero().flatten()
        z = torch.full((len(store), model.width), torch.nan)
        z[rows] = model.features(store, rows)
        return store.readable, {f"z{k}": _cells(column) for k, column in enumerate(z.T)}

    return _row_by_row(path, out, smiles_column, embedded, what="embedding")


def _row_by_row(
    path: Path,
    out: Path,
    smiles_column: str,
    columns: Callable[[Described], tuple[Tensor, Columns]],
    *,
    what: str,
) -> dict[str, int]:
    counts = {_READ: 0, _UNREADABLE: 0}
    smiles = molecule_stream(path, smiles_column)
    with _sharing_processors(), table_writer(out) as write, bar(what, total=None) as move:
        for molecules in described_stream(smiles):
            readable, found = columns(molecules)
            status = [_READ if ok else _UNREADABLE for ok in readable.tolist()]
            write({smiles_column: molecules.smiles, "status": status, **found})
            for one in counts:
                counts[one] += status.count(one)
            move(sum(counts.values()))
    if not sum(counts.values()):
        raise ValueError(f"{path} should have rows below its column names; it has none")
    return counts


def _answers(model: Model, found: Prediction) -> Columns:
    numbers, columns = isinstance(model.shape.objective, Squared), dict[str, Any]()
    for k, name in enumerate(model.shape.targets):
        columns[name] = _cells(found.values[:, k])
        columns[f"{name} spread"] = _cells(found.spread[:, k])
        ends = found.sets[:, k]
        if numbers:
            columns[f"{name} low"], columns[f"{name} high"] = (_cells(end) for end in ends.T)
        else:
            columns[f"{name} set"] = [_set(pair) for pair in ends.tolist()]
    near = zip(found.nearest.tolist(), found.readable.tolist(), strict=True)
    columns["similarity"] = _cells(found.similarity)
    columns["nearest"] = [model.training_smiles[row] if ok else None for row, ok in near]
    domain = zip(found.near.tolist(), found.readable.tolist(), strict=True)
    columns["in_domain"] = [near if ok else None for near, ok in domain]
    return columns


def _set(pair: list[bool]) -> str:
    return " or ".join(str(label) for label in (0, 1) if pair[label])


def _cells(column: Tensor) -> list[float | None]:
    """Numbers of a column, rounded to what a float32 network can mean; None for NaN."""
    return [None if x != x else float(f"{x:.6g}") for x in column.tolist()]


@contextmanager
def _sharing_processors() -> Iterator[None]:
    """Half of PyTorch's threads: the processes that read molecules need the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
