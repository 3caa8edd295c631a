"""The sets that encoders are judged on: MoleculeACE, ADMET and OGB, with the rows of each split.

`valid` chooses: it never reads a test row. `test` is for the final table.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from molhpft.domains.files import digest
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.splits import cached_scaffold_split

Split = Literal["valid", "folds", "test"]
Rows = NDArray[np.int64]

MOLECULEACE, ADMET, OGB = "MoleculeACE", "ADMET", "OGB"
QUICK_ROWS = 2_000  # training rows of a set where time is short
HOLD_OUTS = 2  # random fifths of MoleculeACE's training rows that are held out in turn

_ADMET_COLUMNS = {  # of SMILES and of the label
    "ames": ("Smiles", "Class"),
    "bioavailability": ("Smiles", "Bioavailability"),
    "caco2": ("Drug", "Y"),
    "cyp1a2": ("smiles", "Activity"),
    "cyp2d6": ("smiles", "Activity"),
    "cyp3a4": ("smiles", "Activity"),
    "herg": ("Smiles", "Class"),
    "hia": ("Drug", "Y"),
    "ppbr": ("Drug", "Y"),
    "solubility": ("Drug", "Y"),
}
_OGB_NAMES = ("bace", "tox21", "hiv")
_QUICK = (  # assays of 730 to 3,600 molecules
    "CHEMBL4203_Ki",
    "CHEMBL262_Ki",
    "CHEMBL2971_Ki",
    "CHEMBL287_Ki",
    "CHEMBL2147_Ki",
    "CHEMBL219_Ki",
    "CHEMBL236_Ki",
    "CHEMBL234_Ki",
    "bace",
    "caco2",
    "ames",
    "solubility",
)


@dataclass(frozen=True, eq=False)
class Fold:
    """Row numbers of a split.

    Attributes:
        train: that are learned from.
        scored: that are predicted.
        validation: that finetuning may choose by; where there are none, it holds out some of train.
    """

    train: Rows
    scored: Rows
    validation: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def joined(self) -> "Fold":
        """The fold with its validation rows among those that are learned from."""
        return Fold(np.sort(np.concatenate([self.train, self.validation])), self.scored)

    @property
    def is_out_of_fold(self) -> bool:
        """Whether rows that are learned from are scored, each by members that left it out."""
        return np.array_equal(self.train, self.scored)


@dataclass(frozen=True, eq=False)
class DevelopmentSet:
    """Labelled molecules and how they are split.

    Attributes:
        name: of an assay or a data set.
        group: MoleculeACE, ADMET or OGB.
        smiles: (n,).
        labels: (n, t), NaN where unmeasured.
        classes: whether labels are 0 and 1; otherwise they are numbers.
        folds: whose scores are averaged.
    """

    name: str
    group: str
    smiles: tuple[str, ...]
    labels: NDArray[np.float64]
    classes: bool
    folds: tuple[Fold, ...]

    @property
    def metric(self) -> str:
        """What it is scored by."""
        return "ROC-AUC" if self.classes else "RMSE"

    def content(self, fold: Fold) -> str:
        """Digest of molecules, labels and the rows of a fold."""
        arrays = (self.labels, fold.train, fold.scored)
        return digest("\n".join(self.smiles), *(array.tobytes() for array in arrays))

    def split_digest(self, fold: Fold) -> str:
        """Digest of `content` and of the rows that a choice may be made by."""
        return digest(self.content(fold), fold.validation.tobytes())[:20]

    def scorable(self, fold: Fold) -> list[int]:
        """Numbers of the targets that can be scored: those with both classes, or any number."""
        if not self.classes:
            return list(range(self.labels.shape[1]))
        return [
            target
            for target, y in enumerate(self.labels[fold.scored].T)
            if len(np.unique(y[~np.isnan(y)])) == 2
        ]

    def score(self, fold: Fold, predicted: NDArray[np.float64]) -> float:
        """RMSE or ROC-AUC in percent, a mean over the targets that can be scored.

        Args:
            fold: whose scored rows are predicted.
            predicted: a column for each target, (m, t); of others than `scorable` ones anything.

        Raises:
            ValueError: a prediction is not finite, or no target can be scored.
        """
        if not self.scorable(fold):
            raise ValueError(f"the scored rows of {self.name} are of one class; leave the set out")
        scores = []
        for target in self.scorable(fold):
            truth, output = self.labels[fold.scored, target], predicted[:, target]
            if not np.isfinite(output).all():
                raise ValueError(f"predictions for {self.name} should be finite numbers")
            known = ~np.isnan(truth)
            if self.classes:
                scores.append(100 * roc_auc_score(truth[known], output[known]))
            else:
                scores.append(np.sqrt(np.square(truth - output)[known].mean()))
        return float(np.mean(scores))


def set_names(root: Path, *, quick: bool = False) -> list[str]:
    """Names of all sets, or of those for when time is short.

    Raises:
        FileNotFoundError: there are no assays of MoleculeACE.
    """
    assays = sorted(path.name.partition(".")[0] for path in (root / "moleculeace").glob("*.csv.gz"))
    if not assays:
        raise FileNotFoundError(
            f"no assays at {root / 'moleculeace'}; give the folder that holds it"
        )
    names = [*assays, *_ADMET_COLUMNS, *_OGB_NAMES]
    return [name for name in names if name in _QUICK] if quick else names


def data_root() -> Path:
    """The folder beside which `MOLHPFT_DATA` has the OGB sets: it holds moleculeace and admet."""
    return Path(os.environ.get("MOLHPFT_DATA", "ogb")).resolve().parent


def development_set(root: Path, name: str, split: Split, *, quick: bool = False) -> DevelopmentSet:
    """A set by its name.

    Args:
        root: folder of `moleculeace` and `admet`; OGB's sets are read from `MOLHPFT_DATA`.
        name: one of `set_names`.
        split: `valid` holds out rows that the published split trains or validates on; `test` its
            test rows.
        quick: whether at most `QUICK_ROWS` rows train, evenly spaced.

    Raises:
        ValueError: a molecule cannot be read: it would have to be left out of the scores.
    """
    read: Callable[[Path, str, Split], DevelopmentSet] = _moleculeace
    if name in _ADMET_COLUMNS:
        read = _admet
    elif name in _OGB_NAMES:
        read = _ogb
    loaded = read(root, name, split)
    unreadable = int((~load_or_pack(loaded.smiles).readable).sum())
    if unreadable:
        raise ValueError(f"{name} should hold readable molecules only; {unreadable} are not")
    if quick:
        thinned = partial(_thinned, rows=QUICK_ROWS)
        loaded = replace(loaded, folds=tuple(map(thinned, loaded.folds)))
    return loaded


def _moleculeace(root: Path, name: str, split: Split) -> DevelopmentSet:
    table = pd.read_csv(root / "moleculeace" / f"{name}.csv.gz")
    train, test = (np.flatnonzero(table["split"] == part) for part in ("train", "test"))
    if split != "valid":
        folds: tuple[Fold, ...] = (Fold(train, test if split == "test" else train),)
    else:
        order = np.random.default_rng(0).permutation(train)
        fifths = np.array_split(order, 5)[:HOLD_OUTS]
        folds = tuple(Fold(np.setdiff1d(train, fifth), np.sort(fifth)) for fifth in fifths)
    return DevelopmentSet(
        name, MOLECULEACE, *_columns(table, "smiles", "y"), classes=False, folds=folds
    )


def _admet(root: Path, name: str, split: Split) -> DevelopmentSet:
    table = pd.read_csv(root / "admet" / f"{name}.csv.gz")
    smiles, labels = _columns(table, *_ADMET_COLUMNS[name])
    rows = {part: index.numpy() for part, index in cached_scaffold_split(smiles).items()}
    classes = bool(np.isin(labels, (0, 1)).all())
    folds = (_published(rows, split),)
    return DevelopmentSet(name, ADMET, smiles, labels, classes, folds)


def _ogb(root: Path, name: str, split: Split) -> DevelopmentSet:
    task = ogb_task(f"ogbg-mol{name}")
    labels = task.examples.targets.double().numpy()
    rows = {part: task.rows(part).numpy() for part in ("train", "valid", "test")}
    folds = (_published(rows, split),)
    return DevelopmentSet(name, OGB, tuple(task.examples.smiles), labels, classes=True, folds=folds)


def _published(rows: Mapping[str, Rows], split: Split) -> Fold:
    """Validation rows are scored, or learned from or chosen by where other rows are scored."""
    if split == "valid":
        return Fold(rows["train"], rows["valid"])
    if split == "folds":
        known = np.sort(np.concatenate([rows["train"], rows["valid"]]))
        return Fold(known, known)
    return Fold(rows["train"], rows["test"], rows["valid"])


def _columns(
    table: pd.DataFrame, smiles: str, label: str
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    return tuple(table[smiles]), table[[label]].to_numpy(dtype=np.float64)


def _thinned(fold: Fold, rows: int) -> Fold:
    """The fold with at most so many training rows, evenly spaced."""
    if len(fold.train) <= rows:
        return fold
    spaced = torch.linspace(0, len(fold.train) - 1, rows).long().numpy()
    train = fold.train[spaced]
    return replace(fold, train=train, scored=train if fold.is_out_of_fold else fold.scored)
