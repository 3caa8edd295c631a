"""Data of ogbg-molpcba's size: disk, memory, time until ready, and speed of training on it.

    python benchmarks/scale.py --counts FOLDER_OF_OGBG_MOLPCBA
    python benchmarks/scale.py --counts FOLDER_OF_OGBG_MOLPCBA --molecules 20000

The counts are OGB's own files of split and of atoms and bonds a molecule; molecules and labels are
drawn. Each stage is a process of its own, so that its peak memory is its own:
packing all molecules, being ready again from the cache, and `molhpft run` for an epoch of OGB's
GCN. Speed is measured on 50 batches of 128 of this data set and of ogbg-molhiv (in the folder
MOLHPFT_DATA), in turn. The last line is JSON, `ratio` the speed here over that on HIV.
"""

import gzip
import json
import os
import random
import resource
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from timing import in_turn, print_figures, print_table

from molhpft.config.schema import parse_config
from molhpft.core.data import Task
from molhpft.core.network import Network, linear_head
from molhpft.domains.files import data_folder
from molhpft.domains.molecules.gcn import ogb_gcn
from molhpft.domains.molecules.ogb import ogb_task
from molhpft.run.device import launch, settled
from molhpft.run.run import run
from molhpft.tuning.fit import fit
from molhpft.tuning.phase import Phase

TASKS = 128
NAME = "ogbg_molpcba"
SPLITS = ("train", "valid", "test")
ELEMENTS = "CCCCCCNO"
SPANS = (5, 4, 3, 2)  # atoms that a ring bond leaps over, the widest that fit
LABEL_ROWS = 2_000  # different rows of labels; each molecule draws one
SIZE, BATCHES = 128, 50
RUN = {
    "task": "ogbg-molpcba",
    "encoder": {"name": "gcn", "layers": 5, "width": 300, "dropout": 0.5},
    "method": "scratch",
    "finetune": {"epochs": 1, "lr": 0.001, "batch_size": SIZE},
}


def write_data(folder: Path, counts: Path, molecules: int | None = None) -> int:
    """A data folder with the first molecules of the data set, all by default.

    Args:
        folder: made if absent.
        counts: folder with `raw/num-*-list.csv.gz` and `split/scaffold/*.csv.gz` of the original.
        molecules: how many.

    Returns:
        the number of molecules.
    """
    sizes = [_numbers(counts / "raw" / f"num-{kind}-list.csv.gz") for kind in ("node", "edge")]
    atoms, bonds = (size[:molecules] for size in sizes)
    place = folder / NAME
    for part in ("mapping", "raw", "split/scaffold"):
        (place / part).mkdir(parents=True, exist_ok=True)
    for kind, size in (("node", atoms), ("edge", bonds)):
        _write_numbers(place / "raw" / f"num-{kind}-list.csv.gz", size)
    for split in SPLITS:
        rows = _numbers(counts / "split" / "scaffold" / f"{split}.csv.gz")
        _write_numbers(place / "split" / "scaffold" / f"{split}.csv.gz", rows[rows < len(atoms)])
    with gzip.open(place / "mapping" / "mol.csv.gz", "wt", compresslevel=1) as file:
        file.writelines(_table(atoms.tolist(), bonds.tolist()))
    return len(atoms)


def smiles(atoms: int, bonds: int, draw: random.Random) -> str:
    """A chain with ring bonds, or several chains, of so many atoms and bonds."""
    rings = bonds - atoms + 1
    if rings < 0:
        singles = -rings
        return ".".join([smiles(atoms - singles, bonds, draw), *("C" for _ in range(singles))])
    parts = [draw.choice(ELEMENTS) for _ in range(atoms)]
    span = next(span for span in SPANS if rings <= atoms - span) if rings else 0
    for ring in range(rings):
        begin = ring * (atoms - span) // rings
        for at in (begin, begin + span):
            parts[at] = "C" + parts[at][1:] + str(ring % 10)
    return "".join(parts)


def _table(atoms: list[int], bonds: list[int]) -> Iterator[str]:
    draw = random.Random(0)
    rows = [
        ",".join(draw.choices(("0.0", "1.0", ""), (58, 2, 40), k=TASKS)) for _ in range(LABEL_ROWS)
    ]
    yield ",".join([*(f"assay{k}" for k in range(TASKS)), "smiles", "mol_id"]) + "\n"
    for number, size in enumerate(zip(atoms, bonds, strict=True)):
        yield f"{draw.choice(rows)},{smiles(*size, draw)},M{number}\n"


def _numbers(path: Path) -> np.ndarray:
    return pd.read_csv(path, header=None, dtype=np.int64)[0].to_numpy()


def _write_numbers(path: Path, numbers: np.ndarray) -> None:
    pd.Series(numbers).to_csv(path, header=False, index=False)


def ready(_: Path) -> dict[str, float]:
    """Seconds until the task is there, packed or from the cache, and what it takes in memory."""
    start = perf_counter()
    task = ogb_task("ogbg-molpcba")
    seconds = perf_counter() - start
    examples = task.examples
    texts = sum(map(sys.getsizeof, examples.smiles))
    return {
        "seconds": seconds,
        "mb": (examples.store.nbytes + examples.targets.nbytes + texts) / 1e6,
    }


def train(out: Path) -> dict[str, float]:
    """Seconds of a whole run of an epoch."""
    start = perf_counter()
    run(parse_config(RUN), out)
    return {"seconds": perf_counter() - start}


def speed(_: Path) -> dict[str, float]:
    """Seconds of as many training steps here and on HIV, in turn."""
    names = {"PCBA's size": "ogbg-molpcba", "HIV": "ogbg-molhiv"}
    works = {what: Steps(ogb_task(name)).epoch for what, name in names.items()}
    return in_turn(works, repeats=5)


class Steps:
    """Training on molecules drawn from all of a training split."""

    def __init__(self, task: Task) -> None:
        rows = task.rows("train")
        drawn = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        self.task = replace(task, splits={"train": drawn[: SIZE * BATCHES]})
        backbone = ogb_gcn(layers=5, width=300, dropout=0.5)
        self.network = Network(backbone, linear_head(backbone.width, task.outputs))
        self.machine = launch(settled(parse_config(RUN)))

    def epoch(self) -> None:
        """Fifty steps."""
        phase = Phase(trains="all", epochs=1, lr=1e-3, batch_size=SIZE)
        rng = torch.Generator().manual_seed(0)
        fit(self.network, phase, self.task, rng=rng, machine=self.machine)


STAGES = {"pack": ready, "load": ready, "train": train, "speed": speed}


def in_a_process(stage: str, folder: Path) -> dict[str, float]:
    """Figures of a stage, and the peak of its resident memory in MB."""
    environment = {
        **os.environ,
        "MOLHPFT_DATA": str(folder / "data"),
        "MOLHPFT_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(counts: Path, molecules: int | None, folder: Path) -> None:
    """Every stage, then the table and the line of JSON."""
    n = write_data(folder / "data", counts, molecules)
    hiv = data_folder() / "ogbg_molhiv"
    stages = ["pack", "load", "train"]
    if hiv.is_dir():
        (folder / "data" / hiv.name).symlink_to(hiv.resolve())
        stages.append("speed")
    results = {stage: in_a_process(stage, folder) for stage in stages}
    disk = sum(f.stat().st_size for f in (folder / "cache").rglob("*.safetensors"))
    seconds = results.get("speed", {})
    here, there = (
        SIZE * BATCHES / seconds[name] if seconds else 0.0 for name in ("PCBA's size", "HIV")
    )
    figures = {
        "molecules": n,
        "disk_mb": disk / 1e6,
        "memory_mb": results["load"]["mb"],
        "pack_s": results["pack"]["seconds"],
        "load_s": results["load"]["seconds"],
        "run_s": results["train"]["seconds"],
        "peak_mb": results["train"]["peak_mb"],
        "molecules_per_s": here,
        "molecules_per_s_hiv": there,
        "ratio": here / there if there else None,
    }
    lines = {
        name: {"": f"{value:,.2f}" if value and value < 10 else f"{value or 0:,.0f}"}
        for name, value in figures.items()
    }
    print_table(f"A data set of {n:,} molecules", lines)
    print_figures(figures)


def main() -> None:
    """Read the arguments; a stage is what this script starts itself as."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=Path, help="folder with raw/num-*-list.csv.gz and split/")
    parser.add_argument("--molecules", type=int, help="only the first so many")
    parser.add_argument("--stage", choices=STAGES, help="used by this script itself")
    parser.add_argument("--folder", type=Path, help="used by this script itself")
    arguments = parser.parse_args()
    if arguments.stage:
        figures = STAGES[arguments.stage](arguments.folder / "runs")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(figures | {"peak_mb": peak}))
        return
    if arguments.counts is None:
        parser.error("--counts is needed: a folder in the layout of ogbg_molpcba")
    with TemporaryDirectory() as folder:
        measure(arguments.counts, arguments.molecules, Path(folder))


if __name__ == "__main__":
    main()
