"""Tables of the paper: its rows in its order, what came out here beside what it printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from rich.table import Table
from rich.text import Text

from molhpft.config.build import build_recipes, build_task
from molhpft.config.options import Options
from molhpft.config.schema import parse_config
from molhpft.core.metrics import PERCENTAGES, signed_name
from molhpft.domains.files import Json
from molhpft.paper.needs import absent, described, located
from molhpft.paper.printed import SIZES, PrintedTable, Quantity
from molhpft.sweep.grids import Setting

NOT_AT_HAND = "not at hand"
SIZE_COLUMNS = ("data set", "train, printed", "test, printed", "classes, printed", "here")

_SCORES = ("hp_train", "ft_valid")  # the paper prints them times 100, ROC-AUC too


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        column: of the paper's table.
        row: of the paper's table.
        of: task and weights that it was computed on.
        score: name of their score.
        here: one a seed, in the paper's unit.
        printed: the paper's number; None where it is not known to us.
    """

    column: str
    row: str
    of: str
    score: str
    here: tuple[float, ...]
    printed: float | None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.here)

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds; None for one seed."""
        return stdev(self.here) if len(self.here) > 1 else None

    @property
    def text(self) -> str:
        """Mean and standard deviation."""
        digits = 2 if max(self.here) > 10 else 3 if max(self.here) > 1 else 4
        std = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{std}"


def cells(table: PrintedTable, grids: Sequence[Sequence[Setting]], *, stand_in: bool) -> list[Cell]:
    """Every number of a table, column by column.

    Args:
        table: the paper's.
        grids: settings of each column.
        stand_in: whether the columns are those of `stands_for`.

    Raises:
        ValueError: the sweep has not as many grids as the columns need.
    """
    names = table.stands_for if stand_in else tuple(table.columns)
    if len(grids) != table.grids * len(names):
        raise ValueError(
            f"the sweep should have {table.grids} grids for each of {', '.join(names)}, it has "
            f"{len(grids)}"
        )
    columns = [
        [setting for grid in grids[k : k + table.grids] for setting in grid]
        for k in range(0, len(grids), table.grids)
    ]
    return [
        Cell(
            column=name,
            row=row.name,
            of=trained_on(settings[row.setting]),
            score=_score_with_unit(settings[row.setting].metric),
            here=tuple(_value(summary, row.quantity) for summary in settings[row.setting].seeds),
            printed=table.columns[name][number],
        )
        for name, settings in zip(names, columns, strict=True)
        for number, row in enumerate(table.rows)
    ]


def trained_on(setting: Setting) -> str:
    """Task and weights of a setting in a few words: "mnist from resnet20_cifar10"."""
    summary = setting.seeds[0]
    random = summary["weights_digest"] is None
    start = f"{summary['encoder']}, random" if random else Path(summary["weights"]).stem
    return f"{summary['task']} from {start}"


def _value(summary: Json, quantity: Quantity) -> float:
    """What a row asks of a run: of the branch that validation chose, or of its longest probe."""
    branches = summary["branches"]
    (chosen,) = [branch for branch in branches if branch["tau"] == summary["chosen_tau"]]
    longest = max(branches, key=lambda branch: int(branch["tau"]))
    value: float = {
        "hp_train": longest["probe"]["train"],
        "ft_valid": chosen["final"]["valid"],
        "1 - cosine": 1 - chosen["shift"]["cosine"],
        "distance": chosen["shift"]["distance"],
    }[quantity]
    return 100 * value if quantity in _SCORES else value


def _score_with_unit(metric: str) -> str:
    name = signed_name(metric)
    return f"{name} (%)" if metric in PERCENTAGES and "%" not in name else name


def rich_table(cells: Sequence[Cell], title: str) -> Table:
    """A line a row of the paper, two columns for each of its columns: here, and as printed."""
    columns = {cell.column: f"{cell.of},\n{cell.score}" for cell in cells}
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    seeds = " or ".join(str(count) for count in sorted({len(cell.here) for cell in cells}))
    table.caption = Text(
        f"here: mean ± standard deviation over {seeds} seeds; in brackets what the paper printed"
    )
    table.add_column("row")
    for name, of in columns.items():
        table.add_column(Text(f"{of}\n(printed: {name})"), justify="right")
    rows = dict.fromkeys(cell.row for cell in cells)
    texts = {(cell.row, cell.column): f"{cell.text}{_printed(cell)}" for cell in cells}
    for row in rows:
        table.add_row(Text(row), *(Text(texts[row, column]) for column in columns))
    return table


def _printed(cell: Cell) -> str:
    return "" if cell.printed is None else f" ({cell.printed:g})"


def sizes(raw: Options) -> list[tuple[str, int, int, int | None, str]]:
    """Table 4: name, the paper's examples to train and to test on and its classes, and ours.

    Args:
        raw: `sizes`, a task for each data set by the paper's name for it.

    Returns:
        a row of `SIZE_COLUMNS` a data set; ours is `NOT_AT_HAND` where it lies nowhere here: to
        count its examples nothing is fetched.
    """
    return [(name, *SIZES[name], _size(raw["sizes"][name])) for name in SIZES]


def _size(task: Options) -> str:
    if absent(task):
        return NOT_AT_HAND
    config = parse_config(located({"task": task, "method": "scratch"}))
    built = build_task(config, build_recipes(config)[0])
    counts = " + ".join(f"{len(rows):,} {split}" for split, rows in built.splits.items())
    return f"{counts}, {built.outputs} outputs"


def sizes_table(
    rows: Sequence[tuple[str, int, int, int | None, str]], title: str, missing: Sequence[str]
) -> Table:
    """A line a data set, and below them where those of `missing` belong and are published."""
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    if missing:
        table.caption = Text(f"{NOT_AT_HAND}, and looked for {described(missing)}")
    for column in SIZE_COLUMNS:
        table.add_column(column, justify="right" if column.endswith("printed") else "left")
    for name, train, test, classes, ours in rows:
        table.add_row(
            name, f"{train:,}", f"{test:,}", "" if classes is None else str(classes), Text(ours)
        )
    return table
