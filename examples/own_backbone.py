"""A torch_geometric network of one's own as a backbone: pretrained, probed and finetuned by hand.

`BondGIN` knows nothing of molhpft. With embedded atoms before it and a pool behind it, it is a
chain of named stages; HP-FT is then one `probe` and a `fit` from the head of every tau.
$ python examples/own_backbone.py
"""

import argparse
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP, GINEConv

from molhpft.core.evaluate import take
from molhpft.core.network import Chain, Network, linear_head
from molhpft.domains.graphs.backbones import pyg_backbone
from molhpft.domains.molecules.gcn import AtomEmbedding
from molhpft.domains.molecules.nci import nci_alerts_task, nci_descriptors_task
from molhpft.domains.molecules.pyg import on_molecules
from molhpft.domains.molecules.smiles import ATOM_SIZES, BOND_SIZES
from molhpft.measure.features import initial_energy, shift
from molhpft.tuning.fit import fit, score
from molhpft.tuning.frozen_features import on_features
from molhpft.tuning.phase import Phase
from molhpft.tuning.probe import probe


class BondGIN(nn.Module):
    """Any module on graphs: what its forward asks for by name is taken from the PyG batch."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.bonds = nn.Embedding(BOND_SIZES[0], width)
        self.convs = nn.ModuleList(GINEConv(MLP([width] * 3)) for _ in range(layers))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Features of atoms (N, width) from embedded atoms (N, width) and bonds (E, 4)."""
        for conv in self.convs:
            x = x + conv(x, edge_index, self.bonds(edge_attr[:, 0]))
        return x


def backbone(width: int) -> Chain:
    """The stages `embed`, `encoder` and `pool`: molecules to features (n, width)."""
    own = on_molecules(pyg_backbone(BondGIN(width, layers=3), width=width, pool="mean"))
    return Chain({"embed": AtomEmbedding(ATOM_SIZES, width), **own.named_stages()})


def main(epochs: int, taus: tuple[int, ...], width: int = 64) -> None:
    """Pretrain on descriptors, move to structural alerts, finetune from the head of every tau."""
    torch.manual_seed(0)
    rng, everything = torch.Generator().manual_seed(0), Phase(trains="all", epochs=epochs, lr=1e-3)
    pretraining, task = nci_descriptors_task(), nci_alerts_task()
    pretrained = Network(backbone(width), linear_head(width, pretraining.outputs))
    fit(pretrained, everything, pretraining, rng=rng)

    network = Network(pretrained.backbone, linear_head(width, task.outputs))
    probed, features = on_features(network, task)  # the backbone cannot change: one pass will do
    found = probe(probed, Phase(trains="head", epochs=0, lr=1e-3), features, taus=taus, rng=rng)
    print(" tau  energy  HP valid  FT valid  FT test  distance  cosine")
    for tau, seen in found.snapshots(probed, features, "train").items():
        network.head.load_state_dict(found.heads[tau])
        tuned = deepcopy(network)
        fit(tuned, everything, task, rng=torch.Generator().manual_seed(1))
        moved = shift(seen.features, take(tuned, task.batches("train", size=256)).features)
        looks = (score(network, task, "valid"), *(score(tuned, task, s) for s in ("valid", "test")))
        shown = "{:4}{:8.3f}{:10.2%}{:10.2%}{:9.2%}{:10.3f}{:8.3f}"
        energy = initial_energy(seen, task.objective)
        print(shown.format(tau, energy, *looks, moved.distance, moved.cosine))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A backbone of one's own.")
    parser.add_argument("--quick", action="store_true", help="one epoch, two taus")
    quick = parser.parse_args().quick
    main(epochs=1 if quick else 4, taus=(0, 4) if quick else (0, 1, 4, 16, 64))
