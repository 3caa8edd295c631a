"""The estimators, parts of them and models of fingerprints on the sets that judge encoders.

    python benchmarks/estimators.py --quick
    python benchmarks/estimators.py --rows networks --set finetune.epochs=15 --sets caco2 bace
    python benchmarks/estimators.py --rows all --set finetune.epochs=12 --split folds
    python benchmarks/estimators.py --split test --baselines forest svr_counts
    python benchmarks/estimators.py --split test --beside benchmarks/chemprop_scores.jsonl

Every row and baseline gets the molecules that are not scored, and chooses for itself. Scores of
`--split valid`, the default, choose settings, and so do those of `--split folds`, of the rows that
the final table's estimators learn from, by members that did not; `--split test` is for that table.
RMSE: lower is better; ROC-AUC in percent: higher is. Scores are stored in `--store` by what they
depend on, and finetuned networks in `--runs`, so that an interrupted call goes on. `--beside` adds
columns of other packages from a file, whose scores must be of the very rows that are printed.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from beside import read_beside
from development_sets import DevelopmentSet, Fold
from encoders import Judged, judging_parser, print_tables, seeds_of
from package_settings import package_settings

from molhpft.config.changes import apply, parse_changes
from molhpft.config.schema import resolved
from molhpft.domains.files import digest
from molhpft.domains.weights import encoder_name, weight_file
from molhpft.estimator import HPFTClassifier, HPFTRegressor
from molhpft.estimator.notes import DataWarning
from molhpft.estimator.settings import model_config
from molhpft.run.device import settled

VERSION = "estimators 3"

ROWS: dict[str, dict[str, Any]] = {
    "all": {},
    "networks": {"members": "networks"},
    "tau 0": {"members": "networks", "tau": 0},
    "kernels": {"members": "kernels"},
    "features": {"members": "features"},
    "fingerprints": {"members": "fingerprints"},
}
"""Options of the estimators: with their defaults, and with parts of them."""


def changed_keys(changes: Sequence[str]) -> dict[str, Any]:
    """Keys of a config, as the estimators' `config` takes them, from changes such as "a.b=3"."""
    config: dict[str, Any] = {}
    for key, value in parse_changes(changes).items():
        apply(config, key, value)
    return config


def identity(encoder: Path, options: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Digest of the weights and of all settings: a changed default or constant is another result.

    So is another precision, which is that of this machine where none is given.
    """
    given = {"encoder": encoder, "tau": options.get("tau"), "more": config}
    settings = [
        resolved(settled(model_config(**given, molecules=n)))
        for n in (1_000, 10_000)  # with many and with few epochs
    ]
    for one in settings:
        one["encoder"] = {k: v for k, v in one["encoder"].items() if k != "weights"}
    parts = [settings, options, package_settings()]
    return digest(encoder, json.dumps(parts, sort_keys=True, default=str))


def judged_estimator(
    row: str, encoder: Path, changes: Sequence[str], seeds: int, runs: Path, *, alone: bool = False
) -> Judged:
    """A row of `ROWS` from the weights of an encoder, which its name says unless it is alone."""
    config, options = changed_keys(changes), ROWS[row]
    fit = partial(estimator_score, encoder=encoder, options=options, config=config, runs=runs)
    named = [] if alone else [encoder_name(encoder)]
    name = " ".join([row, *named, *(one for one in changes if not one.startswith("device="))])
    return Judged(name, identity(encoder, options, config), fit, seeds, VERSION, joined=True)


def estimator_score(
    data: DevelopmentSet,
    fold: Fold,
    seed: int,
    *,
    encoder: Path,
    options: Mapping[str, Any],
    config: Mapping[str, Any],
    runs: Path,
) -> float:
    """Score on the scored rows of an estimator that is fitted to the others.

    Args:
        data: of molecules and labels.
        fold: of their rows.
        seed: of every random number.
        encoder: a weight file.
        options: of the estimator.
        config: further keys, for other than the defaults.
        runs: folder of finetuned networks.
    """
    smiles = np.array(data.smiles, dtype=object)
    kind = HPFTClassifier if data.classes else HPFTRegressor
    estimator = kind(
        encoder=str(encoder), config=dict(config), runs=runs, random_state=seed, **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the sets are as they are
        estimator.fit(smiles[fold.train], data.labels[fold.train])
    if fold.is_out_of_fold:
        return data.score(fold, estimator.out_of_fold_)
    predict = estimator.predict_proba if data.classes else estimator.predict
    return data.score(fold, predict(smiles[fold.scored]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = judging_parser(
        __doc__ or "", "runs/estimators.jsonl", splits=("valid", "folds", "test")
    )
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--runs", type=Path, default=Path("runs/estimators"))
    parser.add_argument("--set", action="append", default=[], help="a key of a config")
    parser.add_argument("--beside", type=Path, help="scores that chemprop_scores.py wrote")
    given = parser.parse_args(arguments)
    try:
        beside = read_beside(given.beside) if given.beside else []
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    options, alone = (given.set, seeds_of(given), given.runs), len(given.encoders) == 1
    judged = [
        judged_estimator(row, weight_file(Path(encoder)), *options, alone=alone)
        for encoder in given.encoders
        for row in given.rows
    ]
    print_tables(parser, given, judged, beside, joined=True)


if __name__ == "__main__":
    main()
