"""Run a config by the command in its header over several seeds and print means as Markdown.

    python benchmarks/seeds.py configs/vision/mnist_from_cifar10.yaml 3

Finished runs are found again, not redone.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from run_configs import split_header

COLUMNS = {
    "AIE": ("energy", "aie", 3),
    "HP valid": ("probe", "valid", 4),
    "HP test": ("probe", "test", 4),
    "FT valid": ("final", "valid", 4),
    "FT test": ("final", "test", 4),
    "distance": ("shift", "distance", 3),
    "cosine": ("shift", "cosine", 3),
}


def summaries(command: str, seeds: int) -> list[dict[str, Any]]:
    """Summary of the run of every seed from 0."""
    found = []
    for seed in range(seeds):
        line = f"{command} --seed {seed} --json"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found.append(json.loads(done.stdout))
    return found


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown lines: mean +- standard deviation over seeds, a line a tau."""
    lines = ["| tau | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for rows in zip(*(summary["branches"] for summary in found), strict=True):
        cells = [_cell([row[g][k] for row in rows], digits) for g, k, digits in COLUMNS.values()]
        lines.append(f"| {rows[0]['tau']} | " + " | ".join(cells) + " |")
    tests = [
        next(row for row in s["branches"] if row["tau"] == s["chosen_tau"])["final"]["test"]
        for s in found
    ]
    chosen = ", ".join(str(summary["chosen_tau"]) for summary in found)
    return [*lines, "", f"tau chosen on validation: {chosen}; test there: {_cell(tests, 4)}"]


def main(path: str, seeds: str) -> None:
    """Print the table of a config."""
    _, command, _ = split_header(Path(path).read_text())
    print("\n".join(table(summaries(command, int(seeds)))))


def _cell(values: Sequence[float], digits: int) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main(*sys.argv[1:])
