"""Time to a model of a thousand molecules, and what it is worth, by settings that cost time.

    python benchmarks/time_to_model.py CHEMBL228_Ki.csv.gz --store runs/time_to_model.jsonl

`molhpft finetune` learns from the first thousand training rows of an assay of MoleculeACE, on a
machine that has nothing else to do, and the other training rows are validation; test rows are not
read. Settings are all of some numbers of folds, epochs and molecules in a batch, with rates that
grow as the square root of the last. Results are stored, so that an interrupted call goes on.
"""

import csv
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import sqrt
from pathlib import Path
from subprocess import run
from tempfile import TemporaryDirectory
from time import perf_counter

from result_store import ResultStore
from timing import print_figures, print_table

from molhpft.domains.molecules.table_files import read_sheet

LEARNED = 1_000  # molecules
FOLDS = (5, 4, 3)
EPOCHS = (15, 12, 10, 8, 6)
SIZES = (64, 96, 128)  # molecules in a batch
LR, BACKBONE_LR, USUAL_SIZE = 2e-3, 7e-4, 64  # the defaults

Rows = Sequence[tuple[str, str]]  # SMILES and numbers


def training_rows(table: Path) -> Rows:
    """SMILES and number of each row of an assay that does not test, as they are written."""
    sheet = read_sheet(table)
    columns = (sheet.column(name) for name in ("smiles", "y", "split"))
    return [(smiles, y) for smiles, y, split in zip(*columns, strict=True) if split == "train"]


def write(table: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write a table of a heading and rows."""
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def molhpft(*arguments: str) -> float:
    """Seconds that a command takes."""
    start = perf_counter()
    run([sys.executable, "-m", "molhpft.cli", *arguments], check=True, capture_output=True)
    return perf_counter() - start


def measured(learned: Rows, others: Rows, options: Sequence[str]) -> dict[str, float]:
    """Seconds to a model of some rows, and its RMSE on others."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        table, new, predictions = (folder / f"{file}.csv" for file in ("table", "new", "predicted"))
        write(table, [("smiles", "label"), *learned])
        write(new, [("smiles",), *((smiles,) for smiles, _ in others)])
        model = str(folder / "model")
        took = molhpft("finetune", str(table), "--target", "label", "--out", model, *options)
        molhpft("predict", model, str(new), "--out", str(predictions))
        predicted = read_sheet(predictions).column("label")
    errors = [float(y) - float(says) for (_, y), says in zip(others, predicted, strict=True)]
    return {"s": took, "RMSE": sqrt(sum(error**2 for error in errors) / len(errors))}


def options_of(folds: int, epochs: int, size: int) -> list[str]:
    """Options of `molhpft finetune`."""
    faster = sqrt(size / USUAL_SIZE)
    changes = {
        "epochs": epochs,
        "batch_size": size,
        "lr": round(LR * faster, 6),
        "backbone_lr": round(BACKBONE_LR * faster, 6),
    }
    settings = [f"--set=finetune.{key}={value}" for key, value in changes.items()]
    return [f"--folds={folds}", *settings]


def main() -> None:
    """Print a line for every setting, the fastest first."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="of MoleculeACE, .csv.gz")
    parser.add_argument("--store", type=Path, required=True, help="file of results (.jsonl)")
    parser.add_argument("--limit", type=int, help="measure so many settings and no more")
    given = parser.parse_args()
    rows, store = training_rows(given.table), ResultStore(given.store)
    learned, others = rows[:LEARNED], rows[LEARNED:]
    results: dict[str, Mapping[str, float]] = {}
    for folds, epochs, size in [*product(FOLDS, EPOCHS, SIZES)][: given.limit]:
        name = f"{folds} folds, {epochs} epochs, batches of {size}"
        depends_on = {"table": given.table.name, "setting": name, "cores": os.cpu_count()}
        options = options_of(folds, epochs, size)
        results[name] = store.once(depends_on, lambda o=options: measured(learned, others, o))
        print(f"{name}: {results[name]}", file=sys.stderr)
    fastest = sorted(results, key=lambda name: results[name]["s"])
    lines = {
        name: {"s": f"{results[name]['s']:.0f}", "RMSE": f"{results[name]['RMSE']:.4f}"}
        for name in fastest
    }
    title = f"{len(learned):,} molecules of {given.table.name}, RMSE on {len(others):,} others"
    print_table(title, lines)
    print_figures(results)


if __name__ == "__main__":
    main()
