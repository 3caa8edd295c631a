"""What probing found, as a table and in words."""

from rich.table import Table
from rich.text import Text

from molhpft.core.measured import comparable
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
        cells = [_cell(row, name, found["metric"]) for name in ("aie", "train", "valid")]
        style = "bold green" if row is best else ""
        table.add_row(*names, str(row["tau"]), *cells, style=style)
        before = group
    return table


def probe_reading(found: Json) -> str:
    """The table in a sentence or two, and what to do with it."""
    best, metric = _best(found), found["metric"]
    along = [r for r in found["rows"] if _setting(r) == _setting(best)]
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
    return (
        f"{sentence} Finetuning may want a head with more energy: let `molhpft run` compare "
        f"smaller tau with it ({settings})."
    )


def _best(found: Json) -> Json:
    best: Json = max(found["rows"], key=lambda row: comparable(row["valid"]))
    return best


def _setting(row: Json) -> tuple[float, float]:
    return row["lr"], row["smoothing"]


def _cell(row: Json, name: str, metric: str) -> str:
    def text(value: float) -> str:
        return f"{value:.3f}" if name == "aie" else show(value, metric)

    return " ± ".join(text(part[name]) for part in (row, row.get("spread")) if part)
