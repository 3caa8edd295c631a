"""A small sweep that the tests of backends run whole: four trials, of which three share a probe."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from molhpft.run.run import run
from molhpft.sweep.spec import parse_sweep

SWEEP = {
    "task": {"name": "csv", "target_columns": ["ring"], "split": "random", "split_seed": 1},
    "encoder": {"name": "gcn", "layers": 2, "width": 8, "dropout": 0.2},
    "probe": {"lr": 0.01, "epochs": 6},
    "finetune": {"epochs": 2, "lr": 0.003, "keep": "best", "batch_size": 16},
    "device": "cpu",
    "sweep": {"method": ["ft", "lp", "lp_ft", {"name": "hp_ft", "tau": [2, 4]}]},
}
FILES = ("model.safetensors", "history.jsonl", "summary.json")


def write_table(folder):
    path = folder / "rings.csv"
    rows = [f"{'C' * n}O,0\nC1{'C' * n}1N,1" for n in range(3, 43)]
    path.write_text("\n".join(["smiles,ring", *rows]) + "\n")
    return path


def raw_sweep(table, **changes):
    raw = {**SWEEP, **changes}
    return {**raw, "task": {**raw["task"], "path": str(table)}}


def results_of(out: Path):
    """Run folder to its bytes, of the complete ones."""
    return {
        path.parent.name: {name: (path.parent / name).read_bytes() for name in FILES}
        for path in out.glob("*/summary.json")
    }


def undisturbed(raw, out: Path):
    """What plain runs of a sweep's trials give, one by one, sharing nothing."""
    for trial in parse_sweep(raw):
        run(trial.config, out)
    return results_of(out)


def start(raw, out: Path, *options, **more):
    """The sweep as a process of its own, in a session that can be killed alone."""
    config = out.parent / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump(raw))
    command = [sys.executable, "-m", "molhpft.cli", "sweep", str(config), "--out", str(out)]
    return subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **more,
    )


def finish(process, status=0):
    said, _ = process.communicate(timeout=900)
    assert process.returncode == status, said
    return said
