"""A sweep's trials as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from molhpft.experiments.folder import Json
from molhpft.experiments.sweep import described, told
from molhpft.experiments.tables import score_name, show


def sweep_table(rows: Sequence[Json]) -> Table:
    """A line a trial: what it was run with, the tau that validation chose, and its scores.

    Args:
        rows: those of `sweep`.
    """
    scored = {f"{row['task']}, {score_name(row['metric'])}" for row in rows if "task" in row}
    title = Text("; ".join(sorted(scored)) or "sweep")
    table = Table(title=title, title_justify="left")
    keys = list(dict.fromkeys(key for row in rows for key in row["settings"]))
    for key in keys:
        table.add_column(Text(key), overflow="fold")
    for column in ("tau", "valid", "test", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        settings = (Text(told(row["settings"].get(key, ""))) for key in keys)
        table.add_row(*settings, *_cells(row), style="red" if row["status"] == "failed" else "")
    return table


def sweep_reading(rows: Sequence[Json]) -> str:
    """How many trials are done, and what each of the others failed of."""
    failed = [row for row in rows if row["status"] == "failed"]
    counts = f"{len(rows) - len(failed)} of {len(rows)} trials done"
    if not failed:
        return f"{counts}."
    told = [f"  {described(row['settings'])}: {row['error']}" for row in failed]
    return "\n".join([f"{counts}; failed (--retry attempts them again):", *told])


def _cells(row: Json) -> list[str]:
    if row["status"] == "failed":
        return ["failed", "", "", f"{row['seconds']:.0f}"]
    scores = [show(row[split], row["metric"]) for split in ("valid", "test")]
    return [str(row["tau"]), *scores, f"{row['seconds']:.0f}"]
