"""Predictions and features for the rows of a table, in its order, however long it is."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.objectives import Squared
from molhpft.core.threads import threads
from molhpft.domains.molecules.fingerprints import unpacked
from molhpft.domains.molecules.graphs import graph_store
from molhpft.domains.molecules.reading import Described, described_stream
from molhpft.domains.molecules.sheets import stream_column
from molhpft.domains.progress import bar
from molhpft.estimator.model import Model
from molhpft.estimator.prediction import Prediction
from molhpft.estimator.streams import Columns, table_writer

Named = Iterator[tuple[str, pa.Array]]

Precision = Literal["32", "bf16-mixed"]

_READ, _UNREADABLE = "ok", "unreadable"


def predict_table(
    model: Model, path: Path, out: Path, *, smiles_column: str, precision: Precision = "32"
) -> dict[str, int]:
    """Write a row of predictions for every row of a table.

    Columns: the SMILES; `status` (ok or unreadable); for every target its probability or value, its
    `spread` over members, and the set of labels or the ends of the interval that hold the truth at
    the model's level; `similarity` to the nearest training molecule, that molecule, and whether
    it is near (`in_domain`). Cells of unreadable molecules are empty. A name that an earlier column
    has gets `_` behind it.

    Args:
        model: fitted.
        path: of a table or list of any kind that `sheets` reads.
        out: `.csv` or `.parquet`.
        smiles_column: name of the column with the molecules.
        precision: of the networks' products. "bf16-mixed" is faster on processors with units for
            it and rounds a logit by half a percent.

    Returns:
        number of rows by status.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it is none, or lacks the column.
        OSError: `out` cannot be written to.
    """
    neighbours = model.trust.neighbours  # made here once, not by every process

    def compared(molecules: Described) -> tuple[Described, list[NDArray[Any]]]:
        with threads(1):  # a forked process has no others
            near = neighbours.nearest(unpacked(molecules.prints))
        return molecules, [part.numpy() for part in near]

    def answered(found: tuple[Described, list[NDArray[Any]]]) -> tuple[Described, Tensor, Named]:
        molecules, (similarity, nearest) = found
        near = (torch.from_numpy(similarity), torch.from_numpy(nearest))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision != "32"):
            answers = model.answers(molecules, near)
        return molecules, answers.readable, _answers(model, answers)

    stretches = described_stream(stream_column(path, smiles_column), compared)
    return _write(map(answered, stretches), out, smiles_column, what="predicting")


def embed_table(model: Model, path: Path, out: Path, *, smiles_column: str) -> dict[str, int]:
    """Write the features of every row of a table, `z0`, `z1`, ...; otherwise as `predict_table`."""

    def embedded(molecules: Described) -> tuple[Described, Tensor, Named]:
        store = graph_store(molecules.graphs)
        rows = store.readable.nonzero().flatten()
        z = torch.full((len(store), model.width), torch.nan)
        z[rows] = model.features(store, rows)
        named = ((f"z{k}", _cells(column)) for k, column in enumerate(z.T))
        return molecules, store.readable, named

    stretches = described_stream(stream_column(path, smiles_column), lambda molecules: molecules)
    return _write(map(embedded, stretches), out, smiles_column, what="embedding")


def _write(
    stretches: Iterable[tuple[Described, Tensor, Named]],
    out: Path,
    smiles_column: str,
    *,
    what: str,
) -> dict[str, int]:
    """Write stretches of molecules, which of them are readable, and their columns."""
    counts = {_READ: 0, _UNREADABLE: 0}
    # the processes that read molecules need the other half
    with (
        threads(max(1, torch.get_num_threads() // 2)),
        table_writer(out) as write,
        bar(what, total=None) as move,
    ):
        for molecules, readable, found in stretches:
            status = [_READ if ok else _UNREADABLE for ok in readable.tolist()]
            own = [(smiles_column, _texts(molecules.smiles)), ("status", _texts(status))]
            write(_named_apart([*own, *found]))
            for one in counts:
                counts[one] += status.count(one)
            move(sum(counts.values()))
    return counts


def _answers(model: Model, found: Prediction) -> Named:
    numbers = isinstance(model.shape.objective, Squared)
    for k, name in enumerate(model.shape.targets):
        yield name, _cells(found.values[:, k])
        yield f"{name} spread", _cells(found.spread[:, k])
        ends = found.sets[:, k]
        if numbers:
            yield f"{name} low", _cells(ends[:, 0])
            yield f"{name} high", _cells(ends[:, 1])
        else:
            yield f"{name} set", _texts(map(_set, ends.tolist()))
    columns = (found.nearest, found.in_domain, found.readable)
    near = list(zip(*(column.tolist() for column in columns), strict=True))
    yield "similarity", _cells(found.similarity)
    yield "nearest", _texts(model.training_smiles[row] if ok else None for row, _, ok in near)
    yield "in_domain", pa.array([is_near if ok else None for _, is_near, ok in near], pa.bool_())


def _named_apart(columns: Iterable[tuple[str, pa.Array]]) -> Columns:
    """Columns by name: a target may be called as one of the others is."""
    found: dict[str, pa.Array] = {}
    for given, column in columns:
        name = given
        while name in found:
            name += "_"
        found[name] = column
    return found


def _set(pair: list[bool]) -> str:
    return " or ".join(str(label) for label in (0, 1) if pair[label])


def _texts(column: Iterable[str | None]) -> pa.Array:
    return pa.array(list(column), pa.string())


def _cells(column: Tensor) -> pa.Array:
    """Numbers of a column, rounded to what a float32 network can mean; None for NaN."""
    numbers = [None if x != x else float(f"{x:.6g}") for x in column.tolist()]
    return pa.array(numbers, pa.float64())
