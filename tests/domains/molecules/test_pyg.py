import subprocess
import sys
from dataclasses import fields

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch as Graphs
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv, global_mean_pool

from molhpft.core.network import Batch, Chain, Network, linear_head
from molhpft.domains.graphs.backbones import GraphModule, Pool
from molhpft.domains.molecules.graphs import load_or_pack, pack
from molhpft.domains.molecules.pyg import from_pyg, on_molecules, pyg_gnn, to_pyg

# a salt without bonds, an unreadable one without atoms, a single atom, a cage, rings
POOL = ["C", "CC", "[Na+].[Cl-]", "c1ccccc1", "C12C3C4C1C5C2C3C45", "?", "C/C=C/C#N.O", "CC(C)(C)C"]
STORE = pack(POOL)

rows = st.lists(st.integers(0, len(POOL) - 1), max_size=10)
batches = settings(max_examples=40, deadline=None)


def taken(index):
    return STORE.take(torch.tensor(index, dtype=torch.int64))


def assert_same(one, other):
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b), field.name
        assert a.dtype == b.dtype, field.name


@batches
@given(rows)
def test_there_and_back_nothing_changes(index):
    assert_same(from_pyg(to_pyg(taken(index))), taken(index))


@batches
@given(rows.filter(len))
def test_a_batch_is_the_one_that_pyg_makes_of_its_molecules(index):
    ours = to_pyg(taken(index))
    theirs = Graphs.from_data_list(ours.to_data_list())
    assert sorted(ours.keys()) == sorted(theirs.keys())
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs.keys())  # noqa: SIM118
    assert ours.num_graphs == len(index)
    assert_same(from_pyg(theirs), taken(index))


@batches
@given(rows.filter(len))
def test_each_molecule_of_a_batch_is_itself(index):
    for row, data in zip(index, to_pyg(taken(index)).to_data_list(), strict=True):
        assert_same(from_pyg(data), taken([row]))
        assert data.is_undirected()


@batches
@given(rows, st.integers(0, 2**31))
def test_edges_may_come_in_any_order(index, seed):
    batch = to_pyg(taken(index))
    order = torch.randperm(batch.num_edges, generator=torch.Generator().manual_seed(seed))
    batch.edge_index, batch.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    graphs = from_pyg(batch)
    assert torch.equal(graphs.pointer, taken(index).pointer)
    for atom in range(len(graphs.atoms)):
        own = slice(int(graphs.pointer[atom]), int(graphs.pointer[atom + 1]))
        came = batch.edge_index[1] == atom
        assert torch.equal(graphs.source[own], batch.edge_index[0, came])
        assert torch.equal(graphs.bonds[own], batch.edge_attr[came].to(torch.uint8))


def test_atoms_and_bonds_are_whole_numbers_for_embeddings():
    batch = to_pyg(taken([3, 0]))
    assert (batch.x.shape, batch.edge_index.shape, batch.edge_attr.shape) == (
        (7, 9),
        (2, 12),
        (12, 4),
    )
    assert {batch.x.dtype, batch.edge_index.dtype, batch.edge_attr.dtype} == {torch.int64}


def test_whole_numbers_kept_as_floats_are_read_and_a_lone_molecule_needs_no_batch():
    (data,) = to_pyg(taken([3])).to_data_list()
    data.x, data.edge_attr = data.x.float(), data.edge_attr.double()
    assert_same(from_pyg(data), taken([3]))


def test_tox21_survives_the_journey(ogb_root):
    table = pd.read_csv(ogb_root / "ogbg_moltox21" / "mapping" / "mol.csv.gz", usecols=["smiles"])
    store = load_or_pack(table["smiles"].tolist())
    graphs = store.take(torch.arange(len(store)))
    assert_same(from_pyg(to_pyg(graphs)), graphs)


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(), "x of molecules should have 9 columns as featurize gives them, its shape is none"),
        (benzene(x=torch.zeros(6, 7)), r"should have 9 columns .* its shape is \(6, 7\)"),
        (benzene(x=with_last("x", 2)), r"below 119, 5, .*; row 0 is \[5, 0, .*, 2\]"),
        (benzene(x=lambda d: d.x - 0.5), r"whole numbers .* row 0 is \[4\.5, "),
        (benzene(edge_attr=lambda d: d.edge_attr[:, :3]), r"edge_attr .* 4 columns .* \(12, 3\)"),
        (benzene(edge_attr=lambda d: d.edge_attr[:-1]), "a column for each row of edge_attr, 11"),
        (benzene(edge_index=with_last("edge_index", 6)), "hold atoms 0 to 5, it holds 0 to 6"),
        (benzene(edge_index=with_last("edge_index", -1)), "hold atoms 0 to 5, it holds -1 to 5"),
        (
            benzene(edge_index=with_last("edge_index", 3)),
            "join two atoms .* edge 11 goes from 3 to 3",
        ),
        (
            benzene(edge_index=one_way, edge_attr=lambda d: d.edge_attr[: d.num_edges]),
            "there in both directions with the same features",
        ),
        (benzene(edge_attr=with_last("edge_attr", torch.tensor([0, 1, 2] * 4))), "both directions"),
        (batch_of_two(edge_index=[[0, 1], [2, 3]]), "a column for each row of edge_attr, 4"),
        (batch_of_two(edge_index=[[0, 2, 1, 3], [2, 0, 3, 1]]), "of a molecule; edge 0 .* 0 to 2"),
        (batch_of_two(batch=[0, 1, 0, 1]), "molecule after molecule; batch and ptr disagree"),
    ],
)
def test_what_is_no_molecule_is_one_sentence(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_pyg(data)
    assert "\n" not in str(caught.value)


def test_a_batch_that_does_not_say_where_molecules_end_is_refused():
    batch = batch_of_two()
    del batch.ptr
    with pytest.raises(ValueError, match=r"should have ptr, .* make it by Batch\.from_data_list"):
        from_pyg(batch)


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
    stages = {"encoder": GraphModule(encoder, width=4), "pool": Pool(4, "mean")}
    pyg = to_pyg(graphs)
    nodes = encoder(pyg.x, pyg.edge_index)
    chain = on_molecules(Chain(stages))
    assert chain.names == ["encoder", "pool"]
    assert chain.width == 4
    z = chain(graphs, Batch(graphs, torch.zeros(4, 1)))
    assert torch.equal(z, global_mean_pool(nodes, pyg.batch, 4))
    assert torch.equal(z[1], torch.zeros(4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_batch_on_the_gpu_stays_there():
    graphs = taken([3, 5, 0]).to("cuda")
    assert to_pyg(graphs).to_data_list()[0].x.is_cuda
    assert_same(from_pyg(to_pyg(graphs)), graphs)


STORE = pack(["CCO", "", "c1ccccc1C", "[Na+].[Cl-]", "C"])
MODELS = ["gcn", "sage", "gin", "gat"]


def batch(*rows):
    return Batch(STORE.take(torch.tensor(rows)), torch.zeros(len(rows), 1))


def encoder(**options):
    torch.manual_seed(0)
    return pyg_gnn(**{"layers": 2, "width": 8, **options}).eval()


def features(chain, batch):
    with torch.no_grad():
        return chain(batch.inputs, batch)


@pytest.mark.parametrize("model", MODELS)
def test_every_molecule_has_its_features_and_one_without_atoms_has_zeros(model):
    z = features(encoder(model=model), batch(0, 1, 2, 3, 4))
    assert z.shape == (5, 8)
    assert z.isfinite().all()
    assert z.abs().sum(1).bool().tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_equals_its_molecules_one_by_one(model):
    chain, rows = encoder(model=model), (2, 1, 0, 3, 4, 2)
    alone = torch.cat([features(chain, batch(row)) for row in rows])
    torch.testing.assert_close(features(chain, batch(*rows)), alone)


@pytest.mark.parametrize("jump", [None, "last", "cat", "max", "lstm"])
def test_moving_the_cut_leaves_the_function_unchanged(jump):
    chain = encoder(jump=jump)
    network, molecules = Network(chain, linear_head(chain.width, 2)).eval(), batch(0, 2, 3)
    assert chain.names == ["embed", "conv0", "conv1", *(["jump"] if jump else []), "pool"]
    for name in chain.names:
        assert torch.equal(network.cut(at=name)(molecules), network(molecules))


def test_the_options_decide_the_shape_of_the_encoder():
    assert encoder(layers=4, width=12).names[-2] == "conv3"
    assert encoder(width=12).width == 12
    mean, total = (features(encoder(pool=pool), batch(2)) for pool in ("mean", "sum"))
    torch.testing.assert_close(7 * mean, total)


def test_the_other_encoders_do_not_wait_for_torch_geometric():
    code = "import sys, molhpft.config.registry; print('torch_geometric' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
