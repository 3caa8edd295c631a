"""A file of what a model says of every row of its table that the members did not train on."""

from collections.abc import Iterator
from pathlib import Path

import torch

from molhpft.core.objectives import Squared
from molhpft.domains.molecules.examples import Molecules
from molhpft.estimator.held_out import HeldOutPredictions
from molhpft.estimator.model import NetworkSpec
from molhpft.estimator.predict import number_cells, set_columns, spread_of
from molhpft.estimator.table_output import Named, distinct_names, table_writer

HELD_OUT = "held_out.csv"


def write_held_out(
    predictions: HeldOutPredictions, molecules: Molecules, spec: NetworkSpec, path: Path
) -> None:
    """Write a row for each row of the table, in its order.

    The columns are where the table has it (`line`, or `row` in a Parquet file), `smiles`, `fold`
    (its number, or the name of the split) and for every target its label (`<target> label`), its
    value or the probability of its second class, and its prediction set or the ends of its
    interval. Cells of what trained alone, or cannot be read, are empty but for labels.

    Args:
        predictions: of some rows.
        molecules: all of the table, with their labels.
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
        *_target_columns(whole, molecules, spec),
    ]
    with table_writer(path) as write:
        write(distinct_names(columns))


def _target_columns(
    whole: HeldOutPredictions, molecules: Molecules, spec: NetworkSpec
) -> Iterator[Named]:
    targets = molecules.targets[torch.arange(len(molecules))].float().cpu()
    if isinstance(spec.objective, Squared):
        targets = spec.objective.values(targets)
    for k, name in enumerate(spec.target_names):
        spread = spread_of(spec, k)
        if isinstance(spec.objective, Squared):
            yield f"{name} label", number_cells(targets[:, k], spread=spread)
        else:
            classes = spec.class_names[k]
            cells = (None if y != y else classes[int(y)] for y in targets[:, k].tolist())
            yield f"{name} label", list(cells)
        yield spec.value_names[k], number_cells(whole.values[:, k], spread=spread)
        yield from set_columns(spec, k, whole.sets[:, k])
