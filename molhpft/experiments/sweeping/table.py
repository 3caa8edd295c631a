"""A sweep's trials, and what they say over seeds, as tables for the terminal."""

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev

from rich.table import Table
from rich.text import Text

from molhpft.experiments.folder import Json
from molhpft.experiments.sweep import described, told
from molhpft.experiments.tables import score_name, show

_SCORED = ("valid", "test")


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


def seeds_table(rows: Sequence[Json]) -> Table:
    """A line for each setting: mean and unbiased standard deviation over seeds.

    It is what OGB's leaderboards ask for: scores, number of seeds, parameters, and in the last
    columns the mean time of a trial and what it ran on.

    Args:
        rows: those of `sweep`.
    """
    groups: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done":
            apart = {key: told(value) for key, value in row["settings"].items() if key != "seed"}
            groups[json.dumps(apart)].append(row)
    table = Table(title="over seeds: mean ± standard deviation", title_justify="left")
    keys = list(dict.fromkeys(key for settings in groups for key in json.loads(settings)))
    for key in keys:
        table.add_column(Text(key), overflow="fold")
    for column in ("seeds", "tau", "valid", "test", "parameters", "seconds", "hardware"):
        table.add_column(column, justify="left" if column == "hardware" else "right")
    for settings, group in groups.items():
        named = json.loads(settings)
        table.add_row(*(Text(named.get(key, "")) for key in keys), *_over_seeds(group))
    return table


def _over_seeds(group: Sequence[Json]) -> list[str]:
    scores = [_spread([row[split] for row in group], group[0]["metric"]) for split in _SCORED]
    return [
        str(len(group)),
        ", ".join(dict.fromkeys(str(row["tau"]) for row in group)),
        *scores,
        f"{group[0]['parameters']:,}",
        f"{mean(row['seconds'] for row in group):.0f}",
        ", ".join(dict.fromkeys(str(row["hardware"]) for row in group)),
    ]


def _spread(values: Sequence[float], metric: str) -> str:
    known = [show(mean(values), metric), *([show(stdev(values), metric)] if values[1:] else [])]
    return " ± ".join(known)


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
    scores = [show(row[split], row["metric"]) for split in _SCORED]
    return [str(row["tau"]), *scores, f"{row['seconds']:.0f}"]
