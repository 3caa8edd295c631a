import resource
import sys
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.domains.molecules import graphs as module
from molhpft.domains.molecules import smiles as smiles_module
from molhpft.domains.molecules.graphs import load_or_pack, pack
from molhpft.domains.molecules.smiles import pack_molecules, parse, smiles_digest

UNREADABLE = "not a molecule"
POOL = [
    "C",
    "CC",
    "[Na+].[Cl-]",
    "c1ccccc1",
    "C12C3C4C1C5C2C3C45",
    UNREADABLE,
    "FS(F)(F)(F)(F)F",
    "C[Al](C)(C)(C)(C)C",
    "CC(C)(C)c1ccc(cc1)C#N.O",
]
STORE = pack(POOL)

rows = st.lists(st.integers(0, len(POOL) - 1), max_size=12)
batches = settings(max_examples=60, deadline=None)


def _take(index):
    return STORE.take(torch.tensor(index, dtype=torch.int64))


def _parts(value):
    graphs = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "beside"}
    return graphs | {f"beside {name}": columns for name, columns in value.beside.items()}


def _with_columns():
    return replace(STORE, beside={"counts": torch.ones(len(STORE), 2)})


def _equal(one, other):
    return all(
        torch.equal(*pair)
        for pair in zip(_parts(one).values(), _parts(other).values(), strict=True)
    )


def _reference(index):
    """Atoms, sorted edges (target, source, bond) and molecule of each atom, the slow way."""
    atoms, edges, owner = [], [], []
    for k, row in enumerate(index):
        mol = parse(POOL[row])
        if mol is None:
            continue
        graph, first = pack_molecules([(mol, POOL[row])]).graph, len(atoms)
        for (i, j), bond in zip(graph.ends.tolist(), graph.bonds.tolist(), strict=True):
            edges += [(first + j, first + i, bond), (first + i, first + j, bond)]
        atoms += graph.atoms.tolist()
        owner += [k] * len(graph.atoms)
    return atoms, sorted(edges), owner


@batches
@given(rows)
def test_a_batch_holds_the_molecules_asked_for_in_that_order(index):
    batch = _take(index)
    atoms, edges, owner = _reference(index)
    found = zip(batch.target.tolist(), batch.source.tolist(), batch.bonds.tolist(), strict=True)
    assert batch.atoms.tolist() == atoms
    assert sorted(found) == edges
    assert batch.graph.tolist() == owner
    assert len(batch) == len(index) == len(batch.counts)
    assert torch.equal(batch.counts, batch.graph.bincount(minlength=len(index)))
    assert {t.dtype for t in (STORE.atoms, STORE.bonds, batch.atoms, batch.bonds)} == {torch.uint8}
    wide = (batch.source, batch.target, batch.pointer, batch.graph, batch.offsets, batch.counts)
    assert {tensor.dtype for tensor in wide} == {torch.int64}
    assert STORE.ends.dtype == torch.int16


@batches
@given(rows)
def test_a_batch_equals_its_molecules_taken_one_by_one(index):
    batch, alone = _take(index), [_take([row]) for row in index]
    for k, one in enumerate(alone):
        first, last = batch.offsets[k : k + 2].tolist()
        edges = slice(int(batch.pointer[first]), int(batch.pointer[last]))
        assert torch.equal(batch.atoms[first:last], one.atoms)
        assert torch.equal(batch.source[edges] - first, one.source)
        assert torch.equal(batch.target[edges] - first, one.target)
        assert torch.equal(batch.bonds[edges], one.bonds)
        assert torch.equal(batch.norm[edges], one.norm)
        assert torch.equal(batch.degree[first:last], one.degree)


@batches
@given(rows)
def test_the_plain_way_to_cut_a_batch_gives_the_same_one(index):
    batch = _take(index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLHPFT_KERNELS", "reference")
        plain = _take(index)
    assert _equal(plain, batch)
    assert all(part.dtype == _parts(plain)[name].dtype for name, part in _parts(batch).items())


@batches
@given(rows)
def test_pointer_gives_the_edges_into_each_atom(index):
    batch = _take(index)
    assert len(batch.pointer) == len(batch.atoms) + 1
    assert batch.pointer[-1] == len(batch.target)
    for atom, (first, last) in enumerate(pairwise(batch.pointer.tolist())):
        assert batch.target[first:last].tolist() == [atom] * (last - first)


@batches
@given(rows)
def test_the_norm_of_an_edge_is_that_of_a_graph_convolution(index):
    batch = _take(index)
    degree = 1 + batch.target.bincount(minlength=len(batch.atoms)).double()
    expected = (degree[batch.source] * degree[batch.target]) ** -0.5
    torch.testing.assert_close(batch.norm.double(), expected, rtol=1e-6, atol=0)
    assert torch.equal(batch.degree.double(), degree)


def test_an_unreadable_molecule_keeps_its_place_and_has_no_atoms():
    k = POOL.index(UNREADABLE)
    assert STORE.readable.tolist() == [text != UNREADABLE for text in POOL]
    assert _take([k, 0, k, k]).counts.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("index", [[], [POOL.index(UNREADABLE)], [0, 0]])
def test_a_batch_without_bonds_keeps_its_shapes(index):
    batch = _take(index)
    assert batch.bonds.shape == (0, 5)
    assert batch.source.shape == batch.target.shape == batch.norm.shape == (0,)
    assert batch.pointer.tolist() == [0] * (1 + len(batch.atoms))


@pytest.mark.parametrize("index", [[-1], [0, len(POOL)], [3, -11]])
def test_a_row_that_is_not_there_is_refused(index):
    with pytest.raises(IndexError, match=f"should lie in 0 to {len(POOL) - 1}, got"):
        _take(index)


def test_a_mask_is_not_mistaken_for_row_numbers():
    with pytest.raises(IndexError, match="int64 row numbers, got torch"):
        STORE.take(STORE.readable)


def test_moving_a_batch_moves_every_tensor_and_derived_ones_follow():
    batch = _with_columns().take(torch.tensor([3, 5, 1]))
    assert not batch.norm.is_meta
    moved = batch.to("meta")
    assert len(moved) == 3
    assert moved.norm.is_meta
    assert all(part.is_meta for part in _parts(moved).values())
    assert "beside counts" in _parts(moved)


def test_moving_a_store_leaves_the_offsets_so_that_sizes_are_known_without_asking_the_device():
    moved = _with_columns().to("meta")
    assert len(moved) == len(STORE)
    elsewhere = {name for name, part in _parts(moved).items() if part.is_meta}
    assert elsewhere == {"atoms", "bonds", "ends", "beside counts"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_store_on_the_gpu_cuts_the_same_batch():
    index = torch.tensor([3, 5, 4, 3, 0])
    assert _equal(STORE.to("cuda").take(index).to("cpu"), STORE.take(index))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MOLHPFT_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("smiles", [POOL, ["C", "[Na+]"], [UNREADABLE], []])
def test_what_is_kept_is_read_back_equal(folder, monkeypatch, smiles):
    packed = load_or_pack(smiles)
    assert len(packed) == len(smiles)
    monkeypatch.setattr(module, "pack", None)  # cannot be called a second time
    assert _equal(load_or_pack(smiles), packed)


def test_one_file_is_left_named_by_the_smiles_digest(folder):
    load_or_pack(POOL)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files == [folder / "graphs" / f"{smiles_digest(POOL)}.safetensors"]


@pytest.mark.parametrize(
    ("one", "other"), [(["C", "C"], ["CC"]), (["C\nC"], ["C", "C"]), (["C", "N"], ["N", "C"])]
)
def test_lists_that_read_alike_have_different_digests(one, other):
    assert smiles_digest(one) != smiles_digest(other)


def test_another_featuriser_or_rdkit_is_another_smiles_digest(monkeypatch):
    names = {smiles_digest(POOL)}
    monkeypatch.setattr(smiles_module, "FEATURISER_VERSION", -1)
    names.add(smiles_digest(POOL))
    monkeypatch.setattr(smiles_module.rdBase, "rdkitVersion", "0")
    names.add(smiles_digest(POOL))
    assert len(names) == 3


@pytest.mark.slow
def test_hiv_takes_less_than_60_megabytes(ogb_root):
    smiles = pd.read_csv(ogb_root / "ogbg_molhiv" / "mapping" / "mol.csv.gz")["smiles"]
    assert load_or_pack(smiles.tolist()).nbytes <= 60_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory in use from /proc")
def test_a_kept_store_is_mapped_and_not_copied(folder, monkeypatch):
    large = replace(STORE, atoms=torch.ones(5_000_000, 9, dtype=torch.uint8))
    monkeypatch.setattr(module, "pack", lambda smiles: large)
    load_or_pack(POOL)
    before = _resident()
    store = load_or_pack(POOL)
    assert _resident() - before < large.nbytes / 10
    assert store.nbytes == large.nbytes


def _resident():
    """Bytes of memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
