"""The estimators with their defaults against fingerprints, plain finetuning and no pretraining.

    python benchmarks/estimators.py ogbg-molbace ogbg-molesol ogbg-molfreesolv ogbg-moltox21

OGB's scaffold splits: everything is fitted on the training split and stopped, chosen and calibrated
on the validation split; the test split is read once. Prints Markdown: means and standard deviations
over seeds of ROC-AUC (higher is better) or RMSE (lower) on test, and for networks the calibration
error before and after, and coverage of the sets that are to hold 90 %.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from molhpft.core.data import Task
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.fingerprints import (
    morgan_fingerprints,
    packed_fingerprints,
    unpack_bits,
)
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.estimator import HPFTClassifier, HPFTRegressor
from molhpft.estimator.calibrate import HeldOut, held_out_scores

Numbers = dict[str, float]

NETWORKS: dict[str, dict[str, Any]] = {
    "HP-FT, defaults": {},
    "plain finetuning": {"tau": 0, "ensemble": False},
    "from scratch": {"encoder": {"name": "gcn"}, "tau": 0, "ensemble": False},
}


class Data(NamedTuple):
    """Molecules and their labels, in their own unit."""

    smiles: list[str]
    labels: np.ndarray


def split_data(task: Task, split: str) -> Data:
    """One split of a task on molecules."""
    molecules, rows = task.examples, task.rows(split)
    assert isinstance(molecules, Molecules)
    labels = molecules.targets[rows].float()
    if isinstance(task.objective, Squared):
        labels = task.objective.values(labels)
    return Data([molecules.smiles[row] for row in rows.tolist()], labels.double().numpy())


def network(task: Task, options: Mapping[str, Any], seed: int) -> Numbers:
    """Fit an estimator and look at the test split, once."""
    kind = HPFTRegressor if isinstance(task.objective, Squared) else HPFTClassifier
    train, valid = (split_data(task, split) for split in ("train", "valid"))
    estimator = kind(**options, random_state=seed)
    model = estimator.fit(*train, eval_set=tuple(valid)).model_
    molecules, rows = task.examples, task.rows("test")
    assert isinstance(molecules, Molecules)
    packed = packed_fingerprints([molecules.smiles[row] for row in rows.tolist()])
    held = HeldOut(
        logits=model.logits(molecules.store, rows).mean(0),
        targets=molecules.targets[rows].float(),
        similarity=model.uncertainty.neighbours.nearest(unpack_bits(packed))[0],
    )
    return held_out_scores(held, model.spec.objective, model.uncertainty)


def fingerprints(
    task: Task, models: tuple[Callable[..., Any], Callable[..., Any]], seed: int
) -> Numbers:
    """Fit a model of Morgan fingerprints to every target by itself."""
    numbers = isinstance(task.objective, Squared)
    train, test = (split_data(task, split) for split in ("train", "test"))
    inputs = [morgan_fingerprints(data.smiles).numpy() for data in (train, test)]
    columns = []
    for y in train.labels.T:
        labelled = ~np.isnan(y)
        model = models[numbers](random_state=seed).fit(inputs[0][labelled], y[labelled])
        columns.append(
            model.predict(inputs[1]) if numbers else model.predict_proba(inputs[1])[:, 1]
        )
    outputs, labels = torch.tensor(np.stack(columns, 1)), torch.tensor(test.labels)
    if numbers:
        return {"rmse": -Squared().score(outputs, labels)}
    return {"rocauc": Multilabel().score(outputs.logit(eps=1e-9), labels)}


MODELS = {
    "Morgan + random forest": (
        lambda **o: RandomForestClassifier(300, n_jobs=-1, **o),
        lambda **o: RandomForestRegressor(300, n_jobs=-1, max_features="sqrt", **o),
    ),
    "Morgan + gradient boosting": (
        HistGradientBoostingClassifier,
        HistGradientBoostingRegressor,
    ),
}
COLUMNS = ("rocauc", "rmse", "mae", "spearman", "ece_before", "ece", "coverage")


def cell(seeds: Sequence[Numbers], name: str) -> str:
    """Mean and standard deviation over seeds."""
    if name not in seeds[0]:
        return ""
    values = [numbers[name] for numbers in seeds]
    std = f" ± {stdev(values):.4f}" if values[1:] else ""
    return f"{mean(values):.4f}{std}"


def main() -> None:
    """Print a table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", metavar="DATA", help="OGB data sets")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("| data | model | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name in given.names:
        task = ogb_task(name)
        sides: dict[str, Callable[[int], Numbers]] = {
            **{side: partial(network, task, options) for side, options in NETWORKS.items()},
            **{side: partial(fingerprints, task, models) for side, models in MODELS.items()},
        }
        for side, measured in sides.items():
            rows = [measured(seed) for seed in range(given.seeds)]
            cells = [cell(rows, column) for column in COLUMNS]
            print(f"| {name} | {side} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
