"""How many deliberate faults in core, tuning and measure the tests find: a sample of mutants.

mutmut writes every mutant, a function with one small change; a seeded sample of them, in proportion
from every file, is run against the tests that reach the function. `[tool.mutmut]` in
`pyproject.toml` says which files and which tests.

    nice python benchmarks/mutants.py --share 0.1 --seed 0
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from scipy.stats import binomtest

FOUND = {"killed", "timeout", "segfault"}
MUTMUT = (sys.executable, "-m", "mutmut")


def names(root: Path = Path("mutants")) -> dict[str, list[str]]:
    """Mutants of each file, as mutmut has written them."""
    metas = sorted(root.rglob("*.py.meta"))
    found = {
        str(meta.relative_to(root)).removesuffix(".meta"): sorted(
            json.loads(meta.read_text())["exit_code_by_key"]
        )
        for meta in metas
    }
    return {path: mutants for path, mutants in found.items() if mutants}


def sample(mutants: dict[str, list[str]], share: float, seed: int) -> list[str]:
    """The same share of the mutants of every file, at least one of each."""
    rng = random.Random(seed)
    drawn = (
        rng.sample(some, max(1, min(len(some), round(share * len(some)))))
        for some in mutants.values()
    )
    return [name for some in drawn for name in some]


def statuses() -> dict[str, str]:
    """What mutmut says of every mutant it has run."""
    text = subprocess.run(
        [*MUTMUT, "results", "--all", "true"], check=True, capture_output=True, text=True
    ).stdout
    pairs = (line.strip().rsplit(": ", 1) for line in text.splitlines() if ": " in line)
    return dict(pair for pair in pairs if len(pair) == 2)


def table(drawn: list[str], status: dict[str, str]) -> str:
    """Counts, the share that is found with its 95 % interval, and the names of the others."""
    counts = Counter(status[name] for name in drawn)
    found = sum(counts[how] for how in FOUND)
    interval = binomtest(found, len(drawn)).proportion_ci(method="wilson")
    lines = [
        f"{len(drawn)} mutants: " + ", ".join(f"{n} {how}" for how, n in counts.most_common()),
        f"found: {found / len(drawn):.1%}, 95 % interval {interval.low:.1%} to {interval.high:.1%}",
        *(f"{status[name]} {name}" for name in drawn if status[name] not in FOUND),
    ]
    return "\n".join(lines)


def main() -> None:
    """Draw, run and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.1, help="of the mutants of every file")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--children", type=int, default=2, help="mutants that are run at a time")
    asked = parser.parse_args()
    run = [*MUTMUT, "run", "--max-children", str(asked.children)]
    # writes the mutants of every file, and learns which tests reach which function
    subprocess.run([*run, "molhpft.core.batch*_1"], check=True)
    drawn = sample(names(), asked.share, asked.seed)
    subprocess.run([*run, *drawn], check=True)
    print(table(drawn, statuses()))


if __name__ == "__main__":
    main()
