"""Packing many strings gives what they give one by one, however the work is shared out."""

from itertools import chain

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molhpft.domains import parallel
from molhpft.domains.molecules import smiles as featurising
from molhpft.domains.molecules.smiles import (
    ATOM_SIZES,
    BOND_SIZES,
    columns,
    featurize,
    pack_stretch,
    packed_graphs,
    parse,
)

UNMARKED = [  # could have stereochemistry, of which their strings say nothing
    "FC=CF",
    "CC=C=CC",
    "CC(F)(Cl)Br",
    "C1CCCCCCC=C1",
    "CC(C)=NO",
    "N[Pt](F)(Cl)Br",
    "C1CC2CCC1O2",
    "Cc1cccc(I)c1-c1c(Br)cccc1C",
    "C[Al](C)(C)(C)(C)C",
]
MARKED = [
    "F/C=C/F",
    "F/C=C\\F",
    "C/C=C/C=C\\F",
    "F[C@H](Cl)Br",
    "F[C@@H](Cl)Br",
    "N[C@@H](C)C(=O)O",
    "CC=[C@]=CC",
    "C[S@](=O)CC",
    "N[Pt@SP1](F)(Cl)Br",
    "F/C=C/[C@H](Cl)Br",
    "Cc1cccc(I)c1-c1c(Br)cccc1C |wU:7.7|",
    "CC=CC |c:1|",
    "CC=CC |t:1|",
    "CC(F)Cl |w:1.0|",
]
OTHERS = ["not a molecule", "", "C(", "C", "[Na+].[Cl-]", "CC"]

strings = st.lists(
    st.sampled_from(UNMARKED + MARKED + OTHERS)
    | st.text(alphabet="CNOcnFBr[]()=#@/\\.%123|H", max_size=12),
    max_size=8,
)


def assert_packed(packed, smiles):
    """Every array is what the strings give one by one."""
    graphs = [None if mol is None else featurize(mol) for mol in map(parse, smiles)]
    for name in ("atoms", "bonds", "ends"):
        rows = [getattr(graph, name).tolist() for graph in graphs if graph is not None]
        assert getattr(packed.graph, name).tolist() == list(chain.from_iterable(rows))
    assert packed.atoms.tolist() == [0 if graph is None else len(graph.atoms) for graph in graphs]
    assert packed.bonds.tolist() == [0 if graph is None else len(graph.bonds) for graph in graphs]


@settings(max_examples=150, deadline=None)
@given(strings)
def test_a_stretch_is_its_strings_one_by_one(smiles):
    assert_packed(pack_stretch(smiles), smiles)


@pytest.mark.parametrize("smiles", UNMARKED + MARKED)
def test_what_the_string_rules_out_is_what_rdkit_would_say(smiles):
    mol = parse(smiles)
    assert columns(mol, smiles) == columns(mol)


def _stereo(smiles):
    """Chirality, stereo and direction of a molecule's atoms and bonds."""
    found = columns(parse(smiles), smiles)
    return b"".join([found.atoms[1], found.bonds[1], found.bonds[3]])


def test_the_examples_have_stereochemistry_where_they_are_marked():
    assert not any(any(_stereo(smiles)) for smiles in UNMARKED)
    assert sum(any(_stereo(smiles)) for smiles in MARKED) > len(MARKED) / 2


@pytest.mark.parametrize("name", ["bace", "tox21"])
def test_a_data_sets_strings_rule_out_nothing_they_have(ogb_root, name):
    table = pd.read_csv(ogb_root / f"ogbg_mol{name}" / "mapping" / "mol.csv.gz")
    for smiles in table["smiles"][:2_000]:
        mol = parse(smiles)
        assert columns(mol, smiles) == columns(mol)


@pytest.mark.parametrize("workers", ["1", "2", "3"])
def test_any_number_of_processes_packs_the_same(monkeypatch, workers):
    smiles = (UNMARKED + MARKED + OTHERS) * 75  # three stretches
    alone = pack_stretch(smiles)
    monkeypatch.setenv(parallel.VARIABLE, workers)
    shared = packed_graphs(smiles)
    for name in ("atoms", "bonds", "ends"):
        assert np.array_equal(getattr(shared.graph, name), getattr(alone.graph, name))
    assert np.array_equal(shared.atoms, alone.atoms)
    assert np.array_equal(shared.bonds, alone.bonds)


@pytest.mark.parametrize("smiles", [[], ["hello"], ["C"]])
def test_what_has_no_atoms_or_bonds_keeps_its_shapes(smiles):
    packed = packed_graphs(smiles)
    assert packed.graph.atoms.shape[1:] == (len(ATOM_SIZES),)
    assert packed.graph.bonds.shape == (0, len(BOND_SIZES))
    assert packed.graph.ends.shape == (0, 2)
    assert packed.atoms.shape == packed.bonds.shape == (len(smiles),)
    assert (packed.atoms.dtype, packed.graph.ends.dtype) == (np.int64, np.int16)


def test_a_molecule_too_large_is_unreadable_in_any_process(monkeypatch):
    monkeypatch.setattr(featurising, "MOST_ATOMS", 3)
    monkeypatch.setenv(parallel.VARIABLE, "2")
    packed = packed_graphs([*["C"] * 1_500, "CCCC", "CCC"])
    assert packed.atoms.tolist() == [*[1] * 1_500, 0, 3]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_packing_prints_nothing_and_leaves_rdkits_own_messages_on(monkeypatch, capfd, workers):
    monkeypatch.setenv(parallel.VARIABLE, workers)
    packed_graphs(OTHERS * 200)
    assert capfd.readouterr() == ("", "")
    Chem.MolFromSmiles("C(")
    assert "SMILES Parse Error" in capfd.readouterr().err
