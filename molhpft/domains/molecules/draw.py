"""Pictures of molecules, and how much each atom contributes to a logit (integrated gradients).

Integrated gradients (Sundararajan et al., 2017) of a logit `f` in the embeddings `h` of the atoms,
from those of a baseline `b`: atom i contributes
`sum_d (h_id - b_d) int_0^1 df/dh_id(b + s (h - b)) ds`, and all contributions sum to `f(h) - f(b)`.

With ReLUs the gradient jumps along the way, so no rule beats equal steps by much. The median error
on molecules of the NCI at 64 steps is about 1% of `|f(h) - f(b)|` for trained five-layer GCNs and
4% for a pretrained one under an untrained head; at 256 steps a quarter of that. Single molecules
are ten times worse, and those whose logit is near the baseline's worse still: see `error`.

Zero embeddings are no molecule, and the logit there may be far from any molecule's: most atoms then
have contributions of one sign. From the mean embedding of many atoms, a contribution says what an
atom does that an average one would not.
"""

from dataclasses import dataclass
from typing import Any

import torch
from rdkit.Chem import Mol
from rdkit.Chem.Draw import rdMolDraw2D
from torch import Tensor

from molhpft.core.evaluate import inference
from molhpft.core.network import Batch, Network
from molhpft.domains.extras import require
from molhpft.domains.molecules.graphs import GraphStore
from molhpft.domains.molecules.smiles import parse

Colour = tuple[float, float, float]

# Okabe and Ito (2008): distinct to any colour vision
RAISES: Colour = (0.90, 0.62, 0.00)
LOWERS: Colour = (0.34, 0.71, 0.91)

_SMALL = 240, 180  # pixels of a drawing
_SIZE = 420, 320  # of a picture of contributions

# parts of a picture's shorter side; with longer bonds, the disc of a lone atom would fill it
LONGEST_BOND = 0.16
LINE_WIDTH = 0.005

# rows in a pass: under a gigabyte with what five layers of width 300 keep for gradients
_MOST_ROWS = 16_384


def molecule_svg(smiles: str) -> str:
    """A drawing on a transparent ground, without the XML header that a page has no place for.

    Args:
        smiles: read as for graphs, what RDKit refuses for its valences included.

    Raises:
        ValueError: the molecule cannot be read or drawn.
    """
    drawer: Any = rdMolDraw2D.MolDraw2DSVG(*_SMALL)
    drawer.drawOptions().clearBackground = False
    _draw(drawer, smiles, _readable(smiles))
    return _svg(drawer)


def contribution_svg(smiles: str, contributions: Tensor) -> str:
    """A drawing on white whose atoms are orange where they raise a logit, blue where they lower it.

    Args:
        smiles: read as for graphs, what RDKit refuses for its valences included.
        contributions: of each atom, (a,), as in `Contributions`; the largest has the deepest
            colour.

    Raises:
        ValueError: the molecule cannot be read or drawn, or contributions are not a finite number
            for each atom.
    """
    drawer = rdMolDraw2D.MolDraw2DSVG(*_SIZE)
    _draw_contributions(drawer, smiles, contributions)
    return _svg(drawer)


def contribution_png(smiles: str, contributions: Tensor) -> bytes:
    """The drawing of `contribution_svg`, with its errors, as the bytes of a PNG."""
    drawer = rdMolDraw2D.MolDraw2DCairo(*_SIZE)
    _draw_contributions(drawer, smiles, contributions)
    picture: bytes = drawer.GetDrawingText()
    return picture


def _svg(drawer: Any) -> str:
    text: str = drawer.GetDrawingText()
    return text[text.index("<svg") :]


def _draw_contributions(drawer: Any, smiles: str, contributions: Tensor) -> None:
    mol = _readable(smiles)
    colours = _colours(mol.GetNumAtoms(), contributions)
    options, size = drawer.drawOptions(), min(drawer.Width(), drawer.Height())
    # coloured letters would compete with the discs
    options.useBWAtomPalette()
    options.atomHighlightsAreCircles = True
    options.highlightRadius = 0.45  # bonds have length 1.5: neighbouring discs stay apart
    options.fixedBondLength = LONGEST_BOND * size
    options.bondLineWidth = LINE_WIDTH * size
    atoms = {"highlightAtoms": list(colours), "highlightAtomColors": colours}
    _draw(drawer, smiles, mol, **atoms, highlightBonds=[])


def _colours(atoms: int, contributions: Tensor) -> dict[int, Colour]:
    """Colour of each atom that contributes."""
    if contributions.shape != (atoms,):
        raise ValueError(
            f"contributions should have shape ({atoms},), one for each atom, "
            f"got {tuple(contributions.shape)}"
        )
    if not contributions.isfinite().all():
        raise ValueError(f"contributions should be finite, got {contributions.tolist()}")
    full = float(contributions.abs().max())
    return {k: _colour(c / full) for k, c in enumerate(contributions.tolist()) if c}


def _colour(contribution: float) -> Colour:
    """White at 0, deepest at 1 and -1."""
    depth, full = abs(contribution), RAISES if contribution > 0 else LOWERS
    red, green, blue = (1 - depth * (1 - part) for part in full)
    return red, green, blue


def _readable(smiles: str) -> Mol:
    mol = parse(smiles)
    if mol is None:
        raise ValueError(f"{smiles!r:.60} cannot be read as a molecule")
    return mol


def _draw(drawer: Any, smiles: str, mol: Mol, **highlights: Any) -> None:
    # no red boxes around atoms that come to lie close to each other
    drawer.drawOptions().flagCloseContactsDist = -1
    try:
        # a molecule with odd valences is drawn as it stands
        prepared = rdMolDraw2D.PrepareMolForDrawing(mol, kekulize=False)
        drawer.DrawMolecule(prepared, **highlights)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{smiles!r} cannot be drawn: {error}") from error
    drawer.FinishDrawing()


@dataclass(frozen=True, eq=False)
class Contributions:
    """One logit of one molecule, divided among its atoms.

    Attributes:
        atoms: float (a,), on the CPU, in the order of the graph store, which is RDKit's; positive
            where the atom raises the logit above the baseline.
        rest: contribution of the virtual node; 0 without one.
        logit: of the molecule.
        baseline: logit of the same graph with the baseline for every atom's embedding.
    """

    atoms: Tensor
    rest: float
    logit: float
    baseline: float

    @property
    def error(self) -> float:
        """By how much they do not sum to `logit - baseline`; 0 for an exact integral."""
        return abs(float(self.atoms.sum()) + self.rest - (self.logit - self.baseline))


def atom_contributions(
    network: Network,
    store: GraphStore,
    row: int,
    output: int,
    *,
    baseline: Tensor | None = None,
    steps: int = 64,
) -> Contributions:
    """Integrated gradients of one logit, from a baseline's embeddings to those of the first stage.

    Args:
        network: of molecules, whose first stage gives a row for each atom and, after them, perhaps
            one for a virtual node. It is read in eval mode, and left as it is.
        store: of the molecule, on the network's device.
        row: number of the molecule in the store.
        output: number of the logit.
        baseline: embedding that every atom starts from, (width,); None for zeros. A virtual node
            starts from zeros.
        steps: points where the gradient is taken, the midpoints of as many equal intervals.

    Raises:
        IndexError: the store has no such row.
        ValueError: the molecule has no atoms, there is no such output, there are fewer than 2
            steps, or the first stage gives no embeddings of atoms.
    """
    if steps < 2:
        raise ValueError(f"steps should be at least 2, got {steps}")
    captum = require("captum.attr", extra="explain")
    upper = _Upper(network, store, row)
    with inference(network):
        h = upper.embeddings()
        start = torch.zeros_like(h)
        if baseline is not None:
            start[: upper.atoms] = baseline
        ends = upper(torch.stack([start, h]))
        if not 0 <= output < ends.shape[1]:
            raise ValueError(
                f"output should be a number from 0 to {ends.shape[1] - 1}, got {output}"
            )
        gradients = captum.IntegratedGradients(upper).attribute(
            h[None],
            baselines=start[None],
            target=output,
            n_steps=steps,
            method="riemann_middle",
            internal_batch_size=max(1, _MOST_ROWS // len(h)),
        )
    rows = gradients[0].sum(1).cpu()
    at_baseline, logit = ends[:, output].tolist()
    return Contributions(rows[: upper.atoms], float(rows[upper.atoms :].sum()), logit, at_baseline)


def mean_embedding(network: Network, store: GraphStore, rows: Tensor) -> Tensor:
    """Mean embedding of the atoms of some molecules, (width,).

    Args:
        network: of molecules, whose first stage gives a row for each atom.
        store: of the molecules, on the network's device.
        rows: their numbers, (k,); at least one can be read.
    """
    first = next(iter(network.backbone))
    batch = Batch(store.take(rows), torch.empty(len(rows), 0))
    with inference(network):
        h: Tensor = first(batch.inputs, batch)
    return h[: len(batch.inputs.graph)].mean(0)


class _Upper:
    """Logits of one molecule as a function of its embeddings: a network above its first stage."""

    def __init__(self, network: Network, store: GraphStore, row: int) -> None:
        self._first, *self._stages = [*network.backbone, *network.head]
        self._store = store
        self._row = row
        self.atoms = len(self._copies(1).inputs.graph)

    def embeddings(self) -> Tensor:
        """What the first stage gives, (rows, width)."""
        if not self.atoms:
            raise ValueError(
                f"row {self._row} should be a molecule with atoms, it could not be read"
            )
        batch = self._copies(1)
        h: Tensor = self._first(batch.inputs, batch)
        if len(h) < self.atoms:
            raise ValueError(
                f"the first stage should give a row for each of {self.atoms} atoms, got {len(h)}: "
                "contributions of atoms need a network that embeds atoms first"
            )
        return h

    def __call__(self, h: Tensor) -> Tensor:
        """Logits (k, t) of k embeddings of the molecule, (k, rows, width)."""
        batch = self._copies(len(h))
        # in a batch, the virtual nodes come after the atoms of all molecules
        x = torch.cat([part.flatten(0, 1) for part in h.tensor_split([self.atoms], dim=1)])
        for stage in self._stages:
            x = stage(x, batch)
        return x

    def _copies(self, k: int) -> Batch:
        return Batch(self._store.take(torch.full((k,), self._row)), torch.empty(k, 0))
