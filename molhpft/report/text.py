"""The tables of a report: methods at their best, who beats whom, every setting.

The answer first: which method, which tau, how much better, and how sure one can be.

The report as Markdown, and its numbers as CSV for whoever goes on with them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from molhpft.core.metrics import score_name
from molhpft.domains.files import Json, listed
from molhpft.report.content import Cell, Section, Sheet, digits, number, real, scaled, score, words
from molhpft.results.statistics import (
    Level,
    compare,
    equal_budget,
    leading,
    over_tau,
    paired,
    reported,
    summarise,
)
from molhpft.results.table import Results

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


def markdown(
    title: str, about: Sequence[str], sections: Sequence[Section], problems: Sheet | None
) -> str:
    """Answers and tables of the report as Markdown."""
    lines = [f"# {_escaped(title)}"]
    for sentence in about:
        lines += ["", _escaped(sentence)]
    for section in sections:
        lines += ["", f"## {_escaped(section.task)}"]
        for sentence in section.answer:
            lines += ["", _escaped(sentence)]
        for sheet in section.sheets:
            lines += _sheet(sheet)
    lines += _sheet(problems) if problems else []
    return "\n".join(lines) + "\n"


def csv_tables(results: Results, root: Path) -> dict[str, pd.DataFrame]:
    """File name to table: every row, and what was made of them.

    Args:
        results: what was read.
        root: the folder that it was read from; folders are given as seen from there.
    """
    table, best = results.table, reported(results.table)
    seen = [str(Path(folder).relative_to(root)) for folder in table["folder"]]
    compared = [comparisons(rows) for _, rows in best.groupby("task", sort=False)]
    left = [(str(p.path.relative_to(root)), p.what) for p in results.problems]
    return {
        "rows.csv": table.assign(folder=seen),
        "methods.csv": summarise(best),
        "equal_budget.csv": equal_budget(table),
        "settings.csv": summarise(reported(table, by="variant"), by="variant"),
        "comparisons.csv": pd.concat(compared, ignore_index=True) if compared else compare(best),
        "tau.csv": over_tau(table),
        "problems.csv": pd.DataFrame(left, columns=["folder", "why"]),
    }


def _sheet(sheet: Sheet) -> list[str]:
    lines = ["", f"### {_escaped(sheet.title)}", ""]
    lines.append(f"| {' | '.join(map(_escaped, sheet.columns))} |")
    lines.append("|---" * len(sheet.columns) + "|")
    for place, row in enumerate(sheet.rows):
        marks = "**" if place == sheet.marked else ""
        cells = (f"{marks}{_escaped(cell.text)}{marks}" for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", _escaped(sheet.note)]


def _escaped(text: str) -> str:
    """Text in which names of people's columns and files mean nothing to Markdown."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
