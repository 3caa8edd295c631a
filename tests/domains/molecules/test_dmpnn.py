"""The D-MPNN against chemprop's equations written out, and its columns against chemprop itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import rdBase
from torch import nn
from torch.nn import functional as F

from molhpft.core.data import Task
from molhpft.core.network import Batch, Network, linear_head
from molhpft.core.objectives import Squared
from molhpft.domains.molecules.checkpoints import load_encoder
from molhpft.domains.molecules.chemprop_features import AtomFeatures, directed_bonds, kind_features
from molhpft.domains.molecules.dmpnn import dmpnn
from molhpft.domains.molecules.examples import Molecules
from molhpft.domains.molecules.graphs import pack
from molhpft.domains.molecules.pyg import from_pyg, to_pyg
from molhpft.tuning.distributed import Machine
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase

# metals and salts, isotopes, square planar and octahedral centres, quadruple and dative bonds, rare
# valences, double bonds drawn both ways, and an attachment point
ODD = (
    *("CCO", "C", "[Na+].[Cl-]", "[H+]", "[2H]C([13CH3])O", "[238U]", "C$C", "*CC", "[1*]C"),
    *("F/C=C/F", "F/C=C\\F", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "c1ccc(-c2ccccc2)cc1"),
    *("F[Pt@SP1](Cl)(Br)N", "C[Co@OH1](F)(Cl)(Br)(I)S", "[NH3]->[Fe]", "FS(F)(F)(F)(F)F"),
    *("F[P-](F)(F)(F)(F)F", "[Zn+2]", "[Si](C)(C)(C)C", "C1CC1C1CC1", "O=[N+]([O-])c1cc[nH]c1"),
    *(
        "CI",
        "C[Se]C",
        "C[Te]C",
        "[CH3]",
        "[C-]#[O+]",
        "OO",
        "B(O)O",
        "C1=CC=CC=C1",
        "[O-2]",
        "[Al+3]",
    ),
)


def batch_of(smiles):
    graphs = pack(smiles).take(torch.arange(len(smiles)))
    return Batch(graphs, torch.zeros(len(smiles), 1))


def features(chain, smiles):
    batch = batch_of(smiles)
    return chain(batch.inputs, batch)


def bond_features(graphs):
    """The 14 columns of each directed bond, as `MultiHotBondFeaturizer` has them."""
    return kind_features()[directed_bonds(graphs).kind]


def matrices(chain):
    """W_i, W_h and W_o as chemprop has them."""
    own = {k.removeprefix("stages."): v for k, v in chain.state_dict().items()}
    w_i = torch.cat([own["embed.sent.weight"], own["message.bonds.weight"]], 1)
    w_o = torch.cat([own["embed.own.weight"], own["atoms.linear.weight"]], 1)
    return w_i, own["message.linear.weight"], w_o, own["embed.own.bias"]


def chemprop_equations(chain, smiles, *, depth):
    """Features of atoms, bond by bond, from `BondMessagePassing`'s documentation."""
    w_i, w_h, w_o, b_o = matrices(chain)
    graphs = batch_of(smiles).inputs
    x, e = AtomFeatures()(graphs), bond_features(graphs)
    edges = list(zip(graphs.source.tolist(), graphs.target.tolist(), strict=True))
    first = {(v, w): w_i @ torch.cat([x[v], e[k]]) for k, (v, w) in enumerate(edges)}
    h = {edge: F.relu(a) for edge, a in first.items()}
    nothing = torch.zeros(len(w_h))
    for _ in range(1, depth):
        m = {
            (v, w): sum((h[u, to] for u, to in edges if to == v and u != w), nothing)
            for v, w in edges
        }
        h = {edge: F.relu(first[edge] + w_h @ m[edge]) for edge in edges}
    arrived = [sum((h[u, to] for u, to in edges if to == v), nothing) for v in range(len(x))]
    return torch.stack([F.relu(w_o @ torch.cat([x[v], arrived[v]]) + b_o) for v in range(len(x))])


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_atoms_are_those_of_the_equations(depth):
    torch.manual_seed(0)
    chain = dmpnn(depth=depth, width=7).eval()
    below, _ = chain.split("pool")
    theirs = chemprop_equations(chain, ODD, depth=depth)
    torch.testing.assert_close(features(below, ODD), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "aggregate"),
    [
        ({"aggregation": "mean"}, lambda atoms: atoms.mean(0)),
        ({"aggregation": "sum"}, lambda atoms: atoms.sum(0)),
        ({"aggregation": "norm"}, lambda atoms: atoms.sum(0) / 100),
        ({"aggregation": "norm", "norm_constant": 7.0}, lambda atoms: atoms.sum(0) / 7),
    ],
)
def test_a_molecule_is_the_aggregate_of_its_atoms(options, aggregate):
    chain = dmpnn(width=5, **options).eval()
    below, _ = chain.split("pool")
    one_by_one = [aggregate(features(below, [smiles])) for smiles in ODD]
    torch.testing.assert_close(features(chain, ODD), torch.stack(one_by_one))


def test_a_divisor_that_would_do_nothing_is_refused():
    with pytest.raises(ValueError, match="aggregation is mean; leave it out"):
        dmpnn(aggregation="mean", norm_constant=50.0)


def test_dropout_is_in_every_message_and_in_the_atoms():
    torch.manual_seed(0)
    dry, wet = dmpnn(width=64), dmpnn(width=64, dropout=0.5)
    wet.load_state_dict(dry.state_dict())
    for stage in ("message", "atoms"):
        below, upper = wet.split(stage)
        batch = batch_of(["CCCCCC"])
        h = below.eval()(batch.inputs, batch)
        stage = upper.train().named_stages()[stage]
        assert not torch.equal(stage(h, batch), stage(h, batch))
    assert torch.equal(features(wet.eval(), ODD), features(dry.eval(), ODD))


@pytest.mark.parametrize("aggregation", ["norm", "mean"])
def test_products_in_bfloat16_give_features_near_those_in_float32(aggregation):
    torch.manual_seed(0)
    chain = dmpnn(width=64, depth=4, aggregation=aggregation).eval()
    exact = features(chain, ODD)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = features(chain, ODD)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.01 * exact.std().item())


def test_training_with_products_in_bfloat16_is_near_that_in_float32():
    losses = {}
    for mixed in (False, True):
        torch.manual_seed(0)
        network = Network(dmpnn(width=64), linear_head(64, 1))
        rows = torch.arange(len(ODD))
        atoms = pack(ODD).atom_offsets.diff()[:, None].float()
        examples = Molecules(pack(ODD), atoms, ODD)
        task = Task("atoms", examples, {"train": rows, "valid": rows}, Squared(), outputs=1)
        phase = Phase(trains="all", epochs=5, lr=0.003, batch_size=8)
        rng = torch.Generator().manual_seed(0)
        history = fit(network, phase, task, rng=rng, machine=Machine(mixed=mixed))
        losses[mixed] = torch.tensor([row["loss"] for row in history])
    assert losses[True][-1] < losses[True][0] / 2
    torch.testing.assert_close(losses[True], losses[False], rtol=0.05, atol=0)


def test_random_weights_are_drawn_as_whole_matrices_are():
    chain = dmpnn(width=300)
    w_i, w_h, w_o, _ = matrices(chain)
    for weight in (w_i, w_h, w_o):
        whole = nn.Linear(*reversed(weight.shape)).weight
        assert weight.abs().max() <= weight.shape[1] ** -0.5
        torch.testing.assert_close(weight.std(), whole.std(), rtol=0.05, atol=0)


def test_a_batch_of_pyg_without_the_extra_columns_is_refused():
    graphs = to_pyg(batch_of(["CCO"]).inputs)
    del graphs.x_extra, graphs.edge_attr_extra
    batch = Batch(from_pyg(graphs), torch.zeros(1, 1))
    with pytest.raises(ValueError, match=r"this batch has 9 and 4: keep x_extra"):
        dmpnn(width=4)(batch.inputs, batch)


def check_columns(smiles, theirs):
    """All columns are those of chemprop, of every string that it reads."""
    store, counts = pack(smiles), theirs["counts"]
    starts = np.concatenate([np.zeros((1, 2), int), np.cumsum(counts, 0)])
    read, others = np.flatnonzero(counts[:, 0]), set()
    assert len(read) > 0.9 * len(smiles)
    for rows in np.array_split(read, -(-len(read) // 500)):
        graphs = store.take(torch.from_numpy(rows))
        own = np.concatenate([np.arange(starts[r, 0], starts[r + 1, 0]) for r in rows])
        bits = np.unpackbits(theirs["atom_bits"][own], axis=1)[:, :71]
        x = AtomFeatures()(graphs).numpy()
        assert np.array_equal(x[:, 71], theirs["masses"][own])
        different = graphs.graph[(x[:, :71] != bits).any(1)].unique()
        own = np.concatenate([np.arange(starts[r, 1], starts[r + 1, 1]) for r in rows])
        bits = np.unpackbits(theirs["bond_bits"][own], axis=1)[:, :14]
        wrong = (in_the_order_of_rdkit(bond_features(graphs), store, rows) != bits).any(1)
        edges = np.repeat(np.arange(len(rows)), counts[rows, 1])
        others |= {smiles[rows[k]] for k in {*different.tolist(), *edges[wrong].tolist()}}
    if str(theirs["rdkit"]) == rdBase.rdkitVersion:
        assert not others
    # versions of RDKit differ in what they call aromatic, of a few large rings
    assert len(others) <= len(smiles) / 1000


def in_the_order_of_rdkit(columns, store, rows):
    """Rows of directed bonds, each bond's two directions side by side, molecule after molecule."""
    graphs = store.take(torch.from_numpy(rows))
    place = {
        pair: k
        for k, pair in enumerate(zip(graphs.source.tolist(), graphs.target.tolist(), strict=True))
    }
    order = []
    for first, row in zip(graphs.offsets.tolist(), rows.tolist(), strict=False):
        begin, end = store.bond_offsets[row], store.bond_offsets[row + 1]
        for v, w in (store.ends[begin:end].long() + first).tolist():
            order += [place[v, w], place[w, v]]
    return columns[order].numpy()


def test_columns_of_odd_molecules_are_those_of_chemprop(chemprop_says):
    check_columns(ODD, chemprop_says("columns", ODD))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["moltox21", "molhiv"])
def test_columns_of_a_whole_data_set_are_those_of_chemprop(ogb_root, chemprop_says, name):
    table = ogb_root / f"ogbg_{name}" / "mapping" / "mol.csv.gz"
    smiles = pd.read_csv(table)["smiles"].tolist()
    check_columns(smiles, chemprop_says("columns", smiles))


@pytest.fixture
def weights(ogb_root):
    folder = ogb_root.parent / "weights"
    if not (folder / "chemprop_admet_regression.pt").is_file():
        pytest.skip(f"chemprop_admet_regression.pt is not in {folder}")
    return folder


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_features_of_a_whole_model_are_those_of_chemprop(weights, chemprop_says, kind):
    path = weights / f"chemprop_admet_{kind}.pt"
    chain = dmpnn().eval()
    load_encoder(chain, path)
    readable = [smiles for smiles in ODD if smiles != "C[Co@OH1](F)(Cl)(Br)(I)S"]
    theirs = torch.from_numpy(chemprop_says("outputs", readable, path)["features"])
    torch.testing.assert_close(features(chain, readable), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("aggregation", ["mean", "sum", "norm"])
def test_features_of_message_passing_alone_are_those_of_chemprop(
    weights, chemprop_says, aggregation
):
    path = weights / "chemprop_admet_regression_mp.pt"
    chain = dmpnn(aggregation=aggregation).eval()
    load_encoder(chain, path)
    answer = chemprop_says("outputs", ODD[:9], path.with_name("-"), path, aggregation)
    theirs = torch.from_numpy(answer["features"])
    torch.testing.assert_close(features(chain, ODD[:9]), theirs, rtol=1e-5, atol=1e-5)
