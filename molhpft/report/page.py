"""From a tree of run folders to the files of a report.

The report as one HTML file that opens offline: styles, scripts and figures are inside it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from molhpft.domains.files import Json, replacing
from molhpft.report import figures, measure_figures
from molhpft.report.content import Section, Sheet
from molhpft.report.molecules import galleries
from molhpft.report.text import answer, csv_tables, markdown, problems_sheet, sheets
from molhpft.results.statistics import reported, summarise
from molhpft.results.table import Results, read_results


def html(
    title: str,
    about: str,
    notes: Sequence[str],
    sections: Sequence[Section],
    problems: Sheet | None,
) -> str:
    """The whole page.

    Args:
        title: of the page.
        about: one sentence on what it was made from.
        notes: sentences on what may mislead in it.
        sections: one a task.
        problems: folders that were left out.
    """
    environment = Environment(
        loader=PackageLoader("molhpft", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures: list[Json] = []

    def place(figure: Json) -> str:
        """Keep a figure for the script; its number becomes the id of its place."""
        figures.append(figure)
        return f"figure-{len(figures) - 1}"

    # figures are numbered while the body is rendered, so their data come after it
    body = environment.get_template("page.body.j2").render(
        title=title, about=about, notes=notes, sections=sections, problems=problems, place=place
    )
    return environment.get_template("page.html.j2").render(
        title=title,
        body=body,
        css=_source("page.css"),
        script=_source("page.js"),
        plotly=get_plotlyjs(),
        figures=_inside_script(figures),
    )


def _source(name: str) -> str:
    return files("molhpft.report").joinpath(name).read_text(encoding="utf-8")


def _inside_script(content: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


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
    found = measure_figures.variants(results, table)
    further = measure_figures.further_sheet(found)
    panels = (
        figures.over_methods(table, palette),
        *figures.over_taus(table, palette),
        measure_figures.curves(found),
        measure_figures.confidence(found),
        measure_figures.exchange(found),
        measure_figures.direction(found),
        measure_figures.ntk(
            found, dict(zip(table["variant"], table["label"], strict=True)), palette
        ),
        measure_figures.first_step(found),
        measure_figures.drift(found),
        measure_figures.bound(found),
        measure_figures.per_target(results, table, palette),
    )
    return Section(
        task=task,
        answer=tuple(answer(table, best)),
        sheets=(*sheets(table), *([further] if further else [])),
        panels=panels,
        galleries=tuple(galleries(found)),
    )
