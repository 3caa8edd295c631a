"""The sets that judge encoders as CSV files, for packages that live in an environment of their own.

    python benchmarks/export_sets.py runs/sets --split test --sets caco2 bace

Writes a table for each set and fold, with the columns smiles, split (train, val or test) and
y0, y1, ... for the targets, empty where unmeasured; and an index, `sets.jsonl`, a line for each
table. Rows that the fold does not use are left out. A set without a published validation split has
no rows of `val`. The digest `rows` of a line names molecules, labels and split: by it
`estimators.py --beside` tells whether scores are of the rows that it prints.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from development_sets import DevelopmentSet, Fold, data_root, development_set, set_names

INDEX = "sets.jsonl"


def fold_table(data: DevelopmentSet, fold: Fold) -> pd.DataFrame:
    """The rows of a fold in the order of the set."""
    split = np.full(len(data.smiles), "", dtype=object)
    parts = (("train", fold.train), ("val", fold.validation), ("test", fold.scored))
    for part, rows in parts:
        split[rows] = part
    table = pd.DataFrame({"smiles": data.smiles, "split": split})
    for target, y in enumerate(data.labels.T):
        table[f"y{target}"] = y
    return table[split != ""]


def write_tables(folder: Path, data: DevelopmentSet) -> list[dict[str, Any]]:
    """Write a CSV file for each fold, and give their lines of the index."""
    lines = []
    for number, fold in enumerate(data.folds):
        name = f"{data.name}.{number}.csv"
        fold_table(data, fold).to_csv(folder / name, index=False)
        lines.append(
            {
                "set": data.name,
                "group": data.group,
                "metric": data.metric,
                "rows": data.split_digest(fold),
                "file": name,
            }
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", help="names of sets, in their order; all by default")
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--data", type=Path, default=data_root())
    given = parser.parse_args(arguments)
    known = set_names(given.data)
    unknown = sorted(set(given.sets or ()) - set(known))
    if unknown:
        parser.error(f"--sets names {', '.join(unknown)}, which {given.data} does not hold")
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in given.sets or known:
        lines += write_tables(given.folder, development_set(given.data, name, given.split))
    (given.folder / INDEX).write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
