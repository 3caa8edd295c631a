"""The answer first: which method, which tau, how much better, and how sure one can be."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from molhpft.domains.texts import listed
from molhpft.experiments.folder import Json
from molhpft.experiments.report.content import digits, real, scaled
from molhpft.experiments.statistics import paired
from molhpft.experiments.summaries import compare, leading, summarise
from molhpft.experiments.tables import score_name

SURE = 0.05
ENOUGH = 3
NAMED = 4  # differences of a verdict that the answer has; the table below it has them all


def networks(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of networks, without baselines; all rows where there is nothing but baselines."""
    known = rows[rows["head"].notna()]
    return rows if known.empty else known


def comparisons(best: pd.DataFrame) -> pd.DataFrame:
    """The leading network of one task against every other method, baselines among them."""
    return compare(best, first=leading(networks(best)))


def answer(table: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """Sentences about one task, the most important first.

    Args:
        table: rows of the task, of `Results`.
        best: rows of the task, of `reported`.
    """
    metric = str(best["metric"].iloc[0])
    first = leading(networks(best))
    rows = {str(row["label"]): row for row in summarise(best).to_dict("records")}
    row, count = rows[first], int(rows[first]["seeds"])
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    among = " among networks" if len(networks(best)) < len(best) else ""
    sentences = [
        f"{first} validates best{among}: test {score_name(metric)} {_shown(row, metric)} over "
        f"{seeds}{_tau(table, rows, first)}.",
        *_verdicts(comparisons(best), metric, seeds=count),
        *_about_tau(table, best, metric, first=first),
    ]
    if count < ENOUGH:
        sentences.append(f"With {seeds} this is a first look: run more for intervals that hold.")
    return sentences


def _shown(row: Mapping[Any, Any], metric: str) -> str:
    mean, low, high = (real(row[f"final_test{end}"]) for end in ("", "_low", "_high"))
    if mean is None:
        return "unknown"
    shown = [f"{scaled(x, metric):.{digits(metric)}f}" for x in (mean, low or 0, high or 0)]
    return shown[0] if low is None else f"{shown[0]} (95 % interval {shown[1]} to {shown[2]})"


def _taus(table: pd.DataFrame, label: str) -> list[int]:
    rows = table[(table["label"] == label) & table["tau"].notna()]
    return sorted({int(tau) for tau in rows["tau"]})


def _tau(table: pd.DataFrame, rows: Mapping[str, Mapping[Any, Any]], label: str) -> str:
    """Which tau validation has chosen, where there was a choice."""
    return f", with tau {rows[label]['tau']} chosen" if len(_taus(table, label)) > 1 else ""


def _verdicts(table: pd.DataFrame, metric: str, *, seeds: int) -> list[str]:
    """Which others it beats, cannot be told from, or loses to, after Holm's correction."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "open": [], "alone": []}
    nearest = table.reindex(table["difference"].abs().sort_values(na_position="last").index)
    for row in nearest.to_dict("records"):
        difference, p = real(row["difference"]), real(row["p_holm"])
        if difference is None:
            groups["alone"].append(str(row["other"]))
            continue
        sure = p is not None and p < SURE
        group = ("better" if difference > 0 else "worse") if sure else "open"
        groups[group].append(f"{row['other']} {_difference(row, metric, seeds=seeds)}")
    templates = {
        "better": "Better on test than {}.",
        "worse": "Worse on test than {}.",
        "open": "Not told apart on test by these seeds: {}.",
        "alone": "Not compared, for no seed is shared: {}.",
    }
    sentences = [text.format(_named(groups[key])) for key, text in templates.items() if groups[key]]
    if len(table) > len(groups["alone"]):
        sentences.append(_how(metric, seeds=seeds, comparisons=len(table) - len(groups["alone"])))
    return sentences


def _named(others: Sequence[str]) -> str:
    """The nearest others, and how many more there are."""
    return listed(others, most=NAMED)


def _how(metric: str, *, seeds: int, comparisons: int) -> str:
    unit = " in points" if digits(metric) == 2 else ""
    test = "" if comparisons == 1 else f", corrected for {comparisons} comparisons (Holm)"
    return (
        f"Numbers are differences of paired test scores{unit}, n = {seeds} unless said, each with "
        f"its own 95 % interval; verdicts are those of paired t-tests at p < {SURE}{test}."
    )


def _difference(row: Mapping[Any, Any], metric: str, *, seeds: int) -> str:
    """A difference with its interval, and n where that is not the number of seeds."""
    shown = f"{scaled(float(row['difference']), metric):+.{digits(metric)}f}"
    low, high = real(row["difference_low"]), real(row["difference_high"])
    if low is not None and high is not None:
        ends = [f"{scaled(end, metric):+.{digits(metric)}f}" for end in (low, high)]
        shown += f" [{ends[0]}, {ends[1]}]"
    return shown if row["n"] == seeds else f"{shown} (n = {row['n']})"


def _about_tau(table: pd.DataFrame, best: pd.DataFrame, metric: str, *, first: str) -> list[str]:
    """What choosing tau gained over the shortest and longest probing, seed by seed.

    Said of the leading method, or of the best one that has several tau.
    """
    order = [first, *(str(label) for label in summarise(best)["label"])]
    label = next((name for name in order if len(_taus(table, name)) > 1), None)
    if label is None:
        return []
    rows, chosen = table[table["label"] == label], best[best["label"] == label]
    gains = []
    for tau in (_taus(table, label)[0], _taus(table, label)[-1]):
        if (chosen["tau"] == tau).all():
            continue
        found = _gain(chosen, rows[rows["tau"] == tau])
        if found is not None:
            gains.append(f"{_difference(found, metric, seeds=len(chosen))} against tau {tau}")
    used = ", ".join(str(tau) for tau in sorted(set(chosen["tau"])))
    what = f"Choosing tau on validation ({used}) changes the test score of {label} by"
    return [f"{what} {listed(gains)}."] if gains else []


def _gain(chosen: pd.DataFrame, fixed: pd.DataFrame) -> Json | None:
    """The chosen rows against one tau under the settings that were chosen with them."""
    keys = ["seed", "variant", "final_test"]
    both = chosen[keys].merge(fixed[keys], on=keys[:2], suffixes=("", "_fixed")).dropna()
    if both.empty:
        return None
    seeds = both["seed"].tolist()
    ends = [
        dict(zip(seeds, both[c].tolist(), strict=True)) for c in ("final_test", keys[2] + "_fixed")
    ]
    found = paired(*ends).difference
    return {
        "difference": found.mean,
        "difference_low": found.low,
        "difference_high": found.high,
        "n": found.n,
    }
