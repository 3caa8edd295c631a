"""Do transferability scores tell which encoder finetunes best? Their rank correlation with it.

    python benchmarks/transferability.py --encoders gcn_structure gcn_contextpred.pth molclr_gcn.pth

Every encoder is scored on each of eight sets, or of `--sets`, by `molhpft rank`, and finetuned on
it by one short HP-FT that is the same for all. Printed is Spearman's correlation over encoders
between each score and the validation result of finetuning, a column for each set. At most 500
molecules of a set train and 250 validate. All that was computed before is read from `--store`, so
that an interrupted call goes on; finetuning alone takes long.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from development_sets import DevelopmentSet, Rows, data_root, development_set
from result_store import ResultStore
from scipy.stats import rankdata, spearmanr

from molhpft.advice.rank import SCORES, rank
from molhpft.config.schema import RunConfig, parse_config
from molhpft.domains.files import digest
from molhpft.domains.weights import encoder_name, weight_file
from molhpft.run.identity import FORMAT
from molhpft.run.run import run

VERSION = "transferability 1"
SCORES_VERSION = 1
SETS = (
    *("bace", "tox21", "ames", "cyp2d6"),
    *("caco2", "solubility", "CHEMBL262_Ki", "CHEMBL234_Ki"),
)
MOST: Mapping[str, int] = {"train": 500, "valid": 250, "test": 50}
"""Molecules of each split at most, evenly spaced. Test molecules are needed by a run, not read."""

SETTINGS: Mapping[str, Any] = {
    "standardise": True,
    "method": {"name": "hp_ft", "tau": [16]},
    "probe": {"lr": 0.003, "batch_size": 32},
    "finetune": {"epochs": 6, "lr": 0.0005, "batch_size": 32, "keep": "best"},
}
"""Of every finetuning; features are standardised as those of the estimators are."""


@dataclass(frozen=True, eq=False)
class Small:
    """A set of which a few molecules are left.

    Attributes:
        data: the whole set.
        rows: split name to row numbers.
    """

    data: DevelopmentSet
    rows: Mapping[str, Rows]

    @property
    def content(self) -> str:
        """Digest of molecules, labels and splits."""
        smiles, labels = self.data.smiles, self.data.labels
        return digest(
            *(smiles[row] for rows in self.rows.values() for row in rows),
            *(labels[rows].tobytes() for rows in self.rows.values()),
        )

    def write(self, path: Path) -> None:
        """Write the molecules as a table with a column `split`."""
        parts = []
        for split, rows in self.rows.items():
            columns = {f"y{k}": y for k, y in enumerate(self.data.labels[rows].T)}
            smiles = [self.data.smiles[row] for row in rows]
            parts.append(pd.DataFrame({"smiles": smiles, **columns, "split": split}))
        pd.concat(parts).to_csv(path, index=False)


def small_set(root: Path, name: str) -> Small:
    """A few molecules of a set by its name; those that train and validate are of its `valid`."""
    data = development_set(root, name, "valid")
    fold, tested = data.folds[0], development_set(root, name, "test").folds[0]
    rows = {"train": fold.train, "valid": fold.scored, "test": tested.scored}
    return Small(data, {split: spaced(rows[split], most) for split, most in MOST.items()})


def spaced(rows: Rows, most: int) -> Rows:
    """At most so many rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def config_of(small: Small, table: Path, encoder: Path, seed: int) -> RunConfig:
    """The run of an encoder on the table that a small set was written to."""
    task = {
        "name": "csv",
        "path": str(table),
        "target_columns": ["all"],
        "kind": "classification" if small.data.classes else "regression",
        "split": "column",
        "split_column": "split",
    }
    return parse_config(
        {**SETTINGS, "task": task, "encoder": {"weights": str(encoder)}, "seed": seed},
        unused_are="dropped",
    )


def finetuned(small: Small, encoder: Path, seed: int, store: ResultStore) -> float:
    """Validation score of an encoder finetuned on a small set; higher is better."""

    def compute() -> float:
        with TemporaryDirectory() as folder:
            table = Path(folder) / f"{small.data.name}.csv"
            small.write(table)
            summary = run(config_of(small, table, encoder, seed), Path(folder)).read_json(
                "summary.json"
            )
        return float(summary["branches"][0]["final"]["valid"])

    depends_on = {
        "protocol": VERSION,
        "format": FORMAT,
        "settings": SETTINGS,
        "encoder": digest(encoder),
        "set": small.data.name,
        "content": small.content,
        "seed": seed,
    }
    return float(store.once(depends_on, compute))


def scores_of(small: Small, encoder: Path, store: ResultStore) -> dict[str, Any]:
    """The row of an encoder that `molhpft rank` prints for a small set."""

    def compute() -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            table = Path(folder) / f"{small.data.name}.csv"
            small.write(table)
            ranking = rank(config_of(small, table, encoder, 0), [str(encoder)])
        (row,) = ranking["encoders"]
        return {key: row[key] for key in (*SCORES, "width", "seconds")}

    depends_on = {
        "protocol": f"{VERSION}, scores {SCORES_VERSION}",
        "standardise": SETTINGS["standardise"],
        "encoder": digest(encoder),
        "set": small.data.name,
        "content": small.content,
    }
    return dict(store.once(depends_on, compute))


def correlation(score: Sequence[float | None], result: Sequence[float]) -> float:
    """Spearman's over encoders; NaN where one has no score, or all have the same."""
    if None in score or len(set(score)) < 2:
        return nan
    return float(spearmanr(score, result).statistic)


def place_of_choice(score: Sequence[float | None], result: Sequence[float]) -> float:
    """Place by finetuning, 1 for the best, of the encoder of the highest score; NaN as above."""
    if None in score or len(set(score)) < 2:
        return nan
    return float(rankdata(np.negative(result))[int(np.argmax(np.array(score, dtype=float)))])


def result_table(names: Sequence[str], sets: Sequence[Small], results: np.ndarray) -> list[str]:
    """Markdown: a line for each encoder, its validation results, (encoders, sets)."""
    columns = [f"{small.data.name} ({small.data.metric})" for small in sets]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(sets)) + "|"]
    for name, row in zip(names, results, strict=True):
        cells = [
            f"{100 * value:.1f}" if small.data.classes else f"{-value:.3f}"
            for value, small in zip(row, sets, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def correlation_line(
    name: str,
    scores: Sequence[Sequence[float | None]],
    results: np.ndarray,
    classes: Sequence[bool],
) -> str:
    """Correlation of a score with results on every set, means, and where its choices come.

    Args:
        name: of the score.
        scores: for each set, a score for each encoder.
        results: of finetuning, (encoders, sets).
        classes: whether the labels of a set are; means are of such sets, of others, and of all.
    """
    pairs = list(zip(scores, results.T.tolist(), strict=True))
    found = [correlation(score, result) for score, result in pairs]
    groups = [[k for k, has in enumerate(classes) if has == kind] for kind in (True, False)]
    means = [mean_of(found, group) for group in (*groups, range(len(found)))]
    places = mean_of([place_of_choice(*pair) for pair in pairs], range(len(pairs)))
    cells = ["-" if isnan(value) else f"{value:+.2f}" for value in (*found, *means)]
    return f"| {name} | {' | '.join(cells)} | {'-' if isnan(places) else f'{places:.1f}'} |"


def mean_of(values: Sequence[float], of: Iterable[int]) -> float:
    """Mean of some of the values; NaN where one of these is, or where they are none."""
    some = [values[k] for k in of]
    return mean(some) if some else nan


def correlation_table(
    sets: Sequence[Small], rows: Sequence[Sequence[Mapping[str, Any]]], runs: np.ndarray
) -> list[str]:
    """Markdown: a line for each score, and how well finetuning foretells itself.

    Args:
        sets: in the order of the columns.
        rows: for each set, the row of each encoder.
        runs: results of finetuning, (seeds, encoders, sets).
    """
    names = " | ".join(small.data.name for small in sets)
    lines = [
        f"| | {names} | mean, classes | mean, numbers | mean | place of choice |",
        "|---" * (5 + len(sets)) + "|",
    ]
    classes = [small.data.classes for small in sets]
    for key, title in {**SCORES, "width": "width of the features"}.items():
        scores = [[row[key] for row in of_set] for of_set in rows]
        lines.append(correlation_line(title, scores, runs.mean(0), classes))
    if len(runs) > 1:
        one, others = runs[0].T.tolist(), runs[1:].mean(0)
        lines.append(correlation_line("finetuning, under another seed", one, others, classes))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the results of finetuning, then correlations over all encoders and over some."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--encoders", nargs="+", required=True, metavar="NAME_OR_PATH")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET")
    parser.add_argument("--without", nargs="*", default=[], help="parts of names, for a last table")
    parser.add_argument("--seeds", type=int, default=1, help="of finetuning")
    parser.add_argument("--data", type=Path, default=data_root())
    parser.add_argument("--store", type=Path, default=Path("runs/transferability.jsonl"))
    given = parser.parse_args(arguments)
    store, files = ResultStore(given.store), [weight_file(Path(one)) for one in given.encoders]
    names = [encoder_name(file) for file in files]
    sets = [small_set(given.data, name) for name in given.sets]
    rows = [[scores_of(small, file, store) for file in files] for small in sets]
    # all of one seed before any of the next, so that an interrupted call has results of use
    runs = np.array(
        [
            [[finetuned(small, file, seed, store) for file in files] for small in sets]
            for seed in range(given.seeds)
        ]
    ).swapaxes(1, 2)
    print("\n".join(result_table(names, sets, runs.mean(0))))
    seconds = np.mean([[row["seconds"] for row in of_set] for of_set in rows])
    print(f"\nScoring an encoder on a set took {seconds:.1f} s on average.")
    everyone = list(range(len(names)))
    some = [k for k in everyone if not any(part in names[k] for part in given.without)]
    for kept in [everyone, some] if len(some) < len(names) else [everyone]:
        print(f"\nSpearman's correlation over {len(kept)} encoders:\n")
        own = [[of_set[k] for k in kept] for of_set in rows]
        print("\n".join(correlation_table(sets, own, runs[:, kept])))


if __name__ == "__main__":
    main()
