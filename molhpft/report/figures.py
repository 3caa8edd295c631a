"""Figures of one task, as plain values that plotly.js draws; or a sentence why there is none."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from statistics import mean
from typing import Any

import pandas as pd

from molhpft.core.metrics import PERCENTAGES, score_name
from molhpft.domains.extras import require
from molhpft.domains.files import Json, listed
from molhpft.report.content import Panel, Table, finite_or_none, in_points, mean_cell, text_cell
from molhpft.results.read import Run
from molhpft.results.statistics import best_on_validation, mean_interval, over_seeds, over_tau
from molhpft.results.table import Results
from molhpft.results.terminal import MEASURES, MEASURES_LEGEND

COLOURS = ("#3b7dd8", "#d9772b", "#2a9d6f", "#b0539b", "#c94c4c", "#7a6ff0", "#8f8a2c", "#3f9db0")
GREY = "#8a94a3"
SCALE = ("#4c7df0", "#22a08c", "#d99a1f", "#d4504c")  # seen on light and dark ground
DISTANCES = {
    "distance": "distance ‖z_T - z_0‖",
    "dot": "dot product z_T · z_0",
    "cosine": "cosine of z_T and z_0",
    "norm": "norm ‖z_T‖",
}
KERNELS = {"ntk_change": "change since the start", "ntk_step": "change since the epoch before"}
MOST_TARGETS = 40
TAU = "tau (epochs of head probing)"
EPOCH = "epoch of finetuning"

Key = tuple[int, int]  # tau, and epoch or bin
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


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each method, the same in every figure of a task."""
    return {label: COLOURS[k % len(COLOURS)] for k, label in enumerate(labels)}


def over_methods(table: pd.DataFrame, palette: Mapping[str, str]) -> Panel:
    """Test and validation score of every method at its best, with intervals."""
    summary = over_seeds(best_on_validation(table))
    metric = str(summary["metric"].iloc[0])
    rows = summary.to_dict("records")[::-1]
    names = [str(row["label"]) for row in rows]
    traces = [
        _scatter(
            [_points(row[f"final_{split}"], metric) for row in rows],
            names,
            # one colour: a bar cannot take those of the markers
            error_x={**_reach(rows, f"final_{split}", metric), "color": GREY},
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
    made = _by_name(traces, x=score_name(metric), height=130 + 34 * len(rows))
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
    rows_of = {name: rows.to_dict("records") for name, rows in means.groupby("label", sort=False)}
    taus = sorted({int(tau) for tau in means["tau"]})

    def lines(key: str) -> list[Json]:
        return [_mean_line(rows, key, str(n), palette[str(n)]) for n, rows in rows_of.items()]

    scores = [
        _mean_line(rows, f"final_{split}", str(name), palette[str(name)], metric, split)
        for name, rows in rows_of.items()
        for split in ("test", "valid")
    ]
    distances = (
        _against_tau(lines(key), taus, y=title, height=260) for key, title in DISTANCES.items()
    )
    return [
        Panel(
            titles[0],
            "Mean over seeds after finetuning with 95 % intervals. Solid: test, dotted: "
            "validation.",
            (_against_tau(scores, taus, y=score_name(metric), height=360),),
        ),
        Panel(
            titles[1],
            "Mean length of p - y over training examples when finetuning starts; probing longer "
            "leaves less of it.",
            (_against_tau(lines("energy"), taus, y="energy"),),
        ),
        Panel(
            titles[2],
            "Training features after finetuning (z_T) against before (z_0), by tau.",
            tuple(distances),
        ),
    ]


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
            figures = [_epochs_figure(losses, y="training loss")]
            note = f"Finetuning of {name}, a line a tau, mean over {_seeds(runs)}."
            scores = {k: in_points(v, metric) for k, v in _by_epoch(runs, "valid").items()}
            if scores:
                figures.append(_epochs_figure(scores, y=f"validation {score_name(metric)}"))
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
            figures = (_histogram_figure(values, when) for when, values in histograms.items())
            note = (
                f"Fraction of training labels by the probability that {name} gives to the "
                f"correct label, a line a tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, tuple(figures))
    return Panel(title, _not_measured("confidence"))


def exchange(variants: Sequence[Variant]) -> Panel:
    """Score of every backbone under every other's head."""
    title = "Heads and backbones exchanged"
    for name, runs in variants:
        measured = [run for run in runs if _matrices(run).keys() >= {"train", "valid"}]
        taus = _branch_taus(measured[0]) if measured else []
        same = [run for run in measured if _branch_taus(run) == taus]
        if len(taus) > 1:
            figures = (_exchange_figure(same, split, taus) for split in ("train", "valid"))
            note = (
                f"{name}: score of the backbone of one tau under the head of another, without "
                f"retuning, mean over {_seeds(same)}. The diagonal has the networks as they are."
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
                f"a line a tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, (_epochs_figure(dict(sorted(norms.items())), y="‖∂q/∂z‖"),))
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
        note = f"{name}: {what.lower()}, a line a tau, mean over {_seeds(runs)}."
        return Panel(title, note, tuple(_epochs_figure(c[label], y=y) for y, c in changes.items()))
    taus = [{tau for tau, _ in _by_epoch(runs, "ntk_change")} for _, runs in best.values()]
    tau = min(set.intersection(*taus) or set.union(*taus))
    note = f"{what}, tau {tau}: {listed([name for name, _ in best.values()])}, means over seeds."
    drawn = (_methods_figure(lines, tau, palette, y=y) for y, lines in changes.items())
    return Panel(title, note, tuple(drawn))


def first_step(variants: Sequence[Variant]) -> Panel:
    """The factors of the features' first step, against tau."""
    title = "Kernel, direction and energy of the first step"
    lines = {key: ("decomposition", key) for key in ("kernel", "direction", "energy")}
    note = (
        "the features' first step is kernel times direction times energy; norms of the three, each "
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
    bounds = [(branch.get("measures") or {}).get("bound") or {} for branch in branches]
    beyond = list(dict.fromkeys(word for own in bounds for word in own.get("beyond") or ()))
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
    names = list(dict.fromkeys(name for own in scores.values() for name in own))
    if not names:
        return Panel(title, _not_measured("targets"))
    first = next(iter(scores.values()))
    names.sort(key=lambda name: first.get(name, float("-inf")))
    shown = names[-MOST_TARGETS:]
    traces = [
        _scatter(
            [None if name not in own else in_points(own[name], metric) for name in shown],
            shown,
            mode="markers",
            name=label,
            marker={"color": palette[label], "size": 10, "opacity": 0.85},
        )
        for label, own in scores.items()
    ]
    made = _by_name(traces, x=f"test {score_name(metric)}", height=150 + 26 * len(shown))
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
    rows = []
    for (measure, name), values in measured.items():
        means = [mean_interval(values[tau]) if tau in values else None for tau in taus]
        cells = [
            text_cell(None)
            if m is None
            else mean_cell(m.mean, m.low, "{:.3g}".format, half="{:.2g}".format)
            for m in means
        ]
        rows.append((text_cell(measure), text_cell(name), *cells))
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
            measured = (branch.get("measures") or {}).get("targets") or {}
            for name, value in measured.get("test", {}).items():
                if value is not None:
                    scores.setdefault(str(label), {}).setdefault(name, []).append(value)
    return {label: {n: mean(v) for n, v in own.items()} for label, own in scores.items()}


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
            measured = (branch.get("measures") or {}).get("confidence")
            if measured:
                own = measured["histogram"].get(when, [])
                old = counts.get(branch["tau"], [0.0] * len(own))
                # another version may have had other bins: what does not add up is left out
                if len(old) == len(own):
                    counts[branch["tau"]] = [a + b for a, b in zip(old, own, strict=True)]
    return {
        (tau, k): n / max(sum(own), 1)
        for tau, own in sorted(counts.items())
        for k, n in enumerate(own)
    }


def _matrices(run: Run) -> Json:
    return (run.summary.get("measures") or {}).get("exchange") or {}


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
        taus = sorted(set.intersection(*(set(own) for own in values.values())))
        single |= len(taus) == 1
        if len(taus) < 2:
            continue
        means = {line: [mean(own[tau]) for tau in taus] for line, own in values.items()}
        if relative:
            means = {k: [v / own[0] if own[0] else 0 for v in own] for k, own in means.items()}
        traces = [
            _scatter(
                map(str, taus), own, name=line, mode="lines+markers", line={"color": COLOURS[k]}
            )
            for k, (line, own) in enumerate(means.items())
        ]
        made = _against_tau(traces, taus, y=y, height=300)
        made["layout"]["yaxis"]["rangemode"] = "tozero"
        return Panel(title, f"{name}: {note}. Mean over {_seeds(runs)}.", (made,))
    if single:
        return Panel(title, 'Measured at one tau; its numbers are in the table "Further measures".')
    return Panel(title, _not_measured(next(m for m, _ in lines.values() if m)))


def _figure(traces: Sequence[Json], *, x: str, y: str, height: int = 320) -> Json:
    """A figure as plain values; the page adds the colours of its theme."""
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": list(traces), "layout": {"height": height, **axes}}


def _scatter(x: Iterable[Any], y: Iterable[Any], **style: Any) -> Json:
    return {"type": "scatter", "x": list(x), "y": list(y), **style}


def _tau_axis(taus: Sequence[int]) -> Json:
    """An axis on which tau stand evenly: 0 has no logarithm, and grids are geometric."""
    return {"type": "category", "categoryorder": "array", "categoryarray": [str(t) for t in taus]}


def _against_tau(traces: Sequence[Json], taus: Sequence[int], *, y: str, height: int = 320) -> Json:
    made = _figure(traces, x=TAU, y=y, height=height)
    made["layout"]["xaxis"] |= _tau_axis(taus)
    return made


def _by_name(traces: Sequence[Json], *, x: str, height: int) -> Json:
    """A figure with names up its side."""
    made = _figure(traces, x=x, y="", height=height)
    made["layout"]["yaxis"] |= {"automargin": True, "type": "category"}
    return made


def _mean_line(
    rows: Sequence[Mapping[Any, Any]],
    key: str,
    name: str,
    colour: str,
    metric: str = "",
    split: str = "test",
) -> Json:
    """A mean against tau; of validation it is dotted, without bars, which would cover others."""
    dotted = split == "valid"
    return _scatter(
        [str(row["tau"]) for row in rows],
        [_points(row[key], metric) for row in rows],
        mode="lines+markers",
        name=f"{name}, {split}" if dotted else name,
        line={"color": colour, "dash": "dot" if dotted else "solid"},
        marker={"size": 5 if dotted else 8},
        opacity=0.7 if dotted else 1,
        **({} if dotted else {"error_y": _reach(rows, key, metric)}),
    )


def _points(value: Any, metric: str) -> float | None:
    number = finite_or_none(value)
    return None if number is None else in_points(number, metric)


def _reach(rows: Sequence[Mapping[Any, Any]], key: str, metric: str) -> Json:
    """Half the interval of every point; none where there is one seed."""
    ends = [(finite_or_none(row[key]), finite_or_none(row[f"{key}_low"])) for row in rows]
    reach = [
        None if mean is None or low is None else in_points(mean - low, metric) for mean, low in ends
    ]
    return {"type": "data", "array": reach, "thickness": 1.5, "width": 4}


def _epochs_figure(values: Mapping[Key, float], *, y: str) -> Json:
    made = _figure(_tau_lines(values, lambda epoch: epoch), x=EPOCH, y=y, height=300)
    return _with_whole_epochs(made, [epoch for _, epoch in values])


def _methods_figure(
    lines: Mapping[str, Mapping[Key, float]], tau: int, palette: Mapping[str, str], *, y: str
) -> Json:
    """A line a method, at one tau."""
    own = {k: {epoch: v for (t, epoch), v in line.items() if t == tau} for k, line in lines.items()}
    traces = [
        _scatter(
            line,
            line.values(),
            name=label,
            mode="lines+markers",
            line={"color": palette[label]},
            showlegend=True,
        )
        for label, line in own.items()
    ]
    made = _figure(traces, x=EPOCH, y=y, height=300)
    return _with_whole_epochs(made, [epoch for line in own.values() for epoch in line])


def _with_whole_epochs(made: Json, epochs: Iterable[int]) -> Json:
    """Ticks at whole epochs: an axis of its own choice would have half ones."""
    last = max(epochs, default=1)
    made["layout"]["xaxis"] |= {"tick0": 1 if last <= 10 else 0, "dtick": ceil(last / 10)}
    return made


def _histogram_figure(values: Mapping[Key, float], when: str) -> Json:
    bins = 1 + max(k for _, k in values)
    # a step begins at the left edge of its bin; the last one needs an end
    closed = {**values, **{(tau, bins): v for (tau, k), v in values.items() if k == bins - 1}}
    traces = _tau_lines(closed, lambda k: k / bins, steps=True)
    return _figure(traces, x=f"p(correct), {when} finetuning", y="fraction of labels", height=300)


def _tau_lines(
    values: Mapping[Key, float], place: Callable[[int], float], *, steps: bool = False
) -> list[Json]:
    """A line a tau, from blue to red as tau grows."""
    taus = sorted({tau for tau, _ in values})
    sample = require("plotly.colors", extra="report").sample_colorscale
    shades = sample(SCALE, [k / max(len(taus) - 1, 1) for k in range(len(taus))])
    traces = []
    for tau, shade in zip(taus, shades, strict=True):
        own = {place(k): v for (t, k), v in values.items() if t == tau}
        traces.append(
            _scatter(
                own,
                own.values(),
                name=f"tau {tau}",
                showlegend=True,
                mode="lines" if steps else "lines+markers",
                marker={"size": 5},
                line={"color": shade, "width": 2, **({"shape": "hv"} if steps else {})},
            )
        )
    return traces


def _exchange_figure(runs: Sequence[Run], split: str, taus: Sequence[int]) -> Json:
    metric = str(runs[0].summary["metric"])
    matrices = [_matrices(run)[split] for run in runs]
    size = range(len(taus))
    # rows of the matrix have one backbone each; in the paper's figure columns have
    means = [[_finite_mean([m[j][i] for m in matrices], metric) for j in size] for i in size]
    names = [str(tau) for tau in taus]
    digits = 1 if metric in PERCENTAGES else 3
    trace = {
        "type": "heatmap",
        "z": means,
        "x": names,
        "y": names,
        "text": [["" if v is None else f"{v:.{digits}f}" for v in row] for row in means],
        "texttemplate": "%{text}",
        "colorscale": "Viridis",
        "colorbar": {"thickness": 10},
    }
    made = _figure([trace], x=f"backbone of tau ({split})", y="head of tau")
    for axis in ("xaxis", "yaxis"):
        made["layout"][axis] |= _tau_axis(taus)
    return made


def _finite_mean(scores: Sequence[float | None], metric: str) -> float | None:
    """Mean over seeds, as it is shown; None where a run predicts what is not finite."""
    finite = [score for score in scores if score is not None]
    return in_points(mean(finite), metric) if len(finite) == len(scores) else None
