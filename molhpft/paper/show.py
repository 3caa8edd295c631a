"""`molhpft paper`: the list of what there is, and one figure or table of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from molhpft.config.changes import SWEEP, read_config
from molhpft.config.options import Options
from molhpft.domains.extras import require
from molhpft.domains.files import Json
from molhpft.paper import needs, paper_tables, sweep_figures
from molhpft.paper.exhibits import EXHIBITS, ILLUSTRATIONS, Exhibit, find
from molhpft.paper.pictures import Picture, write_csv
from molhpft.paper.printed import TABLES
from molhpft.paper.toy_figures import toy_picture
from molhpft.sweep.grids import run_all

PAPER = "Ren et al. (2023)"
_OWN_DATA = ("curves", "distances")
_CELL = ("column", "row", "of", "mean", "std", "seeds", "printed")


@dataclass(frozen=True)
class Shown:
    """A figure or table that was made.

    Attributes:
        title: of it.
        files: that were written.
        reading: what it shows, in words; empty for tables.
        table: of a table, for the terminal.
        rows: of a table, as plain values.
    """

    title: str
    files: Sequence[Path]
    reading: str = ""
    table: Table | None = None
    rows: Sequence[Json] = ()

    @property
    def summary(self) -> Json:
        """Everything as plain values."""
        return {
            "title": self.title,
            "files": [str(path) for path in self.files],
            "reading": self.reading,
            "rows": list(self.rows),
        }


def show(
    name: str,
    out: Path,
    *,
    stand_in: bool = False,
    config: Path | None = None,
    changes: Sequence[str] = (),
) -> Shown:
    """Make a figure or table of the paper from its committed config.

    Args:
        name: one of `EXHIBITS`.
        out: folder for the files, and for the runs behind them, which are not run twice.
        stand_in: whether to make it of what is at hand, in place of the paper's own data.
        config: a run or a sweep of your own to draw it of, for figures over tau.
        changes: "key=value" for any key of the config.

    Raises:
        FileNotFoundError: data or weights are absent; the message says what to put where.
        ValueError: no such exhibit, or a config that does not fit it.
    """
    exhibit = find(name)
    require("matplotlib", extra="report")
    raw = _config(exhibit, stand_in=stand_in, own=config, changes=changes)
    title = _title(exhibit, stand_in=stand_in, own=config)
    if exhibit.kind == "sizes":
        sizes = paper_tables.sizes(raw)
        table = paper_tables.sizes_table(sizes, title, needs.absent(raw))
        return _tabulated(paper_tables.SIZE_COLUMNS, sizes, table, out / f"{name}.csv", title)
    if config is None:
        needs.check(raw, name, has_stand_in=bool(exhibit.stand_in) and not stand_in)
        raw = needs.located(raw)
    if exhibit.kind in ("branches", "kernels", "theory"):
        return _drawn(toy_picture(name, raw, out / "records"), out, name, title)
    settings = run_all(raw, out / "runs")
    if exhibit.kind == "table":
        cells = paper_tables.cells(TABLES[name], settings, stand_in=stand_in)
        lines = [(c.column, c.row, c.of, c.mean, c.std, len(c.here), c.printed) for c in cells]
        table = paper_tables.rich_table(cells, title)
        return _tabulated(_CELL, lines, table, out / f"{name}.csv", title)
    draw = {
        "curves": sweep_figures.curves_picture,
        "distances": sweep_figures.distances_picture,
    }[exhibit.kind]
    return _drawn(draw([one for grid in settings for one in grid]), out, name, title)


def list_table() -> Table:
    """A line for each figure and table: what it shows and on what, whether it runs here."""
    table = Table(title=f"Figures and tables of {PAPER}", title_justify="left")
    table.add_column("molhpft paper")
    for column in ("shows", "the paper's data", "at hand", "--stand-in", "minutes"):
        table.add_column(column, justify="right" if column == "minutes" else "left")
    for row in rows():
        table.add_row(*(Text(str(row[key])) for key in row if key != "command"))
    table.caption = Text(
        "molhpft paper NAME --out DIR makes one: fig3, say; --stand-in of the data in that column. "
        "minutes: about, on two cores, of the stand-in where there is one. Illustrations, of "
        "which there is nothing to compute: "
        f"{', '.join(ILLUSTRATIONS)}."
    )
    table.caption_justify = "left"
    return table


def rows() -> list[Json]:
    """What `list_table` shows, and a command for each, with stand-ins for what is not at hand."""
    return [_row(exhibit) for exhibit in EXHIBITS.values()]


def _row(exhibit: Exhibit) -> Json:
    raw = read_config(exhibit.config(stand_in=False))
    count, missing = len(needs.needed(raw)), len(needs.absent(raw))
    at_hand = f"no: {missing} file{'s' * (missing > 1)}" if missing else "yes"
    if exhibit.kind == "sizes":
        at_hand = f"{count - missing} of {count} files"
    flag = " --stand-in" if missing and exhibit.stand_in else ""
    return {
        "name": exhibit.name,
        "shows": exhibit.shows,
        "data": exhibit.data,
        "at_hand": at_hand,
        "stand_in": exhibit.stand_in,
        "minutes": f"{exhibit.minutes:g}",
        "command": f"molhpft paper {exhibit.name}{flag} --out paper",
    }


def _config(
    exhibit: Exhibit, *, stand_in: bool, own: Path | None, changes: Sequence[str]
) -> Options:
    if own is None:
        if stand_in and not exhibit.stand_in:
            raise ValueError(
                f"{exhibit.name} needs no stand-in: it is made of {exhibit.data}; leave out "
                "--stand-in"
            )
        return read_config(exhibit.config(stand_in=stand_in), changes)
    if stand_in or exhibit.kind not in _OWN_DATA:
        names = [e.name for e in EXHIBITS.values() if e.kind in _OWN_DATA]
        why = "--stand-in has its own" if stand_in else f"{exhibit.name} is not drawn of one"
        raise ValueError(f"--config is for {', '.join(names)} on your data, and {why}")
    raw = read_config(own, changes)
    return raw if SWEEP in raw else {**raw, SWEEP: {"seed": [raw.get("seed", 0)]}}


def _title(exhibit: Exhibit, *, stand_in: bool, own: Path | None) -> str:
    if own is not None:
        return f"{exhibit.title} of {PAPER} on {own.stem}"
    if stand_in:
        return f"{exhibit.title} of {PAPER} on a stand-in for its data: {exhibit.stand_in}"
    return f"{exhibit.title} of {PAPER}, redrawn: {exhibit.shows}"


def _drawn(picture: Picture, out: Path, name: str, title: str) -> Shown:
    return Shown(title, picture.write(out, name, title), picture.reading)


def _tabulated(
    columns: Sequence[str],
    lines: Sequence[Sequence[object]],
    table: Table,
    path: Path,
    title: str,
) -> Shown:
    write_csv(path, columns, lines)
    plain = [dict(zip(columns, line, strict=True)) for line in lines]
    return Shown(title, [path], table=table, rows=plain)
