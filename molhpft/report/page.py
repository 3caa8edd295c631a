"""A report from a tree of run folders: an HTML page that opens offline, Markdown and CSV tables.

Styles, scripts and figures are inside the page.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from molhpft.domains.extras import require
from molhpft.domains.files import Json, replacing
from molhpft.domains.molecules.draw import molecule_svg
from molhpft.report.content import Panel, Picture, Section, Table
from molhpft.report.figures import Variant, measures_table, task_figures, task_variants
from molhpft.report.text import conclusions, csv_tables, markdown, problems_table, tables
from molhpft.results.read import NO_MOLECULES, read_standouts
from molhpft.results.statistics import best_on_validation
from molhpft.results.table import Results, read_results
from molhpft.run.standouts import Standout

GALLERIES = {"moved": "Features that moved most", "energy": "Energy that stayed highest"}


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        page: the HTML file.
        files: Markdown and CSV tables.
        conclusions: task to sentences on it.
        problems: sentences on folders that were left out.
        notes: sentences on what in the report may mislead.
    """

    page: Path
    files: tuple[Path, ...]
    conclusions: Mapping[str, tuple[str, ...]]
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
        MissingExtraError: plotly or jinja2 is not installed.
    """
    for module in ("jinja2", "plotly"):
        require(module, extra="report")
    results = read_results(root)
    sections = [_section(results, str(task)) for task in dict.fromkeys(results.table["task"])]
    title = f"molhpft: {root.resolve().name}"
    count = len(results.table["folder"].unique())
    about = f"Finished runs: {count}; tasks: {len(sections)}; left out: {len(results.problems)}."
    problems = problems_table(results)
    texts = {
        "report.html": _html(
            title=title, about=about, notes=results.notes, sections=sections, problems=problems
        ),
        "report.md": markdown(title, [about, *results.notes], sections, problems),
        **{name: t.to_csv(index=False) for name, t in csv_tables(results, root).items()},
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with replacing(out / name) as aside:
            aside.write_text(text, encoding="utf-8")
    page, *others = (out / name for name in texts)
    return Report(
        page=page,
        files=tuple(others),
        conclusions={section.task: section.conclusions for section in sections},
        problems=tuple(f"{p.path.name}: {p.what}" for p in results.problems),
        notes=results.notes,
    )


def _section(results: Results, task: str) -> Section:
    table = results.table[results.table["task"] == task]
    best = best_on_validation(table)
    if best.empty:
        sentence = "No run of this task has a validation score, so nothing can be chosen."
        return Section(task, (sentence,))
    variants = task_variants(results, table)
    measures = measures_table(variants)
    return Section(
        task=task,
        conclusions=tuple(conclusions(table, best)),
        tables=(*tables(table), *([measures] if measures else [])),
        panels=(*task_figures(results, table, variants), *galleries(variants)),
    )


def galleries(variants: Sequence[Variant]) -> list[Panel]:
    """Molecules that stand out in two ways, of the first run that stored its molecules.

    Args:
        variants: of one task, that which validates best first.
    """
    reasons: list[str] = []
    for name, runs in variants:
        for run in runs:
            try:
                standouts = read_standouts(run)
            except (ValueError, OSError) as error:
                reasons.append(f"{run.path.name}: {error}")
                continue
            seed, tau = run.summary["seed"], run.summary["chosen_tau"]
            note = (
                f"Training molecules of {name}, seed {seed}{'' if tau is None else f', tau {tau}'}."
            )
            return [
                Panel(GALLERIES[kind], note, pictures=tuple(map(_picture, molecules)))
                for kind, molecules in standouts.items()
            ]
    # a run that stored molecules and could not be shown says more than one that stored none
    reason = min(reasons, key=lambda text: NO_MOLECULES in text)
    return [Panel(title, f"No molecules to show: {reason}.") for title in GALLERIES.values()]


def _picture(molecule: Standout) -> Picture:
    moved, energy = ("-" if x is None else f"{x:.2f}" for x in (molecule.moved, molecule.energy))
    lines = [f"moved {moved}, energy {energy}"]
    if molecule.label is not None and molecule.predicted is not None:
        lines.append(
            f"{molecule.target}: label {molecule.label:g}, predicted {molecule.predicted:.2f}"
        )
    try:
        svg = molecule_svg(molecule.smiles)
    except ValueError:
        svg, lines = "", [*lines, "RDKit cannot draw it"]
    return Picture(svg, molecule.smiles, tuple(lines))


def _html(
    *,
    title: str,
    about: str,
    notes: Sequence[str],
    sections: Sequence[Section],
    problems: Table | None,
) -> str:
    jinja2 = require("jinja2", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("molhpft", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures: list[Json] = []

    def place(figure: Json) -> str:
        """Add a figure to the script's; its number becomes the id of its place."""
        figures.append(figure)
        return f"figure-{len(figures) - 1}"

    # figures are numbered while the body is rendered, so their data come after it
    body = environment.get_template("page.body.j2").render(
        title=title, about=about, notes=notes, sections=sections, problems=problems, place=place
    )
    page: str = environment.get_template("page.html.j2").render(
        title=title,
        body=body,
        css=_source("page.css"),
        script=_source("page.js"),
        plotly=require("plotly.offline", extra="report").get_plotlyjs(),
        figures=_inside_script(figures),
    )
    return page


def _source(name: str) -> str:
    return files("molhpft.report").joinpath(name).read_text(encoding="utf-8")


def _inside_script(content: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
