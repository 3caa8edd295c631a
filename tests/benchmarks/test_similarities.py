"""Sums of similarities under a Gaussian process: each is scored on what it compares."""

from pathlib import Path

import numpy as np
import pytest

from molhpft.domains.files import digest
from molhpft.domains.shipped import DEFAULT_ENCODER
from molhpft.domains.weights import weight_file
from molhpft.estimator.frozen import pretrained_backbone
from tests.estimator.builders import SIZE, SMILES


def test_every_sum_is_better_than_the_mean_at_telling_sizes():
    import development_sets
    import similarities

    rows = np.random.default_rng(0).permutation(len(SMILES))
    fold = development_sets.Fold(np.sort(rows[:45]), np.sort(rows[45:]))
    labels = np.array(SIZE)[:, None]
    parts = (tuple(SMILES), labels, False, (fold,))
    data = development_sets.DevelopmentSet("sizes", "ADMET", *parts)
    path = weight_file(Path(DEFAULT_ENCODER))
    known = {"backbone": pretrained_backbone(path), "identity": digest(path)}
    scores = {
        name: similarities.sum_score(data, fold, 0, what=what, **known)
        for name, what in similarities.SUMS.items()
    }
    mean = np.sqrt(np.square(labels[fold.scored] - labels[fold.train].mean()).mean())
    assert max(scores.values()) < mean
    assert scores["features 1"] != pytest.approx(scores["features 2"], rel=1e-3)
    assert scores["all"] != pytest.approx(scores["all, equal"], rel=1e-3)
