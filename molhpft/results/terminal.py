"""Tables and sentences for the terminal: of runs, probes, baselines, data sets and encoders."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from molhpft.core.metrics import comparable, score_name, show, show_tau
from molhpft.domains.console import plain_console
from molhpft.domains.files import Json
from molhpft.domains.molecules.splits import OWN_SPLITS

Columns = dict[str, tuple[str, str]]

SCORES: Columns = {
    "AIE": ("energy", "aie"),
    "HP train": ("probe", "train"),
    "HP valid": ("probe", "valid"),
    "HP test": ("probe", "test"),
    "FT valid": ("final", "valid"),
    "FT test": ("final", "test"),
}
SHIFT: Columns = {
    "distance": ("shift", "distance"),
    "cosine": ("shift", "cosine"),
    "dot": ("shift", "dot"),
    "norm": ("shift", "norm"),
}
_OVERLAP = {"shared": "same molecule", "scaffolds": "same scaffold"}
# shown where a row has them
HEAD: Columns = {"head norm": ("head", "norm")}
CALIBRATION_ERROR: Columns = {"ECE test": ("ece", "test")}
LEGEND = (
    "AIE: mean length of p - y over training examples when finetuning starts. HP: the head probed "
    "for tau epochs; FT: after finetuning. distance, cosine, dot, norm: training features after "
    "finetuning against before."
)
HEAD_LEGEND = " head norm: length of the head's weights when finetuning starts."
CALIBRATION_LEGEND = " ECE: expected calibration error after finetuning."
MEASURES: dict[str, tuple[str, ...]] = {
    "p(correct), before": ("confidence", "mean", "before"),
    "p(correct), after": ("confidence", "mean", "after"),
    "||dq/dz||, before": ("direction", "norm_before"),
    "||dq/dz||, after": ("direction", "norm_after"),
    "alignment": ("direction", "alignment"),
    "head: gradient": ("direction", "head_gradient"),
    "head: change": ("direction", "head_change"),
    "eNTK change": ("ntk", "change"),
    "eNTK distance": ("ntk", "distance"),
    "step: A": ("decomposition", "A"),
    "step: K": ("decomposition", "K"),
    "step: G": ("decomposition", "G"),
    "step: K_z": ("decomposition", "K_z"),
    "step: W": ("decomposition", "W"),
    "step: error": ("decomposition", "first_order_error"),
    "drift": ("drift", "distance"),
    "bound: distance": ("bound", "distance"),
    "bound: at most": ("bound", "most"),
    "bound applies": ("bound", "applies"),
    "bound holds": ("bound", "holds"),
}
MEASURES_LEGEND = (
    "alignment: cosine between where the head asks features to go and where they went. head: "
    "length of the loss's gradient in it when finetuning starts, its relative change since. step: "
    "factors of the first step of gradient descent, A K G for log-probabilities (G: p - y, K: eNTK "
    "of logits) and K_z W G for features (K_z: their eNTK, W: the head's Jacobian), and the error "
    "of predicting the latter. drift: distance by batch-norm statistics alone."
)
PROBE_LEGEND = (
    "The head alone, probed for tau epochs{seeds}. AIE: mean length of p - y over training "
    "examples, without smoothing. Green: the head that validates best. The test split was not read."
)


def console(*, stderr: bool = False) -> Console:
    """Standard output or error: a terminal decides its width, a pipe gets one for every table."""
    stream = sys.stderr if stderr else sys.stdout
    return plain_console(stderr=stderr, width=None if stream.isatty() else 132)


def run_table(summary: Json) -> Table:
    """The table of one run."""
    rows = summary["branches"]
    members = [
        (f"member{', in the soup' * row['used']}", row)
        for branch in rows
        for row in branch.get("members", ())
    ]
    return branch_table(
        [*members, *((summary["method"], row) for row in rows)],
        title=f"{summary['task']}, {summary['encoder']}, score: {score_name(summary['metric'])}",
        metric=summary["metric"],
        chosen=len(members) + [row["tau"] for row in rows].index(summary["chosen_tau"]),
    )


def branch_table(
    rows: Sequence[tuple[str, Json]], *, title: str, metric: str, chosen: int
) -> Table:
    """A table with a line a branch; splits beyond train, valid and test stand beside FT test.

    Args:
        rows: method name and row of each branch, as `summary.json` has them.
        title: above the table.
        metric: name of the score; percent where it is a fraction.
        chosen: number of the line to mark.
    """
    further = {
        f"{stage} {split}": (group, split)
        for split in _further_splits([row for _, row in rows])
        for stage, group in (("HP", "probe"), ("FT", "final"))
    }
    head, calibration = (_present(columns, rows) for columns in (HEAD, CALIBRATION_ERROR))
    further |= calibration
    columns = {"AIE": SCORES["AIE"], **head, **SCORES, **further, **SHIFT}
    legend = LEGEND + HEAD_LEGEND * bool(head) + CALIBRATION_LEGEND * bool(calibration)
    table = _table(title, legend)
    table.add_column("method", no_wrap=True)
    table.add_column("tau", justify="right")
    for column in columns:
        # names in two lines make room for further columns; a narrow cell folds, no digit is cut
        name = column.replace(" ", "\n") if further or head else column
        table.add_column(Text(name), justify="right", overflow="fold")
    for number, (method, row) in enumerate(rows):
        cells = [
            show(row[group].get(key), metric)
            if group in ("probe", "final")
            else _number((row.get(group) or {}).get(key))
            for group, key in columns.values()
        ]
        style = "bold green" if number == chosen else ""
        table.add_row(method, show_tau(row["tau"]), *cells, style=style)
    return table


def _present(columns: Columns, rows: Sequence[tuple[str, Json]]) -> Columns:
    """Those columns of which some row has a number."""
    return {
        name: (group, key)
        for name, (group, key) in columns.items()
        if any((row.get(group) or {}).get(key) is not None for _, row in rows)
    }


def measures_table(summary: Json) -> Group | None:
    """Further measures of each branch, a column a tau; None where nothing was measured."""
    rows = summary["branches"]
    lines = {
        name: [_measure(row.get("measures"), path) for row in rows]
        for name, path in MEASURES.items()
    }
    lines = {name: cells for name, cells in lines.items() if set(cells) != {"-"}}
    if not lines:
        return None
    bounds = [(row.get("measures") or {}).get("bound") or {} for row in rows]
    beyond = dict.fromkeys(words for bound in bounds for words in bound.get("beyond", ()))
    note = MEASURES_LEGEND
    if beyond:
        note += f" Proposition 1 is not derived for: {'; '.join(beyond)}."
    table = Table(title="measures", title_justify="left")
    table.add_column("tau")
    for row in rows:
        table.add_column(show_tau(row["tau"]), justify="right")
    for name, cells in lines.items():
        table.add_row(name, *cells)
    return Group(table, Text(note, style="table.caption"))  # below a narrow table, not within it


def reading(summary: Json) -> str:
    """The table of one run in a sentence or two: the chosen branch, then what tau has changed."""
    rows, metric = summary["branches"], summary["metric"]
    row = next(row for row in rows if row["tau"] == summary["chosen_tau"])
    final = row["final"]
    several = len(rows) > 1 or "choice" in summary
    chosen = f"Validation chooses tau {row['tau']}" if several else "This run ends with"
    sentence = (
        f"{chosen}: {score_name(metric)} {show(final['valid'], metric)} on validation and "
        f"{show(final['test'], metric)} on test"
    )
    further = [f"{show(final[split], metric)} on {split}" for split in _further_splits([row])]
    if further:
        sentence += f" (in distribution), {', '.join(further)} (out of distribution)"
    if members := row.get("members"):
        used = sum(member["used"] for member in members)
        sentence += f", with a soup of {used} of {len(members)} finetuned networks"
    if len(rows) == 1:
        return f"{sentence}."
    first, last = rows[0], rows[-1]
    energies = [_number(row["energy"]["aie"]) for row in (first, last)]
    distances = [_number(row["shift"]["distance"], digits=2) for row in (first, last)]
    return (
        f"{sentence}. From tau {first['tau']} to tau {last['tau']} the energy goes from "
        f"{energies[0]} to {energies[1]} and the distance that finetuning moves features from "
        f"{distances[0]} to {distances[1]}."
    )


def probe_table(result: Json) -> Table:
    """A line for each learning rate, smoothing and tau; the best on validation is marked.

    Args:
        result: of `probe_grid`.
    """
    count, metric = len(result["seeds"]), result["metric"]
    seeds = f", mean ± standard deviation over {count} seeds" if count > 1 else ""
    title = f"{result['task']}, {result['encoder']}, score: {score_name(metric)}"
    table = _table(title, PROBE_LEGEND.format(seeds=seeds))
    for name in ("lr", "smoothing", "tau", "AIE", "HP train", "HP valid"):
        table.add_column(name, justify="right")
    best = _best(result)
    before: tuple[float, float] | None = None
    for row in result["rows"]:
        setting = _setting(row)
        if before not in (None, setting):
            table.add_section()
        names = ("", "") if setting == before else (f"{row['lr']:g}", f"{row['smoothing']:g}")
        if row["diverged"]:
            of = "" if count == 1 else f" ({row['diverged']} of {count} seeds)"
            cells = [f"diverged{of}", "", ""]
        else:
            cells = [_probe_cell(row, name, metric) for name in ("aie", "train", "valid")]
        style = "bold green" if row is best else ""
        table.add_row(*names, str(row["tau"]), *cells, style=style)
        before = setting
    return table


def probe_reading(result: Json) -> str:
    """The table of a probe in a sentence or two, and what to do with it."""
    best, metric = _best(result), result["metric"]
    diverged = _diverged_reading(result)
    if best is None:
        return diverged
    same = [r for r in result["rows"] if _setting(r) == _setting(best) and not r["diverged"]]
    sentence = (
        f"The head validates best with lr {best['lr']:g}, smoothing {best['smoothing']:g} and tau "
        f"{best['tau']}: {score_name(metric)} {show(best['valid'], metric)}."
    )
    if len(same) > 1:
        sentence += (
            f" With these settings the energy goes from {same[0]['aie']:.3f} at tau "
            f"{same[0]['tau']} to {same[-1]['aie']:.3f} at tau {same[-1]['tau']}."
        )
    settings = f"--set probe.lr={best['lr']:g} --set probe.smoothing={best['smoothing']:g}"
    return (
        f"{diverged}{sentence} Finetuning may want a head with more energy: let `molhpft run` "
        f"compare smaller tau with it ({settings})."
    )


def baseline_table(summaries: Sequence[Json]) -> Table:
    """Scores of the baselines of one task, a line each."""
    metric = summaries[0]["metric"]
    table = _table(f"{summaries[0]['task']}, baselines, score: {score_name(metric)}")
    rows = [(summary, summary["branches"][0]["final"]) for summary in summaries]
    for column in ("method", "what it is", *rows[0][1]):
        words = column in ("method", "what it is")
        table.add_column(Text(column), justify="left" if words else "right")
    for summary, final in rows:
        scores = (show(score, metric) for score in final.values())
        table.add_row(summary["method"], summary["about"], *scores)
    return table


def baseline_reading(
    summaries: Sequence[Json], left_out: Mapping[str, str], *, split: str | None = None
) -> str:
    """Which baseline is the one to beat, by which molecules, and what is left out and why.

    Args:
        summaries: of baselines of one task.
        left_out: name to reason.
        split: how molecules are divided, if there is a choice.
    """
    best = max(summaries, key=lambda s: comparable(s["branches"][0]["final"]["valid"]))
    metric = best["metric"]
    scores = best["branches"][0]["final"]
    final = {split: show(score, metric) for split, score in scores.items()}
    test = f", test {final['test']}" if "test" in final else ""
    lines = [
        f"The one to beat is {best['method']}, which validates best: {score_name(metric)} "
        f"{final['valid']}{test}."
    ]
    sizes = ", ".join(f"{n:,} {name}" for name, n in best["sizes"].items())
    lines.append(f"Molecules: {sizes}{f' (split {split})' if split else ''}.")
    sampled = {s["method"]: s["rows_per_target"] for s in summaries if s["rows_per_target"]}
    for most in sorted(set(sampled.values())):
        names = ", ".join(name for name, rows in sampled.items() if rows == most)
        lines.append(
            f"Fitted to a sample of {most:,} training molecules a target, the rarer class first: "
            f"{names}."
        )
    lines += [f"Left out: {name}, as {reason}." for name, reason in left_out.items()]
    return "\n".join(lines)


def data_tables(description: Json) -> list[Table]:
    """A data set: its numbers, then its targets, of which each may have numbers of its own."""
    numbers = _table(description["name"], show_header=False)
    for key, value in description.items():
        if key not in ("name", "sizes", "targets", "overlap"):
            numbers.add_row(key, _text(value))
    for split, size in description["sizes"].items():
        numbers.add_row(Text(f"split {split}"), _text(size))
    tables = [numbers, _rows_table("targets", description["targets"])]
    if "overlap" in description:
        renamed = [
            {_OVERLAP.get(key, key): value for key, value in row.items()}
            for row in description["overlap"]
        ]
        tables.append(_rows_table("found among the training molecules of --against", renamed))
    return tables


def encoder_table(encoders: Sequence[Json]) -> Table:
    """The encoders that a config can name."""
    table = _table(
        "", "Give weights as encoder.weights; `molhpft encoders FILE` says what a file is."
    )
    for name in ("encoder", "what it is", "options", "weights it takes"):
        table.add_column(name)
    for encoder in encoders:
        options = ", ".join(f"{k}: {v}" for k, v in encoder["options"].items())
        table.add_row(*map(Text, (encoder["name"], encoder["what"], options, encoder["files"])))
    return table


def shipped_table(shipped: Sequence[Json]) -> Table:
    """The encoders that come with this package."""
    table = _table(
        "",
        "Give the name as encoder.weights, or a model as its folder or hub:owner/name. A shipped "
        "encoder's card is <name>.md in molhpft/encoders.",
    )
    for name in ("shipped encoder", "size", "what it is"):
        table.add_column(name)
    for encoder in shipped:
        size = f"{encoder['bytes'] / 1e6:.1f} MB"
        table.add_row(*map(Text, (encoder["name"], size, encoder["what"])))
    return table


def _table(title: str, caption: str | None = None, *, show_header: bool = True) -> Table:
    # people name tasks, splits and targets: in a plain string rich takes their brackets for a style
    return Table(
        title=Text(title, style="table.title") if title else None,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        show_header=show_header,
    )


def _rows_table(title: str, rows: Sequence[Json]) -> Table:
    """A column for every name that a row has; the first one is what the row is about."""
    table = _table(title)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="left" if name == names[0] else "right")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    return table


def _further_splits(rows: Iterable[Json]) -> list[str]:
    """Splits of another distribution than that of training, in the order of the task."""
    names = dict.fromkeys(name for row in rows for name in row["final"])
    return [name for name in names if name not in OWN_SPLITS]


def _measure(measures: Json | None, path: Sequence[str]) -> str:
    value: Any = measures
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.4g}"


def _number(value: float | None, *, digits: int = 3) -> str:
    """A number as text; a file has None for one that is not finite."""
    return "-" if value is None else f"{value:.{digits}f}"


def _text(value: object) -> Text:
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    return Text("-" if value is None else str(value))


def _best(result: Json) -> Json | None:
    """The row that validates best; None where every head diverged."""
    scored = (row for row in result["rows"] if isfinite(row["valid"]))
    best: Json | None = max(scored, key=lambda row: row["valid"], default=None)
    return best


def _diverged_reading(result: Json) -> str:
    taus: dict[tuple[float, float], list[str]] = {}
    for row in result["rows"]:
        if row["diverged"]:
            taus.setdefault(_setting(row), []).append(str(row["tau"]))
    if not taus:
        return ""
    settings = [f"lr {lr:g}, smoothing {s:g} (tau {', '.join(t)})" for (lr, s), t in taus.items()]
    return (
        f"Training diverged with {'; '.join(settings)}: these rows have no numbers; try rates "
        f"below {min(lr for lr, _ in taus):g}. "
    )


def _setting(row: Json) -> tuple[float, float]:
    return row["lr"], row["smoothing"]


def _probe_cell(row: Json, name: str, metric: str) -> str:
    """A mean, and its standard deviation where there are several seeds."""
    parts = [part[name] for part in (row, row.get("std")) if part]
    return " ± ".join(f"{part:.3f}" if name == "aie" else show(part, metric) for part in parts)
