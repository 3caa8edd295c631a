"""How a finetuned encoder is judged: the estimators with their defaults, fitted to training rows.

Where test rows are scored, tau and epochs are chosen on the validation rows of the published split;
where there are none, or they are what is scored, the estimator holds out some of its training rows.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from development_sets import DevelopmentSet, Fold

from molhpft.config.changes import apply, parse_changes
from molhpft.config.schema import resolved
from molhpft.domains.files import digest
from molhpft.estimator import HPFTClassifier, HPFTRegressor
from molhpft.estimator.notes import DataWarning
from molhpft.estimator.train import model_config

VERSION = "finetuned 1"


def changed_keys(changes: Sequence[str]) -> dict[str, Any]:
    """Keys of a config, as the estimators' `config` takes them, from changes such as "a.b=3"."""
    config: dict[str, Any] = {}
    for key, value in parse_changes(changes).items():
        apply(config, key, value)
    return config


def finetuning_identity(encoder: Path, config: Mapping[str, Any]) -> str:
    """Digest of the weights and of all settings: a changed default is another result."""
    settings = resolved(model_config(encoder=encoder, more=config))
    settings["encoder"] = {k: v for k, v in settings["encoder"].items() if k != "weights"}
    return digest(encoder, json.dumps(settings, sort_keys=True, default=str))


def finetuned_score(
    data: DevelopmentSet, fold: Fold, encoder: Path, *, config: Mapping[str, Any], seed: int
) -> float:
    """Score on the scored rows after finetuning on the others.

    Args:
        data: of molecules and labels.
        fold: of their rows.
        encoder: a weight file.
        config: further keys, for other than the defaults.
        seed: of every random number.
    """
    smiles = np.array(data.smiles, dtype=object)
    kind = HPFTClassifier if data.classes else HPFTRegressor
    estimator = kind(encoder=str(encoder), config=dict(config), random_state=seed)
    train, validation = ((smiles[r], data.labels[r]) for r in (fold.train, fold.validation))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the sets are as they are
        estimator.fit(*train, eval_set=validation if len(fold.validation) else None)
    predict = estimator.predict_proba if data.classes else estimator.predict
    return data.score(fold, predict(smiles[fold.scored]))
