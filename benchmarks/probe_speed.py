"""How long a 200-epoch probe of Tox21 takes: features once, against a forward pass every epoch.

    python benchmarks/probe_speed.py

Both ways train a linear head on the same frozen 5 x 300 GCN (OGB's) with batches of 128 of the
training molecules of `configs/finetune/tox21_hpft.yaml`, which are featurised before the clock
starts. Ours takes the features and keeps the heads of 12 tau. The other way is plain PyTorch
Geometric: its DataLoader, a forward pass of the backbone in eval mode without gradients, a step of
the head. An epoch of it costs what every other costs, so one a round is timed and multiplied.

Then 4 learning rates x 3 smoothings x 3 seeds, together and one by one.
"""

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
from torch import nn
from torch.nn import functional as F
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MessagePassing, global_mean_pool
from torch_geometric.utils import degree

from molhpft.core.heads import linear_head
from molhpft.core.network import Network
from molhpft.domains.molecules.pyg import to_pyg
from molhpft.experiments.build import build_network, build_recipes, build_task
from molhpft.experiments.config import load_config
from molhpft.tuning.features import on_features
from molhpft.tuning.probe import probe, probe_many

CONFIG = Path(__file__).parent.parent / "configs/finetune/tox21_hpft.yaml"
ENCODER = "encoder={name: gcn, layers: 5, width: 300}"
TAUS = (0, 1, 2, 4, 8, 16, 32, 50, 75, 100, 150, 200)
LRS, SMOOTHINGS, SEEDS = (3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.05, 0.1), range(3)


class PeerConvolution(MessagePassing):
    """`relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond_ij)` with `x = W h + b`."""

    def __init__(self, width):
        super().__init__(aggr="add")
        self.linear = nn.Linear(width, width)
        self.root = nn.Parameter(torch.randn(1, width))
        self.bonds = BondEncoder(emb_dim=width)

    def forward(self, h, edge_index, edge_attr):
        """New atom features (atoms, width)."""
        x = self.linear(h)
        source, target = edge_index
        deg = degree(target, len(x)) + 1
        norm = (deg[source] * deg[target]).rsqrt()
        sent = self.propagate(edge_index, x=x, bond=self.bonds(edge_attr), norm=norm)
        return sent + F.relu(x + self.root) / deg[:, None]

    def message(self, x_j, bond, norm):
        """What each edge carries, (edges, width)."""
        return norm[:, None] * F.relu(x_j + bond)


class PeerBackbone(nn.Module):
    """OGB's GCN in plain PyG: features (n, width) of a batch of molecules."""

    def __init__(self, layers, width):
        super().__init__()
        self.atoms = AtomEncoder(width)
        self.convolutions = nn.ModuleList(PeerConvolution(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))

    def forward(self, batch):
        """Mean over atoms of what the last layer gives."""
        h = self.atoms(batch.x)
        for depth, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            h = norm(convolution(h, batch.edge_index, batch.edge_attr))
            h = F.relu(h) if depth < len(self.norms) - 1 else h
        return global_mean_pool(h, batch.batch, batch.num_graphs)


def peer_epoch(backbone, head, optimizer, loader):
    """Seconds of an epoch of head probing as a loop over PyG's loader."""
    begin = perf_counter()
    for batch in loader:
        with torch.no_grad():
            z = backbone(batch)
        logits, measured = head(z), ~batch.y.isnan()
        loss = F.binary_cross_entropy_with_logits(logits[measured], batch.y[measured])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return perf_counter() - begin


def peer(task, size):
    """What `peer_epoch` needs: backbone, head, optimizer and loader."""
    batch = task.examples.take(task.rows("train"))
    graphs = to_pyg(batch.inputs).to_data_list()
    for graph, y in zip(graphs, batch.targets, strict=True):
        graph.edge_attr, graph.y = graph.edge_attr[:, :3], y[None]
    backbone, head = PeerBackbone(5, 300).eval(), nn.Linear(300, task.outputs)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    return backbone, head, optimizer, DataLoader(graphs, batch_size=size, shuffle=True)


def ours(network, phase, task):
    """Seconds until the features are there, and until the heads of all tau are."""
    begin = perf_counter()
    head, features = on_features(network, task)
    middle = perf_counter()
    found = probe(head, phase, features, taus=TAUS, rng=torch.Generator().manual_seed(0))
    assert len(found.heads) == len(TAUS)
    return middle - begin, perf_counter() - begin


def many(features, phase, width, epochs):
    """Seconds for 36 heads together, and one by one."""
    phases = [replace(phase, lr=lr, smoothing=s) for lr, s in product(LRS, SMOOTHINGS)]
    empty = features[0].backbone
    heads = [Network(empty, linear_head(width, features[1].outputs)) for _ in SEEDS]
    begin = perf_counter()
    rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    probe_many(heads, phases, features[1], taus=[epochs], rngs=rngs)
    middle = perf_counter()
    for one, (seed, head) in product(phases, enumerate(heads)):
        rng = torch.Generator().manual_seed(seed)
        probe_many([head], [one], features[1], taus=[epochs], rngs=[rng])
    return middle - begin, perf_counter() - middle


def main():
    """Measure in turns, print medians, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--many-epochs", type=int, default=5, help="of each of the 36 heads")
    options = parser.parse_args()
    config = load_config(CONFIG, [ENCODER])
    recipe = build_recipes(config)[0]
    task = build_task(config, recipe)
    network, phase = build_network(config, task, recipe), recipe.probe
    plain = peer(task, phase.batch_size)
    features = on_features(network, task)
    peer_epoch(*plain)
    rounds, grids = [], []
    for _ in range(options.rounds):
        rounds.append((*ours(network, phase, task), peer_epoch(*plain)))
        grids.append(many(features, phase, 300, options.many_epochs))
    taking, whole, epoch = (median(column) for column in zip(*rounds, strict=True))
    together, alone = (median(column) for column in zip(*grids, strict=True))
    epochs = max(TAUS)
    lines = {
        f"ours, {epochs} epochs, {len(TAUS)} tau, features included": whole,
        "  of which features of every split": taking,
        "PyG, one epoch (measured)": epoch,
        f"PyG, {epochs} epochs ({epochs} times that)": epochs * epoch,
        f"36 heads together, {options.many_epochs} epochs": together,
        f"36 heads one by one, {options.many_epochs} epochs": alone,
    }
    print(f"Tox21, {len(task.rows('train'))} training molecules, {torch.get_num_threads()} threads")
    for name, seconds in lines.items():
        print(f"{name:52s} {seconds:9.3f} s")
    figures = {"seconds": whole, "features": taking, "peer": epochs * epoch}
    figures |= {"ratio": epochs * epoch / whole, "many_ratio": alone / together}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
