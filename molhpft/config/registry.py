"""Everything that a config can name: tasks, encoders, heads and methods, in four dicts.

The keyword-only parameters of an entry are the keys that a config may give it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from molhpft.core.data import Rows, Task
from molhpft.core.few_labels import taking_fewer
from molhpft.core.network import Chain, cosine_head, linear_head, mlp_head
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.molecules.dmpnn import dmpnn
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.gine import gine
from molhpft.domains.molecules.nci import nci_alerts_task, nci_descriptors_task
from molhpft.domains.molecules.ogb import ogb_names, ogb_task
from molhpft.domains.molecules.pretrain_gnns import (
    molclr_gcn,
    molclr_gin,
    pretrain_gnns_gat,
    pretrain_gnns_gcn,
    pretrain_gnns_gin,
    pretrain_gnns_sage,
)
from molhpft.domains.molecules.pretraining import pretraining_task
from molhpft.domains.molecules.pyg import pyg_gnn
from molhpft.domains.molecules.tables import csv_task
from molhpft.domains.toy.digits import load_toy_mlp, toy_mlp, toy_pretrain_task, toy_task
from molhpft.domains.vision.checkpoints import load_resnet, supervised_head
from molhpft.domains.vision.examples import Images
from molhpft.domains.vision.layouts import LAYOUTS
from molhpft.domains.vision.resnet import cifar_resnet, resnet
from molhpft.domains.vision.segmentation import (
    aspp_head,
    segmentation_resnet,
    shapes_task,
    voc_task,
)
from molhpft.domains.vision.tasks import image_task
from molhpft.tuning import recipes
from molhpft.tuning.recipes import Recipes


@dataclass(frozen=True)
class Encoder:
    """How a backbone is made and how weights get into it.

    Attributes:
        build: keyword options to a chain with random weights.
        load: chain and weight file; changes the chain in place or raises ValueError.
        takes: kind of examples that its first stage reads.
        files: weight files it takes, in words.
        gives: one feature vector an example, or a feature map.
        mixed: whether its sums stay float32 where products are bfloat16.
        head: the head in a weight file of others; None where their heads are not read.
    """

    build: Callable[..., Chain]
    load: Callable[[Chain, Path], None]
    takes: type
    files: str
    gives: Literal["vectors", "maps"] = "vectors"
    mixed: bool = False
    head: Callable[[Path], Chain] | None = None


@dataclass(frozen=True)
class Head:
    """How a task head is made.

    Attributes:
        build: width of the features, number of outputs and keyword options to a chain.
        reads: what its encoder must give.
    """

    build: Callable[..., Chain]
    reads: Literal["vectors", "maps"] = "vectors"


def _images(layout: str) -> str:
    """Name of the task of a layout: a published set's own, or what a bare layout holds."""
    return f"image_{layout}" if layout in ("folder", "npz") else layout


_OWN_TASKS: dict[str, Callable[..., Task]] = {
    "nci_alerts": nci_alerts_task,
    "nci_descriptors": nci_descriptors_task,
    "csv": csv_task,
    "pretraining": pretraining_task,
    **{name: partial(ogb_task, name) for name in ogb_names()},
    **{_images(layout): partial(image_task, layout) for layout in LAYOUTS},
    "voc": voc_task,
    "shapes": shapes_task,
    "toy_pretraining": toy_pretrain_task,
    "toy": toy_task,
}
TASKS = {name: taking_fewer(entry) for name, entry in _OWN_TASKS.items()}

ENCODERS: dict[str, Encoder] = {
    "gcn": Encoder(
        ogb_gcn,
        load_encoder,
        Molecules,
        "model.safetensors of a gcn run; state dict of OGB's example GCN, virtual node or not",
        mixed=True,
    ),
    "gine": Encoder(
        gine,
        load_encoder,
        Molecules,
        "model.safetensors of a gine run; state dict of OGB's example GIN, virtual node or not",
        mixed=True,
    ),
    "gcn_pretrain_gnns": Encoder(
        pretrain_gnns_gcn,
        load_encoder,
        Molecules,
        "model.safetensors of a gcn_pretrain_gnns run; gcn_*.pth of pretrain-gnns",
        mixed=True,
    ),
    "sage_pretrain_gnns": Encoder(
        pretrain_gnns_sage,
        load_encoder,
        Molecules,
        "model.safetensors of a sage_pretrain_gnns run; graphsage_*.pth of pretrain-gnns",
        mixed=True,
    ),
    "gat_pretrain_gnns": Encoder(
        pretrain_gnns_gat,
        load_encoder,
        Molecules,
        "model.safetensors of a gat_pretrain_gnns run; gat_*.pth of pretrain-gnns",
        mixed=True,
    ),
    "gin_pretrain_gnns": Encoder(
        pretrain_gnns_gin,
        load_encoder,
        Molecules,
        "model.safetensors of a gin_pretrain_gnns run; GIN checkpoints of pretrain-gnns",
        mixed=True,
    ),
    "gcn_molclr": Encoder(
        molclr_gcn,
        load_encoder,
        Molecules,
        "model.safetensors of a gcn_molclr run; GCN checkpoints of MolCLR",
        mixed=True,
    ),
    "gin_molclr": Encoder(
        molclr_gin,
        load_encoder,
        Molecules,
        "model.safetensors of a gin_molclr run; GIN checkpoints of MolCLR",
        mixed=True,
    ),
    "dmpnn": Encoder(
        dmpnn,
        load_encoder,
        Molecules,
        "model.safetensors of a dmpnn run; models of chemprop 2, CheMeleon (.pt)",
        mixed=True,
    ),
    "pyg_gnn": Encoder(
        pyg_gnn,
        load_encoder,
        Molecules,
        "model.safetensors of a pyg_gnn run",
    ),
    "toy_mlp": Encoder(
        toy_mlp,
        load_toy_mlp,
        Rows,
        "model.safetensors of a toy_mlp run",
    ),
    "cifar_resnet": Encoder(
        cifar_resnet,
        load_resnet,
        Images,
        "model.safetensors of a cifar_resnet run; state dicts of CIFAR ResNets (.th, .pth)",
        head=supervised_head,
    ),
    "resnet": Encoder(
        resnet,
        load_resnet,
        Images,
        "state dicts of torchvision and timm, MoCo v2, SimCLR, BYOL; model.safetensors of a run",
        head=supervised_head,
    ),
    "segmentation_resnet": Encoder(
        segmentation_resnet,
        load_resnet,
        Images,
        "what resnet takes",
        gives="maps",
    ),
}

HEADS: dict[str, Head] = {
    "linear": Head(linear_head),
    "mlp": Head(mlp_head),
    "cosine": Head(cosine_head),
    "aspp": Head(aspp_head, reads="maps"),
}

METHODS: dict[str, Callable[..., Recipes]] = {
    "scratch": recipes.scratch,
    "zero_shot": recipes.zero_shot,
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
    "delta": recipes.delta,
    "feature_distillation": recipes.feature_distillation,
    "bss": recipes.bss,
    "gtot": recipes.gtot,
    "stochastic_norm": recipes.stochastic_norm,
    "lora": recipes.lora,
    "linear_adapter": recipes.linear_adapter,
    "layerwise": recipes.layerwise,
    "surgical": recipes.surgical,
    "gradual": recipes.gradual,
    "side_tuning": recipes.side_tuning,
    "wise_ft": recipes.wise_ft,
    "dwise_ft": recipes.dwise_ft,
    "uniform_soup": recipes.uniform_soup,
    "greedy_soup": recipes.greedy_soup,
    "flyp": recipes.flyp,
    "flyp_contrast": recipes.flyp_contrast,
}

Entry = Callable[..., Any]
SECTIONS: dict[str, dict[str, Entry]] = {
    "task": {**TASKS},
    "encoder": {name: encoder.build for name, encoder in ENCODERS.items()},
    "head": {name: head.build for name, head in HEADS.items()},
    "method": {**METHODS},
}
