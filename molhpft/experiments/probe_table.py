"""What probing found, as a table and in words."""

from math import isfinite

from rich.table import Table
from rich.text import Text

from molhpft.experiments.folder import Json
from molhpft.experiments.tables import score_name, show

LEGEND = (
    "The head alone, probed for tau epochs{seeds}. AIE: mean length of p - y over training "
    "examples, without smoothing. Green: the head that validates best. The test split was not read."
)


def probe_table(found: Json) -> Table:
    """A line for each learning rate, smoothing and tau; the best on validation is marked.

    Args:
        found: what `probing` gives.
    """
    count = len(found["seeds"])
    seeds = f", mean ± standard deviation over {count} seeds" if count > 1 else ""
    title = f"{found['task']}, {found['encoder']}, score: {score_name(found['metric'])}"
    table = Table(
        title=Text(title, style="table.title"),
        caption=LEGEND.format(seeds=seeds),
        title_justify="left",
        caption_justify="left",
    )
    for name in ("lr", "smoothing", "tau", "AIE", "HP train", "HP valid"):
        table.add_column(name, justify="right")
    best = _best(found)
    before: tuple[float, float] | None = None
    for row in found["rows"]:
        group = (row["lr"], row["smoothing"])
        if before not in (None, group):
            table.add_section()
        names = ("", "") if group == before else (f"{row['lr']:g}", f"{row['smoothing']:g}")
        cells = (
            [_lost(row, count), "", ""]
            if row["diverged"]
            else [_cell(row, name, found["metric"]) for name in ("aie", "train", "valid")]
        )
        style = "bold green" if row is best else ""
        table.add_row(*names, str(row["tau"]), *cells, style=style)
        before = group
    return table


def probe_reading(found: Json) -> str:
    """The table in a sentence or two, and what to do with it."""
    best, metric = _best(found), found["metric"]
    diverged = _diverged_reading(found)
    if best is None:
        return diverged
    along = [r for r in found["rows"] if _setting(r) == _setting(best) and not r["diverged"]]
    sentence = (
        f"The head validates best with lr {best['lr']:g}, smoothing {best['smoothing']:g} and tau "
        f"{best['tau']}: {score_name(metric)} {show(best['valid'], metric)}."
    )
    if len(along) > 1:
        sentence += (
            f" With these settings the energy goes from {along[0]['aie']:.3f} at tau "
            f"{along[0]['tau']} to {along[-1]['aie']:.3f} at tau {along[-1]['tau']}."
        )
    settings = f"--set probe.lr={best['lr']:g} --set probe.smoothing={best['smoothing']:g}"
    return diverged + (
        f"{sentence} Finetuning may want a head with more energy: let `molhpft run` compare "
        f"smaller tau with it ({settings})."
    )


def _best(found: Json) -> Json | None:
    """The row that validates best; None where every head diverged."""
    scored = (row for row in found["rows"] if isfinite(row["valid"]))
    best: Json | None = max(scored, key=lambda row: row["valid"], default=None)
    return best


def _lost(row: Json, seeds: int) -> str:
    return "diverged" if seeds == 1 else f"diverged ({row['diverged']} of {seeds} seeds)"


def _diverged_reading(found: Json) -> str:
    lost: dict[tuple[float, float], list[str]] = {}
    for row in found["rows"]:
        if row["diverged"]:
            lost.setdefault(_setting(row), []).append(str(row["tau"]))
    if not lost:
        return ""
    named = [f"lr {lr:g}, smoothing {s:g} (tau {', '.join(t)})" for (lr, s), t in lost.items()]
    rates = {lr for lr, _ in lost}
    return (
        f"Training diverged with {'; '.join(named)}: these rows have no numbers; try rates below "
        f"{min(rates):g}. "
    )


def _setting(row: Json) -> tuple[float, float]:
    return row["lr"], row["smoothing"]


def _cell(row: Json, name: str, metric: str) -> str:
    def text(value: float) -> str:
        return f"{value:.3f}" if name == "aie" else show(value, metric)

    return " ± ".join(text(part[name]) for part in (row, row.get("spread")) if part)
