"""How many small faults in core, tuning and measure the tests find.

mutmut writes mutants of every function, each with one change: another number, comparison, argument
or string. A seeded sample, in proportion from every file, is tested one by one: a mutant is killed
when a test that reaches its function fails, and alive when none does.

    nice -n 10 python benchmarks/mutants.py --fraction 0.1 --seed 0

Tests are collected once, and every mutant is run in a fork of that process, quickest tests first:
`mutmut run` does the same from the start for each. An own copy of the code is in `mutants/`.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.state import state
from scipy.stats import binomtest

MUTATED = ("core", "tuning", "measure")
TESTS = tuple(f"tests/{part}" for part in MUTATED)
COPY = Path("mutants")
ACTIVE = "MUTANT_UNDER_TEST"  # what mutmut's code reads to know which mutant is on


def write_mutants() -> dict[str, list[str]]:
    """A copy of code and tests with every mutant in it; their names by module."""
    shutil.rmtree(COPY, ignore_errors=True)
    for folder in ("molhpft", "tests"):
        shutil.copytree(folder, COPY / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", COPY)
    names: dict[str, list[str]] = {}
    for part in MUTATED:
        for path in sorted(Path("molhpft", part).glob("*.py")):
            mutated = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
            (COPY / path).write_text(mutated.code, encoding="utf-8")
            module = ".".join(path.with_suffix("").parts)
            names[module] = [f"{module}.{name}" for name in mutated.mutant_names]
    return {module: mutants for module, mutants in names.items() if mutants}


def sample(names: dict[str, list[str]], fraction: float, seed: int) -> list[str]:
    """The same fraction of the mutants of every module, at least one of each, in random order."""
    rng = random.Random(seed)
    drawn = [
        name
        for mutants in names.values()
        for name in rng.sample(mutants, max(1, round(fraction * len(mutants))))
    ]
    rng.shuffle(drawn)
    return drawn


class Mutants:
    """A pytest plugin that runs the collected tests on one mutant after another.

    Attributes:
        how: of each mutant that was run, "killed", "alive", "endless" or "no test".
    """

    def __init__(self, names: list[str], seconds: float) -> None:
        self.names, self.seconds = names, seconds
        self.how: dict[str, str] = {}

    def pytest_configure(self) -> None:
        """A first counterexample is enough, and the same ones are tried on every mutant."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", deadline=None, derandomize=True, phases=phases)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of running the tests once."""
        begun = perf_counter()
        reached, took = self._reached(session.items)
        for name in self.names:
            if perf_counter() - begun > self.seconds:
                break
            tests = reached.get(name.partition("__mutmut_")[0], [])
            tests.sort(key=lambda item: took[item.nodeid])
            limit = 20 + 10 * sum(took[item.nodeid] for item in tests)
            self.how[name] = _outcome(name, tests, limit) if tests else "no test"
            print(self.how[name], name, flush=True)
        return True

    @staticmethod
    def _reached(items: list[pytest.Item]) -> tuple[dict[str, list[pytest.Item]], dict[str, float]]:
        """Tests by the functions they reach, and seconds by test, from a run without mutants."""
        os.environ[ACTIVE] = "stats"
        reached: dict[str, list[pytest.Item]] = {}
        took: dict[str, float] = {}
        for item, following in zip(items, [*items[1:], None], strict=True):
            begun = perf_counter()
            state()._stats.clear()
            if _fails(item, following):
                raise RuntimeError(f"{item.nodeid} fails without a mutant")
            took[item.nodeid] = perf_counter() - begun
            for function in state()._stats:
                reached.setdefault(function, []).append(item)
        return reached, took


def _fails(item: pytest.Item, following: pytest.Item | None) -> bool:
    from _pytest.runner import runtestprotocol

    reports = runtestprotocol(item, nextitem=following, log=False)
    return any(report.failed for report in reports)


def _outcome(name: str, tests: list[pytest.Item], limit: float) -> str:
    """What becomes of a mutant, in a process of its own that may not take `limit` seconds."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.environ[ACTIVE] = name
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        signal.alarm(int(5 * limit))  # waiting for what never comes takes no processor time
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        try:
            pairs = zip(tests, [*tests[1:], None], strict=True)
            killed = any(_fails(item, following) for item, following in pairs)
        except BaseException:
            killed = True
        os._exit(int(killed))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "alive", 1: "killed"}.get(code, "endless" if code in _LIMITS else "killed")


_LIMITS = (-signal.SIGXCPU, -signal.SIGALRM)


def summary(how: dict[str, str]) -> str:
    """Counts by outcome, and the fraction that is killed with its 95 % interval."""
    counts: Counter[str] = Counter(how.values())
    killed = counts["killed"] + counts["endless"]
    interval: Any = binomtest(killed, len(how)).proportion_ci(method="wilson")
    parts = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    return (
        f"{len(how)} mutants: {parts}\nkilled: {killed / len(how):.1%}, "
        f"95 % interval {interval.low:.1%} to {interval.high:.1%}"
    )


def main() -> None:
    """Write, draw, run and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fraction", type=float, default=0.1, help="of the mutants of every file")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which no more are begun")
    parser.add_argument("--only", default="", help="modules whose name has this in it")
    asked = parser.parse_args()
    names = write_mutants()
    total = sum(map(len, names.values()))
    some = {module: mutants for module, mutants in names.items() if asked.only in module}
    plugin = Mutants(sample(some, asked.fraction, asked.seed), asked.seconds)
    print(f"{len(plugin.names)} of {total} mutants", flush=True)
    os.chdir(COPY)
    sys.path.insert(0, os.getcwd())
    pytest.main(["-n", "0", "-q", "-p", "no:cacheprovider", *TESTS], plugins=[plugin])
    print(summary(plugin.how))


if __name__ == "__main__":
    main()
