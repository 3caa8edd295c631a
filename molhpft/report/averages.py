"""Means over the runs of a variant for figures, and what a caption says of how many they are over.

No line goes on with fewer runs than it began with: the mean would jump there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

from molhpft.domains.files import Json
from molhpft.report.content import finite_or_none
from molhpft.report.plots import Key, Tau
from molhpft.results.read import Run

Source = tuple[int, int]
"""Where a number is from: a seed, and which of several finetunings from one head."""

Curves = Mapping[Tau, Mapping[Source, Mapping[int, float]]]
"""Numbers by tau, by where they are from, and by epoch."""

Counts = Mapping[Tau, Mapping[Source, Mapping[str, Sequence[float]]]]
"""Counts of labels in bins of p(correct) "before" and "after", likewise."""


def by_tau(runs: Iterable[Run], *path: str) -> dict[Tau, dict[Source, float]]:
    """Tau to the numbers of the runs that have them.

    Args:
        runs: of one variant.
        path: as of `number_of`.
    """
    values: dict[Tau, dict[Source, float]] = defaultdict(dict)
    for run in runs:
        for branch in run.summary["branches"]:
            value = number_of(branch, path)
            if value is not None:
                values[branch["tau"]][source_of(run)] = value
    return dict(values)


def number_of(branch: Json, path: Sequence[str]) -> float | None:
    """A number of a branch; None where it has none that is finite.

    Args:
        branch: of a run.
        path: keys under its `measures`; "" stands for the shift of its features.
    """
    entry: Any = {"": branch["shift"], **(branch.get("measures") or {})}
    for key in path:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return finite_or_none(entry)


def by_epoch(runs: Iterable[Run], key: str) -> Curves:
    """A number along each finetuning, by its history."""
    curves: dict[Tau, dict[Source, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        for row in run.history or ():
            value = finite_or_none(row.get(key))
            if value is not None and row["phase"] == "finetune":
                source = (run.summary["seed"], row.get("repeat", 0))
                curves[row["tau"]][source][row["epoch"]] = value
    return curves


def mean_curves(curves: Curves) -> dict[Key, float]:
    """(tau, epoch) to the mean over all finetunings of a tau, to the last epoch that all reach."""
    return {
        (tau, epoch): mean(line[epoch] for line in lines.values())
        for tau, lines in curves.items()
        for epoch in sorted(set.intersection(*map(set, lines.values())))
    }


def over_in_words(*curves: Curves) -> str:
    """What the lines of `mean_curves` are over, for a caption."""
    every = [lines for each in curves for lines in each.values()]
    cut = any(len({max(line) for line in lines.values()}) > 1 for lines in every)
    return seeds_in_words(every) + (", up to the last epoch that all of them reach" if cut else "")


def seeds_in_words(drawn: Iterable[Iterable[Source]]) -> str:
    """How many seeds means are over, "2 to 3 seeds" where that differs.

    Args:
        drawn: what each mean is over.
    """
    counts = {len({seed for seed, _ in sources}) for sources in drawn}
    least, most = min(counts), max(counts)
    count = str(most) if least == most else f"{least} to {most}"
    return f"{count} seed{'' if most == 1 else 's'}"


def source_of(run: Run) -> Source:
    """Where what a run has once is from."""
    return run.summary["seed"], 0


def label_counts(runs: Iterable[Run]) -> Counts:
    """Counts of labels by p(correct), before and after, of the branches that have both."""
    counts: dict[Tau, dict[Source, dict[str, list[float]]]] = defaultdict(dict)
    bins = 0
    for run in runs:
        for branch in run.summary["branches"]:
            own = measure_of(branch, "confidence").get("histogram", {})
            lengths = {len(own.get(when, ())) for when in ("before", "after")}
            bins = bins or min(lengths)
            # another version may have had other bins: what does not add up is left out
            if bins and lengths == {bins}:
                counts[branch["tau"]][source_of(run)] = own
    return dict(counts)


def label_fractions(counts: Counts, when: str) -> dict[Key, float]:
    """(tau, bin) to the fraction of labels in it."""
    fractions: dict[Key, float] = {}
    for tau, by_source in counts.items():
        bins = [sum(bin_) for bin_ in zip(*(own[when] for own in by_source.values()), strict=True)]
        fractions |= {(tau, k): n / max(sum(bins), 1) for k, n in enumerate(bins)}
    return fractions


def measure_of(summary: Json, name: str) -> Json:
    """What a run or a branch has of a measure; empty for nothing."""
    return (summary.get("measures") or {}).get(name) or {}
