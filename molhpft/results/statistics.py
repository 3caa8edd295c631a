"""What a table of results says: figures to report, with intervals, and which method beats which.

The figure reported of a method is its test score where validation is best. Everything that was
searched, tau and any setting, is chosen so, seed by seed; what the search cost stands beside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from molhpft.domains.files import Json
from molhpft.domains.molecules.splits import OWN_SPLITS
from molhpft.results.table import SHIFTS

Level = Literal["label", "family", "variant"]
"""What counts as one method. "variant": exactly these settings, only tau is chosen; "family":
learning rates are chosen too, which gives plain finetuning a search of its own; "label": every
setting is chosen."""

_NAN = float("nan")
_CONFIDENCE = 0.95  # probability that an interval holds the true mean
_ROUNDING = 1e-9  # relative, by which equal differences of unequal scores may be apart


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its interval by Student's t.

    Attributes:
        mean: of the values.
        low: lower end; NaN where values do not differ, as a single one does not: they say nothing
            about how far others would be off.
        high: upper end, as `low`.
        n: number of values.
    """

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of independent values and its 95% t-interval; NaN values are left out.

    >>> mean_interval([0.5, 0.75, 1.0, float("nan")])
    Interval(mean=0.75, low=0.128..., high=1.371..., n=3)

    Args:
        values: one a seed.

    Raises:
        ValueError: no value is a number.
    """
    return _t_test(values)[0]


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[Interval, float]:
    """Mean difference of two methods, first minus second, seed by seed, and p of the paired t-test.

    Args:
        first: seed to score.
        second: seed to score of the method it is compared with.

    Returns:
        the difference over the seeds that both have, and the two-sided p, NaN for a single seed
        and for one difference on every seed, unless that is 0.

    Raises:
        ValueError: no seed is in both.
    """
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if np.isnan(differences).all():
        raise ValueError(
            f"a paired comparison needs seeds that both have, got {sorted(first)} and "
            f"{sorted(second)}: run both with the same seeds"
        )
    return _t_test(differences)


def _t_test(values: Sequence[float]) -> tuple[Interval, float]:
    """Mean with interval, and p of its being 0."""
    numbers = np.array(values, dtype=np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        raise ValueError("a mean needs at least one number, got none")
    mean, n = float(numbers.mean()), len(numbers)
    if np.ptp(numbers) <= _ROUNDING * np.abs(numbers).max():
        # the t of a mean of 0 is 0 however far others are off; that of any other needs to know
        return Interval(mean, _NAN, _NAN, n), _NAN if n == 1 or numbers.any() else 1.0
    test = ttest_1samp(numbers, 0.0)
    low, high = test.confidence_interval(_CONFIDENCE)
    return Interval(mean, float(low), float(high), n), float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected to keep a false alarm among them as rare as for one.

    The step-down procedure of Holm (1979); NaN stays NaN and does not count as a test.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    adjusted = np.full(len(p), np.nan)
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * factors))
    return [float(value) for value in adjusted]


def best_on_validation(table: pd.DataFrame, *, by: Level = "label") -> pd.DataFrame:
    """The row that validates best for each task, method and seed, with the cost of the search.

    Args:
        table: of `Results`.
        by: what counts as one method.

    Returns:
        rows of the table with columns added: candidates (rows to choose from) and search_epochs
        (of finetuning, over all candidates).
    """
    scored = table[table["final_valid"].notna()]
    groups = scored.groupby(["task", by, "seed"], sort=False)
    best = scored.loc[groups["final_valid"].idxmax()].copy()
    keys = pd.MultiIndex.from_frame(best[["task", by, "seed"]])
    best["candidates"] = groups.size().loc[keys].to_numpy()
    best["search_epochs"] = groups["epochs"].sum(min_count=1).loc[keys].to_numpy()
    return best.reset_index(drop=True)


def over_seeds(best: pd.DataFrame, *, by: Level = "label") -> pd.DataFrame:
    """A row for each task and method: means over seeds with 95 % intervals.

    Args:
        best: of `best_on_validation`, by the same `by`.
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

    Rows without a tau (baselines, soups, solved heads) are left out.
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


def equal_budget(table: pd.DataFrame) -> pd.DataFrame:
    """`over_seeds` with learning rates and tau chosen on validation and other settings held.

    Plain finetuning has no tau: it may spend the cost of HP-FT's grid on a search of its learning
    rate. Compare rows whose search_epochs agree.
    """
    return over_seeds(best_on_validation(table, by="family"), by="family")


def shifted_splits(table: pd.DataFrame) -> list[str]:
    """Splits beside training, validation, calibration and test, that some run has a score for.

    They are out of distribution: the test split has the distribution of the training split.
    """
    names = (name.removeprefix("final_") for name in _finals(table) if table[name].notna().any())
    return [name for name in names if name not in OWN_SPLITS]


def out_of_distribution(best: pd.DataFrame) -> pd.DataFrame:
    """A row for each task that has such splits and each method: scores in and out of distribution.

    The tables of LP-FT (Kumar et al., 2022) and FLYP (Goyal et al., 2023): everything is chosen on
    validation, which is in distribution. A seed's mean is over the shifted splits of its task.

    Args:
        best: of `best_on_validation`.

    Returns:
        columns task, label, metric, seeds, then of `test`, `shifted` (the mean), `loss` (shifted
        minus test) and every shifted split the mean over seeds, `_low` and `_high`; the method that
        keeps most out of distribution first.
    """
    rows: list[Json] = []
    for task, of_task in best.groupby("task", sort=False):
        splits = shifted_splits(of_task)
        if not splits:
            continue
        scores = of_task[[f"final_{split}" for split in splits]].astype(float)
        shifted = scores.mean(axis=1, skipna=False)
        numbers = of_task.assign(
            test=of_task["final_test"].astype(float),
            shifted=shifted,
            loss=shifted - of_task["final_test"].astype(float),
            **{split: scores[f"final_{split}"] for split in splits},
        )
        rows += [
            {"task": task, "label": label, "metric": group["metric"].iloc[0], "seeds": len(group)}
            | _intervals(group, ["test", "shifted", "loss", *splits])
            for label, group in numbers.groupby("label", sort=False)
        ]
    fixed = ["task", "label", "metric", "seeds", "test", "shifted", "loss"]
    table = pd.DataFrame(rows, columns=None if rows else fixed)
    return table.sort_values(["task", "shifted"], ascending=[True, False], ignore_index=True)


def leader(best: pd.DataFrame, *, by: Level = "label") -> str:
    """The method of best mean validation score among those that ran on enough seeds.

    Enough is half of the most that any has: one lucky seed is no evidence.

    Args:
        best: of `best_on_validation`, by the same `by`, of one task.
        by: what counts as one method.
    """
    scores = best.groupby(by, sort=False)["final_valid"]
    means = scores.mean().astype(float)
    return str(means[2 * scores.count() >= scores.count().max()].idxmax())


def compare(best: pd.DataFrame, *, first: str | None = None) -> pd.DataFrame:
    """One method of each task against every other, on the seeds that both have.

    Args:
        best: of `best_on_validation`.
        first: the method; None for the `leader` of each task.

    Returns:
        columns task, method, other, n (shared seeds), difference (of test scores, method minus
        other) with `_low` and `_high`, p of the paired t-test, p_holm over the comparisons of the
        task that have a p, and budgets_equal (whether both searches had the same epochs of
        finetuning, to a tenth; missing where a cost is unknown).
    """
    comparisons: list[Json] = []
    for task, rows in best.groupby("task", sort=False):
        method = first or leader(rows)
        first_rows = rows[rows["label"] == method]
        against = [
            {"task": task, "method": method, "other": other}
            | _comparison(first_rows, rows[rows["label"] == other])
            for other in dict.fromkeys(rows["label"])
            if other != method
        ]
        adjusted = holm([row["p"] for row in against])
        comparisons += [row | {"p_holm": p} for row, p in zip(against, adjusted, strict=True)]
    columns = ["task", "method", "other", "n", "difference", "difference_low", "difference_high"]
    return pd.DataFrame(comparisons, columns=[*columns, "p", "p_holm", "budgets_equal"])


def as_columns(name: str, interval: Interval) -> Json:
    """An interval as columns of a table: `name`, `name_low` and `name_high`."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _finals(table: pd.DataFrame) -> list[str]:
    finals = [str(name) for name in table.columns if str(name).startswith("final_")]
    return list(dict.fromkeys(["final_valid", "final_test", *finals]))


def _intervals(group: pd.DataFrame, numbers: Sequence[str]) -> Json:
    row: Json = {}
    for name in numbers:
        values: Any = group[name].to_numpy(dtype=float, na_value=np.nan)
        empty = np.isnan(values).all()
        row |= as_columns(name, Interval(_NAN, _NAN, _NAN, 0) if empty else mean_interval(values))
    return row


def _comparison(first: pd.DataFrame, second: pd.DataFrame) -> Json:
    scores = [
        dict(zip(rows["seed"].tolist(), rows["final_test"].tolist(), strict=True))
        for rows in (first.dropna(subset="final_test"), second.dropna(subset="final_test"))
    ]
    if not scores[0].keys() & scores[1].keys():
        return {"n": 0, "p": _NAN, "budgets_equal": None}
    difference, p = paired(*scores)
    costs = [float(rows["search_epochs"].astype(float).max()) for rows in (first, second)]
    equal = None if np.isnan(costs).any() else abs(costs[0] - costs[1]) <= max(costs) / 10
    return {
        "n": difference.n,
        **as_columns("difference", difference),
        "p": p,
        "budgets_equal": equal,
    }
