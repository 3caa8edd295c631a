"""A file of what a model says of every row of its table that the members did not train on."""

from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from molhpft.core.objectives import Squared
from molhpft.domains.molecules.examples import Molecules
from molhpft.estimator.held_out import HeldOutPredictions
from molhpft.estimator.model import NetworkSpec
from molhpft.estimator.predict import number_cells, set_columns, spread_of
from molhpft.estimator.table_output import Named, distinct_names, table_writer

HELD_OUT = "held_out.csv"


def write_held_out(
    predictions: HeldOutPredictions,
    molecules: Molecules,
    labels: Tensor,
    spec: NetworkSpec,
    path: Path,
) -> None:
    """Write a row for each row of the table, in its order.

    The columns are where the table has it (`line`, or `row` in a Parquet file), `smiles`, `fold`
    (its number, or the name of the split, `split 1` of one called 1) and for every target its label
    (`<target> label`), its value or the probability of its second class, and its prediction set or
    the ends of its interval. Cells of what trained alone, or cannot be read, are empty but for
    labels.

    Args:
        predictions: of some rows.
        molecules: all of the table.
        labels: (n, t), numbers as the table has them, or 0 and 1; NaN where missing.
        spec: names the outputs.
        path: `.csv`.

    Raises:
        OSError: it cannot be written.
    """
    n = len(molecules)
    whole = predictions.of_all(n)
    columns: list[Named] = [
        (molecules.unit, list(molecules.lines) or list(range(n))),
        ("smiles", list(molecules.smiles)),
        ("fold", list(whole.parts)),
        *_target_columns(whole, labels, spec),
    ]
    with table_writer(path) as write:
        write(distinct_names(columns))


def _target_columns(
    whole: HeldOutPredictions, labels: Tensor, spec: NetworkSpec
) -> Iterator[Named]:
    for k, name in enumerate(spec.target_names):
        own = labels[:, k].tolist()
        if isinstance(spec.objective, Squared):
            yield f"{name} label", _numbers(own)
        else:
            cells = (None if isnan(y) else spec.class_names[k][int(y)] for y in own)
            yield f"{name} label", list(cells)
        yield spec.value_names[k], number_cells(whole.values[:, k], spread=spread_of(spec, k))
        yield from set_columns(spec, k, whole.sets[:, k])


def _numbers(labels: list[float]) -> np.ma.MaskedArray[Any, Any]:
    """Numbers of a column, without decimals where none of them has any."""
    own = np.ma.masked_invalid(labels)
    measured = own.compressed()
    if (measured == measured.round()).all() and (np.abs(measured) <= 2**53).all():
        return np.ma.masked_array(own.filled(0).astype(np.int64), own.mask)
    return own
