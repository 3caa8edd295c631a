"""Why a model answers as it does for a molecule: what each atom contributes, as a picture."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from molhpft.domains.files import writing
from molhpft.domains.molecules.draw import (
    Contributions,
    atom_contributions,
    contribution_png,
    contribution_svg,
    mean_embedding,
)
from molhpft.domains.molecules.graphs import GraphStore, load_or_pack, pack
from molhpft.domains.molecules.smiles import MOST_ATOMS
from molhpft.estimator.model import Model
from molhpft.run.folder import ANOTHER_FILE

STEPS = 256
_TYPICAL = 500  # training molecules whose mean atom is the baseline

_PICTURES = (".svg", ".png")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the atoms of a molecule contribute to one answer.

    Attributes:
        smiles: of the molecule.
        target: name of the target.
        atoms: contribution of each atom to the mean logit of the members, (a,), in RDKit's order;
            the logit of an average training atom everywhere is what they start from.
        logit: of the molecule; for numbers, in standard deviations of the target.
        baseline: the logit they start from.
        error: by how much their sum misses `logit - baseline`.
    """

    smiles: str
    target: str
    atoms: Tensor
    logit: float
    baseline: float
    error: float


def explain(model: Model, smiles: str, *, target: str | None = None) -> Explanation:
    """Integrated gradients over the atom embeddings, averaged over the members of a model.

    Args:
        model: fitted.
        smiles: of one molecule.
        target: name of the target; None where there is one only.

    Raises:
        ValueError: the molecule cannot be read, or no target has that name.
    """
    names = model.shape.targets
    if target is None and len(names) > 1:
        raise ValueError(f"which target should be explained? there are: {', '.join(names)}")
    if target is not None and target not in names:
        raise ValueError(f"no target is named {target!r}; there are: {', '.join(names)}")
    store = pack([smiles])
    if not store.readable.all():
        raise ValueError(
            f"{smiles!r:.60} cannot be read as a molecule of at most {MOST_ATOMS:,} atoms"
        )
    output = 0 if target is None else names.index(target)
    found = _shares(model, store.to(model.device), output)
    atoms = torch.stack([one.atoms for one in found]).mean(0)
    logit, baseline = (_mean(getattr(one, name) for one in found) for name in ("logit", "baseline"))
    # what a virtual node contributes is missing from the sum over atoms
    error = abs(float(atoms.sum()) - (logit - baseline))
    return Explanation(smiles, names[output], atoms, logit, baseline, error)


def draw(explanation: Explanation, out: Path) -> None:
    """Write the picture of an explanation; orange atoms raise the answer, blue ones lower it.

    Args:
        explanation: of a molecule.
        out: `.svg` or `.png`.

    Raises:
        ValueError: the name ends otherwise, or RDKit cannot draw the molecule.
        OSError: the file cannot be written.
    """
    if out.suffix not in _PICTURES:
        raise ValueError(f"{out} should end in {' or '.join(_PICTURES)}")
    smiles, atoms = explanation.smiles, explanation.atoms
    if out.suffix == ".svg":
        picture = contribution_svg(smiles, atoms).encode()
    else:
        picture = contribution_png(smiles, atoms)
    with writing(out, remedy=ANOTHER_FILE):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(picture)


def _shares(model: Model, store: GraphStore, output: int) -> list[Contributions]:
    every = max(1, len(model.training_smiles) // _TYPICAL)
    training = load_or_pack(model.training_smiles[::every])
    rows, training = training.readable.nonzero().flatten(), training.to(model.device)
    return [
        atom_contributions(
            network,
            store,
            0,
            output,
            baseline=mean_embedding(network, training, rows),
            steps=STEPS,
        )
        for network in model.networks
    ]


def _mean(numbers: Iterable[float]) -> float:
    found = list(numbers)
    return sum(found) / len(found)
