"""The report as one HTML file that opens offline: styles, scripts and figures are inside it."""

import json
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from molhpft.experiments.folder import Json
from molhpft.experiments.report.content import Section, Sheet


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
        loader=PackageLoader("molhpft", "experiments/report"),
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
    return files("molhpft.experiments.report").joinpath(name).read_text(encoding="utf-8")


def _inside_script(content: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
