"""Drawings: well-formed SVG for every molecule that can be read, with nothing else in it."""

from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules.draw import molecule_svg

SMILES = ["CCO", "c1ccccc1", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "N[Ni](N)(N)(N)(N)N", "[H][H]"]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SMILES), st.integers(50, 400), st.integers(50, 400))
def test_a_drawing_is_svg_of_the_size_asked_for(smiles, width, height):
    root = ElementTree.fromstring(molecule_svg(smiles, width=width, height=height))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == f"0 0 {width} {height}"
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "path", "rect", "ellipse", "text", "tspan", "g"}


def test_the_ground_is_left_to_the_page():
    assert "<rect" not in molecule_svg("CCO")


def test_what_rdkit_refuses_for_its_valences_is_drawn():
    assert "<path" in molecule_svg("F[Al-3](F)(F)(F)(F)F")


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="'xx' cannot be read as a molecule"):
        molecule_svg("xx")
