"""Pictures of molecules as SVG text, to stand in a page."""

from typing import Any

from rdkit.Chem.Draw import rdMolDraw2D

from molhpft.domains.molecules.featurize import parse


def molecule_svg(smiles: str, *, width: int = 240, height: int = 180) -> str:
    """A drawing on a transparent ground, without the XML header that a page has no place for.

    Args:
        smiles: read as for graphs, what RDKit refuses for its valences included.
        width: in pixels.
        height: in pixels.

    Raises:
        ValueError: the molecule cannot be read or drawn.
    """
    mol = parse(smiles)
    if mol is None:
        raise ValueError(f"{smiles!r} cannot be read as a molecule")
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    try:
        # a molecule with odd valences is drawn as it stands
        prepared = rdMolDraw2D.PrepareMolForDrawing(mol, kekulize=False)
        drawer.DrawMolecule(prepared)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{smiles!r} cannot be drawn: {error}") from error
    drawer.FinishDrawing()
    text: str = drawer.GetDrawingText()
    return text[text.index("<svg") :]
