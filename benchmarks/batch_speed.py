"""Time to collate a batch of molecules: this package against PyTorch Geometric's DataLoader.

    python benchmarks/batch_speed.py
    python benchmarks/batch_speed.py --molecules 1000 --repeats 3

An epoch of shuffled batches of 128, labels included (the number of atoms: any would do), from
`Task.batches` and from a DataLoader over a list of `Data` made by `ogb.utils.smiles2graph`, of the
same molecules of Tox21 and HIV (in the folder MOLHPFT_DATA), or else of those that RDKit ships.
Timed in turn, by wall clock; the last line is JSON, `ratio` the lowest of the data sets.
"""

import sys
from argparse import ArgumentParser

import torch
from molecules import data_sets
from ogb.utils import smiles2graph
from timing import in_turn, print_figures, print_table
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from molhpft.core.data import Task
from molhpft.core.objectives import Squared
from molhpft.domains.molecules.examples import molecule_task

SIZE = 128
OURS, PEER = "molhpft Task.batches", "PyG DataLoader"


class Ours:
    """Batches collated from packed molecules."""

    def __init__(self, name: str, smiles: list[str], targets: torch.Tensor) -> None:
        self.task: Task = molecule_task(
            name,
            smiles=smiles,
            targets=targets,
            target_names=["atoms"],
            splits={"train": torch.arange(len(smiles))},
            objective=Squared(),
        )
        self.rng = torch.Generator().manual_seed(0)

    def epoch(self) -> tuple[int, int, int]:
        """Batches, atoms and edges of one more epoch."""
        sizes = [
            (1, len(batch.inputs.atoms), len(batch.inputs.source))
            for batch in self.task.batches("train", size=SIZE, rng=self.rng)
        ]
        return tuple(map(sum, zip(*sizes, strict=True)))


class Peer:
    """Batches collated from a list of graphs."""

    def __init__(self, graphs: list[Data]) -> None:
        self.loader = DataLoader(graphs, batch_size=SIZE, shuffle=True)

    def epoch(self) -> tuple[int, int, int]:
        """Batches, atoms and edges of one more epoch."""
        sizes = [(1, len(batch.x), batch.edge_index.shape[1]) for batch in self.loader]
        return tuple(map(sum, zip(*sizes, strict=True)))


def data_of(smiles: str) -> Data:
    """OGB's graph of a molecule, as its own PyG data set holds it."""
    graph = smiles2graph(smiles)
    return Data(
        x=torch.from_numpy(graph["node_feat"]),
        edge_index=torch.from_numpy(graph["edge_index"]),
        edge_attr=torch.from_numpy(graph["edge_feat"]),
        y=torch.tensor([[float(graph["num_nodes"])]]),
    )


def measured(name: str, smiles: list[str], repeats: int) -> tuple[dict[str, float], int]:
    """Median seconds of an epoch of each side, and its number of batches."""
    torch.manual_seed(0)
    graphs = list(map(data_of, smiles))
    ours, peer = Ours(name, smiles, torch.cat([graph.y for graph in graphs])), Peer(graphs)
    if ours.epoch() != peer.epoch():
        sys.exit(f"{name}: the two sides should collate the same batches and do not")
    return in_turn({PEER: peer.epoch, OURS: ours.epoch}, repeats), len(peer.loader)


def main(molecules: int, repeats: int) -> None:
    """Print the tables and the line."""
    figures = {}
    for name, smiles in data_sets(molecules).items():
        times, batches = measured(name, smiles, repeats)
        rows = {
            way: {
                "microseconds a batch": f"{1e6 * time / batches:,.0f}",
                "x PyG": f"{times[PEER] / time:.1f}",
            }
            for way, time in times.items()
        }
        threads = torch.get_num_threads()
        print_table(
            f"{name}, {len(smiles):,} molecules, {threads} threads, medians of {repeats}", rows
        )
        figures[name] = times[PEER] / times[OURS]
    print_figures({"ratio": min(figures.values()), "x PyG": figures})


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=8_000, help="most of each data set")
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
