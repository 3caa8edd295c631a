"""Chains and rings: a table that a small network learns in a second."""

import torch

from molhpft.core.objectives import Multilabel, Squared
from molhpft.domains.molecules.examples import molecule_task

SMILES = [s for n in range(3, 33) for s in ("C" * n + "O", "C1" + "C" * n + "1N")]
RING = [k % 2 for k in range(len(SMILES))]
SIZE = [float(n + 1 + k) for n in range(3, 33) for k in (0, 1)]
BRIEF = {
    "encoder": {"name": "gcn", "layers": 2, "width": 8, "dropout": 0.2},
    "tau": (0, 2, 5),
    "split": "random",
    "validation": 0.3,
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


def size_task():
    """The number of atoms of the same molecules."""
    targets = torch.tensor(SIZE)[:, None]
    return ring_task(targets=targets, target_names=("size",), objective=Squared(), standardise=True)


def write_table(path, *, target="ring", values=RING, smiles=SMILES):
    rows = [f"{s},{v}" for s, v in zip(smiles, values, strict=True)]
    path.write_text("\n".join([f"smiles,{target}", *rows]) + "\n")
    return path
