"""OGB's graph convolution against its formula written out with loops; what all GCNs must hold."""

import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molhpft.core.network import Batch, Network, linear_head
from molhpft.domains.molecules.gcn import (
    ColumnEmbedding,
    OGBConvolution,
    ogb_gcn,
    once_a_batch,
)
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pretrain_gnns import pretrain_gnns_gat, pretrain_gnns_gcn

SMILES = [
    "C",
    "[Na+].[Cl-]",
    "F/C=C/Cl",
    "C[C@H](N)C(=O)O",
    "c1ccc2ccccc2c1",
    "FS(F)(F)(F)(F)F",
    "CC(=O)[O-].[NH4+]",
    "C#N",
    "[NH3]->[Cu]",
]
STORE = pack(SMILES)
ENCODERS = {
    "ogb": lambda: ogb_gcn(layers=3, width=8),
    "ogb, virtual node": lambda: ogb_gcn(layers=3, width=8, virtual_node=True),
    "pretrain-gnns": lambda: pretrain_gnns_gcn(layers=3, width=8),
    "pretrain-gnns, attention": lambda: pretrain_gnns_gat(layers=3, width=8),
    "all layers, mean and sum": lambda: ogb_gcn(
        layers=3, width=8, jumping_knowledge=True, pool="mean+sum", norm="layer", residual=True
    ),
    "all layers, attention, virtual node": lambda: ogb_gcn(
        layers=3, width=8, jumping_knowledge=True, pool="attention", norm="none", virtual_node=True
    ),
}
encoders = pytest.mark.parametrize("build", ENCODERS.values(), ids=ENCODERS)
some_rows = st.lists(st.integers(0, len(SMILES) - 1), min_size=1, max_size=6)


def batch_of(rows):
    return Batch(STORE.take(torch.tensor(rows)), torch.zeros(len(rows), 1))


def encoder(build, seed=0):
    """In eval mode with batch statistics that are not those of initialisation."""
    torch.manual_seed(seed)
    chain = build().train()
    for _ in range(3):
        chain(batch_of([*range(len(SMILES))] * 2).inputs, batch_of([*range(len(SMILES))] * 2))
    return chain.eval()


def ogb_by_loops(layer, h, graphs):
    x = layer.linear(h)
    tables = list(layer.bond.tables)
    rows = []
    for i in range(len(x)):
        neighbours = [e for e in range(len(graphs.source)) if graphs.target[e] == i]
        row = torch.relu(x[i] + layer.root) / (1 + len(neighbours))
        for e in neighbours:
            j = int(graphs.source[e])
            bond = sum(table[graphs.bonds[e, k].long()] for k, table in enumerate(tables))
            degrees = [1 + int((graphs.target == atom).sum()) for atom in (i, j)]
            row = row + torch.relu(x[j] + bond) / (degrees[0] * degrees[1]) ** 0.5
        rows.append(row)
    return torch.stack(rows)


@given(rows=some_rows)
@settings(max_examples=15, deadline=None)
def test_a_convolution_is_its_formula(rows):
    torch.manual_seed(0)
    layer, graphs = OGBConvolution(5), batch_of(rows).inputs
    h = torch.randn(len(graphs.graph), 5)
    torch.testing.assert_close(layer(h, graphs), ogb_by_loops(layer, h, graphs))


def test_an_embedding_is_the_sum_of_its_columns():
    embedding = ColumnEmbedding((3, 2), 4)
    rows = torch.tensor([[2, 0], [1, 1]], dtype=torch.uint8)
    first, second = embedding.tables
    torch.testing.assert_close(embedding(rows), first[[2, 1]] + second[[0, 1]])


@encoders
@given(rows=some_rows)
@settings(max_examples=15, deadline=None)
def test_a_batch_equals_its_molecules_one_by_one(build, rows):
    chain = encoder(build)
    together = chain(batch_of(rows).inputs, batch_of(rows))
    alone = torch.cat([chain(batch_of([row]).inputs, batch_of([row])) for row in rows])
    torch.testing.assert_close(together, alone)


def permuted(graphs, order):
    """The same molecules with their atoms numbered anew: new atom i is old atom order[i]."""
    new_number = order.argsort()
    source, target = new_number[graphs.source], new_number[graphs.target]
    edges = target.argsort(stable=True)
    atoms = torch.arange(len(order) + 1)
    return replace(
        graphs,
        atoms=graphs.atoms[order],
        source=source[edges],
        target=target[edges],
        bonds=graphs.bonds[edges],
        pointer=torch.searchsorted(target[edges], atoms),
    )


@encoders
@given(row=st.integers(0, len(SMILES) - 1), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_permuting_atoms_leaves_the_features_unchanged(build, row, seed):
    chain, batch = encoder(build), batch_of([row])
    atoms = len(batch.inputs.graph)
    order = torch.randperm(atoms, generator=torch.Generator().manual_seed(seed))
    other = Batch(permuted(batch.inputs, order), batch.targets)
    torch.testing.assert_close(chain(other.inputs, other), chain(batch.inputs, batch))


@encoders
def test_every_cut_leaves_the_function_unchanged_bit_for_bit(build):
    chain = encoder(build)
    network = Network(chain, linear_head(chain.width, 3)).eval()
    batch = batch_of(range(len(SMILES)))
    for stage in network.backbone.names:
        assert torch.equal(network.cut(stage)(batch), network(batch)), stage


@encoders
def test_the_stages_have_the_names_that_cuts_use(build):
    assert build().names == ["embed", "conv0", "conv1", "conv2", "pool"]


@encoders
def test_a_molecule_without_atoms_has_features_zero_and_disturbs_no_other(build):
    chain, store = encoder(build), pack(["not a molecule", "CCO", "not a molecule"])
    batch = Batch(store.take(torch.arange(3)), torch.zeros(3, 1))
    features = chain(batch.inputs, batch)
    alone = Batch(store.take(torch.tensor([1])), torch.zeros(1, 1))
    assert (features[[0, 2]] == 0).all()
    torch.testing.assert_close(features[1:2], chain(alone.inputs, alone))


def test_a_residual_layer_adds_what_it_was_given():
    torch.manual_seed(0)
    plain, residual = (ogb_gcn(layers=1, width=8, residual=r).eval() for r in (False, True))
    residual.load_state_dict(plain.state_dict())
    batch = batch_of(range(len(SMILES)))
    h = torch.randn(len(batch.inputs.graph), 8)
    given, added = (chain.stages["conv0"](h, batch) for chain in (plain, residual))
    assert torch.equal(added, given + h)


def test_jumping_knowledge_pools_what_every_convolution_gives():
    torch.manual_seed(0)
    options = {"layers": 3, "width": 8, "virtual_node": True, "pool": "mean+sum"}
    plain, joined = (ogb_gcn(jumping_knowledge=j, **options).eval() for j in (False, True))
    weights = plain.state_dict()
    joined.load_state_dict(
        {
            k: weights[k.replace("convolution.", "", 1) if "conv" in k.split(".")[1] else k]
            for k in joined.state_dict()
        }
    )
    batch, pooled = batch_of(range(len(SMILES))), []
    h = batch.inputs
    for name, stage in plain.named_stages().items():
        if name != "pool":
            h = stage(h, batch)
            pooled += [plain.stages["pool"](h, batch)] if name != "embed" else []
    torch.testing.assert_close(joined(batch.inputs, batch), torch.cat(pooled, 1))
    assert joined.width == 3 * 2 * 8


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_batch_norm_nothing_depends_on_the_rest_of_the_batch_in_training(norm):
    torch.manual_seed(0)
    chain = ogb_gcn(layers=3, width=8, dropout=0.0, norm=norm, virtual_node=True).train()
    together = batch_of(range(len(SMILES)))
    alone = batch_of([3])
    torch.testing.assert_close(chain(together.inputs, together)[3:4], chain(alone.inputs, alone))


@encoders
def test_every_parameter_gets_a_gradient(build):
    torch.manual_seed(0)
    chain, batch = build(), batch_of([*range(len(SMILES))])
    chain(batch.inputs, batch).square().sum().backward()
    assert [name for name, p in chain.named_parameters() if p.grad is None] == []


def test_a_virtual_node_carries_messages_between_atoms_that_no_bond_joins():
    torch.manual_seed(0)
    chains = [ogb_gcn(layers=2, width=8, virtual_node=v).eval() for v in (False, True)]
    salt = pack(["[Na+].[Cl-]"]).take(torch.tensor([0]))
    changed = replace(salt, atoms=salt.atoms.clone())
    changed.atoms[1, 0] = 7  # another element on the other side
    for chain, hears in zip(chains, (False, True), strict=True):
        lower, _ = chain.split("pool")
        first = [lower(g, Batch(g, torch.zeros(1, 1)))[0] for g in (salt, changed)]
        assert torch.equal(*first) is not hears


@encoders
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen norms"])
def test_training_with_fused_kernels_follows_the_reference(build, frozen, monkeypatch):
    def losses(kernels):
        monkeypatch.setenv("MOLHPFT_KERNELS", kernels)
        chain = encoder(build).train()
        for module in chain.modules():
            if frozen and isinstance(module, torch.nn.BatchNorm1d):
                module.eval()
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(chain.parameters(), lr=1e-2)
        return [_step(chain, optimizer) for _ in range(6)]

    torch.testing.assert_close(losses("auto"), losses("reference"), rtol=1e-3, atol=1e-3)


def _step(chain, optimizer):
    batch = batch_of([*range(len(SMILES))])
    loss = (chain(batch.inputs, batch) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_what_is_derived_from_a_batch_is_derived_once_and_forgotten_with_it():
    calls = []
    derived = once_a_batch(lambda graphs: calls.append(len(graphs)) or len(graphs))
    graphs = batch_of([0, 1]).inputs
    assert [derived(graphs), derived(graphs)] == [2, 2]
    assert calls == [2]
    watched = weakref.ref(graphs)
    del graphs
    assert watched() is None
