"""From a tree of run folders to the files of a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from molhpft.domains.folders import replacing
from molhpft.experiments.report import figures, measured
from molhpft.experiments.report.answer import answer
from molhpft.experiments.report.content import Section
from molhpft.experiments.report.gallery import galleries
from molhpft.experiments.report.page import html
from molhpft.experiments.report.sheets import problems_sheet, sheets
from molhpft.experiments.report.tables import csv_tables, markdown
from molhpft.experiments.results import Results, read_results
from molhpft.experiments.summaries import reported, summarise


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        page: the HTML file.
        files: Markdown and CSV tables.
        answers: task to the sentences that answer it.
        problems: sentences on folders that were left out.
        notes: sentences on what is reported and may mislead.
    """

    page: Path
    files: tuple[Path, ...]
    answers: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def write_report(root: Path, out: Path) -> Report:
    """Read every run below `root` and write a report on them.

    Nothing else is read: neither data nor weights, which may be gone or elsewhere.

    Args:
        root: folder of run folders, at any depth; nothing in it is changed.
        out: folder for report.html, report.md and the CSV tables; files of those names are
            replaced.

    Raises:
        ValueError: there is no such folder, or no finished run in it.
        OSError: `out` cannot be written to.
    """
    results = read_results(root)
    sections = [_section(results, str(task)) for task in dict.fromkeys(results.table["task"])]
    title = f"molhpft: {root.resolve().name}"
    count = len(results.table["folder"].unique())
    about = f"Finished runs: {count}; tasks: {len(sections)}; left out: {len(results.problems)}."
    problems = problems_sheet(results)
    texts = {
        "report.html": html(title, about, results.notes, sections, problems),
        "report.md": markdown(title, [about, *results.notes], sections, problems),
        **{name: t.to_csv(index=False) for name, t in csv_tables(results, root).items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(out / name) as aside:
            aside.write_text(text, encoding="utf-8")
    page, *files = (out / name for name in texts)
    return Report(
        page=page,
        files=tuple(files),
        answers={section.task: section.answer for section in sections},
        problems=tuple(f"{p.path.name}: {p.what}" for p in results.problems),
        notes=results.notes,
    )


def _section(results: Results, task: str) -> Section:
    table = results.table[results.table["task"] == task]
    best = reported(table)
    if best.empty:
        what = ("No run of this task has a validation score, so nothing can be chosen.",)
        return Section(task, what, (), (), ())
    palette = figures.colours([str(label) for label in summarise(best)["label"]])
    found = measured.variants(results, table)
    further = measured.further_sheet(found)
    panels = (
        figures.over_methods(table, palette),
        *figures.over_taus(table, palette),
        measured.curves(found),
        measured.confidence(found),
        measured.exchange(found),
        measured.direction(found),
        measured.ntk(found, dict(zip(table["variant"], table["label"], strict=True)), palette),
        measured.first_step(found),
        measured.drift(found),
        measured.bound(found),
        measured.per_target(results, table, palette),
    )
    return Section(
        task=task,
        answer=tuple(answer(table, best)),
        sheets=(*sheets(table), *([further] if further else [])),
        panels=panels,
        galleries=tuple(galleries(found)),
    )
