"""Logits with labels, and uncertainty that is fitted to them."""

import torch

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.fingerprints import packed_fingerprints
from molhpft.estimator.calibrate import fit_uncertainty
from molhpft.estimator.held_out import HeldOut
from tests.estimator.builders import SMILES

CLASSES = Multilabel()
ONE_NUMBER = Squared(mean=(100.0,), std=(20.0,))
FINGERPRINTS = packed_fingerprints(SMILES)


def fit(valid, held, objective=CLASSES, *, calibration="platt", target_coverage=0.9):
    return fit_uncertainty(
        held,
        objective,
        validating=valid,
        calibration=calibration,
        target_coverage=target_coverage,
        fingerprints=FINGERPRINTS,
    )


def one_target(seed, *, n=50, objective=CLASSES):
    """Logits and labels of one target, none missing."""
    rng = torch.Generator().manual_seed(seed)
    a, noise = torch.randn(n, 1, generator=rng), torch.rand(n, 1, generator=rng)
    y = a + noise if isinstance(objective, Squared) else (noise < a.sigmoid()).float()
    y[:2] = torch.tensor([[0.0], [1.0]])
    return a, y


def near(a, y):
    """Molecules that are training molecules, as far as similarity can tell."""
    return HeldOut(a, y, torch.ones(len(a)))


def uncertainty_of(objective, *, n=50, coverage=0.8):
    held = near(*one_target(1, n=n, objective=objective))
    return fit(held, held, objective, target_coverage=coverage)
