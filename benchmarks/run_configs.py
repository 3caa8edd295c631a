"""Run configs by the command in their own header and write what it gave below that command.

    python benchmarks/run_configs.py configs/methods/*.yaml

A header is the comment at the top of a config: what it is for, then a line that begins with "# $"
(and may go on over lines that end in a backslash). Numbers written by an earlier run are replaced.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COLUMNS = ("tau", "AIE", "HP valid", "HP test", "FT valid", "FT test", "distance", "cosine")


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


def numbers(summary: dict[str, Any], seconds: float) -> list[str]:
    """Comment lines with the numbers of a run."""
    rows = [
        (
            row["tau"],
            row["energy"]["aie"],
            row["probe"]["valid"],
            row["probe"]["test"],
            row["final"]["valid"],
            row["final"]["test"],
            row["shift"]["distance"],
            row["shift"]["cosine"],
        )
        for row in summary["branches"]
    ]
    cells = [COLUMNS, *(tuple(_cell(value) for value in row) for row in rows)]
    table = ["# " + "  ".join(f"{cell:>8}" for cell in row) for row in cells]
    size = f"score: {summary['metric']}, {summary['parameters']:,} parameters"
    chosen = f"tau chosen on validation: {summary['chosen_tau']}"
    return [f"# {size}; {chosen}; {seconds:.0f} s on this run's machine", *table]


def main(paths: list[str]) -> None:
    """Run each config and rewrite its header."""
    for path in map(Path, paths):
        header, command, body = split_header(path.read_text())
        begin = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", f"{command} --json"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{path}: {done.stderr}")
        lines = numbers(json.loads(done.stdout), time.monotonic() - begin)
        path.write_text("\n".join([*header, *lines]) + "\n" + body)
        print("\n".join([str(path), *lines]), flush=True)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])
