import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from molhpft.domains.molecules import overlap
from molhpft.domains.molecules.overlap import MoleculeSet, inchikey_blocks, is_among, scaffold_keys
from molhpft.domains.molecules.smiles import parse
from molhpft.domains.molecules.splits import scaffold

SOME = ["CCO", "c1ccccc1", "CC(=O)O", "CC(N)C(=O)O", "CCOCC", "CCN(CC)CC", "C1CCCCC1", "CC(C)=O"]


def is_shared(smiles, others):
    return is_among(inchikey_blocks(smiles), inchikey_blocks(others))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("OCC", "CCO"),
        ("C1=CC=CC=C1", "c1ccccc1"),
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
        ("CC(=O)[O-].[Na+]", "CC(=O)O"),
        ("[Na+].CC(=O)[O-]", "CC(=O)O"),
        ("[2H]CCO", "CCO"),
        ("Oc1ccccn1", "O=c1cccc[nH]1"),
    ],
    ids=["order", "kekule", "stereo", "salt", "salt first", "isotope", "tautomer"],
)
def test_the_same_molecule_is_found_however_it_is_written(ours, theirs):
    assert is_shared([ours], [theirs]).tolist() == [True]


def test_isomers_of_another_connectivity_are_others():
    assert not is_shared(["CCCO", "COCC", "CCO"], ["CC(C)O"]).any()


def test_what_cannot_be_read_is_shared_with_nothing():
    strings = ["not a molecule", "", "CCO"]
    assert is_shared(strings, strings).tolist() == [False, False, True]


def test_nothing_is_shared_with_nothing():
    assert is_shared(SOME, []).tolist() == [False] * len(SOME)
    assert is_shared([], SOME).tolist() == []


@settings(max_examples=30, deadline=None)
@given(
    ours=st.lists(st.sampled_from(SOME), max_size=6),
    theirs=st.lists(st.sampled_from(SOME), max_size=4),
    root=st.integers(0, 1),
)
def test_sharing_equals_a_plain_comparison_of_inchikeys(ours, theirs, root):
    written = [Chem.MolToSmiles(Chem.MolFromSmiles(s), rootedAtAtom=root) for s in ours]
    keys = {Chem.MolToInchiKey(Chem.MolFromSmiles(s))[:14] for s in theirs}
    expected = [Chem.MolToInchiKey(Chem.MolFromSmiles(s))[:14] in keys for s in ours]
    assert is_shared(written, theirs).tolist() == expected


def test_processes_change_nothing(monkeypatch, tmp_path):
    smiles, blocks = SOME * 150, []
    for workers in ("1", "2"):
        monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / workers))
        monkeypatch.setenv("MOLHPFT_WORKERS", workers)
        blocks.append(inchikey_blocks(smiles).tolist())
    assert blocks[0] == blocks[1]


def test_keys_are_computed_once(monkeypatch):
    first = is_shared(SOME, SOME[:2])
    monkeypatch.setattr(overlap, "_block_codes", lambda smiles: pytest.fail("computed again"))
    assert torch.equal(is_shared(SOME, SOME[:2]), first)


RINGS = [*SOME, "CC1CCCCC1", "Cc1ccccc1", "C1CCCCC1CC1CC1", "O=C1CCCC1", "not a molecule", ""]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(RINGS), max_size=8))
def test_two_molecules_have_one_key_where_they_have_one_scaffold(smiles):
    keys = scaffold_keys(smiles)
    assert keys.shape == (len(smiles),)
    molecules = [parse(text) for text in smiles]
    names = ["" if mol is None else scaffold(mol) for mol in molecules]
    for key, name in zip(keys, names, strict=True):
        assert (key == 0) == (name == "")
        assert (keys == key).tolist() == [name == other for other in names]


def test_the_key_of_a_scaffold_does_not_depend_on_what_else_is_asked_or_which_process(
    monkeypatch, tmp_path
):
    alone = [int(scaffold_keys([text])[0]) for text in RINGS]
    for workers in ("1", "2"):
        monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path / workers))
        monkeypatch.setenv("MOLHPFT_WORKERS", workers)
        assert scaffold_keys(RINGS * 100).tolist() == alone * 100


def test_scaffolds_are_found_once(monkeypatch):
    first = scaffold_keys(RINGS)
    monkeypatch.setattr(overlap, "_scaffold_keys", lambda smiles: pytest.fail("computed again"))
    assert (scaffold_keys(RINGS) == first).all()


LETTERS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=14, max_size=14)


@given(ours=st.lists(LETTERS, max_size=30), theirs=st.lists(LETTERS, max_size=30))
def test_a_set_of_molecules_knows_its_own_and_no_others_through_a_file(ours, theirs):
    blocks, others = (np.array(some, dtype="S14") for some in (ours, theirs))
    known = MoleculeSet.from_bytes(MoleculeSet.of(blocks).to_bytes())
    assert known.has(blocks).all()
    assert known.has(others).tolist() == [one in ours for one in theirs]


def test_what_cannot_be_read_is_in_no_set():
    known = MoleculeSet.of(inchikey_blocks(["CCO", "no molecule"]))
    assert known.hashes.size == 1
    assert known.has(inchikey_blocks(["xx", "OCC", "C"])).tolist() == [False, True, False]


def test_a_set_takes_three_bytes_a_molecule():
    rng = np.random.default_rng(0)
    letters = rng.integers(65, 91, (100_000, 14), dtype=np.uint8)
    content = MoleculeSet.of(letters.view("S14")[:, 0]).to_bytes()
    assert len(content) < 3.7e5


@pytest.mark.parametrize("content", [b"", b"molecules", zlib.compress(b"12345")])
def test_a_damaged_set_is_one_sentence(content):
    with pytest.raises(ValueError, match="no set of molecules, or a damaged one"):
        MoleculeSet.from_bytes(content)
