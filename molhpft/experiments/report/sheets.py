"""The tables of a report: methods at their best, who beats whom, every setting."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from molhpft.experiments.report.answer import comparisons, networks
from molhpft.experiments.report.content import (
    Cell,
    Sheet,
    digits,
    number,
    real,
    score,
    words,
)
from molhpft.experiments.results import Results
from molhpft.experiments.summaries import Level, leading, over_tau, reported, summarise
from molhpft.experiments.tables import score_name

MEAN = "Mean over seeds ± half of the 95 % interval (Student's t)."
_FINER: tuple[tuple[Level, Level, str, str], ...] = (
    (
        "family",
        "label",
        "Equal budget",
        "Learning rates and tau chosen on validation, other settings held: compare methods whose "
        "epochs agree.",
    ),
    ("variant", "family", "Every setting", "Only tau is chosen on validation."),
)
_OWN = ("final_valid", "final_test")


def sheets(table: pd.DataFrame) -> list[Sheet]:
    """Every table of one task.

    Args:
        table: its rows, of `Results`.
    """
    best = reported(table)
    metric = str(best["metric"].iloc[0])
    found = [_methods(best, metric, by="label")]
    if best["label"].nunique() > 1:
        found.append(_comparisons(best, metric))
    for by, coarser, title, note in _FINER:
        if table[by].nunique() > table[coarser].nunique():
            found.append(_methods(reported(table, by=by), metric, by=by, title=title, note=note))
    return [*found, *_over_tau(table, metric)]


def problems_sheet(results: Results) -> Sheet | None:
    """Folders that were left out; None where all could be read."""
    if not results.problems:
        return None
    rows = tuple((words(p.path.name), words(p.what)) for p in results.problems)
    return Sheet("Left out", "Folders that could not be read whole.", ("folder", "why"), rows)


def _methods(
    best: pd.DataFrame,
    metric: str,
    *,
    by: Level,
    title: str = "Methods at their best",
    note: str = "Tau and every other setting that was searched are chosen on validation.",
) -> Sheet:
    summary = summarise(best, by=by)
    further = _further(summary)
    rows = [
        (
            words(row[by]),
            score(row, "final_test", metric),
            score(row, "final_valid", metric),
            *(score(row, name, metric) for name in further),
            number(row["seeds"]),
            words(row["tau"] or None),
            number(row["candidates"]),
            number(row["search_epochs"]),
        )
        for row in summary.to_dict("records")
    ]
    splits = (name.removeprefix("final_") for name in further)
    columns = ("method", "test", "valid", *splits, "seeds", "tau", "tried", "epochs")
    how = (
        f"Score: {score_name(metric)}. {MEAN} {note} tried: settings and tau that a seed chose "
        "from; epochs: of finetuning, all that were tried."
    )
    first = [str(row[by]) for row in summary.to_dict("records")].index(
        leading(networks(best), by=by)
    )
    return Sheet(title, how, columns, tuple(rows), marked=first)


def _comparisons(best: pd.DataFrame, metric: str) -> Sheet:
    table = comparisons(best)
    rows = [
        (
            words(row["other"]),
            score(row, "difference", metric),
            number(row["n"]),
            _p(row["p"]),
            _p(row["p_holm"]),
            words({True: "equal", False: "not equal", None: "unknown"}[row["budgets_equal"]]),
        )
        for row in table.to_dict("records")
    ]
    first = str(table["method"].iloc[0])
    note = (
        f"Test score of {first} minus that of the other, seed by seed (n shared seeds), "
        f"{'in points' if digits(metric) == 2 else 'in units of the score'}, ± half of the 95 % "
        "interval; p of the paired t-test, then after Holm's correction for the comparisons here. "
        "budget: whether both searches had as many epochs of finetuning, to a tenth."
    )
    columns = ("other", "difference", "n", "p", "p (Holm)", "budget")
    return Sheet(f"{first} against the others", note, columns, tuple(rows))


def _over_tau(table: pd.DataFrame, metric: str) -> list[Sheet]:
    found = over_tau(table)
    several = found.groupby("variant")["tau"].transform("nunique") > 1
    rows = [
        (
            words(row["variant"]),
            number(row["tau"]),
            *(score(row, name, metric) for name in ("final_test", "final_valid")),
            *(_plain(row, name) for name in ("energy", "distance", "cosine", "dot", "norm")),
            number(row["seeds"]),
        )
        for row in found[several].to_dict("records")
    ]
    if not rows:
        return []
    columns = ("method", "tau", "test", "valid", "energy", "distance", "cosine", "dot", "norm")
    note = f"{MEAN} energy: mean length of p - y over training examples when finetuning starts."
    return [Sheet("Every tau", note, (*columns, "seeds"), tuple(rows))]


def _further(summary: pd.DataFrame) -> list[str]:
    """Final scores of splits beyond train, valid and test."""
    names = [str(name) for name in summary.columns if str(name).startswith("final_")]
    known = (*_OWN, "final_train")
    return [n for n in names if n not in known and not n.endswith(("_low", "_high"))]


def _plain(row: Mapping[Any, Any], name: str) -> Cell:
    mean, low = real(row[name]), real(row[f"{name}_low"])
    if mean is None:
        return Cell("-", None)
    return Cell(f"{mean:.3f}" + ("" if low is None else f" ± {mean - low:.3f}"), mean)


def _p(value: Any) -> Cell:
    known = real(value)
    if known is None:
        return Cell("-", None)
    return Cell("< 0.001" if known < 0.001 else f"{known:.3f}", known)
