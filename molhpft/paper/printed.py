"""Tables 1 to 8 of Ren et al. (2023) as printed: their rows and columns, and every number.

Validation accuracy in %, of Tox21 ROC-AUC x 100; the paper gives no deviations. A table is a list
of columns, each with the numbers of all rows from top to bottom.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Quantity = Literal["hp_train", "ft_valid", "1 - cosine", "distance"]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: as the paper has it.
        setting: which setting of a column's grid of runs it is read from, counted from 0.
        quantity: what is read.
    """

    name: str
    setting: int
    quantity: Quantity


@dataclass(frozen=True)
class PrintedTable:
    """A table of the paper.

    Attributes:
        rows: in the paper's order.
        columns: name to the paper's numbers, one a row; None where they are not known to us.
        stands_for: of a stand-in's columns, which each stands for.
        grids: of the config's sweep, how many make a column; they are in the order of the columns.
    """

    rows: tuple[Row, ...]
    columns: Mapping[str, tuple[float | None, ...]]
    stands_for: tuple[str, ...]
    grids: int = 1


_TABLE_1 = PrintedTable(
    rows=(
        Row("HP-train-acc", 1, "hp_train"),
        Row("HP0-FT", 0, "ft_valid"),
        Row("HP200-FT", 1, "ft_valid"),
        Row("HP-FT", 2, "ft_valid"),
        Row("lsHP200-FT", 3, "ft_valid"),
    ),
    columns={
        "Flowers from MoCo": (59.711, 76.953, 84.882, 86.831, 86.946),
        "Flowers from supervised": (85.826, 91.295, 91.653, 92.299, 92.746),
        "Flowers from CIFAR10": (7.031, 60.714, 43.973, 63.711, 42.299),
        "STL10 from MoCo": (91.889, 96.136, 96.363, 96.753, 96.639),
        "STL10 from supervised": (96.291, 97.452, 97.374, 97.697, 97.959),
        "STL10 from CIFAR10": (75.181, 86.811, 84.778, 87.739, 85.912),
        "CIFAR100 from MoCo": (56.397, 80.432, 83.744, 83.814, 83.412),
        "CIFAR100 from supervised": (62.709, 84.736, 84.347, 84.971, 85.357),
        "CIFAR100 from CIFAR10": (11.735, 65.608, 63.992, 65.966, 65.244),
        "Tox21 from PCBA": (79.121, 81.274, 79.666, 83.263, 83.853),
    },
    stands_for=("STL10 from CIFAR10", "Tox21 from PCBA"),
)
_OF_TRICKS: tuple[tuple[str, Quantity], ...] = (
    ("HP-train-acc", "hp_train"),
    ("1 - cosine", "1 - cosine"),
    ("distance", "distance"),
    ("FT-val-acc", "ft_valid"),
)
_TABLE_2 = PrintedTable(
    rows=tuple(
        Row(f"{name}, {when}", setting, quantity)
        for name, quantity in _OF_TRICKS
        for setting, when in enumerate(("baseline", "trick"))
    ),
    columns={
        "MLP head, SimCLR to Real": (
            *(92.676, 99.121, 0.1269, 0.1098),
            *(5.247, 4.942, 78.075, 78.453),
        ),
        "MLP head, supervised to Sketch": (
            *(78.213, 94.883, 0.1422, 0.1104),
            *(4.752, 4.206, 61.545, 63.773),
        ),
        "lsHP, SimCLR to STL10": (
            *(96.875, 96.875, 0.0044, 0.014),
            *(1.792, 1.841, 93.914, 94.304),
        ),
        "lsHP, supervised to STL10": (
            *(100.0, 100.0, 0.017, 0.0549),
            *(6.716, 9.278, 97.581, 97.920),
        ),
        "opposite energy, SimCLR to STL10": (
            *(97.607, 97.982, 0.0049, 0.0109),
            *(1.731, 3.041, 94.015, 93.208),
        ),
        "opposite energy, supervised to STL10": (
            *(100.0, 100.0, 0.0256, 0.0849),
            *(7.391, 13.881, 97.694, 97.039),
        ),
    },
    stands_for=(
        "MLP head, supervised to Sketch",
        "lsHP, supervised to STL10",
        "opposite energy, supervised to STL10",
    ),
)
_CUTS = ("L4.3", "L4.2", "L4.1")
_DOMAINS = ("Real", "Sketch", "Quick")
_TABLE_3 = PrintedTable(
    rows=(
        *(
            Row(f"HP-train-acc, {name}", k, "hp_train")
            for k, name in enumerate(("base", *(f"-{cut}" for cut in _CUTS)))
        ),
        *(
            Row(f"FT-val-acc, {name}", k, "ft_valid")
            for k, name in enumerate(("base", *(f"-{cut}" for cut in _CUTS)))
        ),
    ),
    columns={
        "Real": (92.676, 100.0, 100.0, 100.0, 78.075, 78.528, 78.427, 76.689),
        "Sketch": (78.213, 100.0, 100.0, 100.0, 61.545, 65.683, 65.336, 65.017),
        "Quick": (64.307, 97.666, 100.0, 100.0, 59.703, 67.011, 67.087, 68.070),
    },
    stands_for=("Quick",),
)


def _of_pretraining(
    hp_linear: tuple[float, ...],
    hp_mlp: tuple[float, ...],
    linear: tuple[float, ...],
    mlp: tuple[float, ...],
    cut_3: tuple[float, ...],
    cut_2: tuple[float, ...],
    cut_1: tuple[float, ...],
) -> PrintedTable:
    """Tables 5 to 8, from their rows over the domains; each grid has linear, MLP, L4.3, ..."""
    rows = (
        Row("HP-train-acc, linear", 0, "hp_train"),
        Row("HP-train-acc, MLP", 1, "hp_train"),
        Row("val-acc, linear", 0, "ft_valid"),
        Row("val-acc, MLP", 1, "ft_valid"),
        *(Row(f"val-acc, {cut}", 2 + k, "ft_valid") for k, cut in enumerate(_CUTS)),
    )
    numbers = zip(hp_linear, hp_mlp, linear, mlp, cut_3, cut_2, cut_1, strict=True)
    return PrintedTable(
        rows, dict(zip(_DOMAINS, numbers, strict=True)), stands_for=("Real",), grids=2
    )


TABLES: Mapping[str, PrintedTable] = {
    "table1": _TABLE_1,
    "table2": _TABLE_2,
    "table3": _TABLE_3,
    "table5": _of_pretraining(
        (98.994, 63.369, 48.555),
        (100.0, 93.447, 63.75),
        (54.839, 37.789, 61.416),
        (53.856, 35.446, 59.199),
        (53.629, 35.966, 61.568),
        (53.226, 36.69, 61.391),
        (53.856, 35.446, 59.199),  # as printed: equal to those of the MLP head
    ),
    "table6": _of_pretraining(
        (60.039, 39.092, 51.855),
        (88.965, 79.58, 76.445),
        (58.846, 45.023, 61.593),
        (58.77, 43.171, 60.307),
        (59.929, 42.882, 59.602),
        (60.837, 44.734, 61.542),
        (61.164, 45.775, 62.626),
    ),
    "table7": _of_pretraining(
        (96.875, 85.938, 64.063),
        (96.671, 98.438, 84.375),
        (85.685, 72.51, 69.531),
        (85.031, 69.651, 66.683),
        (84.929, 69.734, 68.422),
        (83.342, 68.547, 68.7),
        (81.074, 69.155, 68.246),
    ),
    "table8": _of_pretraining(
        (92.676, 78.213, 64.307),
        (99.121, 94.883, 82.354),
        (78.075, 61.545, 59.703),
        (78.453, 63.773, 63.609),
        (78.528, 65.683, 67.011),
        (78.427, 65.336, 67.087),
        (76.689, 65.017, 68.07),
    ),
}

SIZES: Mapping[str, tuple[int, int, int | None]] = {
    "MNIST": (60_000, 10_000, 10),
    "STL10": (5_000, 8_000, 10),
    "CIFAR10": (50_000, 10_000, None),
    "CIFAR100": (50_000, 10_000, None),
    "Flowers102": (6_149, 2_040, None),
    "StanfordCars": (8_144, 8_041, 196),
    "Tox21": (6_272, 1_742, None),
}
"""Table 4: to train on, to test on, classes; of its DomainNet we know upper limits only."""
