"""Figures of one task: what each shows, and how to read it, or a sentence why there is none."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import pandas as pd

from molhpft.config.measures import STEP_FACTORS
from molhpft.core.metrics import PERCENTAGES, score_name
from molhpft.domains.files import Json, listed
from molhpft.report.content import (
    Cell,
    Panel,
    Table,
    finite_or_none,
    in_points,
    mean_cell,
    text_cell,
)
from molhpft.report.plots import (
    COLOURS,
    Key,
    against_tau,
    by_name,
    colours,
    heatmap,
    histogram,
    mean_line,
    method_lines,
    over_epochs,
    points,
    reach,
    scatter,
)
from molhpft.results.read import Run
from molhpft.results.statistics import best_on_validation, mean_interval, over_seeds, over_tau
from molhpft.results.table import Results
from molhpft.results.terminal import MEASURES, MEASURES_LEGEND

GREY = "#8a94a3"
DISTANCES = {
    "distance": "distance ‖z_T - z_0‖",
    "dot": "dot product z_T · z_0",
    "cosine": "cosine of z_T and z_0",
    "norm": "norm ‖z_T‖",
}
KERNELS = {"ntk_change": "change since the start", "ntk_step": "change since the epoch before"}
MOST_TARGETS = 40

Variant = tuple[str, list[Run]]


def task_figures(
    results: Results, table: pd.DataFrame, variants: Sequence[Variant]
) -> tuple[Panel, ...]:
    """Every panel of figures of one task, in the order of the page.

    Args:
        results: of the whole folder.
        table: rows of the task.
        variants: of the task.
    """
    palette = colours([str(label) for label in over_seeds(best_on_validation(table))["label"]])
    labels = dict(zip(table["variant"], table["label"], strict=True))
    return (
        over_methods(table, palette),
        *over_taus(table, palette),
        training_curves(variants),
        confidence(variants),
        exchange(variants),
        direction(variants),
        ntk(variants, labels, palette),
        first_step(variants),
        drift(variants),
        bound(variants),
        per_target(results, table, palette),
    )


def task_variants(results: Results, table: pd.DataFrame) -> list[Variant]:
    """Runs of every variant of one task, the variant that validates best first."""
    names = over_seeds(best_on_validation(table, by="variant"), by="variant")["variant"]
    return [(str(name), results.runs_of(table[table["variant"] == name])) for name in names]


def over_methods(table: pd.DataFrame, palette: Mapping[str, str]) -> Panel:
    """Test and validation score of every method at its best, with intervals."""
    summary = over_seeds(best_on_validation(table))
    metric = str(summary["metric"].iloc[0])
    rows = summary.to_dict("records")[::-1]
    names = [str(row["label"]) for row in rows]
    traces = [
        scatter(
            [points(row[f"final_{split}"], metric) for row in rows],
            names,
            # one colour: a bar cannot take those of the markers
            error_x={**reach(rows, f"final_{split}", metric), "color": GREY},
            mode="markers",
            name=split,
            marker={
                "color": [palette[name] for name in names],
                "size": 11,
                "symbol": "circle" if split == "test" else "circle-open",
            },
        )
        for split in ("valid", "test")
    ]
    made = by_name(traces, x=score_name(metric), height=130 + 34 * len(rows))
    note = "Test (filled) and validation score (open) at the setting and tau that validate best."
    return Panel("Methods at their best", note, (made,))


def over_taus(table: pd.DataFrame, palette: Mapping[str, str]) -> list[Panel]:
    """Score, energy and the four distances against tau, for each method's best variant."""
    means = best_variants(table)
    titles = ("Score against tau", "Energy against tau", "How far features move")
    if means.empty:
        absent = "No method here was run at more than one tau; give method.tau a list."
        return [Panel(title, absent) for title in titles]
    metric = str(table["metric"].iloc[0])
    rows_of = {str(n): rows.to_dict("records") for n, rows in means.groupby("label", sort=False)}
    taus = sorted({int(tau) for tau in means["tau"]})

    def lines(key: str) -> list[Json]:
        return [mean_line(rows, key, name, palette[name]) for name, rows in rows_of.items()]

    scores = [
        mean_line(rows, f"final_{split}", name, palette[name], metric=metric, split=split)
        for name, rows in rows_of.items()
        for split in ("test", "valid")
    ]
    figures = (
        [against_tau(scores, taus, y=score_name(metric), height=360)],
        [against_tau(lines("energy"), taus, y="energy")],
        [against_tau(lines(key), taus, y=title, height=260) for key, title in DISTANCES.items()],
    )
    notes = (
        "Mean over seeds after finetuning with 95 % intervals. Solid: test, dotted: validation.",
        "Mean length of p - y over training examples when finetuning starts; probing longer leaves "
        "less of it.",
        "Training features after finetuning (z_T) against before (z_0), by tau.",
    )
    return [Panel(*parts) for parts in zip(titles, notes, map(tuple, figures), strict=True)]


def best_variants(table: pd.DataFrame) -> pd.DataFrame:
    """Means over tau of each method's best variant on validation, where it has several tau."""
    means = over_tau(table)
    means = means[means.groupby("variant")["tau"].transform("nunique") > 1]
    if means.empty:
        return means
    peaks = means.groupby(["label", "variant"], sort=False)["final_valid"].max().reset_index()
    best = peaks.loc[peaks.groupby("label", sort=False)["final_valid"].idxmax()]
    return means[means["variant"].isin(best["variant"])]


def training_curves(variants: Sequence[Variant]) -> Panel:
    """Loss and validation score by epoch of finetuning, of the best variant with several tau."""
    title = "Training curves"

    def has_grid(variant: Variant) -> bool:
        return any(len(run.summary["branches"]) > 1 for run in variant[1])

    # a grid of tau has more to show than a single line
    for name, runs in sorted(variants, key=lambda variant: not has_grid(variant)):
        losses = _by_epoch(runs, "loss")
        if losses:
            metric = str(runs[0].summary["metric"])
            figures = [over_epochs(losses, y="training loss")]
            note = f"Finetuning of {name}, one line per tau, mean over {_seeds(runs)}."
            scores = {k: in_points(v, metric) for k, v in _by_epoch(runs, "valid").items()}
            if scores:
                figures.append(over_epochs(scores, y=f"validation {score_name(metric)}"))
            else:
                note += " No validation score by epoch: finetune.keep is last."
            return Panel(title, note, tuple(figures))
    return Panel(title, "No run here has finetuned.")


def confidence(variants: Sequence[Variant]) -> Panel:
    """Histograms of p(correct) over training labels, before and after finetuning."""
    title = "p(correct)"
    for name, runs in variants:
        histograms = {when: _histogram(runs, when) for when in ("before", "after")}
        if all(histograms.values()):
            figures = (
                histogram(values, x=f"p(correct), {when} finetuning", y="fraction of labels")
                for when, values in histograms.items()
            )
            note = (
                f"Fraction of training labels by the probability that {name} gives to the "
                f"correct label, one line per tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, tuple(figures))
    return Panel(title, _not_measured("confidence"))


def exchange(variants: Sequence[Variant]) -> Panel:
    """Score of every backbone under every other's head."""
    title = "Heads and backbones exchanged"
    for name, runs in variants:
        measured = [
            run for run in runs if _measured(run.summary, "exchange").keys() >= {"train", "valid"}
        ]
        taus = _branch_taus(measured[0]) if measured else []
        same = [run for run in measured if _branch_taus(run) == taus]
        if len(taus) > 1:
            figures = (
                heatmap(
                    _mean_matrix(same, split),
                    taus,
                    x=f"backbone of tau ({split})",
                    y="head of tau",
                    digits=1 if same[0].summary["metric"] in PERCENTAGES else 3,
                )
                for split in ("train", "valid")
            )
            note = (
                f"{name}: score of the backbone of one tau under the head of another, without "
                f"retuning, mean over {_seeds(same)}. The diagonal shows the networks as trained."
            )
            return Panel(title, note, tuple(figures))
    return Panel(title, _not_measured("exchange"))


def direction(variants: Sequence[Variant]) -> Panel:
    """Norm of the direction term along finetuning, from its start (Figure 2 of the paper)."""
    title = "Direction term"
    for name, runs in variants:
        norms = _by_epoch(runs, "direction")
        if norms:
            start = _by_tau(runs, "direction", "norm_before")
            norms |= {(tau, 0): mean(values) for tau, values in start.items()}
            note = (
                f"{name}: mean norm of the gradient of the logits with respect to the features, "
                f"one line per tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, (over_epochs(dict(sorted(norms.items())), y="‖∂q/∂z‖"),))
    return Panel(title, _not_measured("direction"))


def ntk(
    variants: Sequence[Variant], labels: Mapping[str, str], palette: Mapping[str, str]
) -> Panel:
    """Change of the empirical neural tangent kernel along finetuning (Figure 6 of the paper).

    Methods that measured it are on one plot, at the smallest tau that they share: a random backbone
    beside a pretrained one. Where one method did, a line is a tau.

    Args:
        variants: of one task.
        labels: variant to method.
        palette: method to colour.
    """
    title = "eNTK change"
    best: dict[str, Variant] = {}  # method to its best variant that measured it
    for name, runs in variants:
        if _by_epoch(runs, "ntk_change"):
            best.setdefault(labels[name], (name, runs))
    if not best:
        return Panel(title, _not_measured("ntk"))
    changes = {
        y: {label: _by_epoch(runs, key) for label, (_, runs) in best.items()}
        for key, y in KERNELS.items()
    }
    changes = {y: lines for y, lines in changes.items() if any(lines.values())}
    what = "How far the kernel of the backbone has moved, relative to its size"
    if len(best) == 1:
        ((label, (name, runs)),) = best.items()
        note = f"{name}: {what.lower()}, one line per tau, mean over {_seeds(runs)}."
        return Panel(title, note, tuple(over_epochs(c[label], y=y) for y, c in changes.items()))
    taus = [{tau for tau, _ in _by_epoch(runs, "ntk_change")} for _, runs in best.values()]
    tau = min(set.intersection(*taus) or set.union(*taus))
    note = f"{what}, tau {tau}: {listed([name for name, _ in best.values()])}, means over seeds."
    drawn = (method_lines(lines, tau, palette, y=y) for y, lines in changes.items())
    return Panel(title, note, tuple(drawn))


def first_step(variants: Sequence[Variant]) -> Panel:
    """The factors of the features' first step, against tau."""
    title = "A, K and G of the first step"
    lines = {key: ("decomposition", key) for key in STEP_FACTORS}
    note = (
        "the first step moves log-probabilities by A K G (G: p - y, K: eNTK of the logits) and "
        "features by K_z W G (K_z: their eNTK, W: the head's Jacobian); norms of the factors, each "
        "relative to that of the smallest tau"
    )
    return _measured_against_tau(title, variants, lines, note, y="relative norm", relative=True)


def drift(variants: Sequence[Variant]) -> Panel:
    """How far batch-norm statistics alone carry the features, against tau."""
    lines = {"all of it": ("", "distance"), "by batch norm alone": ("drift", "distance")}
    note = (
        "distance of training features from where finetuning began, and the part that batch norm's "
        "running statistics make when nothing is trained"
    )
    y = "distance ‖z_T - z_0‖"
    return _measured_against_tau("Drift by batch norm", variants, lines, note, y=y)


def bound(variants: Sequence[Variant]) -> Panel:
    """Both sides of Proposition 1, against tau."""
    lines = {"moved": ("bound", "distance"), "at most, by the bound": ("bound", "most")}
    note = "how far features moved, and how far Proposition 1 lets them"
    branches = [b for _, runs in variants for run in runs for b in run.summary["branches"]]
    bounds = [_measured(branch, "bound") for branch in branches]
    beyond = list(dict.fromkeys(word for each in bounds for word in each.get("beyond") or ()))
    if beyond:
        note += f" (a comparison: it is not derived for {listed(beyond)})"
    y = "distance ‖z_T - z_0‖"
    panel = _measured_against_tau("Proposition 1", variants, lines, note, y=y)
    for figure in panel.figures:
        figure["layout"]["yaxis"]["type"] = "log"
    return panel


def per_target(results: Results, table: pd.DataFrame, palette: Mapping[str, str]) -> Panel:
    """Test score of every target, of each method at its best."""
    title = "Score of every target"
    metric = str(table["metric"].iloc[0])
    scores = _target_scores(results, best_on_validation(table))
    names = list(dict.fromkeys(name for targets in scores.values() for name in targets))
    if not names:
        return Panel(title, _not_measured("targets"))
    first = next(iter(scores.values()))
    names.sort(key=lambda name: first.get(name, float("-inf")))
    shown = names[-MOST_TARGETS:]
    traces = [
        scatter(
            [None if name not in targets else in_points(targets[name], metric) for name in shown],
            shown,
            mode="markers",
            name=label,
            marker={"color": palette[label], "size": 10, "opacity": 0.85},
        )
        for label, targets in scores.items()
    ]
    made = by_name(traces, x=f"test {score_name(metric)}", height=150 + 26 * len(shown))
    rest = f" The best {len(shown)} of {len(names)} targets." if len(names) > len(shown) else ""
    return Panel(title, f"Mean over seeds, by the method's best tau and setting.{rest}", (made,))


def measures_table(variants: Sequence[Variant]) -> Table | None:
    """Further measures, a row each and a column a tau; None where nothing was measured."""
    measured = {
        (measure, name): values
        for measure, path in MEASURES.items()
        for name, runs in variants
        if (values := _by_tau(runs, *path))
    }
    if not measured:
        return None
    taus = sorted({tau for values in measured.values() for tau in values})

    def cell(values: Sequence[float]) -> Cell:
        if not values:
            return text_cell(None)
        interval = mean_interval(values)
        return mean_cell(interval.mean, interval.low, "{:.3g}".format, half="{:.2g}".format)

    rows = [
        (text_cell(measure), text_cell(name), *(cell(values.get(tau, [])) for tau in taus))
        for (measure, name), values in measured.items()
    ]
    note = (
        f"Mean over seeds ± half of the 95 % interval. {MEASURES_LEGEND} bound applies, bound "
        "holds: fraction of the runs."
    )
    columns = ("measure", "method", *(f"tau {tau}" for tau in taus))
    return Table("Further measures", note, columns, tuple(rows))


def _target_scores(results: Results, best: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Method to target to mean test score, the method that validates best first."""
    scores: dict[str, dict[str, list[float]]] = {}
    for label in over_seeds(best)["label"]:
        for row in best[best["label"] == label].to_dict("records"):
            (run,) = results.runs_of(pd.DataFrame([row]))
            tau = None if pd.isna(row["tau"]) else int(row["tau"])
            branch = next(b for b in run.summary["branches"] if b["tau"] == tau)
            for name, value in _measured(branch, "targets").get("test", {}).items():
                if value is not None:
                    scores.setdefault(str(label), {}).setdefault(name, []).append(value)
    return {label: {n: mean(v) for n, v in targets.items()} for label, targets in scores.items()}


def _by_tau(runs: Iterable[Run], *path: str) -> dict[int, list[float]]:
    """Tau to the numbers of the runs that have them.

    Args:
        runs: of one variant.
        path: keys under a branch's `measures`; "" stands for the shift of its features.
    """
    values: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for branch in run.summary["branches"]:
            entry: Any = {"": branch["shift"], **(branch.get("measures") or {})}
            for key in path:
                entry = entry.get(key) if isinstance(entry, dict) else None
            value = finite_or_none(entry)
            if value is not None and branch["tau"] is not None:
                values[branch["tau"]].append(value)
    return dict(values)


def _by_epoch(runs: Iterable[Run], key: str) -> dict[Key, float]:
    """(tau, epoch) to the mean over runs of a number in the history of finetuning."""
    values: dict[Key, list[float]] = defaultdict(list)
    for run in runs:
        for row in run.history or ():
            value = finite_or_none(row.get(key))
            if value is not None and row["phase"] == "finetune":
                values[row["tau"], row["epoch"]].append(value)
    return {place: mean(v) for place, v in sorted(values.items())}


def _histogram(runs: Iterable[Run], when: str) -> dict[Key, float]:
    """(tau, bin) to the fraction of labels in it."""
    counts: dict[int, list[float]] = {}
    for run in runs:
        for branch in run.summary["branches"]:
            measured = _measured(branch, "confidence").get("histogram", {}).get(when, [])
            sums = counts.get(branch["tau"], [0.0] * len(measured))
            # another version may have had other bins: what does not add up is left out
            if measured and len(sums) == len(measured):
                counts[branch["tau"]] = [a + b for a, b in zip(sums, measured, strict=True)]
    return {
        (tau, k): n / max(sum(bins), 1)
        for tau, bins in sorted(counts.items())
        for k, n in enumerate(bins)
    }


def _measured(summary: Json, name: str) -> Json:
    """What a run or a branch has of a measure; empty for nothing."""
    return (summary.get("measures") or {}).get(name) or {}


def _mean_matrix(runs: Sequence[Run], split: str) -> list[list[float | None]]:
    """Means over runs, a column a backbone as in the paper; None where a score is not finite."""
    metric = str(runs[0].summary["metric"])
    matrices = [_measured(run.summary, "exchange")[split] for run in runs]
    size = range(len(matrices[0]))
    cells = [[[m[j][i] for m in matrices] for j in size] for i in size]
    return [
        [None if None in scores else in_points(mean(scores), metric) for scores in row]
        for row in cells
    ]


def _branch_taus(run: Run) -> list[int]:
    return [branch["tau"] for branch in run.summary["branches"]]


def _seeds(runs: Sequence[Run]) -> str:
    n = len({run.summary["seed"] for run in runs})
    return "1 seed" if n == 1 else f"{n} seeds"


def _not_measured(name: str) -> str:
    return f"Not measured by any run here; add {name} to measures in the config."


def _measured_against_tau(
    title: str,
    variants: Sequence[Variant],
    lines: Mapping[str, tuple[str, str]],
    note: str,
    *,
    y: str,
    relative: bool = False,
) -> Panel:
    """Numbers of the best variant that measured them at several tau."""
    single = False
    for name, runs in variants:
        values = {line: _by_tau(runs, *path) for line, path in lines.items()}
        taus = sorted(set.intersection(*map(set, values.values())))
        single |= len(taus) == 1
        if len(taus) < 2:
            continue
        means = {line: [mean(by_tau[tau]) for tau in taus] for line, by_tau in values.items()}
        if relative:
            means = {k: [v / m[0] if m[0] else 0 for v in m] for k, m in means.items()}
        traces = [
            scatter(
                map(str, taus), heights, name=line, mode="lines+markers", line={"color": COLOURS[k]}
            )
            for k, (line, heights) in enumerate(means.items())
        ]
        made = against_tau(traces, taus, y=y, height=300)
        made["layout"]["yaxis"]["rangemode"] = "tozero"
        return Panel(title, f"{name}: {note}. Mean over {_seeds(runs)}.", (made,))
    if single:
        return Panel(title, 'Measured at one tau; its numbers are in the table "Further measures".')
    return Panel(title, _not_measured(next(m for m, _ in lines.values() if m)))
