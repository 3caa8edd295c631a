"""The report as Markdown, and its numbers as CSV for whoever goes on with them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from molhpft.experiments.report.answer import comparisons
from molhpft.experiments.report.content import Section, Sheet
from molhpft.experiments.results import Results
from molhpft.experiments.summaries import compare, equal_budget, over_tau, reported, summarise


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
    for number, row in enumerate(sheet.rows):
        marks = "**" if number == sheet.marked else ""
        cells = (f"{marks}{_escaped(cell.text)}{marks}" for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", _escaped(sheet.note)]


def _escaped(text: str) -> str:
    """Text in which names of people's columns and files mean nothing to Markdown."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
