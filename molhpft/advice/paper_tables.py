"""Results that Ren et al. (2023) print, as cases for and against the advice of their section 5.

Validation accuracies in percent; the paper gives no deviations. Table 5's last column of cuts is
left out: it is printed equal to the column of the MLP head.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One setting, finetuned without and with a change.

    Attributes:
        name: downstream set <- pretraining, or table and downstream set.
        fit: training accuracy that a long probe of the unchanged head reaches.
        without: validation accuracy after finetuning, without the change.
        with_it: the same with the change.
    """

    name: str
    fit: float
    without: float
    with_it: float

    @property
    def helped(self) -> bool:
        """Whether the change validates better."""
        return self.with_it > self.without


# lsHP200-FT against HP200-FT: the same 200 epochs of probing with and without label smoothing
SMOOTHING_CASES = (
    Case("Flowers <- MoCo", 59.711, 84.882, 86.946),
    Case("Flowers <- ImageNet", 85.826, 91.653, 92.746),
    Case("Flowers <- CIFAR10", 7.031, 43.973, 42.299),
    Case("STL10 <- MoCo", 91.889, 96.363, 96.639),
    Case("STL10 <- ImageNet", 96.291, 97.374, 97.959),
    Case("STL10 <- CIFAR10", 75.181, 84.778, 85.912),
    Case("CIFAR100 <- MoCo", 56.397, 83.744, 83.412),
    Case("CIFAR100 <- ImageNet", 62.709, 84.347, 85.357),
    Case("CIFAR100 <- CIFAR10", 11.735, 63.992, 65.244),
    Case("Tox21 <- PCBA", 79.121, 79.666, 83.853),
    Case("Table 2, STL10 <- SimCLR", 96.875, 93.914, 94.304),
    Case("Table 2, STL10 <- supervised", 100.0, 97.581, 97.920),
)

# HP-FT at its best tau against the better of both ends, HP0-FT and HP200-FT (Table 1)
TAU_CASES = (
    Case("Flowers <- MoCo", 59.711, 84.882, 86.831),
    Case("Flowers <- ImageNet", 85.826, 91.653, 92.299),
    Case("Flowers <- CIFAR10", 7.031, 60.714, 63.711),
    Case("STL10 <- MoCo", 91.889, 96.363, 96.753),
    Case("STL10 <- ImageNet", 96.291, 97.452, 97.697),
    Case("STL10 <- CIFAR10", 75.181, 86.811, 87.739),
    Case("CIFAR100 <- MoCo", 56.397, 83.744, 83.814),
    Case("CIFAR100 <- ImageNet", 62.709, 84.736, 84.971),
    Case("CIFAR100 <- CIFAR10", 11.735, 65.608, 65.966),
    Case("Tox21 <- PCBA", 79.121, 81.274, 83.263),
)

# an MLP head against a linear one, Tables 5 to 8: one pretraining each
MLP_CASES = (
    Case("Table 5, Real", 98.994, 54.839, 53.856),
    Case("Table 5, Sketch", 63.369, 37.789, 35.446),
    Case("Table 5, Quick", 48.555, 61.416, 59.199),
    Case("Table 6, Real", 60.039, 58.846, 58.770),
    Case("Table 6, Sketch", 39.092, 45.023, 43.171),
    Case("Table 6, Quick", 51.855, 61.593, 60.307),
    Case("Table 7, Real", 96.875, 85.685, 85.031),
    Case("Table 7, Sketch", 85.938, 72.510, 69.651),
    Case("Table 7, Quick", 64.063, 69.531, 66.683),
    Case("Table 8, Real", 92.676, 78.075, 78.453),
    Case("Table 8, Sketch", 78.213, 61.545, 63.773),
    Case("Table 8, Quick", 64.307, 59.703, 63.609),
)

# the last block re-initialised as part of the head (L4.3) against a linear head on all of them
CUT_CASES = (
    Case("Table 5, Real", 98.994, 54.839, 53.629),
    Case("Table 5, Sketch", 63.369, 37.789, 35.966),
    Case("Table 5, Quick", 48.555, 61.416, 61.568),
    Case("Table 6, Real", 60.039, 58.846, 59.929),
    Case("Table 6, Sketch", 39.092, 45.023, 42.882),
    Case("Table 6, Quick", 51.855, 61.593, 59.602),
    Case("Table 7, Real", 96.875, 85.685, 84.929),
    Case("Table 7, Sketch", 85.938, 72.510, 69.734),
    Case("Table 7, Quick", 64.063, 69.531, 68.422),
    Case("Table 8, Real", 92.676, 78.075, 78.528),
    Case("Table 8, Sketch", 78.213, 61.545, 65.683),
    Case("Table 8, Quick", 64.307, 59.703, 67.011),
)


def score_of(cases: Iterable[Case]) -> str:
    """How often a change helped, such as "3 of 12"."""
    cases = tuple(cases)
    return f"{sum(case.helped for case in cases)} of {len(cases)}"
