"""Test scores of chemprop with its defaults on the sets that judge encoders.

    python benchmarks/export_sets.py runs/sets --split test
    python -m venv chemprop && chemprop/bin/pip install chemprop==2.3.1
    OMP_NUM_THREADS=1 chemprop/bin/python benchmarks/chemprop_scores.py runs/sets
    python benchmarks/estimators.py --split test --seeds 1 --beside benchmarks/chemprop_scores.jsonl

Runs in an environment of chemprop and needs nothing of molhpft: it reads the tables that
`export_sets.py` writes, runs `chemprop train` on each with every option left at its default (50
epochs, the weights of the epoch with the lowest validation loss), and adds a line for each set
and seed to `--out`. What stands there already is not computed again. A set that has no validation
rows gets a tenth of its training rows, drawn under the seed. Chemprop stops at molecules that
RDKit refuses: it learns from the others, and what it should predict for these is the mean of the
training labels; `unreadable` counts them. RMSE: lower is better; ROC-AUC in percent, a mean over
targets: higher is.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from rdkit.Chem import MolFromSmiles
from rdkit.rdBase import BlockLogs
from sklearn.metrics import roc_auc_score

CHEMPROP = (str(Path(sys.executable).with_name("chemprop")),)
TASK_TYPES = {"RMSE": "regression", "ROC-AUC": "classification"}
OUT = Path(__file__).with_name("chemprop_scores.jsonl")

_VALIDATION = 10  # a validation split is one part in so many


def with_validation(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The table with a tenth of its training rows as `val`, where it has no such rows."""
    if (table["split"] == "val").any():
        return table
    train = np.flatnonzero(table["split"] == "train")
    drawn = np.random.default_rng(seed).permutation(train)[: len(train) // _VALIDATION]
    split = table["split"].to_numpy(dtype=object, copy=True)
    split[drawn] = "val"
    return table.assign(split=split)


def score(table: pd.DataFrame, predicted: pd.DataFrame, metric: str) -> float:
    """RMSE, or ROC-AUC in percent, a mean over the targets that have both classes in the test rows.

    Args:
        table: with all rows.
        predicted: for the test rows, in their order, with a column for each target.
        metric: one of `TASK_TYPES`.

    Raises:
        ValueError: predictions are not finite numbers.
    """
    truth = table[table["split"] == "test"]
    scores = []
    for target in truth.columns.drop(["smiles", "split"]):
        y, output = truth[target].to_numpy(), predicted[target].to_numpy(dtype=float)
        if not np.isfinite(output).all():
            raise ValueError(f"predictions for {target} should be finite numbers")
        known = ~np.isnan(y)
        if metric == "RMSE":
            scores.append(np.sqrt(np.square(y - output)[known].mean()))
        elif len(np.unique(y[known])) == 2:
            scores.append(100 * roc_auc_score(y[known], output[known]))
    return float(np.mean(scores))


def unreadable(table: pd.DataFrame) -> pd.Series:
    """Of each row whether RDKit refuses its molecule."""
    with BlockLogs():
        return table["smiles"].map(lambda smiles: MolFromSmiles(smiles) is None)


def predictions(table: pd.DataFrame, refused: pd.Series, metric: str, seed: int) -> pd.DataFrame:
    """Of all test rows: chemprop's, and means of training labels for `refused` molecules."""
    predicted = chemprop_predictions(table[~refused], metric, seed)
    targets = table.columns.drop(["smiles", "split"])
    whole = table.loc[table["split"] == "test", ["smiles", *targets]].astype(
        dict.fromkeys(targets, float)
    )
    read = ~refused[whole.index]
    if whole.loc[read, "smiles"].tolist() != predicted["smiles"].tolist():
        raise ValueError("chemprop should predict the test rows of the table in their order")
    whole.loc[read, targets] = predicted[targets].to_numpy(dtype=float)
    whole.loc[~read, targets] = table.loc[table["split"] == "train", targets].mean().to_numpy()
    return whole


def chemprop_predictions(table: pd.DataFrame, metric: str, seed: int) -> pd.DataFrame:
    """What chemprop predicts for the test rows once it is trained.

    Args:
        table: with smiles, split and targets; molecules that RDKit reads.
        metric: one of `TASK_TYPES`.
        seed: of weights and of the order of batches.

    Raises:
        RuntimeError: chemprop stops with an error, whose last lines are given.
    """
    with TemporaryDirectory() as folder:
        path, out = Path(folder) / "table.csv", Path(folder) / "model"
        table.to_csv(path, index=False)
        command = [*CHEMPROP, "train", "--data-path", str(path), "--output-dir", str(out)]
        command += ["--smiles-columns", "smiles", "--splits-column", "split"]
        command += ["--task-type", TASK_TYPES[metric], "--accelerator", "cpu"]
        command += ["--pytorch-seed", str(seed), "--data-seed", str(seed)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"chemprop train should end well; it said: {done.stderr[-2000:]}")
        return pd.read_csv(out / "model_0" / "test_predictions.csv")


def model_name() -> str:
    """Chemprop with its version: the name of its column."""
    return f"chemprop {version('chemprop')}"


def processor_seconds() -> float:
    """Processor time of all ended commands: unlike the clock, it leaves out others' work."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def scored_line(entry: dict[str, Any], folder: Path, seed: int) -> dict[str, Any]:
    """The line of a set under a seed.

    Args:
        entry: of the index.
        folder: of the tables.
        seed: of every random number.
    """
    table = with_validation(pd.read_csv(folder / entry["file"]), seed)
    start, own_start = perf_counter(), processor_seconds()
    refused = unreadable(table)
    predicted = predictions(table, refused, entry["metric"], seed)
    seconds, own = perf_counter() - start, processor_seconds() - own_start
    return {
        **{key: entry[key] for key in ("set", "group", "metric", "rows")},
        "seed": seed,
        "score": round(score(table, predicted, entry["metric"]), 6),
        "seconds": round(seconds, 1),
        "processor_seconds": round(own, 1),
        "unreadable": table.loc[refused, "split"].value_counts().to_dict(),
        "model": model_name(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the scores that are not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where export_sets.py wrote the tables")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    index = given.folder / "sets.jsonl"
    if not index.is_file():
        parser.error(f"no {index}; write the tables with benchmarks/export_sets.py first")
    entries = [json.loads(line) for line in index.read_text().splitlines()]
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    there = {(line["model"], line["rows"], line["seed"]) for line in map(json.loads, lines)}
    for seed in range(given.seeds):
        for entry in entries:
            if (model_name(), entry["rows"], seed) in there:
                continue
            line = json.dumps(scored_line(entry, given.folder, seed))
            print(line, flush=True)
            with given.out.open("a") as file:  # another process may add to it, too
                file.write(f"{line}\n")


if __name__ == "__main__":
    main()
