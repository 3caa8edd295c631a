"""A report in words and numbers: conclusions, tables, Markdown and CSV.

Conclusions come first: which method, which tau, how much better, and how sure one can be.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from molhpft.core.metrics import PERCENTAGES, signed_name
from molhpft.domains.files import Json, listed
from molhpft.report.content import (
    Cell,
    Section,
    Table,
    finite_or_none,
    mean_cell,
    number_cell,
    score_cell,
    score_text,
    text_cell,
)
from molhpft.results.statistics import (
    Level,
    as_columns,
    best_on_validation,
    compare,
    equal_budget,
    leader,
    mean_interval,
    out_of_distribution,
    over_seeds,
    over_tau,
    paired,
    shifted_splits,
)
from molhpft.results.table import Results

SIGNIFICANT = 0.05
ENOUGH_SEEDS = 3
MOST_NAMED = 4  # differences that a conclusion has; the table below it has them all

_MEAN = (
    "Mean over seeds ± half of the 95 % interval (Student's t); where seeds do not differ there is "
    "none."
)
_VERDICTS = {
    "better": "Better on test than {}.",
    "worse": "Worse on test than {}.",
    "open": "No significant difference on test: {}.",
    "untested": "Not told apart by a test, which needs several seeds; difference on test: {}.",
    "constant": "Not told apart by a test, which needs differences that vary; on test: {}.",
    "alone": "Not compared, because no seed is shared: {}.",
}


def networks(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of networks, without baselines; all rows where there is nothing but baselines."""
    with_head = rows[rows["head"].notna()]
    return rows if with_head.empty else with_head


def strongest_baseline(best: pd.DataFrame) -> str | None:
    """The baseline of one task that validates best; None where there is none beside networks."""
    rows = best[best["head"].isna()]
    return None if rows.empty or len(rows) == len(best) else leader(rows)


def comparisons(best: pd.DataFrame) -> pd.DataFrame:
    """The leading network of one task against every other one and the strongest baseline.

    Weaker baselines would only widen the corrected tests of the others.
    """
    baseline = strongest_baseline(best)
    if baseline is not None:
        best = best[best["head"].notna() | (best["label"] == baseline)]
    return compare(best, first=leader(networks(best)))


def conclusions(table: pd.DataFrame, best: pd.DataFrame) -> list[str]:
    """Sentences about one task, the most important first.

    Args:
        table: rows of the task, of `Results`.
        best: rows of the task, of `best_on_validation`.
    """
    metric = str(best["metric"].iloc[0])
    summary = over_seeds(best)
    first = leader(networks(best))
    (row,) = summary[summary["label"] == first].to_dict("records")
    count = int(row["seeds"])
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    scored = int(best.loc[best["label"] == first, "final_test"].count())
    over = seeds if scored == count else f"{scored} of {seeds}"
    among = " among networks" if len(networks(best)) < len(best) else ""
    tau = f", with tau {row['tau']} chosen" if len(_taus(table, first)) > 1 else ""
    sentences = [
        f"{first} validates best{among}: test {signed_name(metric)} {_test_score(best, first)} "
        f"over {over}{tau}.",
        *_baseline_sentences(best, summary, first),
        *_verdicts(comparisons(best), metric, seeds=count),
        *_gains_of_tau(table, best, [first, *map(str, summary["label"])]),
    ]
    if count < ENOUGH_SEEDS:
        sentences.append(f"With {seeds} this is preliminary: run more for reliable intervals.")
    return sentences


def _baseline_sentences(best: pd.DataFrame, summary: pd.DataFrame, first: str) -> list[str]:
    """The strongest baseline, and whether it validates at least as well as the leading network."""
    name = strongest_baseline(best)
    if name is None:
        return []
    rows = {str(row["label"]): row for row in summary.to_dict("records")}
    metric = str(best["metric"].iloc[0])
    sentence = (
        f"The strongest baseline by validation is {name}: test {signed_name(metric)} "
        f"{_test_score(best, name)}"
    )
    if rows[name]["final_valid"] >= rows[first]["final_valid"]:
        return [f"{sentence}. It validates at least as well as every network."]
    return [f"{sentence}."]


def _test_score(best: pd.DataFrame, label: str) -> str:
    """The mean test score of a method, and its interval where seeds differ."""
    rows = best[best["label"] == label]
    metric, scores = str(rows["metric"].iloc[0]), rows["final_test"].dropna()
    if scores.empty:
        return "unknown"
    interval = mean_interval(scores.tolist())
    text = score_text(interval.mean, metric)
    if interval.n == 1:
        return text
    if isnan(interval.low):
        return f"{text} (the same on every seed)"
    low, high = (score_text(end, metric) for end in (interval.low, interval.high))
    return f"{text} (95 % interval {low} to {high})"


def _taus(table: pd.DataFrame, label: str) -> list[int]:
    rows = table[(table["label"] == label) & table["tau"].notna()]
    return sorted({int(tau) for tau in rows["tau"]})


def _verdicts(table: pd.DataFrame, metric: str, *, seeds: int) -> list[str]:
    """Which others are worse, not significantly different or better, after Holm's correction."""
    groups: dict[str, list[str]] = {verdict: [] for verdict in _VERDICTS}
    nearest = table.reindex(table["difference"].abs().sort_values(na_position="last").index)
    for row in nearest.to_dict("records"):
        difference, p = finite_or_none(row["difference"]), finite_or_none(row["p_holm"])
        if difference is None:
            groups["alone"].append(str(row["other"]))
            continue
        if p is None:
            verdict = "untested" if row["n"] == 1 else "constant"
        elif p < SIGNIFICANT:
            verdict = "better" if difference > 0 else "worse"
        else:
            verdict = "open"
        groups[verdict].append(f"{row['other']} {_difference(row, metric, seeds=seeds)}")
    sentences = [
        _VERDICTS[verdict].format(listed(others, most=MOST_NAMED))
        for verdict, others in groups.items()
        if others
    ]
    compared = int(table["p_holm"].notna().sum())
    if compared:
        unit = " in points" if metric in PERCENTAGES else ""
        correction = "" if compared == 1 else f", corrected for {compared} comparisons (Holm)"
        sentences.append(
            f"Numbers are differences of paired test scores{unit}, n = {seeds} unless given, each "
            "with its own 95 % interval; verdicts are those of paired t-tests at p < "
            f"{SIGNIFICANT}{correction}."
        )
    return sentences


def _difference(row: Mapping[Any, Any], metric: str, *, seeds: int) -> str:
    """A difference, its interval if it varies, and n where that is not the number of seeds."""
    text = score_text(float(row["difference"]), metric, sign="+")
    low, high = (finite_or_none(row[f"difference_{end}"]) for end in ("low", "high"))
    if low is not None and high is not None:
        text += f" [{score_text(low, metric, sign='+')}, {score_text(high, metric, sign='+')}]"
    elif row["n"] > 1:
        text += " on every seed"
    return text if row["n"] == seeds else f"{text} (n = {row['n']})"


def _gains_of_tau(table: pd.DataFrame, best: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """What choosing tau gained over the shortest and longest probing, seed by seed.

    Args:
        table: rows of the task.
        best: of them, those that validate best.
        order: methods; the sentence is about the first one that has several tau.
    """
    label = next((name for name in order if len(_taus(table, name)) > 1), None)
    if label is None:
        return []
    rows, chosen = table[table["label"] == label], best[best["label"] == label]
    metric, gains = str(chosen["metric"].iloc[0]), []
    for tau in (_taus(table, label)[0], _taus(table, label)[-1]):
        gain = None if (chosen["tau"] == tau).all() else _gain(chosen, rows[rows["tau"] == tau])
        if gain is not None:
            gains.append(f"{_difference(gain, metric, seeds=len(chosen))} against tau {tau}")
    taus = ", ".join(str(tau) for tau in sorted(set(chosen["tau"])))
    sentence = f"Choosing tau on validation ({taus}) changes the test score of {label} by"
    return [f"{sentence} {listed(gains)}."] if gains else []


def _gain(chosen: pd.DataFrame, fixed: pd.DataFrame) -> Json | None:
    """The chosen rows against one tau under the settings that were chosen with them."""
    keys = ["seed", "variant"]
    columns = [*keys, "final_test"]
    both = chosen[columns].merge(fixed[columns], on=keys, suffixes=("", "_fixed")).dropna()
    if both.empty:
        return None
    scores = [
        dict(zip(both["seed"].tolist(), both[column].tolist(), strict=True))
        for column in ("final_test", "final_test_fixed")
    ]
    difference, _ = paired(*scores)
    return as_columns("difference", difference) | {"n": difference.n}


def tables(table: pd.DataFrame) -> list[Table]:
    """Every table of one task.

    Args:
        table: its rows, of `Results`.
    """
    best = best_on_validation(table)
    made = [
        _methods(
            best,
            "label",
            "Methods at their best",
            "Tau and every other setting that was searched are chosen on validation.",
        )
    ]
    if shifted_splits(best):
        made.append(_in_and_out(best))
    if best["label"].nunique() > 1:
        made.append(_comparisons(best))
    if table["family"].nunique() > table["label"].nunique():
        note = (
            "Learning rates and tau chosen on validation, other settings held: compare methods "
            "whose epochs agree."
        )
        made.append(
            _methods(best_on_validation(table, by="family"), "family", "Equal budget", note)
        )
    if table["variant"].nunique() > table["family"].nunique():
        rows = best_on_validation(table, by="variant")
        made.append(_methods(rows, "variant", "Every setting", "Only tau is chosen on validation."))
    return [*made, *_every_tau(table)]


def problems_table(results: Results) -> Table | None:
    """Folders that were left out; None where all could be read."""
    if not results.problems:
        return None
    rows = tuple((text_cell(p.path.name), text_cell(p.what)) for p in results.problems)
    return Table("Left out", "Folders that could not be read completely.", ("folder", "why"), rows)


def _methods(best: pd.DataFrame, by: Level, title: str, note: str) -> Table:
    metric = str(best["metric"].iloc[0])
    summary = over_seeds(best, by=by)
    further = [
        name
        for name in map(str, summary.columns)
        if name.startswith("final_")
        and name not in ("final_train", "final_valid", "final_test")
        and not name.endswith(("_low", "_high"))
    ]
    rows = [
        (
            text_cell(row[by]),
            *(score_cell(row, name, metric) for name in ("final_test", "final_valid", *further)),
            number_cell(row["seeds"]),
            text_cell(row["tau"] or None),
            number_cell(row["candidates"]),
            number_cell(row["search_epochs"]),
        )
        for row in summary.to_dict("records")
    ]
    splits = (name.removeprefix("final_") for name in further)
    return Table(
        title,
        f"Score: {signed_name(metric)}. {_MEAN} {note} tried: settings and taus that a seed chose "
        "from; epochs: of finetuning, over all of them.",
        ("method", "test", "valid", *splits, "seeds", "tau", "tried", "epochs"),
        tuple(rows),
        marked=summary[by].tolist().index(leader(networks(best), by=by)),
    )


def _in_and_out(best: pd.DataFrame) -> Table:
    metric, splits = str(best["metric"].iloc[0]), shifted_splits(best)
    several = ("shifted",) if len(splits) > 1 else ()
    numbers = ("test", *several, "loss", *splits)
    summary = out_of_distribution(best)
    rows = [
        (
            text_cell(row["label"]),
            *(score_cell(row, name, metric) for name in numbers),
            number_cell(row["seeds"]),
        )
        for row in summary.to_dict("records")
    ]
    mean = "shifted: mean over the others; " if several else ""
    note = (
        f"Score: {signed_name(metric)}. {_MEAN} Everything is chosen on validation, which is in "
        f"distribution, as is test; {', '.join(splits)} "
        f"{'are' if several else 'is'} not. {mean}loss: "
        f"{'shifted' if several else splits[0]} minus test, seed by seed."
    )
    return Table(
        "In and out of distribution",
        note,
        ("method", *numbers, "seeds"),
        tuple(rows),
        marked=summary["label"].tolist().index(leader(networks(best))),
    )


def _comparisons(best: pd.DataFrame) -> Table:
    metric = str(best["metric"].iloc[0])
    table = comparisons(best)
    budgets = {True: "equal", False: "not equal", None: "unknown"}
    rows = [
        (
            text_cell(row["other"]),
            score_cell(row, "difference", metric),
            number_cell(row["n"]),
            *(mean_cell(row[p], None, _p_text) for p in ("p", "p_holm")),
            text_cell(budgets[row["budgets_equal"]]),
        )
        for row in table.to_dict("records")
    ]
    first = str(table["method"].iloc[0])
    note = (
        f"Test score of {first} minus that of the other, seed by seed (n shared seeds), "
        f"{'in points' if metric in PERCENTAGES else 'in units of the score'}, ± half of the 95 % "
        "interval; p of the paired t-test, then after Holm's correction for the comparisons here; "
        "neither where the difference is the same on every seed, unless it is 0, which has p = 1. "
        "budget: whether both searches had as many epochs of finetuning, to a tenth."
    )
    columns = ("other", "difference", "n", "p", "p (Holm)", "budget")
    return Table(f"{first} against the others", note, columns, tuple(rows))


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _every_tau(table: pd.DataFrame) -> list[Table]:
    metric = str(table["metric"].iloc[0])
    means = over_tau(table)
    several = means.groupby("variant")["tau"].transform("nunique") > 1
    numbers = ("energy", "distance", "cosine", "dot", "norm")
    rows = [
        (
            text_cell(row["variant"]),
            number_cell(row["tau"]),
            *(score_cell(row, name, metric) for name in ("final_test", "final_valid")),
            *(mean_cell(row[name], row[f"{name}_low"], "{:.3f}".format) for name in numbers),
            number_cell(row["seeds"]),
        )
        for row in means[several].to_dict("records")
    ]
    if not rows:
        return []
    note = f"{_MEAN} energy: mean length of p - y over training examples when finetuning starts."
    columns = ("method", "tau", "test", "valid", *numbers, "seeds")
    return [Table("Every tau", note, columns, tuple(rows))]


def markdown(
    title: str, about: Sequence[str], sections: Sequence[Section], problems: Table | None
) -> str:
    """Conclusions and tables of the report as Markdown."""
    lines = [f"# {_escaped(title)}"]
    for sentence in about:
        lines += ["", _escaped(sentence)]
    for section in sections:
        lines += ["", f"## {_escaped(section.task)}"]
        for sentence in section.conclusions:
            lines += ["", _escaped(sentence)]
        for table in section.tables:
            lines += _markdown_table(table)
    lines += _markdown_table(problems) if problems else []
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> list[str]:
    def line(cells: Sequence[str], mark: str = "") -> str:
        return f"| {' | '.join(f'{mark}{_escaped(cell)}{mark}' for cell in cells)} |"

    def row_line(number: int, row: Sequence[Cell]) -> str:
        return line([cell.text for cell in row], "**" if number == table.marked else "")

    lines = ["", f"### {_escaped(table.title)}", "", line(table.columns)]
    lines.append("|---" * len(table.columns) + "|")
    lines += [row_line(number, row) for number, row in enumerate(table.rows)]
    return [*lines, "", _escaped(table.note)]


def _escaped(text: str) -> str:
    """Text in which names of people's columns and files mean nothing to Markdown."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def csv_tables(results: Results, root: Path) -> dict[str, pd.DataFrame]:
    """File name to table: every row, and what was made of them.

    Args:
        results: of the folder.
        root: the folder, from which paths of run folders are given.
    """
    table, best = results.table, best_on_validation(results.table)
    folders = [str(Path(folder).relative_to(root)) for folder in table["folder"]]
    compared = [comparisons(rows) for _, rows in best.groupby("task", sort=False)]
    problems = [(str(p.path.relative_to(root)), p.what) for p in results.problems]
    return {
        "rows.csv": table.assign(folder=folders),
        "methods.csv": over_seeds(best),
        "equal_budget.csv": equal_budget(table),
        "settings.csv": over_seeds(best_on_validation(table, by="variant"), by="variant"),
        "shifted.csv": out_of_distribution(best),
        "comparisons.csv": pd.concat(compared, ignore_index=True) if compared else compare(best),
        "tau.csv": over_tau(table),
        "problems.csv": pd.DataFrame(problems, columns=["folder", "why"]),
    }
