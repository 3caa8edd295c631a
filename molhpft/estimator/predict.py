"""Predictions and features for the rows of a table of any length, in its order, in bounded memory.

Tables are read, predicted and written a few hundred rows at a time.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import floor, isfinite, log10, nan
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from molhpft.core.determinism import half_the_threads, threads
from molhpft.core.objectives import Squared
from molhpft.domains.console import bar
from molhpft.domains.files import check_output
from molhpft.domains.molecules.featurized import Featurized, Reading, featurized_parts
from molhpft.domains.molecules.fingerprints import unpack_bits
from molhpft.domains.molecules.table_files import Part, spelled, spelling_note, stream_parts
from molhpft.estimator.frozen import Embedder, feature_names, part_features
from molhpft.estimator.model import Model, NetworkSpec, Prediction
from molhpft.estimator.table_output import Named, distinct_names, table_writer

_log = logging.getLogger(__name__)

T = TypeVar("T")
Precision = Literal["32", "bf16-mixed"]

OK, INVALID_VALENCE, UNREADABLE = "ok", "invalid valence", "unreadable"


def predict_table(
    model: Model, path: Path, out: Path, *, smiles_column: str, precision: Precision = "32"
) -> dict[str, int]:
    """Write predictions for every row of a table behind all that the table has.

    The columns are `status` (ok, unreadable, or invalid valence: predicted, though RDKit refuses a
    valence); for every target its value, or the probability of its second class
    (`<target> p(<class>)` where the classes are not 0 and 1), its `std` over members, and its
    prediction set or the ends of its interval (`low`, `high`); `similarity` to the `nearest`
    training molecule, and whether the row is `in_domain`. Cells of unreadable molecules are empty,
    as are the ends of an unbounded interval. A name that the table has gets `molhpft` before it.

    Args:
        model: fitted.
        path: of a table or list of any kind that `read_sheet` takes.
        out: `.csv` or `.parquet`, or a stream such as `/dev/stdout`; not `path`.
        smiles_column: name of the column with the molecules.
        precision: of the networks' products. "bf16-mixed" is faster on processors with units for
            it and rounds a logit by half a percent.

    Returns:
        number of rows by status.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it is none, or lacks the column; or `out` is the table.
        OSError: `out` cannot be written to.
    """
    neighbours = model.uncertainty.neighbours  # built once here, not by every process

    def with_nearest(molecules: Featurized) -> tuple[Featurized, list[NDArray[Any]]]:
        with threads(1):  # a forked process has no others
            nearest = neighbours.nearest(unpack_bits(molecules.fingerprints))
        return molecules, [part.numpy() for part in nearest]

    def predicted(
        part: tuple[Featurized, list[NDArray[Any]]],
    ) -> tuple[Featurized, Tensor, Iterable[Named]]:
        molecules, (similarity, nearest) = part
        pair = (torch.from_numpy(similarity), torch.from_numpy(nearest))
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision != "32"):
            prediction = model.predict_featurized(molecules, pair)
        return molecules, prediction.readable, _prediction_columns(model, prediction)

    return _extend(
        path, out, smiles_column, with_nearest, predicted, what="predicting", further=model.further
    )


def embed_table(embedder: Embedder, path: Path, out: Path, *, smiles_column: str) -> dict[str, int]:
    """Write the features of every row of a table, `z0`, `z1`, ...; otherwise as `predict_table`.

    Args:
        embedder: a fitted model, or an encoder alone.
        path: of a table or list of any kind that `read_sheet` takes.
        out: as of `predict_table`.
        smiles_column: name of the column with the molecules.
    """
    names = feature_names(embedder)

    def embedded(molecules: Featurized) -> tuple[Featurized, Tensor, Iterable[Named]]:
        readable, z = part_features(embedder, molecules)
        return molecules, readable, zip(names, map(number_cells, z.T), strict=True)

    return _extend(
        path,
        out,
        smiles_column,
        prepare=lambda part: part,
        columns_of=embedded,
        what="embedding",
        further=embedder.beside,
    )


def _extend(
    path: Path,
    out: Path,
    smiles_column: str,
    prepare: Callable[[Featurized], T],
    columns_of: Callable[[T], tuple[Featurized, Tensor, Iterable[Named]]],
    *,
    what: str,
    further: Sequence[Reading] = (),
) -> dict[str, int]:
    """Write a table with further columns behind its own.

    Args:
        path: of the table.
        out: what is written.
        smiles_column: name of the column with the molecules.
        prepare: is called with molecules by the processes that read them.
        columns_of: makes of that the molecules, which are readable, and the new columns.
        what: for the progress bar.
        further: what is read of molecules beside their graphs and circular neighbourhoods.
    """
    check_output(out, path)
    pending: deque[Part] = deque()  # results come in the order of the parts

    def molecules() -> Iterator[Sequence[str]]:
        for k, part in enumerate(stream_parts(path)):
            smiles = part.molecules(smiles_column)
            if not k and (note := spelling_note(smiles_column, spelled(smiles_column, part.cells))):
                _log.warning("%s: %s", path, note)
            pending.append(part)
            yield smiles

    counts = {OK: 0, INVALID_VALENCE: 0, UNREADABLE: 0}
    with half_the_threads(), table_writer(out) as write, bar(what, total=None) as move:
        for read, readable, columns in map(
            columns_of, featurized_parts(molecules(), prepare, further)
        ):
            status = _status(read, readable)
            table = pending.popleft().cells
            write(distinct_names([*table.items(), ("status", status), *columns]))
            for kind in counts:
                counts[kind] += status.count(kind)
            move(sum(counts.values()))
    return counts


def _status(molecules: Featurized, readable: Tensor) -> list[str]:
    read = [INVALID_VALENCE if invalid else OK for invalid in molecules.invalid_valence.tolist()]
    pairs = zip(readable.tolist(), read, strict=True)
    return [status if is_readable else UNREADABLE for is_readable, status in pairs]


def _prediction_columns(model: Model, prediction: Prediction) -> Iterator[Named]:
    spec = model.spec
    for k, name in enumerate(spec.target_names):
        spread = spread_of(spec, k)
        yield spec.value_names[k], number_cells(prediction.values[:, k], spread=spread)
        yield f"{name} std", number_cells(prediction.std[:, k])
        yield from set_columns(spec, k, prediction.sets[:, k])
    readable, nearest = prediction.readable.tolist(), prediction.nearest.tolist()
    yield "similarity", number_cells(prediction.similarity)
    yield (
        "nearest",
        [
            model.training_smiles[row] if is_read else None
            for row, is_read in zip(nearest, readable, strict=True)
        ],
    )
    yield "in_domain", np.ma.array(prediction.in_domain.numpy(), mask=~prediction.readable.numpy())


def set_columns(spec: NetworkSpec, k: int, sets: Tensor) -> Iterator[Named]:
    """Prediction sets of target k, (n, 2): its classes, empty without any, or `low` and `high`."""
    name = spec.target_names[k]
    if isinstance(spec.objective, Squared):
        spread = spread_of(spec, k)
        yield f"{name} low", number_cells(sets[:, 0], spread=spread)
        yield f"{name} high", number_cells(sets[:, 1], spread=spread)
    else:
        classes = np.array(spec.class_names[k], dtype=object)
        yield f"{name} set", [" or ".join(classes[pair]) for pair in sets.numpy()]


def spread_of(spec: NetworkSpec, k: int) -> float | None:
    """Standard deviation of the numbers that target k was learned from; None for classes."""
    objective = spec.objective
    return objective.std[k] if isinstance(objective, Squared) and objective.std else None


def number_cells(column: Tensor, *, spread: float | None = None) -> np.ma.MaskedArray[Any, Any]:
    """Numbers rounded to what a float32 network can mean; those that are not finite are masked.

    Args:
        column: (n,).
        spread: the standard deviation that is 1 for the network: six digits are counted from its
            first one, so that numbers far from 0 keep what tells them apart. None for those of each
            number.
    """
    if spread:
        decimals = 5 - floor(log10(spread))
        rounded = [round(value, decimals) if isfinite(value) else nan for value in column.tolist()]
    else:
        rounded = [float(f"{value:.6g}") for value in column.tolist()]
    masked: np.ma.MaskedArray[Any, Any] = np.ma.masked_invalid(rounded)
    return masked
