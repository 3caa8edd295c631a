"""Everything that a config can name: tasks, encoders, heads and methods, in four dicts.

The keyword-only parameters of an entry are the keys that a config may give it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from molhpft.core.heads import cosine_head, linear_head, mlp_head
from molhpft.core.network import Chain
from molhpft.core.task import Task
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.molecules.datasets import ogb_names, ogb_task
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.gcn import ogb_gcn, pretrain_gnns_gcn
from molhpft.domains.molecules.nci import nci_alerts_task, nci_descriptors_task
from molhpft.domains.molecules.tables import csv_task
from molhpft.tuning import recipes
from molhpft.tuning.recipes import Recipes


@dataclass(frozen=True)
class Encoder:
    """How a backbone is made and how weights get into it.

    Attributes:
        build: keyword options to a chain with random weights.
        load: chain and weight file; changes the chain in place or raises ValueError.
        takes: kind of examples that its first stage reads.
        reads: weight files it takes, in words.
    """

    build: Callable[..., Chain]
    load: Callable[[Chain, Path], None]
    takes: type
    reads: str


TASKS: dict[str, Callable[..., Task]] = {
    "nci_alerts": nci_alerts_task,
    "nci_descriptors": nci_descriptors_task,
    "csv": csv_task,
    **{name: partial(ogb_task, name) for name in ogb_names()},
}

ENCODERS: dict[str, Encoder] = {
    "gcn": Encoder(
        ogb_gcn,
        load_encoder,
        Molecules,
        "model.safetensors of a gcn run; state dict of OGB's example GCN, virtual node or not",
    ),
    "gcn_pretrain_gnns": Encoder(
        pretrain_gnns_gcn,
        load_encoder,
        Molecules,
        "model.safetensors of a gcn_pretrain_gnns run; gcn_*.pth of pretrain-gnns",
    ),
}

HEADS: dict[str, Callable[..., Chain]] = {
    "linear": linear_head,
    "mlp": mlp_head,
    "cosine": cosine_head,
}

METHODS: dict[str, Callable[..., Recipes]] = {
    "scratch": recipes.scratch,
    "ft": recipes.ft,
    "lp": recipes.lp,
    "lp_logistic": recipes.lp_logistic,
    "lp_ft": recipes.lp_ft,
    "lp_ft_converged": recipes.lp_ft_converged,
    "hp_ft": recipes.hp_ft,
    "ls_hp_ft": recipes.ls_hp_ft,
    "ls_everywhere": recipes.ls_everywhere,
    "opposite_energy": recipes.opposite_energy,
    "l2_sp": recipes.l2_sp,
    "layerwise": recipes.layerwise,
    "side_tuning": recipes.side_tuning,
    "wise_ft": recipes.wise_ft,
    "flyp": recipes.flyp,
    "flyp_contrast": recipes.flyp_contrast,
}

Entry = Callable[..., Any]
SECTIONS: dict[str, dict[str, Entry]] = {
    "task": {**TASKS},
    "encoder": {name: encoder.build for name, encoder in ENCODERS.items()},
    "head": {**HEADS},
    "method": {**METHODS},
}
