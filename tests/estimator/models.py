"""Models of random weights: all that a fitted one has, without a second of training."""

import torch

from molhpft.config.schema import checked_choice
from molhpft.core.objectives import Multilabel
from molhpft.domains.molecules.fingerprints import packed_fingerprints
from molhpft.estimator.confidence import HeldOut, fit_trust
from molhpft.estimator.model import Model, Shape
from tests.estimator.rings import SMILES

ENCODER = {"name": "gcn", "layers": 2, "width": 8}
NETWORKS = {
    "plain": {},
    "virtual node": {"encoder": {"virtual_node": True}},
    "mlp": {"head": "mlp"},
    "cut": {"cut": "conv1"},
    "pretrain-gnns": {"encoder": {"name": "gcn_pretrain_gnns"}},
}
ABOUT = {
    "task": "rings",
    "method": "hp_ft",
    "seed": 0,
    "sizes": {"train": 60, "valid": 40, "test": 20},
    "chosen_tau": 2,
    "encoder_weights": "none (random)",
    "branches": [{"tau": 2, "energy": {"aie": 0.5}}],
    "scores": {"valid": {"rocauc": 0.75, "ece": None}, "test": {"rocauc": 0.6125, "ece": 0.1}},
    "promise": ["Prediction sets hold every label."],
    "notes": ["1 of 60 molecules cannot be read and was left out."],
}


def random_model(
    *,
    encoder=(),
    head="linear",
    cut=None,
    objective=Multilabel(),  # noqa: B008 - frozen
    targets=("ring",),
    calibration="temperature",
    members=2,
    smiles=tuple(SMILES),
    classes=(),
):
    torch.manual_seed(0)
    choices = checked_choice("encoder", ENCODER | dict(encoder)), checked_choice("head", head)
    shape = Shape(*choices, cut, targets, objective, classes)
    networks = [shape.network() for _ in range(members)]
    for network in networks:
        _as_if_trained(network)
    logits = torch.randn(40, len(targets))
    labels = (torch.rand(logits.shape) < logits.sigmoid()).float()
    prints = packed_fingerprints(smiles)
    held = HeldOut(logits, labels, torch.rand(40))
    trust = fit_trust(held, held, objective, calibration=calibration, level=0.9, prints=prints)
    about = ABOUT | {"members": [{"tau": k, "valid": 0.7} for k in range(members)]}
    return Model(shape, networks, trust, smiles, about)


def _as_if_trained(network):
    """Running statistics of its own: those of a new network are all alike."""
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
