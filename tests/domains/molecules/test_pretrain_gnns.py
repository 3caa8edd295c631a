"""Encoders of pretrain-gnns and MolCLR against their formulas, PyG's layers and public weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from molhpft.config.registry import ENCODERS
from molhpft.core.network import Batch
from molhpft.domains.molecules.checkpoints import encoder_weights, fitting_encoder, load_encoder
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.domains.molecules.pretrain_gnns import (
    BOND_SIZES,
    GATConvolution,
    GCNConvolution,
    GINConvolution,
    MolCLRConvolution,
    SAGEConvolution,
    attention,
)
from molhpft.domains.weights import read_weights
from tests.domains.molecules import pretrain_gnns_layout
from tests.domains.molecules.pretrain_gnns_layout import LAYOUTS, published, written_out

SMILES = [
    "C",
    "[Na+].[Cl-]",
    "F/C=C/Cl",
    "C[C@H](N)C(=O)O",
    "c1ccc2ccccc2c1",
    "FS(F)(F)(F)(F)F",
    "C#N",
    "[NH3]->[Cu]",
    "*CC",
]
STORE = pack(SMILES)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WIDTH = 6

layouts = pytest.mark.parametrize("layout", LAYOUTS)


def batch_of(store=STORE, times=1):
    rows = torch.arange(len(store)).repeat(times)
    return Batch(store.take(rows), torch.zeros(len(rows), 1))


def build(file, **options):
    """The encoder that takes a file, with random weights."""
    fitting = fitting_encoder(file)
    return ENCODERS[fitting.pop("name")].build(**fitting, **options)


def loaded(path):
    """The encoder that takes a file, with its weights, in eval mode."""
    chain = build(read_weights(path))
    load_encoder(chain, path)
    return chain.eval()


@layouts
@pytest.mark.parametrize("kernels", ["auto", "reference"])
def test_a_checkpoint_gives_what_its_formulas_give_gradients_included(
    tmp_path, layout, kernels, monkeypatch
):
    monkeypatch.setenv("MOLHPFT_KERNELS", kernels)
    torch.save(published(layout), tmp_path / "w.pth")
    chain, batch = loaded(tmp_path / "w.pth"), batch_of()
    z = chain(batch.inputs, batch)
    z.square().sum().backward()

    file = read_weights(tmp_path / "w.pth")
    moved = [n for n, t in file.tensors.items() if t.is_floating_point() and "running" not in n]
    leaves = {**file.tensors, **{n: file.tensors[n].clone().requires_grad_() for n in moved}}
    expected = torch.stack([written_out(layout, leaves, smiles) for smiles in SMILES])
    expected.square().sum().backward()

    torch.testing.assert_close(z, expected, **CLOSE)
    gradients = {n: t if t.grad is None else t.grad for n, t in leaves.items()}
    theirs = encoder_weights(replace(file, tensors=gradients))
    for name, parameter in chain.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].view_as(parameter), **CLOSE)


CONVOLUTIONS = {
    "gcn": GCNConvolution,
    "sage": SAGEConvolution,
    "gat": GATConvolution,
    "gin": lambda width: GINConvolution(width, BOND_SIZES),
    "molclr gcn": MolCLRConvolution,
}


def pygs_layer(name, ours, edges):
    """PyG's layer with the weights of ours, and the edges it wants."""
    from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv
    from torch_geometric.utils import add_self_loops

    looped = add_self_loops(edges)[0]
    if name == "gin":
        return GINConv(nn.Sequential(ours.hidden, nn.ReLU(), ours.out)), edges
    if name == "gcn":
        layer = GCNConv(WIDTH, WIDTH, bias=False)
        weights = {"lin.weight": ours.linear.weight}
    elif name == "sage":
        layer, edges = SAGEConv(WIDTH, WIDTH, normalize=True, root_weight=False), looped
        weights = {"lin_l.weight": ours.message.weight, "lin_l.bias": ours.message.bias}
    elif name == "gat":
        layer = GATConv(WIDTH, WIDTH, heads=2, concat=False)
        to, from_ = ours.attention.chunk(2, 1)
        weights = {"lin.weight": ours.linear.weight, "bias": ours.bias}
        weights |= {"att_src": from_[None], "att_dst": to[None]}
    else:
        layer, edges = GCNConv(WIDTH, WIDTH, normalize=False, add_self_loops=False), looped
        weights = {"lin.weight": ours.weight.T, "bias": ours.bias}
    layer.load_state_dict(weights)
    return layer, edges


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_without_vectors_of_bonds_a_convolution_is_pygs_gradients_included(name):
    torch.manual_seed(0)
    ours, graphs = CONVOLUTIONS[name](WIDTH), batch_of().inputs
    for table in ours.bond.tables:
        nn.init.zeros_(table)
    if name in ("gcn", "gat"):  # whose bias PyG adds after the sum
        nn.init.zeros_(ours.linear.bias)
    if "bias" in dict(ours.named_parameters()):
        nn.init.normal_(ours.bias)
    theirs, edges = pygs_layer(name, ours, torch.stack([graphs.source, graphs.target]))
    h = torch.randn(len(graphs.graph), WIDTH, requires_grad=True)

    def outcome(out):
        return out, *torch.autograd.grad(out.square().sum() + out.sum(), [h])

    torch.testing.assert_close(outcome(ours(h, graphs)), outcome(theirs(h, edges)), **CLOSE)


def test_attention_is_a_softmax_and_vanishes_where_all_scores_are_far_below_zero():
    scores = torch.tensor([[900.0, -1.0], [899.0, 2.0], [-900.0, -20.0], [-901.0, -21.0]])
    scores.requires_grad_()
    weights = attention(scores, torch.tensor([0, 0, 1, 1]), 2)
    torch.testing.assert_close(weights[:2], scores[:2].softmax(0))
    assert (weights[2:, 0] == 0).all()
    torch.testing.assert_close(weights[2:, 1], scores[2:, 1].softmax(0))
    (gradient,) = torch.autograd.grad(weights[0].sum() + weights[2].sum(), scores)
    assert gradient.isfinite().all()


@layouts
def test_training_with_fused_kernels_follows_the_reference(tmp_path, layout, monkeypatch):
    torch.save(published(layout), tmp_path / "w.pth")

    def losses(kernels):
        monkeypatch.setenv("MOLHPFT_KERNELS", kernels)
        chain, batch = loaded(tmp_path / "w.pth").train(), batch_of(times=3)
        for module in chain.modules():
            module.dropout = 0.3
        torch.manual_seed(1)
        optimizer = torch.optim.SGD(chain.parameters(), lr=1e-2)
        return [step(chain, batch, optimizer) for _ in range(5)]

    torch.testing.assert_close(losses("auto"), losses("reference"), rtol=1e-3, atol=1e-3)


def step(chain, batch, optimizer):
    loss = (chain(batch.inputs, batch) - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def masked(store, rng):
    """The molecules as MolCLR was trained on them: without a quarter of their atoms and bonds."""
    atoms, left = store.atoms.clone(), torch.rand(len(store.bonds), generator=rng) > 0.25
    atoms[torch.rand(len(atoms), generator=rng) < 0.25, :2] = torch.tensor(
        [pretrain_gnns_layout.NO_ELEMENT, 0], dtype=torch.uint8
    )
    before = torch.cat([torch.zeros(1, dtype=torch.long), left.cumsum(0)])
    return replace(
        store,
        atoms=atoms,
        bonds=store.bonds[left],
        ends=store.ends[left],
        bond_offsets=before[store.bond_offsets],
    )


@pytest.mark.parametrize(
    "name",
    [
        "gcn_supervised_contextpred",
        "graphsage_supervised_contextpred",
        "gat_supervised_contextpred",
        "molclr_gcn",
    ],
)
def test_the_layers_of_a_public_checkpoint_see_what_its_batch_norms_remember(ogb_root, name):
    path = ogb_root.parent / "weights" / f"{name}.pth"
    if not path.is_file():
        pytest.skip(f"no public checkpoint at {path}")
    chain, rng = loaded(path), torch.Generator().manual_seed(0)
    store = ogb_task("ogbg-molbace").examples.store
    store = store.subset(torch.randperm(len(store), generator=rng)[:300])
    batch = batch_of(masked(store, rng) if name == "molclr_gcn" else store)
    with torch.no_grad():
        h = chain.stages["embed"](batch.inputs, batch)
        for layer in range(5):
            stage = chain.stages[f"conv{layer}"]
            seen = stage.convolution(h, batch.inputs)
            correlation = torch.corrcoef(torch.stack([seen.mean(0), stage.norm.running_mean]))
            assert correlation[0, 1] > 0.9
            ratio = (seen.var(0) / stage.norm.running_var).median()
            assert 0.3 < ratio < 3, (layer, ratio)
            h = stage(h, batch)
