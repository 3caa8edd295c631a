"""Drawings: well-formed SVG for every molecule that can be read, with nothing else in it."""

import io
import re
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molhpft.domains.molecules.draw import contribution_png, contribution_svg, molecule_svg
from molhpft.domains.molecules.smiles import parse

SMILES = ["CCO", "c1ccccc1", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "N[Ni](N)(N)(N)(N)N", "[H][H]"]
ODD = ["C", "[Na+]", "F[Al-3](F)(F)(F)(F)F", "CO" * 100]
TAGS = {"svg", "path", "rect", "ellipse", "text", "tspan", "g"}


def discs(svg):
    """Colour of each disc, (red, green, blue), in the order of the atoms."""
    found = re.findall(r"<ellipse[^>]*fill:#([0-9A-F]{6})", svg)
    return [tuple(bytes.fromhex(colour)) for colour in found]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SMILES), st.integers(50, 400), st.integers(50, 400))
def test_a_drawing_is_svg_of_the_size_asked_for(smiles, width, height):
    root = ElementTree.fromstring(molecule_svg(smiles, width=width, height=height))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == f"0 0 {width} {height}"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= TAGS


def test_the_ground_is_left_to_the_page():
    assert "<rect" not in molecule_svg("CCO")


def test_what_rdkit_refuses_for_its_valences_is_drawn():
    assert "<path" in molecule_svg("F[Al-3](F)(F)(F)(F)F")


def test_atoms_that_lie_close_to_each_other_are_not_boxed_in_red():
    assert "#FF0000" not in molecule_svg("C" * 100, width=100, height=100)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(ValueError, match="'xx' cannot be read as a molecule"):
        molecule_svg("xx")


@pytest.mark.parametrize("smiles", SMILES + ODD)
def test_contributions_are_drawn_on_white_one_disc_an_atom(smiles):
    contributions = torch.linspace(0.5, 1, parse(smiles).GetNumAtoms())
    svg = contribution_svg(smiles, contributions)
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == "0 0 420 320"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= TAGS
    assert "opacity:1.0;fill:#FFFFFF" in svg[svg.index("<rect") : svg.index("</rect>")]
    assert len(discs(svg)) == len(contributions)


@pytest.mark.parametrize("smiles", SMILES + ODD)
def test_a_png_has_the_size_asked_for_and_white_corners(smiles):
    contributions = torch.ones(parse(smiles).GetNumAtoms())
    picture = Image.open(io.BytesIO(contribution_png(smiles, contributions, width=200, height=150)))
    assert (picture.format, picture.size) == ("PNG", (200, 150))
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_raising_atoms_are_orange_lowering_ones_blue_and_others_bare():
    raises, lowers = discs(contribution_svg("CCO", torch.tensor([2.0, 0.0, -2.0])))
    assert raises[0] > raises[1] > raises[2]
    assert lowers[0] < lowers[1] < lowers[2]


def test_colour_deepens_with_the_contribution():
    shades = discs(contribution_svg("CCCO", torch.tensor([0.1, 0.4, 0.7, 1.0])))
    assert sorted(shades, key=sum, reverse=True) == shades
    assert len(set(shades)) == 4


def test_a_scale_makes_pictures_comparable_and_caps_what_is_beyond_it():
    weak, strong = (torch.full((3,), value) for value in (0.5, 4.0))
    assert contribution_svg("CCO", weak) == contribution_svg("CCO", strong)
    assert contribution_svg("CCO", weak, scale=1) == contribution_svg("CCO", 2 * weak, scale=2)
    assert contribution_svg("CCO", strong, scale=1) == contribution_svg("CCO", strong)


def test_discs_lie_on_the_atoms_in_their_order():
    svg = contribution_svg("CCCCN", torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]))
    disc = float(re.search(r"<ellipse cx='([\d.]+)'", svg)[1])
    other = contribution_svg("CCCCN", torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    away = float(re.search(r"<ellipse cx='([\d.]+)'", other)[1])
    letters = [float(x) for x in re.findall(r"class='atom-4' d='M ([\d.]+)", svg)]
    assert min(abs(disc - x) for x in letters) < min(abs(away - x) for x in letters)


def test_the_disc_of_a_lone_atom_does_not_fill_the_picture():
    svg = contribution_svg("C", torch.ones(1))
    assert float(re.search(r"rx='([\d.]+)'", svg)[1]) < 320 / 10


@pytest.mark.parametrize(
    ("contributions", "scale", "message"),
    [
        (
            [1.0, 2.0],
            None,
            r"contributions should have shape \(3,\), one for each atom, got \(2,\)",
        ),
        ([1.0, torch.nan, 0.0], None, "contributions should be finite"),
        ([1.0, 0.0, 0.0], 0.0, "scale should be positive, got 0.0"),
    ],
)
def test_contributions_that_cannot_be_coloured_are_refused(contributions, scale, message):
    for draw in (contribution_svg, contribution_png):
        with pytest.raises(ValueError, match=message):
            draw("CCO", torch.tensor(contributions), scale=scale)


def test_contributions_to_what_cannot_be_read_are_refused():
    with pytest.raises(ValueError, match="'xx' cannot be read as a molecule"):
        contribution_svg("xx", torch.ones(2))
