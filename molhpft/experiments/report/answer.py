"""The answer first: which method, which tau, how much better, and how sure one can be."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from molhpft.experiments.report.content import digits, listed, real, scaled
from molhpft.experiments.statistics import Comparison, paired
from molhpft.experiments.summaries import compare, leading, summarise
from molhpft.experiments.tables import score_name

SURE = 0.05


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
    (row,) = summarise(best[best["label"] == first]).to_dict("records")
    chosen = f", tau {row['tau']} chosen on validation" if row["tau"] else ""
    seeds = "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
    name = score_name(metric)
    sentences = [
        f"{first} validates best: test {name} {_shown(row, metric)} over {seeds}{chosen}.",
        *_verdicts(comparisons(best), metric),
        *_about_tau(table, best[best["label"] == first], metric),
    ]
    if row["seeds"] < 3:
        sentences.append(f"With {seeds} this is a first look: run more for intervals that hold.")
    return sentences


def _shown(row: Mapping[Any, Any], metric: str) -> str:
    mean, low, high = (real(row[f"final_test{end}"]) for end in ("", "_low", "_high"))
    if mean is None:
        return "unknown"
    shown = [f"{scaled(x, metric):.{digits(metric)}f}" for x in (mean, low or 0, high or 0)]
    return shown[0] if low is None else f"{shown[0]} (95 % interval {shown[1]} to {shown[2]})"


def _verdicts(table: pd.DataFrame, metric: str) -> list[str]:
    """Which others it beats, cannot be told from, or loses to, after Holm's correction."""
    groups: dict[str, list[str]] = {"better": [], "open": [], "worse": [], "alone": []}
    for row in table.to_dict("records"):
        difference, p = real(row["difference"]), real(row["p_holm"])
        if difference is None:
            groups["alone"].append(str(row["other"]))
            continue
        sure = p is not None and p < SURE
        group = ("better" if difference > 0 else "worse") if sure else "open"
        groups[group].append(f"{row['other']} ({_difference(row, metric)})")
    unit = "points" if digits(metric) == 2 else "in units of the score"
    templates = {
        "better": f"On test it is better, {unit}, than {{}}.",
        "worse": f"On test it is worse, {unit}, than {{}}.",
        "open": f"These seeds cannot tell it from {{}}; differences on test, {unit}.",
        "alone": "No seed is shared with {}, so they are not compared.",
    }
    return [text.format(listed(groups[key])) for key, text in templates.items() if groups[key]]


def _difference(row: Mapping[Any, Any], metric: str) -> str:
    """A difference with its interval and n."""
    shown = f"{scaled(float(row['difference']), metric):+.{digits(metric)}f}"
    low, high = real(row["difference_low"]), real(row["difference_high"])
    if low is None or high is None:
        return f"{shown}, n = {row['n']}"
    ends = [f"{scaled(end, metric):+.{digits(metric)}f}" for end in (low, high)]
    return f"{shown}, {ends[0]} to {ends[1]}, n = {row['n']}"


def _about_tau(table: pd.DataFrame, chosen: pd.DataFrame, metric: str) -> list[str]:
    """What choosing tau gained over no probing and over the longest, seed by seed."""
    rows = table[(table["label"] == chosen["label"].iloc[0]) & table["tau"].notna()]
    taus = sorted({int(tau) for tau in rows["tau"]})
    if len(taus) < 2:
        return []
    gains = []
    for tau, what in ((taus[0], "tau {}"), (taus[-1], "tau {}")):
        found = _gain(chosen, rows[rows["tau"] == tau])
        if found is not None:
            row = {
                "difference": found.difference.mean,
                "difference_low": found.difference.low,
                "difference_high": found.difference.high,
                "n": found.difference.n,
            }
            gains.append(f"{_difference(row, metric)} against {what.format(tau)}")
    if not gains:
        return []
    return [f"Choosing tau on validation changes the test score by {listed(gains)}."]


def _gain(chosen: pd.DataFrame, fixed: pd.DataFrame) -> Comparison | None:
    """The chosen rows against one tau under the settings that were chosen with them."""
    keys = ["seed", "variant", "final_test"]
    both = chosen[keys].merge(fixed[keys], on=keys[:2], suffixes=("", "_fixed")).dropna()
    if both.empty:
        return None
    seeds = [int(seed) for seed in both["seed"]]
    ends = [
        dict(zip(seeds, both[c].tolist(), strict=True)) for c in ("final_test", "final_test_fixed")
    ]
    return paired(*ends)
