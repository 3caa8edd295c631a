"""The peer of the speed benchmarks: OGB's example GCN in plain PyTorch Geometric.

Message passing by PyG, encoders of atoms and bonds by OGB, batches by PyG's `DataLoader`, dropout
and batch norm by PyTorch, with nothing made faster or slower than its documentation suggests. Its
weights have the names of OGB's example, so that ours can start from the same numbers.
"""

import torch
from ogb.graphproppred.mol_encoder import AtomEncoder, BondEncoder
from torch import nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import MessagePassing, global_mean_pool
from torch_geometric.utils import degree

from molhpft.core.data import Task
from molhpft.domains.molecules.pyg import to_pyg


class Convolution(MessagePassing):
    """`relu(x_i + root) / deg_i + sum_j norm_ij relu(x_j + bond_ij)` with `x = W h + b`."""

    def __init__(self, width):
        super().__init__(aggr="add")
        self.linear = nn.Linear(width, width)
        self.root_emb = nn.Embedding(1, width)
        self.bond_encoder = BondEncoder(emb_dim=width)

    def forward(self, h, edge_index, edge_attr):
        """New atom features (atoms, width)."""
        x = self.linear(h)
        source, target = edge_index
        deg = degree(target, len(x), dtype=x.dtype) + 1
        norm = deg[source].rsqrt() * deg[target].rsqrt()
        sent = self.propagate(edge_index, x=x, bond=self.bond_encoder(edge_attr), norm=norm)
        return sent + F.relu(x + self.root_emb.weight) / deg[:, None]

    def message(self, x_j, bond, norm):
        """What each edge carries, (edges, width)."""
        return norm[:, None] * F.relu(x_j + bond)


class Nodes(nn.Module):
    """Atom features (atoms, width) of a batch of molecules."""

    def __init__(self, layers, width, dropout):
        super().__init__()
        self.dropout = dropout
        self.atom_encoder = AtomEncoder(width)
        self.convs = nn.ModuleList(Convolution(width) for _ in range(layers))
        self.batch_norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))

    def forward(self, batch):
        """Atom features after the last convolution."""
        h = self.atom_encoder(batch.x)
        for layer, (conv, norm) in enumerate(zip(self.convs, self.batch_norms, strict=True)):
            h = norm(conv(h, batch.edge_index, batch.edge_attr))
            h = F.relu(h) if layer < len(self.convs) - 1 else h
            h = F.dropout(h, self.dropout, training=self.training)
        return h


class GCN(nn.Module):
    """Logits (n, outputs) of a batch of molecules; names of weights as in OGB's example."""

    def __init__(self, outputs, *, layers=5, width=300, dropout=0.5):
        super().__init__()
        self.gnn_node = Nodes(layers, width, dropout)
        self.graph_pred_linear = nn.Linear(width, outputs)

    def features(self, batch):
        """Mean over the atoms of each molecule, (n, width)."""
        return global_mean_pool(self.gnn_node(batch), batch.batch, batch.num_graphs)

    def forward(self, batch):
        """Logits (n, outputs)."""
        return self.graph_pred_linear(self.features(batch))


def graphs_of(task: Task, split: str) -> list[Data]:
    """The molecules of a split as PyG graphs with their labels in `y` (1, t)."""
    batch = task.examples.take(task.rows(split))
    graphs = to_pyg(batch.inputs).to_data_list()
    for graph, y in zip(graphs, batch.targets, strict=True):
        graph.edge_attr, graph.y = graph.edge_attr[:, :3], y[None]
    return graphs


def train_epoch(gcn, graphs, optimizer, *, size, device="cpu"):
    """One pass over the graphs in a random order; the mean loss of its steps."""
    gcn.train()
    losses = []
    for batch in DataLoader(graphs, batch_size=size, shuffle=True):
        batch = batch.to(device)
        measured = ~batch.y.isnan()
        loss = F.binary_cross_entropy_with_logits(gcn(batch)[measured], batch.y[measured])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def logits_of(gcn, graphs, *, size, device="cpu"):
    """Logits of all graphs in their order, (n, t), on the CPU, in eval mode."""
    gcn.eval()
    with torch.no_grad():
        batches = DataLoader(graphs, batch_size=size)
        return torch.cat([gcn(batch.to(device)).cpu() for batch in batches])


def probe_epoch(gcn, graphs, optimizer, *, size):
    """A pass that trains the head alone: the frozen network in eval mode, then a step."""
    gcn.eval()
    for batch in DataLoader(graphs, batch_size=size, shuffle=True):
        with torch.no_grad():
            z = gcn.features(batch)
        measured = ~batch.y.isnan()
        logits = gcn.graph_pred_linear(z)
        loss = F.binary_cross_entropy_with_logits(logits[measured], batch.y[measured])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
