"""Pictures of molecules: to stand in a page, or with atoms coloured by what they contribute."""

from typing import Any

from rdkit.Chem import Mol
from rdkit.Chem.Draw import rdMolDraw2D
from torch import Tensor

from molhpft.domains.molecules.featurize import parse

Colour = tuple[float, float, float]

# Okabe and Ito (2008): told apart with any colour vision
RAISES: Colour = (0.90, 0.62, 0.00)
LOWERS: Colour = (0.34, 0.71, 0.91)

# parts of a picture's shorter side; with longer bonds, the disc of a lone atom would fill it
LONGEST_BOND = 0.16
LINE_WIDTH = 0.005


def molecule_svg(smiles: str, *, width: int = 240, height: int = 180) -> str:
    """A drawing on a transparent ground, without the XML header that a page has no place for.

    Args:
        smiles: read as for graphs, what RDKit refuses for its valences included.
        width: in pixels.
        height: in pixels.

    Raises:
        ValueError: the molecule cannot be read or drawn.
    """
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    _draw(drawer, smiles, _readable(smiles))
    text: str = drawer.GetDrawingText()
    return text[text.index("<svg") :]


def contribution_svg(
    smiles: str,
    contributions: Tensor,
    *,
    width: int = 420,
    height: int = 320,
    scale: float | None = None,
) -> str:
    """A drawing on white whose atoms are orange where they raise a logit, blue where they lower it.

    Args:
        smiles: read as for graphs, what RDKit refuses for its valences included.
        contributions: of each atom, (a,), as `attribution.Contributions` has them.
        width: in pixels.
        height: in pixels.
        scale: contribution of the deepest colour, larger ones have it too; None takes the largest.
            To compare pictures, give them one.

    Raises:
        ValueError: the molecule cannot be read or drawn, contributions are not a finite number for
            each atom, or `scale` is not positive.
    """
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    _draw_contributions(drawer, smiles, contributions, scale)
    text: str = drawer.GetDrawingText()
    return text[text.index("<svg") :]


def contribution_png(
    smiles: str,
    contributions: Tensor,
    *,
    width: int = 420,
    height: int = 320,
    scale: float | None = None,
) -> bytes:
    """The drawing of `contribution_svg`, with its arguments and errors, as the bytes of a PNG."""
    drawer = rdMolDraw2D.MolDraw2DCairo(width, height)
    _draw_contributions(drawer, smiles, contributions, scale)
    picture: bytes = drawer.GetDrawingText()
    return picture


def _draw_contributions(
    drawer: Any, smiles: str, contributions: Tensor, scale: float | None
) -> None:
    mol = _readable(smiles)
    colours = _colours(mol.GetNumAtoms(), contributions, scale)
    options, size = drawer.drawOptions(), min(drawer.Width(), drawer.Height())
    # coloured letters would compete with the discs
    options.useBWAtomPalette()
    options.atomHighlightsAreCircles = True
    options.highlightRadius = 0.45  # bonds have length 1.5: neighbouring discs stay apart
    options.fixedBondLength = LONGEST_BOND * size
    options.bondLineWidth = LINE_WIDTH * size
    atoms = {"highlightAtoms": list(colours), "highlightAtomColors": colours}
    _draw(drawer, smiles, mol, **atoms, highlightBonds=[])


def _colours(atoms: int, contributions: Tensor, scale: float | None) -> dict[int, Colour]:
    """Colour of each atom that contributes."""
    if contributions.shape != (atoms,):
        raise ValueError(
            f"contributions should have shape ({atoms},), one for each atom, "
            f"got {tuple(contributions.shape)}"
        )
    if not contributions.isfinite().all():
        raise ValueError(f"contributions should be finite, got {contributions.tolist()}")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale should be positive, got {scale}")
    full = scale or float(contributions.abs().max())
    return {k: _colour(c / full) for k, c in enumerate(contributions.tolist()) if c}


def _colour(share: float) -> Colour:
    """White at 0, deepest from 1 and -1 on."""
    depth = min(abs(share), 1.0)
    red, green, blue = (1 - depth * (1 - part) for part in (RAISES if share > 0 else LOWERS))
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
