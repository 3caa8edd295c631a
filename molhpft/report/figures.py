"""Figures of one task: what each shows, and how to read it, or a sentence why there is none."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd

from molhpft.config.measures import STEP_FACTORS
from molhpft.core.metrics import PERCENTAGES, signed_name
from molhpft.domains.files import Json, listed
from molhpft.report.averages import (
    Curves,
    Source,
    by_epoch,
    by_tau,
    label_counts,
    label_fractions,
    mean_curves,
    measure_of,
    number_of,
    over_in_words,
    seeds_in_words,
    source_of,
)
from molhpft.report.content import (
    Cell,
    Panel,
    Table,
    in_points,
    mean_cell,
    text_cell,
)
from molhpft.report.plots import (
    COLOURS,
    Tau,
    against_tau,
    by_name,
    colours,
    heatmap,
    histogram,
    in_order,
    mean_line,
    method_lines,
    over_epochs,
    points,
    reach,
    scatter,
    tau_name,
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
    made = by_name(traces, x=signed_name(metric), height=130 + 34 * len(rows))
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
        [against_tau(scores, taus, y=signed_name(metric), height=360)],
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
        losses, valid = (by_epoch(runs, key) for key in ("loss", "valid"))
        if losses:
            metric = str(runs[0].summary["metric"])
            figures = [over_epochs(mean_curves(losses), y="training loss")]
            note = (
                f"Finetuning of {name}, one line per tau, mean over {over_in_words(losses, valid)}."
            )
            scores = {k: in_points(v, metric) for k, v in mean_curves(valid).items()}
            if scores:
                figures.append(over_epochs(scores, y=f"validation {signed_name(metric)}"))
            else:
                note += " No validation score by epoch: finetune.keep is last."
            return Panel(title, note, tuple(figures))
    return Panel(title, "No run here has finetuned.")


def confidence(variants: Sequence[Variant]) -> Panel:
    """Histograms of p(correct) over training labels, before and after finetuning."""
    title = "p(correct)"
    for name, runs in variants:
        counts = label_counts(runs)
        if counts:
            figures = (
                histogram(
                    label_fractions(counts, when),
                    x=f"p(correct), {when} finetuning",
                    y="fraction of labels",
                )
                for when in ("before", "after")
            )
            note = (
                f"Fraction of training labels by the probability that {name} gives to the "
                f"correct label, one line per tau, mean over {seeds_in_words(counts.values())}."
            )
            return Panel(title, note, tuple(figures))
    return Panel(title, _not_measured("confidence"))


def exchange(variants: Sequence[Variant]) -> Panel:
    """Score of every backbone under every other's head."""
    title = "Heads and backbones exchanged"
    for name, runs in variants:
        measured = [
            run for run in runs if measure_of(run.summary, "exchange").keys() >= {"train", "valid"}
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
                f"retuning, mean over {seeds_in_words([map(source_of, same)])}. The diagonal shows "
                "the networks as trained."
            )
            return Panel(title, note, tuple(figures))
    return Panel(title, _not_measured("exchange"))


def direction(variants: Sequence[Variant]) -> Panel:
    """Norm of the direction term along finetuning, from its start (Figure 2 of the paper)."""
    title = "Direction term"
    for name, runs in variants:
        start = by_tau(runs, "direction", "norm_before")
        norms = {
            tau: {
                source: {0: start[tau][source], **line} if source in start.get(tau, ()) else line
                for source, line in lines.items()
            }
            for tau, lines in by_epoch(runs, "direction").items()
        }
        if norms:
            note = (
                f"{name}: mean norm of the gradient of the logits with respect to the features, "
                f"one line per tau, mean over {over_in_words(norms)}."
            )
            return Panel(title, note, (over_epochs(mean_curves(norms), y="‖∂q/∂z‖"),))
    return Panel(title, _not_measured("direction"))


def ntk(
    variants: Sequence[Variant], labels: Mapping[str, str], palette: Mapping[str, str]
) -> Panel:
    """Change of the empirical neural tangent kernel along finetuning (Figure 6 of the paper).

    Methods that measured it are on one plot, at the smallest tau that they share: a random backbone
    beside a pretrained one. A method without a tau, as of a solved head, is beside them as it is.
    Where one method did, a line is a tau.

    Args:
        variants: of one task.
        labels: variant to method.
        palette: method to colour.
    """
    title = "eNTK change"
    best: dict[str, Variant] = {}  # method to its best variant that measured it
    for name, runs in variants:
        if by_epoch(runs, "ntk_change"):
            best.setdefault(labels[name], (name, runs))
    if not best:
        return Panel(title, _not_measured("ntk"))
    changes = {
        y: {label: by_epoch(runs, key) for label, (_, runs) in best.items()}
        for key, y in KERNELS.items()
    }
    what = "How far the kernel of the backbone has moved, relative to its size"
    if len(best) == 1:
        ((label, (name, _)),) = best.items()
        drawn = {y: curves[label] for y, curves in changes.items() if curves[label]}
        seeds = over_in_words(*drawn.values())
        note = f"{name}: {what.lower()}, one line per tau, mean over {seeds}."
        figures = [over_epochs(mean_curves(curves), y=y) for y, curves in drawn.items()]
        return Panel(title, note, tuple(figures))
    tau = _smallest_shared_tau(changes[KERNELS["ntk_change"]].values())
    at_tau = {y: _at(tau, curves) for y, curves in changes.items()}
    at_tau = {y: curves for y, curves in at_tau.items() if curves}
    names = [
        best[label][0] + (" (no tau)" if None in curves and tau is not None else "")
        for label, curves in at_tau[KERNELS["ntk_change"]].items()
    ]
    seeds = over_in_words(*(each for curves in at_tau.values() for each in curves.values()))
    place = "" if tau is None else f", tau {tau}"
    note = f"{what}{place}: {listed(names)}, means over {seeds}."
    figures = [
        method_lines(
            {
                label: {epoch: value for (_, epoch), value in mean_curves(each).items()}
                for label, each in curves.items()
            },
            palette,
            y=y,
        )
        for y, curves in at_tau.items()
    ]
    return Panel(title, note, tuple(figures))


def _smallest_shared_tau(curves: Iterable[Curves]) -> Tau:
    """The smallest tau that all have which have any, or that any has; None where none has one."""
    taus = [{tau for tau in each if tau is not None} for each in curves]
    taus = [some for some in taus if some]
    return min(set.intersection(*taus) or set.union(*taus)) if taus else None


def _at(tau: Tau, curves: Mapping[str, Curves]) -> dict[str, Curves]:
    """The curves of one tau, and those without a tau; what has neither is left out."""
    chosen = {
        label: {t: lines for t, lines in each.items() if t in (tau, None)}
        for label, each in curves.items()
    }
    return {label: each for label, each in chosen.items() if each}


def first_step(variants: Sequence[Variant]) -> Panel:
    """The factors of the features' first step, against tau."""
    title = "A, K and G of the first step"
    drawn = _measured(variants, {key: ("decomposition", key) for key in STEP_FACTORS})
    note = (
        "the first step moves log-probabilities by A K G (G: p - y, K: eNTK of the logits) and "
        "features by K_z W G (K_z: their eNTK, W: the head's Jacobian); norms of the factors, each "
        "relative to that of the smallest tau"
    )
    return _against_tau(title, drawn, note, y="relative norm", relative=True)


def drift(variants: Sequence[Variant]) -> Panel:
    """How far batch-norm statistics alone carry the features, against tau."""
    lines = {"all of it": ("", "distance"), "by batch norm alone": ("drift", "distance")}
    note = (
        "distance of training features from where finetuning began, and the part that batch norm's "
        "running statistics make when nothing is trained"
    )
    drawn = _measured(variants, lines)
    return _against_tau("Drift by batch norm", drawn, note, y="distance ‖z_T - z_0‖")


def bound(variants: Sequence[Variant]) -> Panel:
    """Both sides of Proposition 1, against tau."""
    lines = {"moved": ("bound", "distance"), "at most, by the bound": ("bound", "most")}
    note = "how far features moved, and how far Proposition 1 lets them"
    drawn = _measured(variants, lines)
    bounds = [measure_of(branch, "bound") for branch in drawn.branches]
    beyond = list(dict.fromkeys(word for each in bounds for word in each.get("beyond") or ()))
    if beyond:
        note += f" (a comparison: it is not derived for {listed(beyond)})"
    panel = _against_tau("Proposition 1", drawn, note, y="distance ‖z_T - z_0‖")
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
    made = by_name(traces, x=f"test {signed_name(metric)}", height=150 + 26 * len(shown))
    rest = f" The best {len(shown)} of {len(names)} targets." if len(names) > len(shown) else ""
    return Panel(title, f"Mean over seeds, by the method's best tau and setting.{rest}", (made,))


def measures_table(variants: Sequence[Variant]) -> Table | None:
    """Further measures, a row each and a column a tau; None where nothing was measured."""
    measured = {
        (measure, name): values
        for measure, path in MEASURES.items()
        for name, runs in variants
        if (values := by_tau(runs, *path))
    }
    if not measured:
        return None
    taus = in_order(tau for values in measured.values() for tau in values)

    def cell(values: Mapping[Source, float]) -> Cell:
        if not values:
            return text_cell(None)
        interval = mean_interval([*values.values()])
        return mean_cell(interval.mean, interval.low, "{:.3g}".format, half="{:.2g}".format)

    rows = [
        (text_cell(measure), text_cell(name), *(cell(values.get(tau, {})) for tau in taus))
        for (measure, name), values in measured.items()
    ]
    note = (
        f"Mean over seeds ± half of the 95 % interval. {MEASURES_LEGEND} bound applies, bound "
        "holds: fraction of the runs."
    )
    columns = ("measure", "method", *map(tau_name, taus))
    return Table("Further measures", note, columns, tuple(rows))


def _target_scores(results: Results, best: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Method to target to mean test score, the method that validates best first."""
    scores: dict[str, dict[str, list[float]]] = {}
    for label in over_seeds(best)["label"]:
        for row in best[best["label"] == label].to_dict("records"):
            (run,) = results.runs_of(pd.DataFrame([row]))
            tau = None if pd.isna(row["tau"]) else int(row["tau"])
            branch = next(b for b in run.summary["branches"] if b["tau"] == tau)
            for name, value in measure_of(branch, "targets").get("test", {}).items():
                if value is not None:
                    scores.setdefault(str(label), {}).setdefault(name, []).append(value)
    return {label: {n: mean(v) for n, v in targets.items()} for label, targets in scores.items()}


def _mean_matrix(runs: Sequence[Run], split: str) -> list[list[float | None]]:
    """Means over runs, a column a backbone as in the paper; None where a score is not finite."""
    metric = str(runs[0].summary["metric"])
    matrices = [measure_of(run.summary, "exchange")[split] for run in runs]
    size = range(len(matrices[0]))
    cells = [[[m[j][i] for m in matrices] for j in size] for i in size]
    return [
        [None if None in scores else in_points(mean(scores), metric) for scores in row]
        for row in cells
    ]


def _branch_taus(run: Run) -> list[int]:
    return [branch["tau"] for branch in run.summary["branches"]]


def _not_measured(name: str) -> str:
    return f"Not measured by any run here; add {name} to measures in the config."


@dataclass(frozen=True)
class _Measured:
    """Numbers of one variant, of branches that have every one of them.

    Attributes:
        name: of the variant.
        measure: what has to be measured for them.
        numbers: by tau, by where they are from, and by line.
        branches: that they are of.
    """

    name: str
    measure: str
    numbers: Mapping[Tau, Mapping[Source, Mapping[str, float]]]
    branches: Sequence[Json]


def _measured(variants: Sequence[Variant], lines: Mapping[str, tuple[str, str]]) -> _Measured:
    """The best variant that measured all lines at several tau, else at one, else any.

    Args:
        variants: of one task.
        lines: name of each to the path of its numbers, as of `number_of`.
    """

    def measured(variant: Variant) -> _Measured:
        numbers: dict[Tau, dict[Source, dict[str, float]]] = defaultdict(dict)
        branches = []
        for run in variant[1]:
            for branch in run.summary["branches"]:
                every = {line: number_of(branch, path) for line, path in lines.items()}
                own = {line: number for line, number in every.items() if number is not None}
                # lines of one figure are means over the same runs, so that they compare
                if len(own) == len(lines):
                    numbers[branch["tau"]][source_of(run)] = own
                    branches.append(branch)
        measure = next(measure for measure, _ in lines.values() if measure)
        return _Measured(variant[0], measure, numbers, branches)

    return max(map(measured, variants), key=lambda one: min(len(one.numbers), 2))


def _against_tau(
    title: str, drawn: _Measured, note: str, *, y: str, relative: bool = False
) -> Panel:
    """Means of what was measured, a line each."""
    if not drawn.numbers:
        return Panel(title, _not_measured(drawn.measure))
    taus = [tau for tau in in_order(drawn.numbers) if tau is not None]
    if len(taus) < 2:
        place = "at one tau" if taus else "without a tau"
        return Panel(title, f'Measured {place}; its numbers are in the table "Further measures".')
    of_tau = [drawn.numbers[tau].values() for tau in taus]
    lines = next(iter(of_tau[0]))
    means = {line: [mean(own[line] for own in some) for some in of_tau] for line in lines}
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
    seeds = seeds_in_words(drawn.numbers.values())
    return Panel(title, f"{drawn.name}: {note}. Mean over {seeds}.", (made,))
