"""Drawings are well-formed, and contributions obey the axioms of integrated gradients."""

import io
import re
import sys
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image
from rdkit import Chem

from molhpft.core.network import Batch, Network, cosine_head, linear_head, mlp_head, side_tuned
from molhpft.domains.extras import MissingExtraError
from molhpft.domains.molecules import draw
from molhpft.domains.molecules.draw import (
    atom_contributions,
    contribution_png,
    contribution_svg,
    mean_embedding,
    molecule_svg,
)
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pretrain_gnns import pretrain_gnns_gcn
from molhpft.domains.molecules.smiles import parse

DRAWN = ["CCO", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "N[Ni](N)(N)(N)(N)N", "[H][H]", "C", "[Na+]"]
DRAWN += ["F[Al-3](F)(F)(F)(F)F", "CO" * 100]
TAGS = {"svg", "path", "rect", "ellipse", "text", "tspan", "g"}


def discs(svg):
    """Colour of each disc, (red, green, blue), in the order of the atoms."""
    colours = re.findall(r"<ellipse[^>]*fill:#([0-9A-F]{6})", svg)
    return [tuple(bytes.fromhex(colour)) for colour in colours]


@pytest.mark.parametrize("smiles", DRAWN)
def test_a_drawing_is_a_small_svg_on_the_ground_of_the_page(smiles):
    svg = molecule_svg(smiles)
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox") == "0 0 240 180"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= TAGS
    assert "<rect" not in svg


def test_what_rdkit_refuses_for_its_valences_is_drawn():
    assert "<path" in molecule_svg("F[Al-3](F)(F)(F)(F)F")


def test_atoms_that_lie_close_to_each_other_are_not_boxed_in_red():
    assert "#FF0000" not in molecule_svg("C" * 300)


@pytest.mark.parametrize("smiles", DRAWN)
def test_contributions_are_drawn_on_white_one_disc_an_atom(smiles):
    contributions = torch.linspace(0.5, 1, parse(smiles).GetNumAtoms())
    svg = contribution_svg(smiles, contributions)
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox") == "0 0 420 320"
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= TAGS
    assert "opacity:1.0;fill:#FFFFFF" in svg[svg.index("<rect") : svg.index("</rect>")]
    assert len(discs(svg)) == len(contributions)
    picture = Image.open(io.BytesIO(contribution_png(smiles, contributions)))
    assert (picture.format, picture.size) == ("PNG", (420, 320))
    assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_raising_atoms_are_orange_lowering_ones_blue_others_bare_and_more_is_deeper():
    raises, lowers = discs(contribution_svg("CCO", torch.tensor([2.0, 0.0, -2.0])))
    assert raises[0] > raises[1] > raises[2]
    assert lowers[0] < lowers[1] < lowers[2]
    shades = discs(contribution_svg("CCCO", torch.tensor([0.1, 0.4, 0.7, 1.0])))
    assert sorted(set(shades), key=sum, reverse=True) == shades


def test_the_largest_contribution_has_the_deepest_colour():
    weak, strong = (torch.full((3,), value) for value in (0.5, 4.0))
    assert contribution_svg("CCO", weak) == contribution_svg("CCO", strong)


def test_discs_lie_on_the_atoms_in_their_order_and_are_small():
    svg = contribution_svg("CCCCN", torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]))
    disc = float(re.search(r"<ellipse cx='([\d.]+)'", svg)[1])
    other = contribution_svg("CCCCN", torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    away = float(re.search(r"<ellipse cx='([\d.]+)'", other)[1])
    letters = [float(x) for x in re.findall(r"class='atom-4' d='M ([\d.]+)", svg)]
    assert min(abs(disc - x) for x in letters) < min(abs(away - x) for x in letters)
    assert float(re.search(r"rx='([\d.]+)'", contribution_svg("C", torch.ones(1)))[1]) < 320 / 10


@pytest.mark.parametrize(
    ("contributions", "message"),
    [
        ([1.0, 2.0], r"should have shape \(3,\), one for each atom, got \(2,\)"),
        ([1.0, torch.nan, 0.0], "contributions should be finite"),
    ],
)
def test_contributions_that_cannot_be_coloured_are_refused(contributions, message):
    with pytest.raises(ValueError, match=message):
        contribution_svg("CCO", torch.tensor(contributions))


def test_what_cannot_be_read_is_refused():
    for drawing in (molecule_svg, lambda smiles: contribution_svg(smiles, torch.ones(2))):
        with pytest.raises(ValueError, match="'xx' cannot be read as a molecule"):
            drawing("xx")


SMILES = ["C", "CC(=O)Nc1ccc(O)cc1", "[Na+].[Cl-]", "not a molecule", "FC(F)(F)c1ccncc1", "C#N"]
STORE = pack(SMILES)
READABLE = STORE.readable.nonzero().flatten().tolist()
WIDTH, OUTPUTS = 8, 3
ENCODERS = {
    "ogb": lambda: ogb_gcn(layers=3, width=WIDTH),
    "ogb, virtual node": lambda: ogb_gcn(layers=3, width=WIDTH, virtual_node=True),
    "all layers, virtual node": lambda: ogb_gcn(
        layers=3, width=WIDTH, virtual_node=True, jumping_knowledge=True, pool="mean+sum"
    ),
    "pretrain-gnns": lambda: pretrain_gnns_gcn(layers=3, width=WIDTH),
}
encoders = pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)


def batch_of(rows):
    return Batch(STORE.take(torch.tensor(rows)), torch.zeros(len(rows), OUTPUTS))


def trained(encoder, head=linear_head):
    """A network in training mode with batch statistics that are not those of initialisation."""
    torch.manual_seed(0)
    backbone = encoder()
    network = Network(backbone, head(backbone.width, OUTPUTS)).train()
    for name, parameter in network.named_parameters():
        if name.endswith(("bias", "embed.node")):
            torch.nn.init.normal_(parameter, std=0.3)
    for _ in range(3):
        network(batch_of([*range(len(SMILES))] * 2))
    return network


def logits_of(network, rows):
    with torch.no_grad():
        return network.eval()(batch_of(rows))


@encoders
@pytest.mark.parametrize("head", [linear_head, mlp_head, cosine_head])
def test_contributions_sum_to_what_the_molecule_adds_to_any_baseline(build, head):
    network = trained(build, head)
    average = mean_embedding(network, STORE, torch.tensor(READABLE))
    for row in READABLE:
        for output, baseline in ((0, None), (2, average)):
            result = atom_contributions(network, STORE, row, output, baseline=baseline, steps=512)
            change = result.logit - result.baseline
            assert result.error == abs(float(result.atoms.sum()) + result.rest - change)
            assert result.error < 1e-2 * abs(change) + 1e-2
            assert result.logit == pytest.approx(float(logits_of(network, [row])[0, output]), 1e-4)
            assert result.atoms.shape == (int(STORE.atom_offsets.diff()[row]),)
            assert not result.atoms.requires_grad


@pytest.mark.slow
@encoders
def test_the_gap_shrinks_with_the_number_of_steps(build):
    network = trained(build)

    def gap(steps):
        pairs = [(row, output) for row in READABLE for output in range(OUTPUTS)]
        return sum(atom_contributions(network, STORE, *pair, steps=steps).error for pair in pairs)

    assert gap(4) > 3 * gap(64) > 9 * gap(1024)


@encoders
def test_the_baseline_is_the_graph_with_zero_embeddings(build):
    network, zeroed = trained(build), trained(build)
    for name, parameter in zeroed.backbone.named_parameters():
        if name.startswith("stages.embed."):
            torch.nn.init.zeros_(parameter)
    result = atom_contributions(network, STORE, 1, 2, steps=2)
    assert result.baseline == pytest.approx(float(logits_of(zeroed, [1])[0, 2]), abs=1e-5)


def test_only_a_virtual_node_contributes_beside_the_atoms():
    for name in ("ogb", "pretrain-gnns"):
        assert atom_contributions(trained(ENCODERS[name]), STORE, 1, 0).rest == 0
    network = trained(ENCODERS["ogb, virtual node"])
    assert atom_contributions(network, STORE, 1, 0).rest != 0
    torch.nn.init.zeros_(network.backbone.named_stages()["embed"].node)
    assert atom_contributions(network, STORE, 1, 0).rest == 0


@encoders
def test_permuting_atoms_permutes_their_contributions(build):
    mol = Chem.MolFromSmiles(SMILES[1])
    shuffled = torch.randperm(mol.GetNumAtoms(), generator=torch.Generator().manual_seed(0))
    mol = Chem.RenumberAtoms(mol, shuffled.tolist())
    other = pack([Chem.MolToSmiles(mol, canonical=False)])
    order = shuffled[list(mol.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"])]
    assert not torch.equal(order, torch.arange(len(order)))
    network = trained(build)
    here, there = (atom_contributions(network, s, r, 0) for s, r in ((STORE, 1), (other, 0)))
    torch.testing.assert_close(there.atoms, here.atoms[order], atol=1e-4, rtol=1e-3)
    assert there.rest == pytest.approx(here.rest, abs=1e-4)


def closed_form(network, row, output):
    """`h_j . W^T (g * w) s_j` with `s_j` the mean over atoms i of the adjacency's entry `ij`."""
    graphs = batch_of([row]).inputs
    stages, atoms = network.backbone.named_stages(), len(graphs.graph)
    adjacency = torch.zeros(atoms, atoms)
    adjacency[graphs.target, graphs.source] = 1
    adjacency += torch.eye(atoms)
    root = adjacency.sum(1).rsqrt()
    adjacency = root[:, None] * adjacency * root
    norm, linear = stages["conv0"].norm, stages["conv0"].convolution.linear
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = network.head.named_stages()["linear"].module.weight[output]
    h = stages["embed"](graphs, Batch(graphs, torch.zeros(1, 1)))
    return ((h @ linear.weight.T @ (gain * weight)) * adjacency.mean(0)).detach()


@pytest.mark.parametrize("row", READABLE)
def test_contributions_in_a_linear_network_are_gradient_times_embedding(row):
    # one convolution that is neither inside nor after a ReLU
    network = trained(lambda: pretrain_gnns_gcn(layers=1, width=WIDTH))
    result = atom_contributions(network, STORE, row, 2, steps=2)
    torch.testing.assert_close(result.atoms, closed_form(network, row, 2), atol=1e-5, rtol=1e-4)
    assert result.error < 1e-5


@encoders
def test_small_groups_of_steps_frozen_weights_and_cuts_change_nothing(build, monkeypatch):
    network = trained(build)
    whole = atom_contributions(network, STORE, 1, 0)
    for stage in network.backbone.names:
        assert torch.equal(atom_contributions(network.cut(stage), STORE, 1, 0).atoms, whole.atoms)
    monkeypatch.setattr(draw, "_MOST_ROWS", 30)
    groups = atom_contributions(network.requires_grad_(False), STORE, 1, 0)
    torch.testing.assert_close(groups.atoms, whole.atoms, atol=1e-5, rtol=1e-4)
    assert groups.rest == pytest.approx(whole.rest, abs=1e-5)


@encoders
def test_the_network_is_left_as_it_was(build):
    network = trained(build)
    network.head.eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    atom_contributions(network, STORE, 1, 0)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(state[name], now) for name, now in network.state_dict().items())


@pytest.mark.parametrize(
    ("row", "output", "steps", "error", "message"),
    [
        (3, 0, 64, ValueError, "row 3 should be a molecule with atoms, it could not be"),
        (6, 0, 64, IndexError, "row numbers should lie in 0 to 5"),
        (0, -1, 64, ValueError, "should be a number from 0 to 2, got -1$"),
        (0, OUTPUTS, 64, ValueError, "should be a number from 0 to 2, got 3$"),
        (0, 0, 1, ValueError, "steps should be at least 2, got 1"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(row, output, steps, error, message):
    with pytest.raises(error, match=message):
        atom_contributions(trained(ENCODERS["ogb"]), STORE, row, output, steps=steps)


def test_a_network_that_embeds_no_atoms_is_refused():
    network = trained(ENCODERS["ogb"])
    blended = Network(side_tuned(network.backbone), network.head)
    with pytest.raises(ValueError, match="a row for each of 11 atoms, got 1"):
        atom_contributions(blended, STORE, 1, 0)


def test_without_captum_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(MissingExtraError, match=r'pip install "molhpft\[explain\]"'):
        atom_contributions(trained(ENCODERS["ogb"]), STORE, 0, 0)


def test_the_mean_embedding_is_that_of_all_atoms():
    network = trained(ENCODERS["ogb, virtual node"])
    batch = batch_of(READABLE)
    atoms = network.backbone.named_stages()["embed"].embed(batch.inputs, batch)
    mean = mean_embedding(network, STORE, torch.tensor(READABLE))
    torch.testing.assert_close(mean, atoms.mean(0))
