"""SMILES strings have the numbers of OGB, one by one and packed end to end by any processes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ogb.utils.features import get_atom_feature_dims, get_bond_feature_dims
from ogb.utils.mol import smiles2graph
from rdkit import Chem

from molhpft.domains import parallel
from molhpft.domains.molecules import smiles as module
from molhpft.domains.molecules.graphs import load_or_pack
from molhpft.domains.molecules.smiles import (
    ATOM_SIZES,
    BOND_SIZES,
    PACKED_ATOM_SIZES,
    PACKED_BOND_SIZES,
    columns,
    pack_molecules,
    packed_graphs,
    parse,
)
from tests.marks import slow

UNMARKED = [  # could have stereochemistry, of which their strings say nothing
    *("FC=CF", "CC=C=CC", "CC(F)(Cl)Br", "C1CCCCCCC=C1", "CC(C)=NO", "N[Pt](F)(Cl)Br"),
    *("C1CC2CCC1O2", "Cc1cccc(I)c1-c1c(Br)cccc1C", "C[Al](C)(C)(C)(C)C"),
]
MARKED = [
    *("F/C=C/F", "F/C=C\\F", "C/C=C/C=C\\F", "F[C@H](Cl)Br", "F[C@@H](Cl)Br", "N[C@@H](C)C(=O)O"),
    *("CC=[C@]=CC", "C[S@](=O)CC", "N[Pt@SP1](F)(Cl)Br", "F/C=C/[C@H](Cl)Br"),
    *("Cc1cccc(I)c1-c1c(Br)cccc1C |wU:7.7|", "CC=CC |c:1|", "CC=CC |t:1|", "CC(F)Cl |w:1.0|"),
]
OTHERS = ["not a molecule", "", "C(", "C", "[Na+].[Cl-]", "CC"]
FRAGMENTS = [
    *("C", "[H][H]", "[Na+]", "[Cl-]", "*", "[CH3]", "[C+9]", "[Og]", "[13CH4]", "CC#N"),
    *("c1ccccc1", "c1cc[nH]c1", "C[N+](=O)[O-]", "F/C=C/F", "F/C=C\\F", "F[C@H](Cl)Br"),
    *("F[C@@H](Cl)Br", "FS(F)(F)(F)(F)F", "O=C1C=CC(=O)C=C1", "C12C3C4C1C5C2C3C45"),
    *("N[Pt@SP1](F)(Cl)Br", "CN->[Fe]", "C1CC2CCC1O2"),
]
REFUSED = "C[Al](C)(C)(C)(C)C"  # six bonds: too many for RDKit, fine for OGB

EVERY_SIGN = "@|/\\" + "".join(f"[{digit}" for digit in range(10))  # rules no column out

mixtures = st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=4).map(".".join)
scribbles = st.text(alphabet="CNOcnoFBrl[]()=#@/\\+-.%123|: H*$", max_size=20)


def graph_of(mol):
    return pack_molecules([(mol, EVERY_SIGN)]).graph


def _raw(folder, name):
    return pd.read_csv(folder / "raw" / f"{name}.csv.gz", header=None).to_numpy()


def _smiles(folder):
    return pd.read_csv(folder / "mapping" / "mol.csv.gz")["smiles"].tolist()


@pytest.mark.parametrize("name", ["bace", "esol", "freesolv", slow("tox21"), slow("hiv")])
def test_all_molecules_have_the_numbers_of_ogbs_raw_files(ogb_root, name):
    folder = ogb_root / f"ogbg_mol{name}"
    store = load_or_pack(_smiles(folder))
    assert store.readable.all()
    assert np.array_equal(store.atom_offsets.diff(), _raw(folder, "num-node-list")[:, 0])
    assert np.array_equal(store.bond_offsets.diff(), _raw(folder, "num-edge-list")[:, 0])
    assert np.array_equal(store.atoms[:, :9], _raw(folder, "node-feat"))
    assert np.array_equal(store.bonds[:, :3], _raw(folder, "edge-feat"))
    assert np.array_equal(store.ends, _raw(folder, "edge"))


@settings(max_examples=100, deadline=None)
@given(mixtures)
def test_a_molecule_has_the_numbers_of_ogbs_own_function(smiles):
    graph, theirs = graph_of(parse(smiles)), smiles2graph(smiles)
    assert np.array_equal(graph.atoms[:, :9], theirs["node_feat"])
    assert np.array_equal(graph.bonds[:, :3], theirs["edge_feat"][::2])
    assert np.array_equal(graph.ends, theirs["edge_index"].T[::2])


def test_the_sizes_are_those_of_ogb():
    assert list(ATOM_SIZES) == get_atom_feature_dims()
    assert list(BOND_SIZES[:3]) == get_bond_feature_dims()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | scribbles)
@example("\ud800")
@example("C\0C")
@example("[CH200]")  # the hydrogens overflow RDKit's counter
@example("CCO |$a;b")
@example("[C-200]")
def test_any_text_is_a_molecule_within_the_vocabulary_or_none(text):
    mol = parse(text)
    if mol is not None:
        graph = graph_of(mol)
        assert len(graph.atoms) > 0
        assert (graph.atoms < PACKED_ATOM_SIZES).all()
        assert (graph.bonds < PACKED_BOND_SIZES).all()
        assert (graph.ends < len(graph.atoms)).all()


@pytest.mark.parametrize(
    "text",
    [
        *("", "hello", "C(", "c1cccc1", "C1CC", "[CH200]", "\ud800"),
        # white space within, and what is not ASCII
        *("C C O", "CCCCCCCC N", "CCO ethanol", "CCO\tethanol", "CC\nO", "CC\r\nO", "CCO |"),
        *("C\0C", "CCO |$a$| ethanol", "COc1ccc(cc1)\u200bC(=O)O", "CC\u2082N", "CC\u2212O"),
        *("\u0421\u0421\u041e", "CCO\u2026", "CC\u00a0O", "\ufeffCCO", "CCO...", "CCO;", '"CCO"'),
    ],
)
def test_what_cannot_be_read_is_none(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    "text", [" CCO", "CCO \t", "\nCCO\r\n", "CCO |$_R1;;$|", " CCO  |$a;b;c$| "]
)
def test_white_space_may_stand_around_a_smiles_and_before_its_extensions(text):
    assert parse(text).GetNumAtoms() == 3


@pytest.mark.parametrize("repeated", ["C", "C.", "[", "C(", "C " + "x"])
def test_ten_megabytes_are_unreadable_at_once(monkeypatch, repeated):
    monkeypatch.setattr(module.Chem, "MolFromSmiles", lambda *_, **__: pytest.fail("parsed"))
    assert parse(repeated * (10_000_000 // len(repeated))) is None


def test_a_string_is_read_up_to_the_longest_and_not_beyond():
    label = "x" * (module.LONGEST - len("C |$$|"))
    assert parse(f"C |${label}$|").GetNumAtoms() == 1
    assert parse(f"C |${label}x$|") is None


def test_a_valence_that_rdkit_refuses_is_read():
    assert graph_of(parse(REFUSED)).atoms[1, [0, 2]].tolist() == [12, 6]


@pytest.mark.parametrize("smiles", ["C", "[Na+].[Cl-]", "CC", "c1ccccc1"])
def test_the_arrays_are_small_integers_of_fixed_width(smiles):
    graph = graph_of(parse(smiles))
    assert (graph.atoms.dtype, graph.bonds.dtype) == (np.uint8, np.uint8)
    assert graph.ends.dtype == np.int16
    assert graph.atoms.shape[1:] == (11,)
    assert graph.bonds.shape == (len(graph.ends), 5)
    assert graph.ends.shape[1:] == (2,)
    assert graph.atoms.flags.c_contiguous
    assert graph.bonds.flags.c_contiguous


@pytest.mark.parametrize(("symbol", "number"), [("H", 0), ("C", 5), ("Og", 117), ("*", 118)])
def test_the_element_column_is_the_atomic_number_less_one(symbol, number):
    atom = symbol if symbol == "*" else f"[{symbol}]"
    assert graph_of(parse(atom)).atoms[0, 0] == number


def test_chirality_and_bond_types_are_numbered_as_hu_et_al_do():
    chirality = [graph_of(parse(f"F[C{tag}H](Cl)Br")).atoms[1, 1] for tag in ("", "@@", "@")]
    assert chirality == [0, 1, 2]
    types = [graph_of(parse(s)).bonds[0, 0] for s in ("CC", "C=C", "C#C", "c1ccccc1")]
    assert types == [0, 1, 2, 3]
    assert graph_of(parse("CN->[Fe]")).bonds[1, 0] == 4


@pytest.mark.parametrize(("smiles", "ahead", "behind"), [("F/C=C/F", 1, 1), ("F/C=C\\F", 1, 2)])
def test_the_direction_column_tells_up_from_down(smiles, ahead, behind):
    graph = graph_of(parse(smiles))
    direction = dict(zip(map(tuple, graph.ends.tolist()), graph.bonds[:, 3].tolist(), strict=True))
    assert direction == {(0, 1): ahead, (1, 2): 0, (2, 3): behind}


def test_a_wedge_of_a_drawing_is_no_direction():
    wedged = parse("Cc1cccc(I)c1-c1c(Br)cccc1C |wU:7.7|")
    assert Chem.BondDir.BEGINWEDGE in {bond.GetBondDir() for bond in wedged.GetBonds()}
    assert graph_of(wedged).bonds[:, 3].max() == 0


@pytest.mark.parametrize("tag", ["STEREOATROPCW", "STEREOATROPCCW"])
def test_an_atropisomer_takes_the_last_stereo_number(tag):
    mol = parse("Cc1cccc(I)c1-c1c(Br)cccc1C")
    mol.GetBondWithIdx(7).SetStereo(Chem.BondStereo.names[tag])
    assert graph_of(mol).bonds[7, 1] == BOND_SIZES[1] - 1


def test_a_charge_beyond_the_vocabulary_takes_the_last_number():
    assert [graph_of(parse(f"[Fe{c}]")).atoms[0, 3] for c in ("+5", "+6", "-6")] == [10, 11, 11]


def test_features_do_not_share_memory_with_another_molecule():
    first, second = graph_of(parse("CC")), graph_of(parse("CC"))
    first.atoms[:] = 0
    assert second.atoms.any()


def test_too_many_atoms_for_int16_are_unreadable_and_refused_with_their_number(monkeypatch):
    large = parse("CCCC")
    monkeypatch.setattr(module, "MOST_ATOMS", 3)
    assert parse("CCCC") is None
    assert len(graph_of(parse("CCC")).atoms) == 3
    with pytest.raises(ValueError, match="at most 3 atoms, this one has 4; leave it out"):
        graph_of(large)


def test_the_largest_molecule_keeps_its_last_atom_number():
    graph = graph_of(parse("C." * (module.MOST_ATOMS - 2) + "CC"))
    assert graph.ends.tolist() == [[module.MOST_ATOMS - 2, module.MOST_ATOMS - 1]]


def assert_packed(packed, smiles):
    """Every array is what the strings give one by one."""
    graphs = [None if mol is None else graph_of(mol) for mol in map(parse, smiles)]
    for name in ("atoms", "bonds", "ends"):
        rows = [getattr(graph, name) for graph in graphs if graph is not None]
        packed_rows = getattr(packed.graph, name)
        assert np.array_equal(packed_rows, np.concatenate([packed_rows[:0], *rows]))
    assert packed.atoms.tolist() == [0 if graph is None else len(graph.atoms) for graph in graphs]
    assert packed.bonds.tolist() == [0 if graph is None else len(graph.bonds) for graph in graphs]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(UNMARKED + MARKED + OTHERS)
        | st.text(alphabet="CNOcnFBr[]()=#@/\\.%123|H", max_size=12),
        max_size=8,
    )
)
def test_packed_graphs_are_the_strings_one_by_one(smiles):
    assert_packed(packed_graphs(smiles), smiles)


@pytest.mark.parametrize("workers", ["1", "2", "3"])
def test_any_number_of_processes_packs_the_same(monkeypatch, workers):
    monkeypatch.setenv(parallel.VARIABLE, workers)
    smiles = (UNMARKED + MARKED + OTHERS) * 75  # three stretches
    assert_packed(packed_graphs(smiles), smiles)


@pytest.mark.parametrize("smiles", UNMARKED + MARKED)
def test_what_the_string_rules_out_is_what_rdkit_would_say(smiles):
    mol = parse(smiles)
    assert columns(mol, smiles) == columns(mol, EVERY_SIGN)


@pytest.mark.parametrize("name", ["bace", slow("tox21")])
def test_a_data_sets_strings_rule_out_nothing_they_have(ogb_root, name):
    for smiles in _smiles(ogb_root / f"ogbg_mol{name}")[:2_000]:
        mol = parse(smiles)
        assert columns(mol, smiles) == columns(mol, EVERY_SIGN)


def _stereo(smiles):
    """Chirality, stereo and direction of a molecule's atoms and bonds."""
    numbers = columns(parse(smiles), smiles)
    return b"".join([numbers.atoms[1], numbers.bonds[1], numbers.bonds[3]])


@settings(max_examples=100, deadline=None)
@given(mixtures)
@example("C$C")
@example("F[Pt@SP1](Cl)(Br)N")
@example("[2H]C([13CH3])[238U]")
@example("[2H]C")
@example("[35Cl]C")
@example("[98Tc]")
@example("C1CC1C1CC1.[Na+]")
@example("[NH3]->[Fe]1<-[NH2]CC[NH2]->1")
def test_columns_that_a_string_gives_no_sign_of_are_those_that_rdkit_would_give(smiles):
    mol = parse(smiles)
    told, asked = columns(mol, smiles), columns(mol, EVERY_SIGN)
    rare = {"S": 1, "SP2D": 2}
    assert told == asked
    assert list(told.atoms[9]) == [rare.get(str(a.GetHybridization()), 0) for a in mol.GetAtoms()]
    assert list(told.atoms[10]) == [min(a.GetIsotope(), 255) for a in mol.GetAtoms()]
    assert list(told.bonds[4]) == [b.IsInRing() for b in mol.GetBonds()]


def test_the_examples_have_stereochemistry_where_they_are_marked():
    assert not any(any(_stereo(smiles)) for smiles in UNMARKED)
    assert sum(any(_stereo(smiles)) for smiles in MARKED) > len(MARKED) / 2


@pytest.mark.parametrize("smiles", [[], ["hello"], ["C"]])
def test_what_has_no_atoms_or_bonds_keeps_its_shapes(smiles):
    packed = packed_graphs(smiles)
    assert packed.graph.atoms.shape[1:] == (len(PACKED_ATOM_SIZES),)
    assert packed.graph.bonds.shape == (0, len(PACKED_BOND_SIZES))
    assert packed.graph.ends.shape == (0, 2)
    assert packed.atoms.shape == packed.bonds.shape == (len(smiles),)
    assert (packed.atoms.dtype, packed.graph.ends.dtype) == (np.int64, np.int16)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_reading_prints_nothing_and_leaves_rdkits_own_messages_on(monkeypatch, capfd, workers):
    monkeypatch.setenv(parallel.VARIABLE, workers)
    packed_graphs([*OTHERS, "c1cccc1", REFUSED, "[CH200]", "[H][H]"] * 100)
    parse("C(")
    assert capfd.readouterr() == ("", "")
    Chem.MolFromSmiles("C(")
    assert "SMILES Parse Error" in capfd.readouterr().err
