"""Molecules a second from SMILES to graphs: this package against `ogb.utils.smiles2graph`.

    python benchmarks/featurize_speed.py
    python benchmarks/featurize_speed.py --molecules 1000 --repeats 3

On Tox21 and HIV (in the folder MOLHPFT_DATA), or else on the molecules that RDKit ships. The floor
is RDKit's parsing, `MolFromSmiles` and no more, on one core. All are timed in turn, by wall clock;
the last line is JSON, `ratio` is the speed-up on one core, the lowest of the data sets.
"""

import os
from argparse import ArgumentParser
from functools import partial

from molecules import data_sets
from ogb.utils import smiles2graph
from rdkit import Chem, rdBase
from timing import in_turn, print_figures, print_table

from molhpft.domains.molecules.smiles import packed_graphs
from molhpft.domains.parallel import VARIABLE, worker_count

ONE, FLOOR, OGB = "molhpft, 1 process", "MolFromSmiles alone", "ogb smiles2graph"


def pack_by(processes: int, smiles: list[str]) -> None:
    """Graphs of all strings by that many processes."""
    os.environ[VARIABLE] = str(processes)
    packed_graphs(smiles)


def each(function, smiles: list[str]) -> None:
    """A function of one string, on all of them."""
    for text in smiles:
        function(text)


def measured(smiles: list[str], cores: int, repeats: int) -> dict[str, float]:
    """Median seconds of each way."""
    works = {
        OGB: partial(each, smiles2graph, smiles),
        ONE: partial(pack_by, 1, smiles),
        FLOOR: partial(each, Chem.MolFromSmiles, smiles),
    }
    if cores > 1:
        works[f"molhpft, {cores} processes"] = partial(pack_by, cores, smiles)
    with rdBase.BlockLogs():  # its warnings take time, which is not to count
        return in_turn(works, repeats)


def main(molecules: int, repeats: int) -> None:
    """Print the tables and the line."""
    cores, figures = worker_count(), {}
    for name, smiles in data_sets(molecules).items():
        times = measured(smiles, cores, repeats)
        rows = {
            way: {
                "molecules/s": f"{len(smiles) / time:,.0f}",
                "microseconds": f"{1e6 * time / len(smiles):.0f}",
                "x ogb": f"{times[OGB] / time:.2f}",
            }
            for way, time in times.items()
        }
        print_table(f"{name}, {len(smiles):,} molecules, medians of {repeats}", rows)
        figures[name] = {way: times[OGB] / time for way, time in times.items() if way != OGB}
    print_figures({"ratio": min(ratios[ONE] for ratios in figures.values()), "x ogb": figures})


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--molecules", type=int, default=8_000, help="most of each data set")
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
