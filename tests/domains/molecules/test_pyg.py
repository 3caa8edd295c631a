"""Packed molecules survive the journey to PyG and back, and its networks run on them."""

import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch as Graphs
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, global_mean_pool

from molhpft.core.network import Batch, Chain, Network, linear_head
from molhpft.domains.graphs.backbones import GraphModule, Pool
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pyg import from_pyg, on_molecules, pyg_gnn, to_pyg

# a salt without bonds, an unreadable one without atoms, a single atom, a cage, rings
POOL = ["C", "CC", "[Na+].[Cl-]", "c1ccccc1", "C12C3C4C1C5C2C3C45", "?", "C/C=C/C#N.O", "CC(C)(C)C"]
STORE = pack(POOL)
MODELS = ["gcn", "sage", "gin", "gat"]

rows = st.lists(st.integers(0, len(POOL) - 1), max_size=10)
batches = settings(max_examples=40, deadline=None)


def taken(index):
    return STORE.take(torch.tensor(index, dtype=torch.int64))


def assert_same(one, other):
    for field in fields(one):
        if field.name == "beside":
            continue
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b), field.name
        assert a.dtype == b.dtype, field.name


@batches
@given(rows)
def test_there_and_back_nothing_changes(index):
    batch = to_pyg(taken(index))
    assert_same(from_pyg(batch), taken(index))
    assert (batch.x.shape[1], batch.edge_attr.shape[1]) == (9, 4)
    assert {batch.x.dtype, batch.edge_index.dtype, batch.edge_attr.dtype} == {torch.int64}


@batches
@given(rows.filter(len))
def test_a_batch_is_the_one_that_pyg_makes_of_its_molecules_each_of_which_is_itself(index):
    ours = to_pyg(taken(index))
    molecules = ours.to_data_list()
    for row, data in zip(index, molecules, strict=True):
        assert_same(from_pyg(data), taken([row]))
        assert data.is_undirected()
    theirs = Graphs.from_data_list(molecules)
    assert sorted(ours.keys()) == sorted(theirs.keys())
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs.keys())  # noqa: SIM118
    assert ours.num_graphs == len(index)
    assert_same(from_pyg(theirs), taken(index))


@batches
@given(rows, st.integers(0, 2**31))
def test_edges_may_come_in_any_order(index, seed):
    batch = to_pyg(taken(index))
    order = torch.randperm(batch.num_edges, generator=torch.Generator().manual_seed(seed))
    batch.edge_index, batch.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    batch.edge_attr_extra = batch.edge_attr_extra[order]
    graphs = from_pyg(batch)
    assert torch.equal(graphs.pointer, taken(index).pointer)
    for atom in range(len(graphs.atoms)):
        own = slice(int(graphs.pointer[atom]), int(graphs.pointer[atom + 1]))
        came = batch.edge_index[1] == atom
        assert torch.equal(graphs.source[own], batch.edge_index[0, came])
        columns = torch.cat([batch.edge_attr[came], batch.edge_attr_extra[came]], 1)
        assert torch.equal(graphs.bonds[own], columns.to(torch.uint8))


def test_a_batch_without_the_extra_columns_is_read_without_them():
    batch = to_pyg(taken([3]))
    del batch.x_extra, batch.edge_attr_extra
    assert torch.equal(from_pyg(batch).atoms, taken([3]).atoms[:, :9])
    assert torch.equal(from_pyg(batch).bonds, taken([3]).bonds[:, :4])


def benzene(**changes):
    (data,) = to_pyg(taken([3])).to_data_list()
    for key, value in changes.items():
        data[key] = value(data) if callable(value) else value
    return data


def one_way(data):
    return data.edge_index[:, data.edge_index[0] < data.edge_index[1]]


def with_last(key, value):
    def change(data):
        tensor = data[key].clone()
        tensor[..., -1] = value
        return tensor

    return change


def batch_of_two(**changes):
    batch = to_pyg(taken([1, 1]))
    for key, value in changes.items():
        batch[key] = torch.tensor(value)
    return batch


def without_ptr():
    batch = batch_of_two()
    del batch.ptr
    return batch


def test_whole_numbers_kept_as_floats_are_read_and_a_lone_molecule_needs_no_batch():
    floats = benzene(x=lambda d: d.x.float(), edge_attr=lambda d: d.edge_attr.double())
    assert_same(from_pyg(floats), taken([3]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(), "x of molecules should have 9 columns as to_pyg gives them, its shape is none"),
        (benzene(x=torch.zeros(6, 7)), r"should have 9 columns .* its shape is \(6, 7\)"),
        (benzene(x=with_last("x", 2)), r"below 119, 5, .*; row 0 is \[5, 0, .*, 2\]"),
        (benzene(x=lambda d: d.x - 0.5), r"whole numbers .* row 0 is \[4\.5, "),
        (benzene(edge_attr=lambda d: d.edge_attr[:, :3]), r"edge_attr .* 4 columns .* \(12, 3\)"),
        (benzene(edge_attr=lambda d: d.edge_attr[:-1]), "a row for each row of edge_attr, 11"),
        (benzene(edge_index=with_last("edge_index", 6)), "hold atoms 0 to 5, it holds 0 to 6"),
        (benzene(edge_index=with_last("edge_index", -1)), "hold atoms 0 to 5, it holds -1 to 5"),
        (benzene(edge_index=with_last("edge_index", 3)), "two atoms .* edge 11 goes from 3 to 3"),
        (
            benzene(
                edge_index=one_way,
                edge_attr=lambda d: d.edge_attr[: d.num_edges],
                edge_attr_extra=lambda d: d.edge_attr_extra[: d.num_edges],
            ),
            "there in both directions with the same features",
        ),
        (benzene(edge_attr=with_last("edge_attr", torch.tensor([0, 1, 2] * 4))), "both directions"),
        (batch_of_two(edge_index=[[0, 1], [2, 3]]), "a column for each row of edge_attr, 4"),
        (batch_of_two(edge_index=[[0, 2, 1, 3], [2, 0, 3, 1]]), "of a molecule; edge 0 .* 0 to 2"),
        (batch_of_two(batch=[0, 1, 0, 1]), "molecule after molecule; batch and ptr disagree"),
        (without_ptr(), r"should have ptr, .* make it by Batch\.from_data_list"),
    ],
)
def test_what_is_no_molecule_is_one_sentence(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_pyg(data)
    assert "\n" not in str(caught.value)


class Embedded(torch.nn.Module):
    """A user's own encoder of PyG molecules."""

    def __init__(self):
        super().__init__()
        self.atom = torch.nn.Embedding(119, 8)
        self.conv = GCNConv(8, 4)

    def forward(self, x, edge_index):
        return self.conv(self.atom(x[:, 0]), edge_index)


def test_stages_for_pyg_graphs_run_on_molecules_as_they_are():
    encoder, graphs = Embedded(), taken([3, 5, 0, 6])
    pyg = to_pyg(graphs)
    nodes = encoder(pyg.x, pyg.edge_index)
    chain = on_molecules(Chain({"encoder": GraphModule(encoder, width=4), "pool": Pool(4, "mean")}))
    assert (chain.names, chain.width) == (["encoder", "pool"], 4)
    z = chain(graphs, Batch(graphs, torch.zeros(4, 1)))
    assert torch.equal(z, global_mean_pool(nodes, pyg.batch, 4))
    assert torch.equal(z[1], torch.zeros(4))


def batch_of(*index):
    return Batch(taken(index), torch.zeros(len(index), 1))


def encoder(**options):
    torch.manual_seed(0)
    return pyg_gnn(**{"layers": 2, "width": 8, **options}).eval()


def features(chain, batch):
    with torch.no_grad():
        return chain(batch.inputs, batch)


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_equals_its_molecules_and_one_without_atoms_has_zeros(model):
    chain, index = encoder(model=model), (3, 5, 0, 2, 6, 3)
    z = features(chain, batch_of(*index))
    torch.testing.assert_close(z, torch.cat([features(chain, batch_of(row)) for row in index]))
    assert z.isfinite().all()
    assert z.abs().sum(1).bool().tolist() == [True, False, True, True, True, True]


@pytest.mark.parametrize("jump", [None, "last", "cat", "max", "lstm"])
def test_moving_the_cut_leaves_the_function_unchanged(jump):
    chain = encoder(jump=jump)
    network, molecules = Network(chain, linear_head(chain.width, 2)).eval(), batch_of(0, 2, 3)
    assert chain.names == ["embed", "conv0", "conv1", *(["jump"] if jump else []), "pool"]
    for name in chain.names:
        assert torch.equal(network.cut(at=name)(molecules), network(molecules))


def test_the_options_decide_the_shape_of_the_encoder():
    assert encoder(layers=4).names[-2] == "conv3"
    assert encoder(width=12).width == 12
    mean, total = (features(encoder(pool=pool), batch_of(3)) for pool in ("mean", "sum"))
    torch.testing.assert_close(6 * mean, total)


@pytest.mark.slow
def test_the_other_encoders_do_not_wait_for_torch_geometric():
    code = "import sys, molhpft.config.registry; print('torch_geometric' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_the_gpu_stays_there():
    graphs = taken([3, 5, 0]).to("cuda")
    assert to_pyg(graphs).to_data_list()[0].x.is_cuda
    assert_same(from_pyg(to_pyg(graphs)), graphs)
