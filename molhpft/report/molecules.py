"""Molecules that stand out: those whose features moved most, those whose energy stayed highest."""

from collections.abc import Sequence

from molhpft.domains.molecules.draw import molecule_svg
from molhpft.report.content import Gallery, Picture
from molhpft.report.measure_figures import Variant
from molhpft.results.read import NOTHING_KEPT, read_standouts
from molhpft.run.standouts import Standout

TITLES = {"moved": "Features that moved most", "energy": "Energy that stayed highest"}


def galleries(variants: Sequence[Variant]) -> list[Gallery]:
    """Both galleries, from the first run that kept its molecules, or why there are none.

    Args:
        variants: of one task, that which validates best first.
    """
    refusals: list[str] = []
    for name, runs in variants:
        for run in runs:
            try:
                found = read_standouts(run)
            except (ValueError, OSError) as error:
                refusals.append(f"{run.path.name}: {error}")
                continue
            seed, tau = run.summary["seed"], run.summary["chosen_tau"]
            note = f"Training molecules of {name}, seed {seed}, tau {tau}."
            return [
                Gallery(TITLES[kind], note, tuple(map(_picture, molecules)))
                for kind, molecules in found.items()
            ]
    # a run that kept molecules and could not be shown says more than one that kept none
    refusals.sort(key=lambda text: NOTHING_KEPT in text)
    return [Gallery(title, f"No molecules to show: {refusals[0]}.") for title in TITLES.values()]


def _picture(molecule: Standout) -> Picture:
    shown = ("-" if x is None else f"{x:.2f}" for x in (molecule.moved, molecule.energy))
    lines = ["moved {}, energy {}".format(*shown)]
    if molecule.label is not None and molecule.predicted is not None:
        label, predicted = molecule.label, molecule.predicted
        lines.append(f"{molecule.target}: label {label:g}, predicted {predicted:.2f}")
    try:
        svg = molecule_svg(molecule.smiles)
    except ValueError:
        svg, lines = "", [*lines, "RDKit cannot draw it"]
    return Picture(svg, molecule.smiles, tuple(lines))
