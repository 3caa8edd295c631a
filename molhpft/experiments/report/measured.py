"""Figures of what a run has where its config asks for it, and sentences where it does not."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from statistics import mean
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from molhpft.experiments.archive import Run
from molhpft.experiments.folder import Json
from molhpft.experiments.report.content import Panel, digits, real, scaled
from molhpft.experiments.report.figures import figure, tau_axis
from molhpft.experiments.results import Results
from molhpft.experiments.summaries import reported, summarise
from molhpft.experiments.tables import score_name

MOST_TARGETS = 40
SCALE = ("#4c7df0", "#22a08c", "#d99a1f", "#d4504c")  # seen on light and dark ground

Key = tuple[int, int]  # tau, and epoch or bin
Variant = tuple[str, list[Run]]


def variants(results: Results, table: pd.DataFrame) -> list[Variant]:
    """Runs of every variant of one task, that which validates best first."""
    order = summarise(reported(table, by="variant"), by="variant")["variant"]
    return [(str(name), results.runs_of(table[table["variant"] == name])) for name in order]


def curves(found: Sequence[Variant]) -> Panel:
    """Loss and validation score by epoch of finetuning, of the best variant with several tau."""
    title = "Training curves"
    # a grid of tau has more to show than a single line
    for name, runs in sorted(found, key=lambda variant: not _has_grid(variant[1])):
        losses = _along(runs, "loss")
        if losses:
            metric = str(runs[0].summary["metric"])
            scores = {key: scaled(v, metric) for key, v in _along(runs, "valid").items()}
            shown = [_by_epoch(losses, y="training loss")]
            missing = " No validation score by epoch: finetune.keep is last."
            if scores:
                shown.append(_by_epoch(scores, y=f"validation {score_name(metric)}"))
            note = f"Finetuning of {name}, a line a tau, mean over {_seeds(runs)}."
            return Panel(title, note + ("" if scores else missing), tuple(shown))
    return Panel(title, "No run here has finetuned.")


def confidence(found: Sequence[Variant]) -> Panel:
    """Histograms of p(correct) over training labels, before and after finetuning."""
    title = "p(correct)"
    for name, runs in found:
        shares = {when: _histogram(runs, when) for when in ("before", "after")}
        if all(shares.values()):
            shown = [_histogram_figure(rows, when) for when, rows in shares.items()]
            note = (
                f"Share of training labels by the probability that {name} gives to the right "
                f"answer, a line a tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, tuple(shown))
    return Panel(title, _not_measured("confidence"))


def exchange(found: Sequence[Variant]) -> Panel:
    """Score of every backbone under every other's head."""
    title = "Heads and backbones exchanged"
    for name, runs in found:
        known = [r for r in runs if _exchanged(r).keys() >= {"train", "valid"}]
        taus = [branch["tau"] for branch in known[0].summary["branches"]] if known else []
        same = [r for r in known if [b["tau"] for b in r.summary["branches"]] == taus]
        if len(taus) > 1:
            shown = [_exchange_figure(same, split, taus) for split in ("train", "valid")]
            note = (
                f"{name}: score of the backbone of one tau under the head of another, without "
                f"retuning, mean over {_seeds(same)}. The diagonal has the networks as they are."
            )
            return Panel(title, note, tuple(shown))
    return Panel(title, _not_measured("exchange"))


def ntk(found: Sequence[Variant]) -> Panel:
    """Change of the empirical neural tangent kernel along finetuning, and at its end."""
    title = "eNTK change"
    for name, runs in found:
        along = _along(runs, "ntk_change")
        if along:
            note = (
                f"{name}: how far the kernel of the backbone has moved from where finetuning "
                f"began, relative to its size, a line a tau, mean over {_seeds(runs)}."
            )
            return Panel(title, note, (_by_epoch(along, y="relative change"),))
    return Panel(title, _not_measured("ntk"))


def per_target(results: Results, table: pd.DataFrame, palette: Mapping[str, str]) -> Panel:
    """Test score of every target, of each method at its best."""
    title = "Score of every target"
    metric = str(table["metric"].iloc[0])
    scores = _target_scores(results, reported(table))
    names = list(dict.fromkeys(name for own in scores.values() for name in own))
    if not names:
        return Panel(title, _not_measured("targets"))
    leader = next(iter(scores.values()))
    names.sort(key=lambda name: leader.get(name, float("-inf")))
    shown = names[-MOST_TARGETS:]
    traces = [
        go.Scatter(
            x=[None if name not in own else scaled(own[name], metric) for name in shown],
            y=shown,
            mode="markers",
            name=label,
            marker={"color": palette[label], "size": 10, "opacity": 0.85},
        )
        for label, own in scores.items()
    ]
    made = figure(traces, x=f"test {score_name(metric)}", y="", height=150 + 26 * len(shown))
    made["layout"]["yaxis"] |= {"automargin": True, "type": "category"}
    left = f" The best {len(shown)} of {len(names)} targets." if len(names) > len(shown) else ""
    return Panel(title, f"Mean over seeds, by the method's best tau and setting.{left}", (made,))


def _target_scores(results: Results, best: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Method to target to mean test score, the method that validates best first."""
    found: dict[str, dict[str, list[float]]] = {}
    for label in summarise(best)["label"]:
        own: dict[str, list[float]] = defaultdict(list)
        for row in best[best["label"] == label].to_dict("records"):
            (run,) = results.runs_of(pd.DataFrame([row]))
            tau = None if pd.isna(row["tau"]) else int(row["tau"])
            branch = next(b for b in run.summary["branches"] if b["tau"] == tau)
            measured = (branch.get("measures") or {}).get("targets") or {}
            for name, value in measured.get("test", {}).items():
                if value is not None:
                    own[name].append(value)
        if own:
            found[str(label)] = dict(own)
    return {label: {n: mean(v) for n, v in own.items()} for label, own in found.items()}


def _exchanged(run: Run) -> Json:
    found: Json = (run.summary.get("measures") or {}).get("exchange") or {}
    return found


def _has_grid(runs: Sequence[Run]) -> bool:
    return any(len(run.summary["branches"]) > 1 for run in runs)


def _along(runs: Iterable[Run], key: str) -> dict[Key, float]:
    """(tau, epoch) to the mean over runs of a number that finetuning has noted."""
    values: dict[Key, list[float]] = defaultdict(list)
    for run in runs:
        for row in run.history or ():
            value = real(row.get(key))
            if value is not None and str(row["phase"]) == "finetune":
                values[row["tau"], row["epoch"]].append(value)
    return {place: mean(v) for place, v in sorted(values.items())}


def _histogram(runs: Iterable[Run], when: str) -> dict[Key, float]:
    """(tau, bin) to the share of labels in it."""
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


def _by_epoch(values: Mapping[Key, float], *, y: str) -> Json:
    last = max(epoch for _, epoch in values)
    made = figure(_lines(values, lambda epoch: epoch), x="epoch of finetuning", y=y, height=300)
    # an axis of its own choice would have half epochs
    made["layout"]["xaxis"] |= {"tick0": 1 if last <= 10 else 0, "dtick": ceil(last / 10)}
    return made


def _histogram_figure(values: Mapping[Key, float], when: str) -> Json:
    bins = 1 + max(k for _, k in values)
    # a step begins at the left edge of its bin; the last one needs an end
    closed = {**values, **{(tau, bins): v for (tau, k), v in values.items() if k == bins - 1}}
    traces = _lines(closed, lambda k: k / bins)
    for trace in traces:
        trace.line.shape = "hv"
        trace.mode = "lines"
    return figure(traces, x=f"p(correct), {when} finetuning", y="share of labels", height=300)


def _lines(values: Mapping[Key, float], place: Callable[[int], float]) -> list[Any]:
    """A line a tau, from blue to red as tau grows."""
    taus = sorted({tau for tau, _ in values})
    steps = [k / max(len(taus) - 1, 1) for k in range(len(taus))]
    shades = sample_colorscale(SCALE, steps)
    traces = []
    for tau, shade in zip(taus, shades, strict=True):
        own = {place(k): v for (t, k), v in values.items() if t == tau}
        line = {"color": shade, "width": 2}
        style: Json = {"mode": "lines+markers", "marker": {"size": 5}, "line": line}
        own_place = {"x": list(own), "y": list(own.values())}
        traces.append(go.Scatter(**own_place, name=f"tau {tau}", showlegend=True, **style))
    return traces


def _exchange_figure(runs: Sequence[Run], split: str, taus: Sequence[int]) -> Json:
    metric = str(runs[0].summary["metric"])
    matrices = [_exchanged(run)[split] for run in runs]
    size = range(len(taus))
    means = [[scaled(mean(m[i][j] for m in matrices), metric) for j in size] for i in size]
    names = [str(tau) for tau in taus]
    trace = go.Heatmap(
        z=means,
        x=names,
        y=names,
        text=[[f"{value:.{digits(metric) - 1}f}" for value in row] for row in means],
        texttemplate="%{text}",
        colorscale="Viridis",
        colorbar={"thickness": 10},
    )
    made = figure([trace], x=f"head of tau ({split})", y="backbone of tau")
    for axis in ("xaxis", "yaxis"):
        made["layout"][axis] |= tau_axis(taus)
    return made


def _seeds(runs: Sequence[Run]) -> str:
    n = len({run.summary["seed"] for run in runs})
    return "1 seed" if n == 1 else f"{n} seeds"


def _not_measured(name: str) -> str:
    return f"Not measured by any run here; add {name} to measures in the config."
