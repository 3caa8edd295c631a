"""Chains and rings that a small network learns in a second, and models that are not trained."""

from dataclasses import replace

import torch

from molhpft.config.schema import checked_choice
from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.fingerprints import packed_fingerprints
from molhpft.estimator.calibrate import fit_uncertainty
from molhpft.estimator.held_out import HeldOut
from molhpft.estimator.model import Model, NetworkSpec

SMILES = [s for n in range(3, 33) for s in ("C" * n + "O", "C1" + "C" * n + "1N")]
RING = [k % 2 for k in range(len(SMILES))]
SIZE = [float(n + 1 + k) for n in range(3, 33) for k in (0, 1)]
BRIEF = {
    "encoder": {"name": "gcn", "layers": 2, "width": 8, "dropout": 0.2},
    "tau": (0, 2, 5),
    "split": "random",
    "validation": 0.3,
    "members": "networks",
    "config": {
        "finetune": {"epochs": 8, "lr": 0.02, "batch_size": 16, "keep": "best"},
        "probe": {"lr": 0.01},
    },
}
# heads so different that networks from several of them answer best together
SEVERAL = {
    "finetune": {"epochs": 4, "lr": 0.01, "batch_size": 16, "keep": "best"},
    "probe": {"lr": 2.0},
}
CHANGES = (
    "encoder={name: gcn, layers: 2, width: 8, dropout: 0.2}",
    "finetune={epochs: 8, lr: 0.02, batch_size: 16, keep: best}",
    "probe={lr: 0.01}",
)


def ring_task(**changes):
    """Whether there is a ring, of molecules dealt at random to three splits."""
    deal = torch.randperm(len(SMILES), generator=torch.Generator().manual_seed(0))
    given = {
        "smiles": SMILES,
        "targets": torch.tensor(RING, dtype=torch.float32)[:, None],
        "target_names": ("ring",),
        "splits": dict(zip(("train", "valid", "test"), deal.split([30, 16, 14]), strict=True)),
        "objective": Multilabel(),
    }
    return molecule_task("rings", **given | changes)


def size_task(sizes=SIZE):
    """The number of atoms of the same molecules, or other numbers."""
    targets = torch.as_tensor(sizes)[:, None]
    return ring_task(targets=targets, target_names=("size",), objective=Squared(), standardise=True)


def unvalidated_size_task(sizes=SIZE):
    """The same with its validation molecules among those that train, for folds to divide."""
    task = size_task(sizes)
    rest = torch.cat([task.rows("train"), task.rows("valid")]).sort().values
    return replace(task, splits={"train": rest, "test": task.rows("test")})


def write_table(path, *, target="ring", values=RING, smiles=SMILES):
    rows = [f"{s},{v}" for s, v in zip(smiles, values, strict=True)]
    path.write_text("\n".join([f"smiles,{target}", *rows]) + "\n")
    return path


ENCODER = {"name": "gcn", "layers": 2, "width": 8}
DMPNN = {"name": "dmpnn", "depth": 3, "width": 8}
NETWORKS = {
    "plain": {},
    "virtual node": {"encoder": {"virtual_node": True}},
    "mlp": {"head": "mlp"},
    "cut": {"cut": "conv1"},
    "pretrain-gnns": {"encoder": {"name": "gcn_pretrain_gnns"}},
    "dmpnn": {"encoder": DMPNN},
    "dmpnn, cut": {"encoder": DMPNN, "cut": "atoms"},
}
ABOUT = {
    "task": "rings",
    "method": "hp_ft",
    "folds": 0,
    "seed": 0,
    "sizes": {"train": 60, "valid": 40, "test": 20},
    "chosen_tau": 2,
    "encoder_weights": "none (random)",
    "branches": [{"tau": 2, "energy": {"aie": 0.5}}],
    "scores": {"valid": {"rocauc": 0.75, "ece": None}, "test": {"rocauc": 0.6125, "ece": 0.1}},
    "coverage": ["Prediction sets hold every label."],
    "notes": ["1 of 60 molecules cannot be read and was left out."],
}


def random_model(
    *,
    encoder=(),
    head="linear",
    cut=None,
    standardise=False,
    objective=Multilabel(),  # noqa: B008 - frozen
    targets=("ring",),
    calibration="temperature",
    members=2,
    smiles=tuple(SMILES),
    classes=(),
    lines=(),
):
    torch.manual_seed(0)
    described = encoder if encoder == DMPNN else ENCODER | dict(encoder)
    choices = checked_choice("encoder", described), checked_choice("head", head)
    spec = NetworkSpec(*choices, cut, standardise, targets, objective, classes)
    networks = [spec.network() for _ in range(members)]
    for network in networks:
        _as_if_trained(network)
    logits = torch.randn(40, len(targets))
    labels = (torch.rand(logits.shape) < logits.sigmoid()).float()
    prints = packed_fingerprints(smiles)
    held = HeldOut(logits, labels, torch.rand(40))
    uncertainty = fit_uncertainty(
        held,
        objective,
        validating=held,
        calibration=calibration,
        target_coverage=0.9,
        fingerprints=prints,
    )
    about = ABOUT | {
        "members": [
            {
                "name": f"networks, tau {k}",
                "tau": k,
                "weight": 1 / members,
                "valid": 0.7,
                "folds": [],
            }
            for k in range(members)
        ]
    }
    return Model(spec, networks, uncertainty, smiles, about, lines=lines or None)


def _as_if_trained(network):
    """Running statistics of its own: those of a new network are all alike."""
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
