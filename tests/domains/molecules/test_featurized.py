"""Each string is read once, for graphs and all else; processes and stretches change nothing."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import Descriptors, rdMolDescriptors

from molhpft.domains.molecules import featurized as featurizing
from molhpft.domains.molecules import smiles as smiles_module
from molhpft.domains.molecules.count_fingerprints import SUBSTRUCTURES, count_fingerprints
from molhpft.domains.molecules.featurized import Reading, featurized, featurized_parts
from molhpft.domains.molecules.fingerprints import packed_fingerprints
from molhpft.domains.molecules.properties import COUNT, properties
from molhpft.domains.molecules.smiles import packed_graphs
from molhpft.domains.parallel import VARIABLE

POOL = ["CCO", "c1ccccc1", "[Na+].[Cl-]", "F/C=C/F", "no molecule", "", "C\nN", "\ud800", "*"]
strings = st.lists(st.sampled_from(POOL) | st.text(max_size=8), max_size=20)


def same_graphs(ours, theirs):
    pairs = [(getattr(ours.graph, k), getattr(theirs.graph, k)) for k in ("atoms", "bonds", "ends")]
    pairs += [(ours.atoms, theirs.atoms), (ours.bonds, theirs.bonds)]
    return all(np.array_equal(a, b) for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(strings)
def test_one_reading_gives_the_graphs_and_fingerprints_of_two(smiles):
    both = featurized(smiles)
    assert both.smiles == tuple(smiles)
    assert same_graphs(both.graphs, packed_graphs(smiles))
    readable = [k for k, n in enumerate(both.graphs.atoms) if n]
    expected = packed_fingerprints([smiles[k] for k in readable])
    assert np.array_equal(both.fingerprints[readable], expected)
    assert not np.delete(both.fingerprints, readable, axis=0).any()
    assert both.invalid_valence.shape == (len(smiles),)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stretch", [1, 3, 100])
def test_stretches_and_processes_change_nothing(monkeypatch, stretch, workers):
    smiles = [*POOL[:7] * 3, "C" * 40]
    whole = featurized(smiles)
    monkeypatch.setattr(featurizing, "STRETCH", stretch)
    monkeypatch.setenv(VARIABLE, workers)
    again = featurized(smiles)
    assert same_graphs(again.graphs, whole.graphs)
    assert np.array_equal(again.fingerprints, whole.fingerprints)


@pytest.mark.parametrize(("workers", "ahead"), [("1", 2), ("2", 5)])
def test_only_a_few_parts_are_read_ahead_of_what_is_taken(monkeypatch, workers, ahead):
    monkeypatch.setenv(VARIABLE, workers)
    drawn = 0

    def parts():
        nonlocal drawn
        for drawn in range(1, 41):
            yield ["C" * (drawn % 7)] * 20

    for taken, molecules in enumerate(featurized_parts(parts(), lambda part: part)):
        assert drawn <= taken + ahead
        assert len(molecules.smiles) == 20
    assert taken == 39


def test_what_is_too_large_is_unreadable_and_odd_valences_are_marked(monkeypatch):
    monkeypatch.setattr(smiles_module, "MOST_ATOMS", 6)
    molecules = featurized(["C(C)(C)(C)(C)C", "C" * 7, "no molecule", "CN(C)(C)C", "C[N+](C)(C)C"])
    assert molecules.graphs.atoms.tolist() == [6, 0, 0, 5, 5]
    assert molecules.invalid_valence.tolist() == [True, False, False, True, False]


@settings(max_examples=20, deadline=None)
@given(strings)
def test_what_is_read_together_is_what_is_read_alone(smiles):
    columns = featurized(smiles, get_args(Reading)).columns
    for kind in SUBSTRUCTURES:
        assert np.array_equal(columns[kind], count_fingerprints(kind, smiles).toarray())
    alone = properties(smiles).reshape(len(smiles), COUNT)
    np.testing.assert_array_equal(columns["properties"], alone)


def test_properties_are_those_of_rdkit_and_nan_where_they_are_not_defined():
    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "no molecule", "C1CCNCC1"]
    found = properties(smiles)
    assert found.shape == (3, COUNT)
    assert np.isnan(found[1]).all()
    for row, text in ((0, smiles[0]), (2, smiles[2])):
        mol = Chem.MolFromSmiles(text)
        assert found[row, 1] == pytest.approx(Descriptors.MolWt(mol))
        assert found[row, 25] == pytest.approx(Descriptors.TPSA(mol))
        assert found[row, 26] == pytest.approx(Descriptors.MolLogP(mol))
        assert found[row, -14:] == pytest.approx(rdMolDescriptors.PEOE_VSA_(mol))


def test_a_molecule_whose_charges_are_not_defined_has_its_other_properties():
    (row,) = properties(["[Pt](Cl)Cl"])
    assert np.isfinite(row[1])
    assert not np.isinf(row).any()
