"""Advice for the terminal: what the probe showed, then what to do and why."""

from rich.table import Table
from rich.text import Text

from molhpft.experiments.folder import Json
from molhpft.experiments.tables import score_name, show

LEGEND = (
    "The head alone, probed for tau epochs. AIE: mean length of p - y over training examples. "
    "Nothing was finetuned, and the test split was not read."
)
_RANDOM = "none (random)"


def trail_table(found: Json) -> Table:
    """Energy and scores along the probe.

    Args:
        found: what `advise` gives.
    """
    metric = found["metric"]
    table = Table(
        title=Text(
            f"{found['task']}, {found['encoder']}, score: {score_name(metric)}",
            style="table.title",
        ),
        caption=LEGEND,
        title_justify="left",
        caption_justify="left",
        min_width=64,
    )
    for name in ("tau", "AIE", "HP train", "HP valid"):
        table.add_column(name, justify="right")
    for row in found["probe"]:
        cells = [f"{row['aie']:.3f}", show(row["train"], metric), show(row["valid"], metric)]
        table.add_row(str(row["tau"]), *cells)
    return table


def advice_table(found: Json) -> Table:
    """A line for each piece of advice; those that change the config stand out.

    Args:
        found: what `advise` gives.
    """
    table = Table(title="Advice", title_justify="left", show_lines=True)
    table.add_column("about", no_wrap=True)
    table.add_column("advice", ratio=2)
    table.add_column("because", ratio=3)
    for line in found["advice"]:
        style = "bold green" if line["changes"] else ""
        cells = (line["topic"], _sentence(line["advice"]), _sentence(line["reason"]))
        table.add_row(*(Text(cell, style=style) for cell in cells[:2]), Text(cells[2]))
    return table


def advice_reading(found: Json) -> str:
    """What to add to `molhpft run`, and what the advice cannot know.

    Args:
        found: what `advise` gives.
    """
    lines = [
        f"  --set {change!r}  ({line['topic']})"
        for line in found["advice"]
        for change in line["changes"]
    ]
    said = "\n".join(["Changes to compare on validation, one at a time:", *lines])
    if not found["expects"]:
        said += (
            "\nDo you expect finetuning to change the features strongly (pretraining has little to "
            "do with the task), mildly (they fit, but not exactly) or hardly at all (they fit as "
            "they are, or labels are few)? --expect strong, mild or tiny sharpens this."
        )
    if not lines:
        said = "Nothing in this config calls for a change."
    if found["weights"] == _RANDOM:
        said += "\nThe encoder has random weights: there are no pretrained features to protect."
    if found["molecules"]:
        said += (
            f"\nMorgan fingerprints with logistic regression, fitted on {found['molecules']:,} "
            f"molecules: {score_name(found['metric'])} {show(found['morgan'], found['metric'])} "
            "on validation."
        )
    return said


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
