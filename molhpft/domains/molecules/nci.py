"""Two tasks that need no download: molecules that RDKit ships, with labels RDKit computes.

The molecules are the first of the NCI's open database. Pretraining predicts physical and
topological descriptors, the downstream task structural alerts (substructures that chemists filter
out). Both use one scaffold split, so pretraining on "train" sees no downstream test molecule.
"""

from collections.abc import Callable
from itertools import compress
from pathlib import Path

import torch
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import Descriptors
from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams
from torch import Tensor

from molhpft.core.objectives import Multilabel, Squared
from molhpft.core.task import Task
from molhpft.domains.cache import cached_tensors
from molhpft.domains.molecules.examples import molecule_task
from molhpft.domains.molecules.graphs import digest
from molhpft.domains.molecules.splits import cached_scaffold_split
from molhpft.domains.progress import track

ALERTS = ("NIH", "PAINS", "CHEMBL_Glaxo", "CHEMBL_SureChEMBL", "ZINC")
"""Catalogs of alerts, one label each. CHEMBL_BMS is the same catalog as NIH under another name."""

_VERSION = 1  # raised with every change of what is computed below
_SLOW = ("qed", "SPS", "Ipc", "AvgIpc", "BCUT2D_", "FpDensity")
_TAIL = 0.01


def nci_descriptors_task() -> Task:
    """Pretraining: the descriptors of each molecule in standard deviations, a regression.

    Taken are RDKit's `Descriptors.descList` without fragment counts (`fr_`), which are close to the
    alerts, and without the slow ones. Heavy tails are cut off at the 1st and 99th percentile; those
    that are then constant, or not finite for every molecule, are left out. Percentiles, means and
    deviations are those of the training split.
    """
    smiles = _molecules()
    splits = cached_scaffold_split(smiles)
    table = _cached(
        "descriptors", smiles, lambda: _standardised(_descriptor_table(smiles), splits["train"])
    )
    return molecule_task(
        "nci_descriptors",
        smiles=smiles,
        targets=table["targets"],
        describes=list(compress(_descriptors(), table["kept"].tolist())),
        splits=splits,
        objective=Squared(),
    )


def nci_alerts_task() -> Task:
    """Downstream: which catalogs of structural alerts each molecule trips, by mean ROC-AUC."""
    smiles = _molecules()
    return molecule_task(
        "nci_alerts",
        smiles=smiles,
        targets=_cached("alerts", smiles, lambda: {"targets": _alert_table(smiles)})["targets"],
        describes=ALERTS,
        splits=cached_scaffold_split(smiles),
        objective=Multilabel(),
    )


def _molecules() -> list[str]:
    """SMILES of the file that RDKit reads strictly, each molecule once, in file order."""
    path = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
    if not path.is_file():
        raise FileNotFoundError(
            f"RDKit should ship its example molecules as {path}; this build of RDKit does not: "
            "install rdkit from PyPI, or bring a table of your own"
        )
    smiles = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    kept = _cached("rows", smiles, lambda: {"rows": _first_rows(smiles)})
    return [smiles[row] for row in kept["rows"].tolist()]


def _first_rows(smiles: list[str]) -> Tensor:
    """Rows of the readable strings whose molecule no earlier row has."""
    first: dict[str, int] = {}
    with rdBase.BlockLogs():
        for row, mol in enumerate(map(Chem.MolFromSmiles, smiles)):
            if mol is not None:
                first.setdefault(Chem.MolToSmiles(mol), row)
    return torch.tensor(list(first.values()))


def _descriptors() -> dict[str, Callable[[Chem.Mol], float]]:
    return {
        name: function
        for name, function in Descriptors.descList
        if not name.startswith(("fr_", *_SLOW))
    }


def _descriptor_table(smiles: list[str]) -> Tensor:
    functions = _descriptors().values()
    mols = map(Chem.MolFromSmiles, track(smiles, "computing descriptors"))
    return torch.tensor([[function(mol) for function in functions] for mol in mols]).float()


def _alert_table(smiles: list[str]) -> Tensor:
    catalogs = [_catalog(name) for name in ALERTS]
    mols = map(Chem.MolFromSmiles, track(smiles, "matching structural alerts"))
    return torch.tensor([[catalog.HasMatch(mol) for catalog in catalogs] for mol in mols]).float()


def _catalog(name: str) -> FilterCatalog:
    chosen = FilterCatalogParams()
    chosen.AddCatalog(FilterCatalogParams.FilterCatalogs.names[name])
    return FilterCatalog(chosen)


def _standardised(values: Tensor, train: Tensor) -> dict[str, Tensor]:
    """Columns worth predicting, in training deviations, and which columns were kept."""
    low, high = values[train].quantile(torch.tensor([_TAIL, 1 - _TAIL]), 0)
    kept = values.isfinite().all(0) & (low < high)
    cut = values.clamp(low, high)[:, kept].double()
    spread, centre = torch.std_mean(cut[train], 0)
    return {"targets": ((cut - centre) / spread).float(), "kept": kept}


def _cached(
    what: str, smiles: list[str], build: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    return cached_tensors(f"nci/{what}-{_VERSION}-{digest(smiles)}", build)
