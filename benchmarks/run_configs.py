"""Run configs by the command in their own header and write the results below that command.

    python benchmarks/run_configs.py configs/methods/*.yaml
    python benchmarks/run_configs.py --seeds 3 configs/vision/mnist_from_cifar10.yaml

A header is the comment at the top of a config: what it is for, then a line that begins with "# $"
(and may continue over lines that end in a backslash). Numbers of an earlier run are replaced. With
`--seeds` no file is changed: means and standard deviations over seeds are printed as Markdown.
Finished runs are not redone.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

COLUMNS = {
    "AIE": ("energy", "aie", 3),
    "HP valid": ("probe", "valid", 4),
    "HP test": ("probe", "test", 4),
    "FT valid": ("final", "valid", 4),
    "FT test": ("final", "test", 4),
    "distance": ("shift", "distance", 3),
    "cosine": ("shift", "cosine", 3),
}


def split_header(text: str) -> tuple[list[str], str, str]:
    """Purpose and command lines, the command itself, and the config below the header."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("# $ "))
    stop = start
    while lines[stop].endswith("\\"):
        stop += 1
    command = "\n".join(line.removeprefix("#").strip() for line in lines[start : stop + 1])
    body = [line for line in lines[stop + 1 :] if not line.startswith("#")]
    return lines[: stop + 1], command.removeprefix("$ "), "\n".join(body).strip() + "\n"


def run(command: str) -> dict[str, Any]:
    """Summary of the run that a command makes."""
    done = subprocess.run(
        ["bash", "-c", f"{command} --json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def write_results(path: Path) -> None:
    """Run a config and rewrite its header."""
    header, command, body = split_header(path.read_text())
    begin = time.monotonic()
    summary = run(command)
    seconds = time.monotonic() - begin
    lines = [["tau", *COLUMNS]]
    members = summary["branches"][0].get("members", ())
    for row in (*members, *summary["branches"]):
        values = [row[group].get(key) for group, key, _ in COLUMNS.values()]
        texts = ["-" if value is None else f"{value:.4f}" for value in values]
        lines.append([str(row["tau"] if row["tau"] is not None else "-"), *texts])
    about = [
        f"score: {summary['metric']}, {summary['parameters']:,} parameters",
        *_chosen(summary["chosen_tau"], members),
        f"{seconds:.0f} s on this run's machine",
    ]
    comments = [
        f"# {'; '.join(about)}",
        *("# " + "  ".join(f"{cell:>8}" for cell in line) for line in lines),
    ]
    path.write_text("\n".join([*header, *comments]) + "\n" + body)
    print("\n".join([str(path), *comments]), flush=True)


def _chosen(tau: int | None, members: Sequence[Mapping[str, Any]]) -> list[str]:
    """What there is to say of tau; nothing of a method that has none."""
    if tau is not None:
        return [f"tau chosen on validation: {tau}"]
    used = [str(member["tau"]) for member in members if member["used"]]
    return [f"a soup of tau {', '.join(used)}"] if used else []


def print_means(path: Path, seeds: int) -> None:
    """Run a config with seeds from 0 and print a line a tau."""
    _, command, _ = split_header(path.read_text())
    summaries = [run(f"{command} --seed {seed}") for seed in range(seeds)]
    print("| tau | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    for rows in zip(*(summary["branches"] for summary in summaries), strict=True):
        cells = [_mean([row[g][k] for row in rows], digits) for g, k, digits in COLUMNS.values()]
        print(f"| {rows[0]['tau']} | " + " | ".join(cells) + " |")
    taus = [summary["chosen_tau"] for summary in summaries]
    scores = [
        next(row for row in summary["branches"] if row["tau"] == tau)["final"]["test"]
        for summary, tau in zip(summaries, taus, strict=True)
    ]
    print(
        f"\ntau chosen on validation: {', '.join(map(str, taus))}; test there: {_mean(scores, 4)}"
    )


def _mean(values: Sequence[float], digits: int) -> str:
    std = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{std}"


def main() -> None:
    """Run every config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, help="print means over so many seeds instead")
    arguments = parser.parse_args()
    for path in arguments.configs:
        if arguments.seeds:
            print_means(path, arguments.seeds)
        else:
            write_results(path)


if __name__ == "__main__":
    main()
