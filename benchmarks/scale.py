"""Data of ogbg-molpcba's size: disk, memory, time until ready, and speed of training on it.

    python benchmarks/scale.py --counts FOLDER_OF_OGBG_MOLPCBA
    python benchmarks/scale.py --counts FOLDER_OF_OGBG_MOLPCBA --molecules 20000

The counts are OGB's own files of split and of atoms and bonds a molecule; molecules and labels are
drawn (see pcba_size.py). Each stage is a process of its own, so that its peak memory is its own:
packing all molecules, being ready again from the cache, and `molhpft run` for an epoch of OGB's
GCN. Speed is measured on 50 batches of 128 of this data set and of ogbg-molhiv (in the folder
MOLHPFT_DATA), in turn. The last line is JSON, `ratio` the speed here over that on HIV.
"""

import json
import os
import resource
import subprocess
import sys
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from pcba_size import write
from timing import conclude, in_turn, report

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

SIZE, BATCHES = 128, 50
RUN = {
    "task": "ogbg-molpcba",
    "encoder": {"name": "gcn", "layers": 5, "width": 300, "dropout": 0.5},
    "method": "scratch",
    "finetune": {"epochs": 1, "lr": 0.001, "batch_size": SIZE},
}


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
    """What a stage finds, and the peak of its resident memory in MB."""
    environment = {
        **os.environ,
        "MOLHPFT_DATA": str(folder / "data"),
        "MOLHPFT_CACHE": str(folder / "cache"),
    }
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(counts: Path, molecules: int | None, folder: Path) -> None:
    """Every stage, then the table and the line of JSON."""
    n = write(folder / "data", counts, molecules)
    hiv = data_folder() / "ogbg_molhiv"
    stages = ["pack", "load", "train"]
    if hiv.is_dir():
        (folder / "data" / hiv.name).symlink_to(hiv.resolve())
        stages.append("speed")
    found = {stage: in_a_process(stage, folder) for stage in stages}
    disk = sum(f.stat().st_size for f in (folder / "cache").rglob("*.safetensors"))
    here = SIZE * BATCHES / found["speed"]["PCBA's size"] if "speed" in found else 0.0
    there = SIZE * BATCHES / found["speed"]["HIV"] if "speed" in found else 0.0
    figures = {
        "molecules": n,
        "disk_mb": disk / 1e6,
        "memory_mb": found["load"]["mb"],
        "pack_s": found["pack"]["seconds"],
        "load_s": found["load"]["seconds"],
        "run_s": found["train"]["seconds"],
        "peak_mb": found["train"]["peak_mb"],
        "molecules_per_s": here,
        "molecules_per_s_hiv": there,
        "ratio": here / there if there else None,
    }
    lines = {
        name: {"found": f"{value:,.2f}" if value and value < 10 else f"{value or 0:,.0f}"}
        for name, value in figures.items()
    }
    report(f"A data set of {n:,} molecules", lines)
    conclude(figures)


def main() -> None:
    """Read the arguments; a stage is what this script starts itself as."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=Path, help="folder with raw/num-*-list.csv.gz and split/")
    parser.add_argument("--molecules", type=int, help="only the first so many")
    parser.add_argument("--stage", choices=STAGES, help="used by this script itself")
    parser.add_argument("--folder", type=Path, help="used by this script itself")
    arguments = parser.parse_args()
    if arguments.stage:
        found = STAGES[arguments.stage](arguments.folder / "runs")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(found | {"peak_mb": peak}))
        return
    if arguments.counts is None:
        parser.error("--counts is needed: a folder in the layout of ogbg_molpcba")
    with TemporaryDirectory() as folder:
        measure(arguments.counts, arguments.molecules, Path(folder))


if __name__ == "__main__":
    main()
