"""Graphs and fingerprints of one reading, stretch by stretch, in order, with bounded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules import reading
from molhpft.domains.molecules import smiles as featurize
from molhpft.domains.molecules.fingerprints import morgan_prints
from molhpft.domains.molecules.reading import STRETCH, described, described_stream
from molhpft.domains.molecules.smiles import pack_stretch
from molhpft.domains.parallel import VARIABLE

POOL = ["CCO", "c1ccccc1", "[Na+].[Cl-]", "F/C=C/F", "no molecule", "", "C\nN", "\ud800", "*"]
strings = st.lists(st.sampled_from(POOL) | st.text(max_size=8), max_size=20)


def itself(part):
    return part


def same_graphs(ours, theirs):
    pairs = [(getattr(ours.graph, k), getattr(theirs.graph, k)) for k in ("atoms", "bonds", "ends")]
    pairs += [(ours.atoms, theirs.atoms), (ours.bonds, theirs.bonds)]
    return all(np.array_equal(a, b) for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(strings)
def test_molecules_are_described_as_by_the_two_readings_that_this_one_replaces(smiles):
    found = described(smiles)
    assert found.smiles == tuple(smiles)
    assert same_graphs(found.graphs, pack_stretch(smiles))
    readable = [k for k, n in enumerate(found.graphs.atoms) if n]
    expected = morgan_prints([smiles[k] for k in readable])
    assert np.array_equal(found.prints[readable], expected)
    assert not np.delete(found.prints, readable, axis=0).any()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stretch", [1, 3, 100])
def test_stretches_and_processes_change_nothing(monkeypatch, stretch, workers):
    smiles = [*POOL[:7] * 3, "C" * 40]
    whole = described(smiles)
    monkeypatch.setattr(reading, "STRETCH", stretch)
    monkeypatch.setenv(VARIABLE, workers)
    parts = list(described_stream(iter(smiles), itself))
    assert [len(part.smiles) for part in parts[:-1]] == [stretch] * (len(parts) - 1)
    assert sum((part.smiles for part in parts), ()) == tuple(smiles)
    again = described(smiles)
    assert same_graphs(again.graphs, whole.graphs)
    assert np.array_equal(again.prints, whole.prints)


def test_nothing_is_described_as_nothing():
    found = described([])
    assert (found.smiles, found.prints.shape, len(found.graphs.atoms)) == ((), (0, 256), 0)
    assert found.dubious.shape == (0,)
    assert not list(described_stream([], itself))


@pytest.mark.parametrize(("workers", "ahead"), [("1", 2), ("2", 5)])
def test_only_a_few_stretches_are_read_ahead_of_what_is_taken(monkeypatch, workers, ahead):
    monkeypatch.setenv(VARIABLE, workers)
    drawn = 0

    def short():
        nonlocal drawn
        for drawn in range(1, 20_001):
            yield "C" * (drawn % 7)

    taken = 0
    for part in described_stream(short(), itself):
        assert drawn <= taken + ahead * STRETCH
        taken += len(part.smiles)
    assert taken == 20_000


def test_a_molecule_of_too_many_atoms_is_unreadable_and_stops_no_other(monkeypatch):
    monkeypatch.setattr(featurize, "MOST_ATOMS", 5)
    assert described(["CCO", "C" * 6, "C" * 5]).graphs.atoms.tolist() == [3, 0, 5]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_molecule_with_valences_that_rdkit_refuses_is_computed_and_marked(monkeypatch, workers):
    monkeypatch.setenv(VARIABLE, workers)
    smiles = ["C(C)(C)(C)(C)C", "CCO", "no molecule", "CN(C)(C)C", "C[N+](C)(C)C", ""] * 200
    found = described(smiles)
    assert found.dubious.tolist() == [True, False, False, True, False, False] * 200
    assert found.graphs.atoms.tolist() == [6, 3, 0, 5, 5, 0] * 200


def test_a_large_molecule_is_read():
    assert described(["NC(C)C(=O)" * 400, "C" * 2_000]).graphs.atoms.tolist() == [2_000, 2_000]


@pytest.mark.parametrize(
    "text",
    ["C" * 10_000_000, "C." * 5_000_000, "[" * 10_000_000, "C(" * 5_000_000, "C " + "x" * 10**7],
    ids=["chain", "dots", "brackets", "branches", "name"],
)
def test_ten_megabytes_are_unreadable_at_once(monkeypatch, text):
    monkeypatch.setattr(featurize.Chem, "MolFromSmiles", lambda *_, **__: pytest.fail("parsed"))
    assert described([text]).graphs.atoms.tolist() == [0]


def test_a_string_is_read_up_to_the_longest_and_not_beyond():
    label = "x" * (featurize.LONGEST - len("C |$$|"))
    assert described([f"C |${label}$|", f"C |${label}x$|"]).graphs.atoms.tolist() == [1, 0]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text("CNOSPcn1234567890()[]=#@+-\\/%.|$&:*~ \n\t\0", max_size=60))
def test_any_text_is_described(text):
    found = described([text])
    assert found.smiles == (text,)
    assert len(found.graphs.graph.atoms) == found.graphs.atoms[0]
