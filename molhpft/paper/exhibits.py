"""Every figure and table of Ren et al. (2023): what it shows, from which config, on what data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import molhpft
from molhpft.config.options import unknown

Kind = Literal["branches", "kernels", "theory", "curves", "distances", "table", "sizes"]


@dataclass(frozen=True)
class Exhibit:
    """A figure or a table.

    Attributes:
        name: by which it is asked for, "fig3" or "table1".
        shows: what, in one line.
        data: what the paper has it of.
        kind: how it is made.
        minutes: about how long it takes on two idle cores, of the stand-in where there is one. Of a
            sweep it is half of the processor time that one worker took: a core runs a trial.
        stand_in: what `--stand-in` has it of; empty where the paper's own data are always at hand.
    """

    name: str
    shows: str
    data: str
    kind: Kind
    minutes: float
    stand_in: str = ""

    @property
    def title(self) -> str:
        """As the paper calls it: "Figure 3"."""
        is_figure = self.name.startswith("fig")
        number = self.name.removeprefix("fig").removeprefix("table")
        return f"{'Figure' if is_figure else 'Table'} {number}"

    def config(self, *, stand_in: bool) -> Path:
        """The committed config that it is made from."""
        return config_folder() / f"{self.name}{'_stand_in' if stand_in else ''}.yaml"


_TOY = "the toy: MNIST's ten digits, then three of them turned and cut"
_SIM_SUP = "DomainNet and STL10 from SimCLR and supervised ImageNet ResNet-50"
_DOMAINNET = "DomainNet real, sketch, quickdraw (200 classes), ResNet-50"
_MNIST = "ResNet-20 of CIFAR-10 to MNIST"
_TOX21 = "the shipped GCN to Tox21"

_ALL = (
    Exhibit(
        "fig1",
        "accuracy after probing and after finetuning, and energy, against tau",
        "STL10 from a supervised ImageNet ResNet-50",
        "curves",
        2.5,
        stand_in=_MNIST,
    ),
    Exhibit("fig2", "p(correct) after probing; how far the direction turns", _TOY, "branches", 1.5),
    Exhibit("fig3", "training curves, features, heads exchanged", _TOY, "branches", 1.5),
    Exhibit(
        "fig4",
        "accuracy after probing and after finetuning, and energy, against tau, on ten settings",
        "STL10, Flowers, CIFAR100 from MoCo, supervised, CIFAR-10; Tox21 from PCBA",
        "curves",
        4.5,
        stand_in=f"{_MNIST}; {_TOX21}",
    ),
    Exhibit("fig6", "change of the eNTK, random and pretrained backbone", _TOY, "kernels", 0.6),
    Exhibit("fig11", "distances of features against tau, toy", _TOY, "branches", 2),
    Exhibit(
        "fig13",
        "distances of features against tau, classification",
        "STL10 from a supervised ImageNet ResNet-50",
        "distances",
        2.5,
        stand_in=_MNIST,
    ),
    Exhibit(
        "fig14",
        "distances of features against tau, segmentation",
        "PASCAL VOC 2012, DeepLabV3 on a supervised ImageNet ResNet-50",
        "distances",
        2,
        stand_in="drawn shapes, ResNet-18 from random weights",
    ),
    Exhibit(
        "fig15",
        "distances of features against tau, molecules",
        "Tox21 from a GCN pretrained on PCBA",
        "distances",
        2,
        stand_in=_TOX21,
    ),
    Exhibit("fig16", "distance, dot, norm in the linear theory", "drawn numbers", "theory", 0.1),
    Exhibit(
        "table1",
        "validation accuracy of HP0-FT, HP200-FT, HP-FT, lsHP200-FT",
        "STL10, Flowers, CIFAR100 from MoCo, supervised, CIFAR-10; Tox21 from PCBA",
        "table",
        5.5,
        stand_in=f"{_MNIST}; {_TOX21}",
    ),
    Exhibit(
        "table2",
        "MLP head, smoothed probing, opposite energy: what each changes",
        _SIM_SUP,
        "table",
        3,
        stand_in=_MNIST,
    ),
    Exhibit(
        "table3",
        "partial backbones: the last one to three blocks re-initialised",
        _DOMAINNET,
        "table",
        3,
        stand_in=_MNIST,
    ),
    Exhibit("table4", "sizes of the data sets", "all data sets of the paper", "sizes", 0.5),
    *(
        Exhibit(
            f"table{number}",
            f"linear head, MLP head, partial backbones ({place} of four pretrainings)",
            _DOMAINNET,
            "table",
            minutes,
            stand_in=f"BACE from a public GCN ({pretraining})",
        )
        for number, place, pretraining, minutes in (
            (5, "first", "context prediction", 2),
            (6, "second", "MolCLR", 2.5),
            (7, "third", "supervised", 2),
            (8, "last", "context prediction, then supervised", 3),
        )
    ),
)

EXHIBITS: Mapping[str, Exhibit] = {exhibit.name: exhibit for exhibit in _ALL}
ILLUSTRATIONS = ("fig5", "fig7", "fig8", "fig9", "fig10", "fig12")
"""Figures without numbers: there is nothing to compute."""


def config_folder() -> Path:
    """Folder of the committed configs, in an installed package as in a checkout."""
    return Path(molhpft.__file__).parent / "paper" / "configs"


def find(name: str) -> Exhibit:
    """An exhibit by its name.

    Raises:
        ValueError: there is none, or it is an illustration.
    """
    if name in ILLUSTRATIONS:
        raise ValueError(
            f"{name} of the paper is an illustration without numbers; to be drawn are: "
            f"{', '.join(EXHIBITS)}"
        )
    if name not in EXHIBITS:
        raise ValueError(unknown(name, list(EXHIBITS), "figure or table"))
    return EXHIBITS[name]
