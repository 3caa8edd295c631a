"""What a table of results says: the figures to report, with intervals, and who beats whom.

The figure that is reported of a method is its test score where validation is best. Everything that
was searched, tau and any setting, is chosen so, seed by seed; what the search cost stands beside.

Means with their uncertainty, and differences between methods on the same seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from molhpft.domains.files import Json
from molhpft.results.table import SHIFTS


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the interval that Student's t gives for it.

    Attributes:
        mean: of the values.
        low: lower end; NaN for a single value, which says nothing about its own spread.
        high: upper end, as `low`.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """One method against another on the seeds that both have.

    Attributes:
        difference: of the scores, first minus second, seed by seed; its n is that of shared seeds.
        p: of the two-sided paired t-test; NaN below two shared seeds.
    """

    difference: Interval
    p: float


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean of independent values and its t-interval; NaN values are left out.

    Args:
        values: one a seed.
        confidence: share of such intervals that hold the true mean, in (0, 1).

    Raises:
        ValueError: `confidence` is no share, or no value is a number.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a share between 0 and 1, such as 0.95, got {confidence}")
    known = _known(values)
    if not len(known):
        raise ValueError("a mean needs at least one number, got none")
    mean = float(known.mean())
    if len(known) == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    reach = float(student.ppf((1 + confidence) / 2, len(known) - 1)) * _error(known)
    return Interval(mean, mean - reach, mean + reach, len(known))


def paired(
    first: Mapping[int, float], second: Mapping[int, float], *, confidence: float = 0.95
) -> Comparison:
    """Mean difference of two methods on the seeds that both have, with interval and p.

    Args:
        first: seed to score.
        second: seed to score of what it is compared with.
        confidence: as for `mean_interval`.

    Raises:
        ValueError: no seed is in both.
    """
    shared = sorted(first.keys() & second.keys())
    differences = _known([first[seed] - second[seed] for seed in shared])
    if not len(differences):
        raise ValueError(
            f"a paired comparison needs seeds that both have, got {sorted(first)} and "
            f"{sorted(second)}: run both with the same seeds"
        )
    difference = mean_interval(differences.tolist(), confidence=confidence)
    return Comparison(difference, _p(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that any false alarm among them stays as rare as one.

    The step-down procedure of Holm (1979); NaN stays NaN and is not counted as a test.
    """
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    order = [int(k) for k in np.argsort(p, kind="stable") if not np.isnan(p[k])]
    largest = 0.0
    for rank, k in enumerate(order):
        largest = max(largest, min(1.0, float(p[k]) * (len(order) - rank)))
        adjusted[k] = largest
    return [float(value) for value in adjusted]


def _known(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64).reshape(-1)
    return array[~np.isnan(array)]


def _error(known: NDArray[np.float64]) -> float:
    """Standard error of the mean."""
    return float(known.std(ddof=1)) / sqrt(len(known))


def _p(differences: NDArray[np.float64]) -> float:
    if len(differences) < 2:
        return float("nan")
    error, mean = _error(differences), abs(float(differences.mean()))
    if not error:
        # equal differences on every seed: t is infinite, or 0 / 0 where there is no difference
        return 1.0 if not mean else 0.0
    return 2 * float(student.sf(mean / error, len(differences) - 1))


Level = Literal["label", "family", "variant"]

_NOTHING = Interval(float("nan"), float("nan"), float("nan"), 0)


def reported(table: pd.DataFrame, *, by: Level = "label") -> pd.DataFrame:
    """The row that validates best for each task, method and seed, with the cost of the search.

    Args:
        table: of `Results`.
        by: what counts as one method. "variant": exactly these settings, only tau is chosen;
            "family": learning rates are chosen too, which gives plain finetuning a sweep of its
            own; "label": every setting is.

    Returns:
        rows of the table with columns added: candidates (what was chosen from) and search_epochs
        (of finetuning, over all candidates).
    """
    known = table[table["final_valid"].notna()]
    groups = known.groupby(["task", by, "seed"], sort=False)
    best = known.loc[groups["final_valid"].idxmax()].copy()
    keys = pd.MultiIndex.from_frame(best[["task", by, "seed"]])
    best["candidates"] = groups.size().loc[keys].to_numpy()
    best["search_epochs"] = groups["epochs"].sum(min_count=1).loc[keys].to_numpy()
    return best.reset_index(drop=True)


def summarise(best: pd.DataFrame, *, by: Level = "label") -> pd.DataFrame:
    """A row for each task and method: means over seeds with 95 % intervals.

    Args:
        best: of `reported`, by the same `by`.
        by: what counts as one method.

    Returns:
        columns task, `by`, metric, seeds, tau (those chosen), candidates and search_epochs (of the
        seed that had most), then of every final score and of energy the mean, `_low` and `_high`;
        best validation first.
    """
    numbers = [*_finals(best), "energy"]
    rows = [
        {
            "task": task,
            by: name,
            "metric": group["metric"].iloc[0],
            "seeds": len(group),
            "tau": ", ".join(str(tau) for tau in sorted(set(group["tau"].dropna()))),
            "candidates": group["candidates"].max(),
            "search_epochs": group["search_epochs"].max(),
            **_intervals(group, numbers),
        }
        for (task, name), group in best.groupby(["task", by], sort=False)
    ]
    fixed = ["task", by, "metric", "seeds", "tau", "candidates", "search_epochs"]
    summary = pd.DataFrame(rows, columns=None if rows else [*fixed, *numbers])
    return summary.sort_values(["task", "final_valid"], ascending=[True, False], ignore_index=True)


def over_tau(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each task, variant and tau: means over seeds with 95 % intervals.

    Rows without a tau (baselines) are left out.
    """
    numbers = [*_finals(table), "energy", *SHIFTS]
    keys = ["task", "label", "variant", "tau"]
    groups = table[table["tau"].notna()].groupby(keys, sort=False)
    rows = [
        dict(zip(keys, names, strict=True)) | {"seeds": len(group)} | _intervals(group, numbers)
        for names, group in groups
    ]
    if not rows:
        return pd.DataFrame(columns=[*keys, "seeds", *numbers])
    return pd.DataFrame(rows).sort_values(keys, ignore_index=True)


def leading(rows: pd.DataFrame, *, by: Level = "label") -> str:
    """The method of best mean validation score among those that ran on enough seeds.

    Enough is half of the most that any has: one lucky seed is no evidence.

    Args:
        rows: of `reported`, by the same `by`, of one task.
        by: what counts as one method.
    """
    groups = rows.groupby(by, sort=False)["final_valid"]
    means = groups.mean().astype(float)
    enough = means[2 * groups.count() >= groups.count().max()]
    return str(enough.idxmax())


def compare(best: pd.DataFrame, *, by: Level = "label", first: str | None = None) -> pd.DataFrame:
    """One method of each task against every other, on the seeds that both have.

    Args:
        best: of `reported`, by the same `by`.
        by: what counts as one method.
        first: the method; None for the `leading` one of each task.

    Returns:
        columns task, method, other, n (shared seeds), difference (of test scores, method minus
        other) with `_low` and `_high`, p of the paired t-test, p_holm over the comparisons of the
        task, and budgets_equal (whether both searches had the same epochs of finetuning, to a
        tenth; missing where a cost is unknown).
    """
    comparisons: list[Json] = []
    for task, rows in best.groupby("task", sort=False):
        one = leading(rows, by=by) if first is None else first
        found = [
            {"task": task, "method": one, "other": other}
            | _comparison(rows[rows[by] == one], rows[rows[by] == other])
            for other in dict.fromkeys(rows[by])
            if other != one
        ]
        for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
            row["p_holm"] = p
        comparisons += found
    columns = ["task", "method", "other", "n", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(comparisons, columns=[*columns, "p", "p_holm", "budgets_equal"])


def equal_budget(table: pd.DataFrame) -> pd.DataFrame:
    """`summarise` with learning rates and tau chosen on validation and other settings held.

    Plain finetuning has no tau: a sweep of its learning rate is what it may spend the cost of
    HP-FT's grid on. Compare rows whose search_epochs agree.
    """
    return summarise(reported(table, by="family"), by="family")


def _finals(table: pd.DataFrame) -> list[str]:
    first = ["final_valid", "final_test"]
    found = [str(name) for name in table.columns if str(name).startswith("final_")]
    return [*first, *(name for name in found if name not in first)]


def _intervals(group: pd.DataFrame, numbers: Sequence[str]) -> Json:
    row: Json = {}
    for name in numbers:
        values = group[name].to_numpy(dtype=float, na_value=np.nan)
        found = _NOTHING if np.isnan(values).all() else mean_interval(values.tolist())
        row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    return row


def _comparison(first: pd.DataFrame, second: pd.DataFrame) -> Json:
    scores = [_by_seed(rows, "final_test") for rows in (first, second)]
    nothing: Json = {"n": 0, "p": float("nan"), "budgets_equal": None}
    if not scores[0].keys() & scores[1].keys():
        return nothing
    found = paired(*scores)
    costs = [float(rows["search_epochs"].astype(float).max()) for rows in (first, second)]
    known = not any(map(pd.isna, costs))
    return {
        "n": found.difference.n,
        "difference": found.difference.mean,
        "difference_low": found.difference.low,
        "difference_high": found.difference.high,
        "p": found.p,
        "budgets_equal": abs(costs[0] - costs[1]) <= max(costs) / 10 if known else None,
    }


def _by_seed(rows: pd.DataFrame, column: str) -> dict[int, float]:
    known = rows[rows[column].notna()]
    return dict(zip(known["seed"].tolist(), known[column].tolist(), strict=True))
