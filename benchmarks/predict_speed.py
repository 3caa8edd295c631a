"""`molhpft predict` from SMILES to file: molecules a second and peak memory.

    python benchmarks/predict_speed.py MODEL hiv.csv.gz

The model as it is for all rows of a table, then for all of them several times over, in either
precision or the one that is given, and so its first network alone. Time is that of the whole
command, imports included; memory is the peak of the largest of its processes. The last line is
JSON.
"""

import csv
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from timing import print_figures, print_table

from molhpft.domains.molecules.table_files import read_sheet
from molhpft.estimator import Model

PRECISIONS = ("32", "bf16-mixed")


def first_network(model: Model, out: Path) -> Path:
    """The model with its first network and nothing else, in a folder.

    Networks stand in the order of their weights, what the card knows of candidates does not.
    """
    networks = max(
        (member for member in model.about["members"] if member["tau"] is not None),
        key=lambda member: member["weight"],
    )
    about = {**model.about, "members": [{**networks, "name": "1 network", "weight": 1.0}]}
    alone = Model(model.spec, model.networks[:1], model.uncertainty, model.training_smiles, about)
    alone.save_pretrained(out)
    return out


def repeated(smiles: list[str], copies: int, out: Path) -> Path:
    """A table of molecules, all of them several times."""
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles"])
        for _ in range(copies):
            writer.writerows([one] for one in smiles)
    return out


def predict(model: str, table: Path, precision: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of the command."""
    out = ["--out", str(table.with_name("predictions.csv")), "--precision", precision]
    command = [sys.executable, "-m", "molhpft.cli", "predict", model, str(table), *out]
    start = perf_counter()
    _, status, used = os.wait4(os.posix_spawn(command[0], command, os.environ), 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return perf_counter() - start, used.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Print a line for every command."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, or name on the hub")
    parser.add_argument("table", type=Path, help=".csv or .csv.gz with a column smiles")
    parser.add_argument("--copies", type=int, default=5, help="of the rows, for the longer table")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=PRECISIONS)
    given = parser.parse_args()
    smiles = list(read_sheet(given.table).column("smiles"))
    lines, rates = {}, {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = Model.from_pretrained(given.model)
        models = {"all members": given.model}
        if model.networks:
            models["1 network"] = str(first_network(model, folder / "alone"))
        longer = [(which, given.copies, one) for which in models for one in given.precision]
        for which, copies, precision in [("all members", 1, given.precision[0]), *longer]:
            table = repeated(smiles, copies, folder / "table.csv")
            took, peak = predict(models[which], table, precision)
            rows = copies * len(smiles)
            what = f"{which} x {rows:,}, {precision}"
            rates[what] = rows / took
            lines[what] = {
                "s": f"{took:.0f}",
                "molecules/s": f"{rows / took:,.0f}",
                "peak MB": f"{peak:,.0f}",
            }
    print_table("SMILES to file: members x rows, precision", lines)
    print_figures(rates)


if __name__ == "__main__":
    main()
