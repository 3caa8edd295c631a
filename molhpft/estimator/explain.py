"""Why a model predicts what it does for a molecule: the contribution of each atom, as a picture."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from molhpft.core.determinism import deterministic_on_gpus
from molhpft.core.objectives import Squared
from molhpft.domains.files import ANOTHER_FILE, writing
from molhpft.domains.molecules.draw import (
    atom_contributions,
    contribution_png,
    contribution_svg,
    mean_embedding,
)
from molhpft.domains.molecules.featurized import featurized
from molhpft.domains.molecules.further_columns import store_beside
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.smiles import MOST_ATOMS
from molhpft.estimator.model import Model
from molhpft.measure.uncertainty import weighted_mean

STEPS = 256
_SAMPLE = 500  # training molecules at least, where there are, whose mean atom is the baseline


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the atoms of a molecule contribute to one prediction.

    Attributes:
        smiles: of the molecule.
        target: name of the target.
        value: what is predicted of it, such as "target p(active)"; of `NetworkSpec.value_names`.
        atoms: contribution of each atom to the mean logit of the networks, (a,), in RDKit's order.
        logit: theirs of the molecule; of a regression, in standard deviations.
        baseline: the logit of a molecule whose atoms are all average training atoms; what heads
            read beside features is that of the molecule.
        gap: how far the contributions of the atoms are from adding up to `logit - baseline`: the
            part of the virtual node, and the error of taking the integral in steps.
        virtual_node: what it contributes, which no atom's is; 0 without one.
        weight: of the networks among the members of the model; what is left is of kernel models,
            which have no contributions of atoms.
        is_number: whether the logit is a number in standard deviations, of a regression.
    """

    smiles: str
    target: str
    value: str
    atoms: Tensor
    logit: float
    baseline: float
    gap: float
    virtual_node: float
    weight: float
    is_number: bool

    @property
    def reading(self) -> str:
        """What adds up to what, by how much it does not and why, and what is not explained."""
        name, alone = "prediction" if self.is_number else "logit", self.weight == 1
        text = (
            f"{self.value}: {name} {'' if alone else 'of the networks '}{self.logit:.3f}"
            f"{' standard deviations' if self.is_number else ''}, of which the atoms contribute "
            f"{self.logit - self.baseline:+.3f} to that of an average training atom, "
            f"{self.baseline:.3f}. The sum over atoms misses this by "
            f"{self.gap:.3f}, for the integral is taken in {STEPS} steps"
        )
        if self.virtual_node:
            text += f" and the virtual node contributes {self.virtual_node:+.3f}"
        text += "."
        if not alone:
            text += (
                f" Networks have weight {self.weight:.2f} in the {name} of the model; the "
                f"Gaussian processes, with {1 - self.weight:.2f}, are not explained."
            )
        return text


@deterministic_on_gpus()
def explain(model: Model, smiles: str, *, target: str | None = None) -> Explanation:
    """Integrated gradients over the atom embeddings, averaged over the networks of a model.

    Args:
        model: fitted.
        smiles: of one molecule.
        target: name of the target; may be left out where there is only one.

    Raises:
        MissingExtraError: captum is not installed.
        ValueError: the molecule cannot be read, no target has that name, or the model has no
            network.
    """
    if not model.networks:
        raise ValueError(
            "atoms are explained by the networks of a model, and this one has none; make it of "
            "networks (--members networks)"
        )
    output = _target_number(model, target)
    store = store_beside(featurized([smiles], model.beside), model.beside)
    if not store.readable.all():
        raise ValueError(
            f"{smiles!r:.60} cannot be read as a molecule of at most {MOST_ATOMS:,} atoms"
        )
    store = store.to(model.device)
    training = load_or_pack(model.training_smiles[:: max(1, len(model.training_smiles) // _SAMPLE)])
    rows, training = training.readable.nonzero().flatten(), training.to(model.device)
    members = [
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
    own = model.weights[: len(members)]
    # what a network says counts as its logit does, on the scale of which members are averaged
    weights = own / own.sum() * model.slopes[: len(members), output]
    offset = float(own @ model.offsets[: len(members), output].double()) / float(own.sum())
    atoms = weighted_mean(torch.stack([member.atoms for member in members]), weights)
    logit, baseline = (
        offset + float(weights @ torch.tensor([getattr(m, key) for m in members]).double())
        for key in ("logit", "baseline")
    )
    return Explanation(
        smiles,
        model.spec.target_names[output],
        model.spec.value_names[output],
        atoms,
        logit,
        baseline,
        gap=abs(float(atoms.sum()) - (logit - baseline)),
        virtual_node=float(weights @ torch.tensor([member.rest for member in members]).double()),
        weight=float(own.sum() / model.weights.sum()),
        is_number=isinstance(model.spec.objective, Squared),
    )


def _target_number(model: Model, target: str | None) -> int:
    names = model.spec.target_names
    if target is None and len(names) > 1:
        raise ValueError(f"which target should be explained? there are: {', '.join(names)}")
    if target is not None and target not in names:
        raise ValueError(f"no target is named {target!r}; there are: {', '.join(names)}")
    return 0 if target is None else names.index(target)


def check_picture(out: Path) -> None:
    """Refuse a name of no picture that can be drawn.

    Raises:
        ValueError: it does not end in .svg or .png.
    """
    if out.suffix not in (".svg", ".png"):
        raise ValueError(f"{out} should end in .svg or .png")


def draw(explanation: Explanation, out: Path) -> None:
    """Write the picture of an explanation: orange atoms raise the prediction, blue ones lower it.

    Args:
        explanation: of a molecule.
        out: `.svg` or `.png`.

    Raises:
        ValueError: the name ends otherwise, or RDKit cannot draw the molecule.
        OSError: the file cannot be written.
    """
    check_picture(out)
    smiles, atoms = explanation.smiles, explanation.atoms
    if out.suffix == ".svg":
        picture = contribution_svg(smiles, atoms).encode()
    else:
        picture = contribution_png(smiles, atoms)
    with writing(out, remedy=ANOTHER_FILE):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(picture)
